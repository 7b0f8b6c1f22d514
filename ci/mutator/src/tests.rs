//! The tests, and what they say of a mutant.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::{env, fs, io, process};

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// By this test.
    Caught(String),
    TimedOut,
    /// It does not build.
    Unviable,
    /// All tests passed.
    Survived,
    /// No test comes to it.
    NotReached,
}

pub struct Suite {
    programs: Vec<Program>,
}

pub struct Program {
    pub path: PathBuf,
    pub directory: PathBuf,
    pub arguments: Vec<String>,
}

impl Suite {
    pub fn new(programs: Vec<Program>) -> Suite {
        Suite { programs }
    }

    /// Runs the tests without a mutation: they have to pass. Gives the same with the tests that take long at the end, because most
    /// mutants are caught before; and the mutants that the tests come to.
    pub fn in_two_parts(self, timeout: usize) -> Result<(Suite, BTreeSet<usize>), Box<dyn Error>> {
        const LONG: f64 = 2.5;
        let (mut short, mut long, mut reached) = (Vec::new(), Vec::new(), BTreeSet::new());
        for program in self.programs {
            let notes = env::temp_dir().join(format!("hotslot-mutants-{}", process::id()));
            let mut command = program.command(timeout);
            let output = command.arg("--report-time").env("HOTSLOT_MUTANTS_REACHED", &notes).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if !output.status.success() {
                let failed = text.lines().filter(|line| !line.contains(" ... ok <")).collect::<Vec<_>>().join("\n");
                return Err(format!("without a mutation, {} fails:\n{failed}", program.path.display()).into());
            }
            reached.extend(
                fs::read_to_string(&notes).unwrap_or_default().lines().filter_map(|id| id.parse::<usize>().ok()),
            );
            let _none = fs::remove_file(&notes);
            let mut names = Vec::new();
            for line in text.lines() {
                let test = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ok <"));
                let Some((name, seconds)) = test else { continue };
                if seconds.trim_end_matches("s>").parse().is_ok_and(|seconds: f64| seconds > LONG) {
                    names.push(name.to_owned());
                }
            }
            let Program { path, directory, arguments } = program;
            if !names.is_empty() {
                let arguments = ["--exact".to_owned()].into_iter().chain(names.iter().cloned()).collect();
                long.push(Program { path: path.clone(), directory: directory.clone(), arguments });
            }
            let skip = names.into_iter().flat_map(|name| ["--skip".to_owned(), name]);
            short.push(Program { path, directory, arguments: arguments.into_iter().chain(skip).collect() });
        }
        short.extend(long);
        Ok((Suite { programs: short }, reached))
    }

    /// Runs the tests, with this mutant in them.
    pub fn run(&self, mutant: usize, timeout: usize) -> Outcome {
        for program in &self.programs {
            let mut command = program.command(timeout);
            command.arg("--fail-fast").env("HOTSLOT_MUTANT", mutant.to_string());
            let output = match and_all_that_it_started(&mut command) {
                Ok(output) => output,
                Err(error) => return Outcome::Caught(format!("{}: {error}", program.path.display())),
            };
            if output.status.success() {
                continue;
            }
            // What `timeout` says when it has killed, and its own end by the same signal.
            if output.status.code().is_none_or(|code| code == 137) {
                return Outcome::TimedOut;
            }
            let text = String::from_utf8_lossy(&output.stdout);
            let failed = text.lines().find_map(|line| line.strip_prefix("test ")?.split_once(" ... FAILED"));
            return Outcome::Caught(failed.map_or("the end of the process", |(name, _)| name).to_owned());
        }
        Outcome::Survived
    }
}

/// Runs a command, and ends what it leaves behind: tests start processes, and one that failed waits for none of them.
fn and_all_that_it_started(command: &mut Command) -> io::Result<Output> {
    let started = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // `timeout` begins a process group, whose number is its own.
    let group = format!("-{}", started.id());
    let output = started.wait_with_output()?;
    // Mostly there is nobody left.
    let _gone = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status()?;
    Ok(output)
}

impl Program {
    fn command(&self, timeout: usize) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", &timeout.to_string()]).arg(&self.path).args(&self.arguments);
        command.current_dir(&self.directory).args(["-Zunstable-options"]).env("RUSTC_BOOTSTRAP", "1");
        // Most tests wait for something, and there are more than a processor has work for.
        command.env("RUST_TEST_THREADS", "16").env("RUST_BACKTRACE", "0").env("PROPTEST_CASES", "64");
        // A failure is no news for the next mutant.
        command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        command
    }
}
