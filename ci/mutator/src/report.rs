//! What is written down of a file's mutants.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, str};

use crate::list::Mutant;
use crate::tests::Outcome;

/// Replaces the last result of a file with this text. The indented lines below a survivor say why no test can catch it, and are
/// kept.
pub fn write(results: &Path, file: &str, source: &str, mutants: &[(&Mutant, &Outcome)]) -> Result<(), Box<dyn Error>> {
    let name = Path::new(file).file_stem().ok_or("a file has a name")?;
    let path = results.join(name).with_extension("txt");
    let notes = notes(&fs::read_to_string(&path).unwrap_or_default());
    let mut git = Command::new("git");
    let mut git = git.args(["hash-object", "--stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // It reads until this is closed, which is at the end of the statement.
    git.stdin.take().ok_or("it is piped")?.write_all(source.as_bytes())?;
    let digest = git.wait_with_output()?.stdout;
    let count = |is: fn(&Outcome) -> bool| mutants.iter().filter(|(_, outcome)| is(outcome)).count();
    let mut text = format!(
        "{file} at {}: caught {}, timed out {}, did not build {}, survived {}\n",
        str::from_utf8(&digest)?.get(..12).ok_or("git names its objects")?,
        count(|outcome| matches!(outcome, Outcome::Caught(_))),
        count(|outcome| matches!(outcome, Outcome::TimedOut)),
        count(|outcome| matches!(outcome, Outcome::Unviable)),
        count(|outcome| matches!(outcome, Outcome::Survived | Outcome::NotReached)),
    );
    // Those of the same text are counted, so that another one shows.
    let mut survivors: BTreeMap<String, usize> = BTreeMap::new();
    let mut timed_out = Vec::new();
    for (mutant, outcome) in mutants {
        match outcome {
            Outcome::Survived => *survivors.entry(without_line(&mutant.name)).or_default() += 1,
            Outcome::NotReached => {
                *survivors.entry(without_line(&mutant.name) + " (not reached)").or_default() += 1;
            }
            Outcome::TimedOut => timed_out.push(without_line(&mutant.name)),
            _ => {}
        }
    }
    for (survivor, count) in survivors {
        let line = if count > 1 { format!("{survivor} ({count} of them)") } else { survivor };
        writeln!(text, "{line}")?;
        text += notes.get(&line).map_or("", String::as_str);
    }
    for mutant in timed_out {
        writeln!(text, "timed out, {mutant}")?;
    }
    print!("{text}");
    Ok(fs::write(path, text)?)
}

/// Line numbers change with every edit.
fn without_line(name: &str) -> String {
    let mut parts = name.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(_), Some(_), Some(rest)) => format!("{file}:{rest}"),
        _ => name.to_owned(),
    }
}

/// By the line of the survivor.
fn notes(text: &str) -> BTreeMap<String, String> {
    let mut notes: BTreeMap<String, String> = BTreeMap::new();
    let mut survivor = None;
    for line in text.lines().skip(1) {
        if !line.starts_with(' ') {
            survivor = Some(line.to_owned());
        } else if let Some(survivor) = &survivor {
            *notes.entry(survivor.clone()).or_default() += &format!("{line}\n");
        }
    }
    notes
}
