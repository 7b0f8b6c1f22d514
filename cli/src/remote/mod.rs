//! Places that keep plugins: an orchestrator of a fleet, an OCI registry, a store that speaks S3.
//!
//! What goes there and comes back is a [`Bundle`]: the plugin, its manifest, and the signatures over that. Every place is
//! checked on both ends: what is sent has to be what its manifest says, and what comes back, too.

mod fleet;
mod http;
mod oci;
mod s3;

use std::path::{Path, PathBuf};

use clap::Args;
use hotslot_trust::{Manifest, NotTrusted};

use self::http::Http;
use crate::Failure;
use crate::files::{read, read_text, shown, write};
use crate::sign::beside;

/// No plugin is larger.
const MOST_PLUGIN: u64 = 1 << 30;
/// No manifest, and no text with signatures.
const MOST_TEXT: u64 = 64 << 10;

/// A plugin with who says what it is.
pub(crate) struct Bundle {
    pub(crate) plugin: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) signatures: String,
}

impl Bundle {
    /// Reads a plugin, and what lies beside it.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let (manifest, signatures) = beside(file);
        if !manifest.exists() {
            let problem = "has no manifest beside it: sign it first (`cargo hotslot sign`)";
            return Err(Failure::Misuse(format!("{} {problem}", shown(file))));
        }
        let bundle = Self { plugin: read(file)?, manifest: read(&manifest)?, signatures: read_text(&signatures)? };
        bundle.check().map_err(|error| Failure::Refused(format!("{}: {error}", shown(file))))?;
        Ok(bundle)
    }

    /// Checks that the plugin is what its manifest says. Not who says so.
    pub(crate) fn check(&self) -> Result<Manifest, NotTrusted> {
        Manifest::describes(&self.manifest, &self.plugin)
    }

    /// Writes it, the plugin last: whoever watches for that finds the rest there.
    pub(crate) fn write(&self, file: &Path) -> Result<(), Failure> {
        let (manifest, signatures) = beside(file);
        write(&signatures, self.signatures.as_bytes())?;
        write(&manifest, &self.manifest)?;
        write(file, &self.plugin)
    }
}

/// How a place is reached.
#[derive(Args)]
pub(crate) struct Access {
    /// A file with the orchestrator's token; HOTSLOT_TOKEN in the environment unless given
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates to trust in the place of those of the web, in PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Speak without TLS: to the registry or the store, or to an orchestrator that is not on this machine
    #[arg(long)]
    plain_http: bool,
}

impl Access {
    fn http(&self) -> Result<Http, Failure> {
        Http::new(self.ca.as_deref(), self.plain_http)
    }

    /// The same for an orchestrator, who is asked with a token.
    fn http_to(&self, url: &str) -> Result<Http, Failure> {
        let plain = url.strip_prefix("http://");
        if plain.is_some_and(|rest| !is_here(rest)) && !self.plain_http {
            return Err(Failure::Misuse(format!(
                "{url} would get the token without TLS: say --plain-http if that is meant"
            )));
        }
        Http::new(self.ca.as_deref(), plain.is_some())
    }

    fn token(&self) -> Result<String, Failure> {
        match &self.token_file {
            Some(file) => Ok(read_text(file)?.trim().to_owned()),
            None => std::env::var("HOTSLOT_TOKEN").map(|token| token.trim().to_owned()).map_err(|_| {
                Failure::Misuse("an orchestrator asks for a token: give --token-file, or set HOTSLOT_TOKEN".to_owned())
            }),
        }
    }
}

/// Where a plugin is kept.
#[derive(Clone)]
pub(crate) enum Place {
    /// `http://…` or `https://…`
    Fleet(String),
    Oci(oci::Reference),
    S3(s3::Object),
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("http" | "https", _)) => Ok(Self::Fleet(text.trim_end_matches('/').to_owned())),
            Some(("oci", rest)) => rest.parse().map(Self::Oci),
            Some(("s3", rest)) => rest.parse().map(Self::S3),
            _ => Err("a place is https://ORCHESTRATOR, oci://REGISTRY/NAME:TAG or s3://BUCKET/KEY".to_owned()),
        }
    }
}

/// What an orchestrator is asked for beside.
#[derive(Args)]
pub(crate) struct Rollout {
    /// Which nodes of a fleet: `all`, or `canary`, which then waits to be promoted
    #[arg(long, value_name = "TARGET", default_value = "all")]
    target: String,
    /// How a fleet rolls it out: `careful`, `at_once`, or a plan in JSON
    #[arg(long, value_name = "PLAN")]
    plan: Option<String>,
    /// Why, for the fleet's history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How many seconds to wait for the rollout to end
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    wait: f64,
}

impl Place {
    /// Puts a bundle there, and returns what to tell.
    pub(crate) fn push(&self, bundle: &Bundle, access: &Access, rollout: &Rollout) -> Result<String, Failure> {
        match self {
            Self::Fleet(url) => fleet::push(&access.http_to(url)?, url, &access.token()?, bundle, rollout),
            Self::Oci(reference) => oci::push(access.http()?, reference, access.plain_http, bundle),
            Self::S3(object) => s3::push(&access.http()?, object, access.plain_http, bundle),
        }
    }

    /// Fetches a bundle that is what its manifest says.
    pub(crate) fn pull(&self, access: &Access) -> Result<Bundle, Failure> {
        let bundle = match self {
            Self::Fleet(url) => fleet::pull(&access.http_to(url)?, url, &access.token()?),
            Self::Oci(reference) => oci::pull(access.http()?, reference, access.plain_http),
            Self::S3(object) => s3::pull(&access.http()?, object, access.plain_http),
        }?;
        bundle.check().map_err(|error| Failure::Refused(format!("what came from {self}: {error}")))?;
        Ok(bundle)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fleet(url) => f.write_str(url),
            Self::Oci(reference) => reference.fmt(f),
            Self::S3(object) => object.fmt(f),
        }
    }
}

/// Whether what stands behind `http://` is this machine.
fn is_here(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return false;
    }
    let host =
        if authority.ends_with(']') { authority } else { authority.rsplit_once(':').map_or(authority, |it| it.0) };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Takes the text of what must be one.
fn text(bytes: Vec<u8>, what: &str) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| Failure::Refused(format!("{what}: not a text")))
}

/// Writes a text as a part of a path, or as a value of a query.
fn encoded(text: &str) -> String {
    let mut written = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => written.push(byte as char),
            false => written.push_str(&format!("%{byte:02X}")),
        }
    }
    written
}

/// The SHA-256 of `bytes`, in hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::is_here;

    #[test]
    fn a_token_goes_without_tls_to_this_machine_only() {
        for here in ["localhost", "localhost:80/x", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]"] {
            assert!(is_here(here), "{here}");
        }
        for there in [
            "example.com",
            "10.0.0.1:8080",
            "localhost.example.com",
            "localhost:80@example.com",
            "127.0.0.1.example",
            "",
        ] {
            assert!(!is_here(there), "{there}");
        }
    }
}
