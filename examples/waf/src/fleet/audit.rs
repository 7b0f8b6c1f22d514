//! What was done and by whom: a file whose lines are chained by their digests, and a stream of the same lines.
//!
//! A line names the digest of the one before it, so none can be changed or taken out without all that follow. The stream is
//! for others to read; the file is what this process answers for.

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
    count: u64,
    last: String,
}

/// What a look at the file found.
pub(super) struct Checked {
    pub lines: Vec<Value>,
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
        Ok(Audit { file, count: checked.lines.len() as u64, last: checked.last })
    }

    /// Adds a line, and returns it once it is on the disk.
    pub fn add(&mut self, mut what: Value) -> std::io::Result<Vec<u8>> {
        let line = what.as_object_mut().expect("an object");
        line.insert("number".to_owned(), json!(self.count + 1));
        line.insert("at".to_owned(), json!(moment(SystemTime::now())));
        line.insert("before".to_owned(), json!(self.last));
        let mut text = what.to_string().into_bytes();
        self.last = Digest::of(&text).to_string();
        self.count += 1;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        text.pop();
        Ok(text)
    }
}

/// Reads the file and follows the chain.
pub(super) fn check(path: &Path) -> Result<Checked, BoxError> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut checked = Checked { lines: Vec::new(), broken_at: None, last: FIRST.to_owned() };
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        let value: Option<Value> = serde_json::from_str(&line).ok();
        let follows = value.as_ref().is_some_and(|value| value["before"] == checked.last.as_str());
        if !follows {
            checked.broken_at.get_or_insert(index as u64 + 1);
        }
        checked.last = Digest::of(line.as_bytes()).to_string();
        checked.lines.push(value.unwrap_or(Value::Null));
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
}
