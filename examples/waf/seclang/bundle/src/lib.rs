//! Rule files in SecLang, and the data files that they name, as one text: the configuration of a rule engine that reads no files.
//!
//! A line that begins with `#@` says what follows it, up to the next such line:
//!
//! | line | what follows |
//! |---|---|
//! | `#@ file NAME` | directives; mistakes in them are told with this name, and lines counted from 1 |
//! | `#@ file NAME LINE` | directives, the first of them on this line |
//! | `#@ data NAME` | what `@pmFromFile NAME` and `@ipMatchFromFile NAME` read, one entry a line |
//!
//! SecLang takes such a line for a comment, so a bundle without data is a rule file, and a rule file is a bundle: what comes before
//! the first such line is called `rules.conf`.
#![forbid(unsafe_code)]

mod collect;
mod scan;

use std::collections::BTreeMap;
use std::fmt;

pub use collect::{CollectError, collect};
pub use scan::{Directive, Operator, directives};

/// The longest bundle, in bytes.
pub const MOST_BYTES: usize = 8 << 20;
/// The most files of a bundle, each time that one goes on after an `Include` counted.
pub const MOST_PARTS: usize = 1000;
/// The longest name of a file, in bytes.
pub const LONGEST_NAME: usize = 255;

/// What says that a line is about what follows.
const MARK: &str = "#@";
/// How directives are called that come before the first such line.
const UNNAMED: &str = "rules.conf";

/// A mistake in a rule file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {problem}")]
#[non_exhaustive]
pub struct Malformed {
    /// Where it is.
    pub at: Place,
    /// What is wrong, and what to do about it.
    pub problem: String,
}

impl Malformed {
    /// Returns a mistake at a place.
    pub fn new(at: Place, problem: impl Into<String>) -> Malformed {
        Malformed { at, problem: problem.into() }
    }
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A bundle, borrowed from its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle<'a> {
    /// The directives, in the order in which they hold.
    pub files: Vec<Part<'a>>,
    /// The data files by their names.
    pub data: BTreeMap<&'a str, Part<'a>>,
}

/// A file of a bundle, or a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The file's name.
    pub name: &'a str,
    /// The number of its first line.
    pub first_line: usize,
    /// Its lines.
    pub text: &'a str,
}

impl<'a> Bundle<'a> {
    /// Reads a bundle.
    ///
    /// # Errors
    /// [`Malformed`] says where it is none: its size, its bytes, or a line that begins with `#@` and means nothing.
    pub fn read(bytes: &'a [u8]) -> Result<Bundle<'a>, Malformed> {
        let at = |line| Place { file: "bundle".to_owned(), line };
        if bytes.len() > MOST_BYTES {
            return Err(Malformed::new(at(1), format!("it is longer than {MOST_BYTES} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = 1 + bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
            Malformed::new(at(line), "it is no UTF-8")
        })?;
        let mut bundle = Bundle::default();
        let mut part = Part { name: UNNAMED, first_line: 1, text: "" };
        let (mut is_data, mut begins, mut offset, mut marked) = (false, 0, 0, 1);
        for (number, line) in text.split_inclusive('\n').enumerate() {
            if line.starts_with(MARK) {
                part.text = text.get(begins..offset).unwrap_or_default();
                bundle.add(part, is_data).map_err(|problem| Malformed::new(at(marked), problem))?;
                marked = number + 1;
                (part, is_data) = mark(line).map_err(|problem| Malformed::new(at(number + 1), problem))?;
                begins = offset + line.len();
            }
            offset += line.len();
        }
        part.text = text.get(begins..).unwrap_or_default();
        bundle.add(part, is_data).map_err(|problem| Malformed::new(at(marked), problem))?;
        Ok(bundle)
    }

    fn add(&mut self, part: Part<'a>, is_data: bool) -> Result<(), String> {
        if self.files.len() + self.data.len() >= MOST_PARTS {
            return Err(format!("there are more than {MOST_PARTS} files"));
        }
        match is_data {
            // Nothing before the first mark.
            false if part.text.is_empty() => {}
            false => self.files.push(part),
            true => {
                if self.data.insert(part.name, part).is_some() {
                    return Err(format!("there are two data files {}", part.name));
                }
            }
        }
        Ok(())
    }
}

/// Reads a line that begins with the mark.
fn mark(line: &str) -> Result<(Part<'_>, bool), String> {
    let words: Vec<&str> = line.strip_prefix(MARK).unwrap_or_default().split_whitespace().collect();
    let (name, first_line, is_data) = match words.as_slice() {
        ["file", name] => (*name, 1, false),
        ["file", name, line] => (*name, line.parse().map_err(|_| format!("{line:?} is no number of a line"))?, false),
        ["data", name] => (*name, 1, true),
        _ => return Err(format!("a line that begins with {MARK} says `file NAME`, `file NAME LINE` or `data NAME`")),
    };
    if !is_name(name) {
        return Err(format!("{name:?} is no name of a file here"));
    }
    Ok((Part { name, first_line, text: "" }, is_data))
}

/// Whether a name can stand in a mark.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(|one| one.is_whitespace() || one.is_control())
}

/// Returns the last part of a path as a rule file writes it: the name by which a bundle has a data file.
pub fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_files_and_data_and_a_rule_file_is_one_of_one_file() {
        let text = "SecA\n#@ file a.conf\nSecB\n#@ data words.data\none\ntwo words\n#@ file a.conf 7\nSecC\n";
        let bundle = Bundle::read(text.as_bytes()).unwrap();
        let files: Vec<_> = bundle.files.iter().map(|part| (part.name, part.first_line, part.text)).collect();
        assert_eq!(files, [("rules.conf", 1, "SecA\n"), ("a.conf", 1, "SecB\n"), ("a.conf", 7, "SecC\n")]);
        assert_eq!(bundle.data["words.data"].text, "one\ntwo words\n");
        assert_eq!(Bundle::read(b"").unwrap(), Bundle::default());
    }

    #[test]
    fn what_is_no_bundle_is_told_with_its_line() {
        for (text, complaint) in [
            (&b"SecA\n\xff"[..], "bundle:2: it is no UTF-8"),
            (b"#@ fil a", "bundle:1: a line that begins with #@ says"),
            (b"\n#@ file a x", "bundle:2: \"x\" is no number"),
            (b"#@ data a\n#@ data a\n", "two data files a"),
            (b"#@ file \x1b[2J", "is no name of a file"),
        ] {
            let error = Bundle::read(text).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        assert!(Bundle::read(&vec![b'\n'; MOST_BYTES + 1]).is_err());
        assert!(Bundle::read("#@ file a\nSecA\n".repeat(MOST_PARTS + 1).as_bytes()).is_err());
    }
}
