//! Reads rule files from a disk, with what they include and the data files that they name, and makes one text of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::scan::directives;
use crate::{LONGEST_NAME, MARK, MOST_BYTES, MOST_PARTS, Malformed, Part, file_name, is_name};

/// How deep files may include one another.
const DEEPEST: usize = 16;

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// A rule file has a mistake.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A file cannot be read.
    #[error("{file}: {error}")]
    File {
        /// Which one.
        file: String,
        /// Why.
        error: io::Error,
    },
    /// There are no rule files in a folder.
    #[error("{0}: there is no file *.conf")]
    Empty(String),
    /// Two data files have one name, and a bundle has one of each name.
    #[error("{first} and {second}: two data files of one name, rename one of them")]
    SameName {
        /// One of them.
        first: String,
        /// The other one.
        second: String,
    },
    /// A file's name, or a line of it, cannot stand in a bundle.
    #[error("{file}: {problem}")]
    Unfit {
        /// Which one.
        file: String,
        /// What to do about it.
        problem: String,
    },
    /// There is too much of it.
    #[error("a bundle has at most {MOST_BYTES} bytes and {MOST_PARTS} files")]
    TooMuch,
}

/// Makes a bundle of rule files in this order, with what they include and the data files that they name. Of a folder, it takes
/// every file `*.conf`, by name.
///
/// # Errors
/// [`CollectError`] names the file, and the line where there is one.
pub fn collect(paths: &[PathBuf]) -> Result<String, CollectError> {
    let mut collected = Collected::default();
    for path in paths {
        let path = std::path::absolute(path).map_err(|error| file_error(path, error))?;
        if path.is_dir() {
            let files = matching(&path.join("*.conf"))?;
            if files.is_empty() {
                return Err(CollectError::Empty(path.display().to_string()));
            }
            files.iter().try_for_each(|file| collected.file(file, &mut Vec::new()))?;
        } else {
            collected.file(&path, &mut Vec::new())?;
        }
    }
    collected.text()
}

#[derive(Default)]
struct Collected {
    /// Pieces of rule files, with the line on which each begins.
    pieces: Vec<(PathBuf, usize, String)>,
    data: BTreeMap<String, (PathBuf, String)>,
    bytes: usize,
}

impl Collected {
    fn file(&mut self, path: &Path, within: &mut Vec<PathBuf>) -> Result<(), CollectError> {
        let name = path.display().to_string();
        let text = self.read(path)?;
        let mut piece = (1, String::new());
        let mut next = 0;
        within.push(path.to_owned());
        for directive in directives(&Part { name: &name, first_line: 1, text: &text })? {
            let from = directive.text.as_ptr() as usize - text.as_ptr() as usize;
            let to = from + directive.text.len();
            for file in directive.data_files().unwrap_or_default() {
                self.data_file(path, file).map_err(|error| match error {
                    CollectError::File { file, error } => directive.malformed(format!("{file}: {error}")).into(),
                    error => error,
                })?;
            }
            let is_optional = directive.is("IncludeOptional");
            if !is_optional && !directive.is("Include") {
                continue;
            }
            let [wanted] = directive.arguments.as_slice() else {
                return Err(directive.malformed("Include has one argument, a path").into());
            };
            let wanted = beside(path, wanted);
            let files = matching(&wanted).map_err(|error| directive.malformed(error.to_string()))?;
            if files.is_empty() && !is_optional {
                return Err(directive.malformed(format!("there is no file {}", wanted.display())).into());
            }
            piece.1.push_str(text.get(next..from).unwrap_or_default());
            self.piece(path, std::mem::take(&mut piece))?;
            for file in files {
                if within.len() >= DEEPEST || within.contains(&file) {
                    let problem = format!("{} is included by itself, or too deep", file.display());
                    return Err(directive.malformed(problem).into());
                }
                self.file(&file, within)?;
            }
            next = to;
            piece = (1 + text.get(..to).unwrap_or_default().matches('\n').count(), String::new());
        }
        within.pop();
        piece.1.push_str(text.get(next..).unwrap_or_default());
        self.piece(path, piece)
    }

    fn piece(&mut self, path: &Path, (line, text): (usize, String)) -> Result<(), CollectError> {
        if self.pieces.len() + self.data.len() >= MOST_PARTS {
            return Err(CollectError::TooMuch);
        }
        if !text.trim().is_empty() {
            self.pieces.push((path.to_owned(), line, text));
        }
        Ok(())
    }

    fn data_file(&mut self, rules: &Path, file: &str) -> Result<(), CollectError> {
        let path = beside(rules, file);
        let name = file_name(file).to_owned();
        match self.data.get(&name) {
            Some((same, _)) if *same == path => Ok(()),
            Some((first, _)) => {
                let shown = |path: &Path| path.display().to_string();
                Err(CollectError::SameName { first: shown(first), second: shown(&path) })
            }
            None => {
                let text = self.read(&path)?;
                self.data.insert(name, (path, text));
                Ok(())
            }
        }
    }

    fn read(&mut self, path: &Path) -> Result<String, CollectError> {
        let size = std::fs::metadata(path).map_err(|error| file_error(path, error))?.len();
        if size > MOST_BYTES as u64 || self.bytes > MOST_BYTES {
            return Err(CollectError::TooMuch);
        }
        let text = std::fs::read_to_string(path).map_err(|error| file_error(path, error))?;
        self.bytes += text.len();
        match text.lines().position(|line| line.starts_with(MARK)) {
            Some(line) => Err(CollectError::Unfit {
                file: format!("{}:{}", path.display(), line + 1),
                problem: format!("a line of a file in a bundle cannot begin with {MARK}"),
            }),
            None => Ok(text),
        }
    }

    fn text(self) -> Result<String, CollectError> {
        let shared = self.pieces.iter().map(|(path, ..)| path.parent().unwrap_or(Path::new(""))).reduce(shared_folder);
        let mut text = String::with_capacity(self.bytes + self.bytes / 16);
        for (path, line, piece) in &self.pieces {
            let inside = shared.and_then(|shared| path.strip_prefix(shared).ok()).unwrap_or(path);
            let name = inside.to_str().filter(|name| is_name(name)).ok_or_else(|| unfit(path))?;
            let line = if *line == 1 { String::new() } else { format!(" {line}") };
            add(&mut text, &format!("file {name}{line}"), piece);
        }
        for (name, (path, content)) in &self.data {
            if !is_name(name) {
                return Err(unfit(path));
            }
            add(&mut text, &format!("data {name}"), content);
        }
        if text.len() > MOST_BYTES { Err(CollectError::TooMuch) } else { Ok(text) }
    }
}

fn add(text: &mut String, what: &str, content: &str) {
    let _ = writeln!(text, "{MARK} {what}");
    text.push_str(content);
    if !content.ends_with('\n') && !content.is_empty() {
        text.push('\n');
    }
}

fn unfit(path: &Path) -> CollectError {
    let problem = format!("its name has more than {LONGEST_NAME} bytes, or a character that cannot stand in a bundle");
    CollectError::Unfit { file: path.display().to_string(), problem }
}

fn file_error(path: &Path, error: io::Error) -> CollectError {
    CollectError::File { file: path.display().to_string(), error }
}

/// A path that a file names: beside that file, if it is relative.
fn beside(file: &Path, path: &str) -> PathBuf {
    let path = file.parent().unwrap_or(Path::new("")).join(path);
    // Without `.`, so that one file has one path.
    path.components().filter(|part| *part != Component::CurDir).collect()
}

fn shared_folder<'a>(one: &'a Path, other: &'a Path) -> &'a Path {
    one.ancestors().find(|folder| other.starts_with(folder)).unwrap_or(Path::new(""))
}

/// The files that a path means whose last part can have `*` and `?` in it, by name.
fn matching(path: &Path) -> Result<Vec<PathBuf>, CollectError> {
    let pattern = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !pattern.contains(['*', '?']) {
        return Ok(if path.is_file() { vec![path.to_owned()] } else { Vec::new() });
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(file_error(folder, error)),
    };
    for entry in entries {
        let path = entry.map_err(|error| file_error(folder, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if fits(pattern.as_bytes(), name.as_bytes()) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a name fits a pattern in which `*` stands for any text and `?` for one byte. Goes back to the last `*` only.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut of, mut star) = (0, 0, None);
    while let Some(byte) = name.get(of) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                of += 1;
            }
            _ => {
                let Some((before, from)) = star else { return false };
                star = Some((before, from + 1));
                at = before + 1;
                of = from + 1;
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bundle;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn collected(folder: &tempfile::TempDir, paths: &[&str]) -> Result<String, String> {
        let paths: Vec<_> = paths.iter().map(|path| folder.path().join(path)).collect();
        let shown = folder.path().display().to_string();
        collect(&paths).map_err(|error| error.to_string().replace(&shown, ""))
    }

    #[test]
    fn includes_and_data_files_come_along_and_lines_stay_what_they_are() {
        let folder = folder(&[
            ("main.conf", "SecRuleEngine On\nInclude ./rules/*.conf\nIncludeOptional none.conf\nSecMarker END\n"),
            ("rules/b.conf", "SecRule ARGS \"@pmFromFile words.data\" \"id:2\""),
            ("rules/a.conf", "SecMarker A\n"),
            ("rules/words.data", "one\ntwo words\n"),
            ("rules/not.txt", "{}"),
        ]);
        let text = collected(&folder, &["main.conf"]).unwrap();
        let bundle = Bundle::read(text.as_bytes()).unwrap();
        let files: Vec<_> = bundle.files.iter().map(|part| (part.name, part.first_line)).collect();
        assert_eq!(files, [("main.conf", 1), ("rules/a.conf", 1), ("rules/b.conf", 1), ("main.conf", 4)]);
        assert_eq!(bundle.data["words.data"].text, "one\ntwo words\n");
        assert!(!text.contains(folder.path().to_str().unwrap()), "{text}");
        let of_folder = collected(&folder, &["rules"]).unwrap();
        assert_eq!(Bundle::read(of_folder.as_bytes()).unwrap().files.len(), 2);
    }

    #[test]
    fn what_cannot_be_collected_is_told_with_file_and_line() {
        let folder = folder(&[
            ("missing.conf", "\nInclude nowhere.conf"),
            ("data.conf", "SecRule ARGS \"@pmFromFile nowhere.data\" \"id:1\""),
            ("self.conf", "Include self.conf"),
            ("open.conf", "SecRule ARGS \"x"),
            ("mark.conf", "#@ file x\n"),
            ("a/one.conf", "SecRule ARGS \"@pmFromFile w.data\" \"id:1\""),
            ("b/two.conf", "SecRule ARGS \"@pmFromFile w.data\" \"id:2\""),
            ("a/w.data", "x"),
            ("b/w.data", "y"),
            ("empty/x.txt", ""),
        ]);
        for (paths, complaint) in [
            (&["missing.conf"][..], "/missing.conf:2: there is no file /nowhere.conf"),
            (&["data.conf"], "/data.conf:1: /nowhere.data: "),
            (&["self.conf"], "/self.conf:1: /self.conf is included by itself"),
            (&["open.conf"], "/open.conf:1: a quote"),
            (&["mark.conf"], "/mark.conf:1: a line"),
            (&["a", "b"], "two data files of one name"),
            (&["empty"], "/empty: there is no file *.conf"),
            (&["nowhere"], "/nowhere: "),
        ] {
            let error = collected(&folder, paths).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn names_fit_patterns() {
        for (pattern, name, does) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.example", false),
            ("R*-9?0-*.conf", "REQUEST-930-A-B.conf", true),
            ("a*b*c", "abbbd", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), does, "{pattern} {name}");
        }
    }
}
