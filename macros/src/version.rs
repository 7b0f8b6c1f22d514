//! The version of an interface: major and minor, `"1.1"`.

use syn::{Error, Lit, LitStr};

const MALFORMED: &str = "expected a version as a string of a major and a minor number, for instance \"1.0\"";

/// Within a major version, methods are only added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Version {
    /// Reads what was written for a version, which may well be `1.0` without quotes.
    pub(crate) fn of(written: &Lit) -> Result<Version, Error> {
        match written {
            Lit::Str(text) => Version::parse(text),
            other => Err(Error::new(other.span(), MALFORMED)),
        }
    }

    pub(crate) fn parse(text: &LitStr) -> Result<Version, Error> {
        let value = text.value();
        let parsed = value
            .split_once('.')
            .and_then(|(major, minor)| Some(Version { major: number(major)?, minor: number(minor)? }));
        parsed.ok_or_else(|| Error::new(text.span(), MALFORMED))
    }
}

/// Reads digits only: `"+1"` parses as a number, too.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
