//! Reads the commands' inputs and writes what they make.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use hotslot::host::Contract;
use hotslot::{BoxError, escape_untrusted};

use crate::Failure;

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::Misuse(format!("{}: {error}", shown(path))))
}

/// Reads a file with text in it.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::Misuse(format!("{}: {error}", shown(path))))
}

/// Writes a file, all at once: see [`replace`].
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    replace(path, contents).map_err(|error| Failure::Misuse(format!("{}: {error}", shown(path))))
}

/// Puts a file in the place of another one, all at once: whoever watches it sees the old one or the new one, and a full disk leaves
/// the old one. What is no file, such as a pipe, is written as it is.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    // A link stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let before = fs::metadata(&path).ok();
    if before.as_ref().is_some_and(|before| !before.is_file()) {
        return fs::write(&path, contents);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let put = || {
        let mut file = File::create(&part)?;
        file.write_all(contents)?;
        file.sync_all()?;
        if let Some(before) = before {
            fs::set_permissions(&part, before.permissions())?;
        }
        fs::rename(&part, &path)
    };
    put().inspect_err(|_| drop(fs::remove_file(&part)))
}

/// Reads a contract from a contract file or from a plugin.
pub(crate) fn contract(path: &Path) -> Result<Contract, Failure> {
    let bytes = read(path)?;
    if bytes.starts_with(b"interface ") {
        let contract = Contract::parse(&bytes);
        return contract.map_err(|error| Failure::Misuse(format!("{}: {}", shown(path), reason(&error))));
    }
    let found = hotslot::inspect(&bytes).map_err(|error| {
        let reason = reason(&*error);
        Failure::Misuse(format!("{} is neither a contract file nor a plugin with a contract: {reason}", shown(path)))
    })?;
    let contract = found.manifest.and_then(|manifest| manifest.contract);
    let contract = contract.ok_or_else(|| Failure::Misuse(format!("{} has no contract", shown(path))))?;
    Ok((*contract).clone())
}

/// Formats an error with its sources, escaped because they may quote untrusted bytes.
pub(crate) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    escape_untrusted(&text).into_owned()
}

/// Returns the refusal of the plugin at `path` for this reason.
pub(crate) fn refused(path: &Path, error: &BoxError) -> Failure {
    Failure::Refused(format!("{}: {}", shown(path), reason(&**error)))
}

/// Escapes a path for printing.
pub(crate) fn shown(path: &Path) -> String {
    escape_untrusted(&path.to_string_lossy()).into_owned()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_all_at_once_and_keeps_its_links_and_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();
        // Whoever has it open goes on with what was there.
        let mut open = File::open(&file).unwrap();
        replace(&link, b"new").unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut open, &mut text).unwrap();
        assert_eq!((text.as_str(), fs::read(&file).unwrap().as_slice()), ("old", &b"new"[..]));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left over");
    }

    #[test]
    fn what_cannot_be_replaced_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(replace(&taken, b"new").is_err());
        assert!(replace(&folder.path().join("none/file"), b"new").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        replace(Path::new("/dev/null"), b"what is no file is written as it is").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
