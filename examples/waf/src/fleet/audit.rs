//! What was done and by whom: a file whose lines are chained by their digests, and a stream of the same lines.
//!
//! A line names the digest of the one before it, so none can be changed or taken out without all that follow. The stream is
//! for others to read; the file is what this process answers for.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hotslot::{BoxError, Digest};
use serde_json::{Value, json};

use crate::json::moment;

/// The digest that the first line names.
const FIRST: &str = "";

pub(super) struct Audit {
    file: File,
    /// How much of the file is whole lines.
    length: u64,
    count: u64,
    last: String,
}

/// How many lines a look at the file keeps.
const SHOWN: usize = 200;

/// What a look at the file found.
pub(super) struct Checked {
    /// The last ones.
    pub lines: VecDeque<Value>,
    count: u64,
    /// The number of the first line that does not follow from the one before it.
    pub broken_at: Option<u64>,
    last: String,
}

impl Audit {
    pub fn path(data: &Path) -> PathBuf {
        data.join("audit.jsonl")
    }

    /// Opens the file, and goes on after its last line. One that was cut off by a crash is taken away: nothing followed from it.
    pub fn open(data: &Path) -> Result<Audit, BoxError> {
        let path = Audit::path(data);
        let named = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(named)?;
        let bytes = std::fs::read(&path).map_err(named)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64).map_err(named)?;
        let checked = check(&path)?;
        if let Some(line) = checked.broken_at {
            tracing::error!(line, file = %path.display(), "the chain of the audit is broken");
        }
        Ok(Audit { file, length: whole as u64, count: checked.count, last: checked.last })
    }

    /// Adds a line, and returns it once it is on the disk.
    pub fn add(&mut self, mut what: Value) -> std::io::Result<Vec<u8>> {
        let line = what.as_object_mut().expect("an object");
        line.insert("number".to_owned(), json!(self.count + 1));
        line.insert("at".to_owned(), json!(moment(SystemTime::now())));
        line.insert("before".to_owned(), json!(self.last));
        let mut text = what.to_string().into_bytes();
        let digest = Digest::of(&text).to_string();
        text.push(b'\n');
        if let Err(error) = self.file.write_all(&text).and_then(|()| self.file.sync_data()) {
            // A part of a line, or one that may not be on the disk: nothing follows from it, and the next one takes its place.
            if let Err(error) = self.file.set_len(self.length) {
                tracing::error!(%error, "the audit ends with a line that is none");
            }
            return Err(error);
        }
        (self.last, self.count, self.length) = (digest, self.count + 1, self.length + text.len() as u64);
        text.pop();
        Ok(text)
    }
}

/// Reads the file and follows the chain.
pub(super) fn check(path: &Path) -> Result<Checked, BoxError> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut checked = Checked { lines: VecDeque::new(), count: 0, broken_at: None, last: FIRST.to_owned() };
    for line in BufReader::new(file).split(b'\n') {
        // Whatever bytes they are: somebody may have written them.
        let line = line?;
        checked.count += 1;
        let value: Option<Value> = serde_json::from_slice(&line).ok();
        let follows = value
            .as_ref()
            .is_some_and(|value| value["before"] == checked.last.as_str() && value["number"] == checked.count);
        if !follows {
            checked.broken_at.get_or_insert(checked.count);
        }
        checked.last = Digest::of(&line).to_string();
        if checked.lines.len() == SHOWN {
            checked.lines.pop_front();
        }
        checked.lines.push_back(value.unwrap_or(Value::Null));
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_changed_or_taken_out_breaks_the_chain() {
        let folder = tempfile::tempdir().unwrap();
        let path = Audit::path(folder.path());
        let mut audit = Audit::open(folder.path()).unwrap();
        audit.add(json!({ "what": "first" })).unwrap();
        drop(audit);
        let mut audit = Audit::open(folder.path()).unwrap();
        audit.add(json!({ "what": "second" })).unwrap();
        audit.add(json!({ "what": "third" })).unwrap();
        assert_eq!(check(&path).unwrap().broken_at, None);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, whole.replace("second", "other")).unwrap();
        assert_eq!(check(&path).unwrap().broken_at, Some(3));
        let without: Vec<&str> = whole.lines().enumerate().filter(|(index, _)| *index != 1).map(|it| it.1).collect();
        std::fs::write(&path, without.join("\n")).unwrap();
        assert_eq!(check(&path).unwrap().broken_at, Some(2));
    }

    #[test]
    fn a_line_that_cannot_be_written_leaves_the_chain_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = Audit::path(folder.path());
        let mut audit = Audit::open(folder.path()).unwrap();
        audit.add(json!({ "what": "first" })).unwrap();
        // As a full disk would.
        let whole = std::mem::replace(&mut audit.file, File::open(&path).unwrap());
        audit.add(json!({ "what": "lost" })).unwrap_err();
        audit.file = whole;
        audit.add(json!({ "what": "second" })).unwrap();
        let checked = check(&path).unwrap();
        assert_eq!((checked.broken_at, checked.count), (None, 2));
        assert_eq!(checked.lines[1]["number"], 2);
    }

    #[test]
    fn what_is_no_text_or_has_another_number_is_broken_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = Audit::path(folder.path());
        let mut audit = Audit::open(folder.path()).unwrap();
        for number in 0..300 {
            audit.add(json!({ "what": number })).unwrap();
        }
        let checked = check(&path).unwrap();
        assert_eq!((checked.lines.len(), checked.count, checked.broken_at), (SHOWN, 300, None));
        assert_eq!(checked.lines.back().unwrap()["what"], 299);
        let whole = std::fs::read(&path).unwrap();
        let mut bad = whole.clone();
        bad[3] = 0xff;
        std::fs::write(&path, bad).unwrap();
        assert_eq!(check(&path).unwrap().broken_at, Some(1));
        assert_eq!(Audit::open(folder.path()).unwrap().count, 300, "and the orchestrator starts");
        // A chain of its own, that does not begin at the beginning.
        let line = json!({ "what": "x", "number": 7, "before": FIRST });
        std::fs::write(&path, format!("{line}\n")).unwrap();
        assert_eq!(check(&path).unwrap().broken_at, Some(1));
    }
}
