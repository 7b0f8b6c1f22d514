//! The tests, and what they say of a mutant.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// By this test.
    Caught(String),
    TimedOut,
    /// It does not build.
    Unviable,
    /// All tests passed, whether or not one of them came to it.
    Survived {
        reached: bool,
    },
}

pub struct Suite {
    programs: Vec<Program>,
}

pub struct Program {
    path: PathBuf,
    directory: PathBuf,
    arguments: Vec<String>,
}

pub fn program(path: PathBuf, directory: PathBuf, arguments: Vec<String>) -> Program {
    Program { path, directory, arguments }
}

impl Suite {
    pub fn new(programs: Vec<Program>) -> Suite {
        Suite { programs }
    }

    /// The same with the tests that take long at the end: most mutants are caught before.
    pub fn in_two_parts(self, timeout: usize) -> Result<Suite, String> {
        const LONG: f64 = 2.5;
        let mut parts = (Vec::new(), Vec::new());
        for Program { path, directory, arguments } in self.programs {
            let program = program(path, directory, arguments);
            let output = program.command(timeout).arg("--report-time").output().map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if !output.status.success() {
                return Err(format!("without a mutation, {} fails:\n{text}", program.path.display()));
            }
            let mut long = Vec::new();
            for line in text.lines() {
                let Some((name, rest)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ok <"))
                else {
                    continue;
                };
                if rest.trim_end_matches("s>").parse().is_ok_and(|seconds: f64| seconds > LONG) {
                    long.push(name.to_owned());
                }
            }
            println!("{}: {} tests that take long", program.path.display(), long.len());
            let Program { path, directory, arguments } = program;
            let skip = long.iter().flat_map(|name| ["--skip".to_owned(), name.clone()]);
            let short = arguments.iter().cloned().chain(["--exact".to_owned()]).chain(skip).collect();
            parts.0.push(Program { path: path.clone(), directory: directory.clone(), arguments: short });
            if !long.is_empty() {
                parts.1.push(Program {
                    path,
                    directory,
                    arguments: ["--exact".to_owned()].into_iter().chain(long).collect(),
                });
            }
        }
        parts.0.extend(parts.1);
        Ok(Suite { programs: parts.0 })
    }

    /// Runs the tests, with this mutant in them.
    pub fn run(&self, mutant: usize, timeout: usize) -> Outcome {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let reached = env::temp_dir().join(format!("hotslot-mutant-{}-{run}", process::id()));
        let outcome = self.run_noting(mutant, timeout, &reached);
        let _not_reached = fs::remove_file(&reached);
        outcome
    }

    fn run_noting(&self, mutant: usize, timeout: usize, reached: &PathBuf) -> Outcome {
        for program in &self.programs {
            let mut command = program.command(timeout);
            command.env("HOTSLOT_MUTANT", mutant.to_string()).env("HOTSLOT_MUTANT_REACHED", reached);
            let output = match command.arg("--fail-fast").output() {
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
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let failed = text.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
            let failed = failed.or_else(|| {
                text.lines()
                    .find_map(|line| line.strip_prefix("test ")?.split_once(" ... FAILED"))
                    .map(|(name, _)| name)
            });
            return Outcome::Caught(failed.unwrap_or("the end of the process").to_owned());
        }
        Outcome::Survived { reached: reached.exists() }
    }
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
