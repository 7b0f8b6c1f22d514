//! Reads the commands' inputs and writes what they make.

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

/// Writes a file.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, contents).map_err(|error| Failure::Misuse(format!("{}: {error}", shown(path))))
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
