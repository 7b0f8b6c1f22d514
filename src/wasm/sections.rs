//! Reads a module's manifest from its custom sections, which compiled code no longer has.
//!
//! `version` is the section that `wasm-metadata` and the tools around it write: the version as plain text. The rest is
//! in sections of hotslot's own: `hotslot.manifest`, lines of `key=value`, and `hotslot.contract`, the contract of a
//! declared interface.

use std::sync::Arc;

use semver::Version;

use super::error::ModuleError;
use crate::Manifest;
use crate::host::Contract;
use crate::text::plugin_text;

/// The longest value that is taken, in bytes.
const VALUE_LIMIT: usize = 256;

/// Collects the manifest from one section after another.
#[derive(Default)]
pub(super) struct Sections {
    pub(super) manifest: Manifest,
    seen_manifest: bool,
}

impl Sections {
    /// Reads one custom section, which begins at `offset`; others than the three are skipped.
    pub(super) fn read(&mut self, name: &str, data: &[u8], offset: usize) -> Result<(), ModuleError> {
        match name {
            "version" => self.read_version(data).map_err(|reason| ModuleError::Version { offset, reason }),
            "hotslot.manifest" => self.read_manifest(data).map_err(|reason| ModuleError::Manifest { offset, reason }),
            "hotslot.contract" => {
                let contract = Contract::parse(data).map_err(|error| ModuleError::Contract { offset, error })?;
                match self.manifest.contract.replace(Arc::new(contract)) {
                    Some(_) => Err(ModuleError::Manifest {
                        offset,
                        reason: "there are two sections `hotslot.contract`".to_owned(),
                    }),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn read_version(&mut self, data: &[u8]) -> Result<(), String> {
        let text = value(data)?;
        let version = Version::parse(text).map_err(|error| format!("`{text}`: {error}"))?;
        if self.manifest.version.replace(version).is_some() {
            return Err("the section is there twice".to_owned());
        }
        Ok(())
    }

    fn read_manifest(&mut self, data: &[u8]) -> Result<(), String> {
        if std::mem::replace(&mut self.seen_manifest, true) {
            return Err("the section is there twice".to_owned());
        }
        for line in data.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let Some(equals) = line.iter().position(|&byte| byte == b'=') else {
                return Err(format!("`{}` is not `key=value`", plugin_text(line, VALUE_LIMIT)));
            };
            let value = value(&line[equals + 1..])?.to_owned();
            let manifest = &mut self.manifest;
            let earlier = match line[..equals].trim_ascii() {
                b"name" if manifest.name.is_empty() => {
                    manifest.name = value;
                    None
                }
                b"name" => Some(std::mem::take(&mut manifest.name)),
                b"interface" => manifest.interface.replace(value),
                b"schema" => manifest.schema.replace(value),
                other => {
                    let other = plugin_text(other, VALUE_LIMIT);
                    return Err(format!("`{other}` is unknown; there are name, interface and schema"));
                }
            };
            if earlier.is_some() {
                return Err(format!("`{}` is there twice", plugin_text(&line[..equals], VALUE_LIMIT)));
            }
        }
        Ok(())
    }
}

/// Returns a value that is safe to show and to compare: short text without control characters.
fn value(bytes: &[u8]) -> Result<&str, String> {
    let bytes = bytes.trim_ascii();
    let shown = || plugin_text(bytes, VALUE_LIMIT);
    let text = std::str::from_utf8(bytes).map_err(|_| format!("`{}` is not UTF-8", shown()))?;
    if text.is_empty() || text.len() > VALUE_LIMIT || shown() != text {
        return Err(format!("`{}` is not printable text of 1 to {VALUE_LIMIT} bytes", shown()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::Sections;

    fn read(sections: &[(&str, &[u8])]) -> Result<crate::Manifest, String> {
        let mut read = Sections::default();
        for (name, data) in sections {
            read.read(name, data, 7).map_err(|error| error.to_string())?;
        }
        Ok(read.manifest)
    }

    #[test]
    fn a_manifest_is_read_from_its_two_sections() {
        let lines = b"name=waf\n\n interface = waf/1 \nschema=rules/2\n";
        let manifest = read(&[("version", b"1.2.3"), ("producers", b"\xff"), ("hotslot.manifest", lines)]).unwrap();
        assert_eq!(manifest.name, "waf");
        assert_eq!(manifest.version.unwrap().to_string(), "1.2.3");
        assert_eq!(manifest.interface.as_deref(), Some("waf/1"));
        assert_eq!(manifest.schema.as_deref(), Some("rules/2"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        let long = [b'x'; 300];
        for (sections, reason) in [
            (&[("version", &b"one"[..])][..], "`one`"),
            (&[("version", b"1.0.0"), ("version", b"1.0.0")], "twice"),
            (&[("version", b"\xff")], "not UTF-8"),
            (&[("hotslot.manifest", b"name")], "not `key=value`"),
            (&[("hotslot.manifest", b"nam=x")], "`nam` is unknown"),
            (&[("hotslot.manifest", b"name=x\nname=y")], "twice"),
            (&[("hotslot.manifest", b"interface=x\ninterface=x")], "twice"),
            (&[("hotslot.manifest", b"name=x"), ("hotslot.manifest", b"schema=x")], "twice"),
            (&[("hotslot.manifest", b"name=\x1b[2J")], "\\u{1b}"),
            (&[("hotslot.manifest", b"name=")], "printable"),
            (&[("version", &long)], "printable"),
        ] {
            let error = read(sections).expect_err(reason);
            assert!(error.contains(reason) && error.contains("0x7"), "{error}");
        }
    }
}
