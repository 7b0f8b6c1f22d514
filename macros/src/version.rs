//! The version of an interface: major and minor, `"1.1"`.

use syn::{Error, LitStr};

/// Within a major version, methods are only added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Version {
    pub(crate) fn parse(text: &LitStr) -> Result<Version, Error> {
        let value = text.value();
        let parsed = value
            .split_once('.')
            .and_then(|(major, minor)| Some(Version { major: number(major)?, minor: number(minor)? }));
        parsed.ok_or_else(|| {
            Error::new(text.span(), "an interface's version is a major and a minor number, for instance \"1.0\"")
        })
    }
}

/// Digits only: `"+1"` parses as a number, too.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
