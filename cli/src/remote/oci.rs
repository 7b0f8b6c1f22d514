//! An OCI registry, as the distribution specification has it. A plugin is an artifact of three layers: the plugin, its
//! manifest, the signatures.
//!
//! The registry's digests are of SHA-256; those say that nothing was changed on the way. What the plugin is, its own manifest
//! says.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hotslot::escape_untrusted;
use serde_json::{Value, json};

use super::http::{Answer, Http, request, with};
use super::{Bundle, MOST_PLUGIN, MOST_TEXT, encoded, sha256, text};
use crate::Failure;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const ARTIFACT: &str = "application/vnd.hotslot.plugin.v1";
const MANIFEST: &str = "application/vnd.hotslot.manifest.v1+json";
const SIGNATURES: &str = "application/vnd.hotslot.signatures.v1+text";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// An image manifest is at most 4 MiB, says the specification.
const MOST_IMAGE: u64 = 4 << 20;

/// `REGISTRY/NAME:TAG` or `REGISTRY/NAME@sha256:…`
#[derive(Clone)]
pub(crate) struct Reference {
    host: String,
    name: String,
    /// A tag, or a digest.
    version: String,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || "write oci://REGISTRY/NAME:TAG or oci://REGISTRY/NAME@sha256:DIGEST".to_owned();
        let (host, rest) = text.split_once('/').ok_or_else(usage)?;
        let (name, version) = match rest.split_once('@') {
            Some((name, digest)) => (name, digest),
            None => rest.rsplit_once(':').unwrap_or((rest, "latest")),
        };
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
        let is_version = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
        let fits = !host.is_empty() && !name.is_empty() && name.bytes().all(is_name) && !name.contains("..");
        if !fits || version.is_empty() || version.len() > 128 || !version.bytes().all(is_version) {
            return Err(usage());
        }
        Ok(Self { host: host.to_owned(), name: name.to_owned(), version: version.to_owned() })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.is_digest() { '@' } else { ':' };
        write!(f, "oci://{}/{}{by}{}", self.host, self.name, self.version)
    }
}

impl Reference {
    fn is_digest(&self) -> bool {
        self.version.starts_with("sha256:")
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

/// A repository of a registry, and what it asks for.
struct Repository<'a> {
    http: Http,
    to: &'a Reference,
    scheme: &'static str,
    authorization: Option<String>,
}

pub(super) fn push(http: Http, to: &Reference, plain: bool, bundle: &Bundle) -> Result<String, Failure> {
    if to.is_digest() {
        return Err(Failure::Misuse("push to a tag: the digest is what comes of it".to_owned()));
    }
    let mut repository = Repository::new(http, to, plain);
    let kind = if bundle.plugin.starts_with(b"\0asm") { "application/wasm" } else { "application/octet-stream" };
    let signatures = bundle.signatures.as_bytes();
    let mut layers = Vec::new();
    for (kind, title, bytes) in [
        (kind, "plugin", &bundle.plugin[..]),
        (MANIFEST, "plugin.manifest", &bundle.manifest[..]),
        (SIGNATURES, "plugin.manifest.minisig", signatures),
    ] {
        let mut layer = repository.put_blob(kind, bytes)?;
        layer["annotations"] = json!({ "org.opencontainers.image.title": title });
        layers.push(layer);
    }
    let config = repository.put_blob(EMPTY, b"{}")?;
    let image = json!({
        "schemaVersion": 2, "mediaType": IMAGE, "artifactType": ARTIFACT, "config": config, "layers": layers,
    });
    let bytes = serde_json::to_vec(&image).expect("JSON");
    let (path, expected) = (format!("manifests/{}", to.version), digest(&bytes));
    let answer = repository.send("PUT", &path, &[("content-type", IMAGE)], &bytes, MOST_TEXT)?;
    let got = answer.header("docker-content-digest");
    if !answer.status.is_success() {
        return Err(answer.refusal("the registry"));
    }
    if got.is_some_and(|got| got != expected) {
        let got = escape_untrusted(got.unwrap_or_default()).into_owned();
        return Err(Failure::Refused(format!("the registry has stored {got}, and {expected} was sent: push again")));
    }
    Ok(format!("{to}: {expected}\n"))
}

pub(super) fn pull(http: Http, from: &Reference, plain: bool) -> Result<Bundle, Failure> {
    let mut repository = Repository::new(http, from, plain);
    let path = format!("manifests/{}", from.version);
    let answer = repository.send("GET", &path, &[("accept", IMAGE)], b"", MOST_IMAGE)?;
    if !answer.status.is_success() {
        return Err(answer.refusal("the registry"));
    }
    let found = digest(&answer.body);
    let stated = if from.is_digest() { Some(from.version.as_str()) } else { answer.header("docker-content-digest") };
    if let Some(stated) = stated.filter(|stated| *stated != found) {
        return Err(changed("the image manifest", stated, &found));
    }
    let image: Value = serde_json::from_slice(&answer.body).map_err(|_| answer.refusal("not an image manifest"))?;
    let layers = image["layers"].as_array().cloned().unwrap_or_default();
    let mut layer = |fits: &dyn Fn(&str) -> bool, what: &str, most: u64| {
        let found = layers.iter().find(|layer| layer["mediaType"].as_str().is_some_and(fits));
        let found = found.ok_or_else(|| {
            Failure::Refused(format!(
                "{from} has no {what}: `cargo hotslot push` puts plugins there with all that they need"
            ))
        })?;
        repository.get_blob(found, what, most)
    };
    let is_plugin = |kind: &str| ["application/wasm", "application/octet-stream"].contains(&kind);
    let plugin = layer(&is_plugin, "plugin", MOST_PLUGIN)?;
    let manifest = layer(&|kind| kind == MANIFEST, "manifest", MOST_TEXT)?;
    let signatures = text(layer(&|kind| kind == SIGNATURES, "signatures", MOST_TEXT)?, "the signatures")?;
    Ok(Bundle { plugin, manifest, signatures })
}

fn changed(what: &str, stated: &str, found: &str) -> Failure {
    let stated = escape_untrusted(stated);
    Failure::Refused(format!("{what} has the digest {found}, and {stated} was asked for: it was changed on the way"))
}

impl<'a> Repository<'a> {
    fn new(http: Http, to: &'a Reference, plain: bool) -> Self {
        let scheme = if plain { "http" } else { "https" };
        Self { http, to, scheme, authorization: basic() }
    }

    /// Puts a blob there, unless it is there, and returns its descriptor.
    fn put_blob(&mut self, kind: &str, bytes: &[u8]) -> Result<Value, Failure> {
        let digest = digest(bytes);
        let descriptor = json!({ "mediaType": kind, "digest": digest, "size": bytes.len() });
        let there = self.send("HEAD", &format!("blobs/{digest}"), &[], b"", MOST_TEXT)?;
        if there.status.is_success() {
            return Ok(descriptor);
        }
        let begun = self.send("POST", "blobs/uploads/", &[], b"", MOST_TEXT)?;
        let location = begun.header("location").filter(|_| begun.status.as_u16() == 202);
        let location = location.ok_or_else(|| begun.refusal("the registry takes no upload"))?;
        let mark = if location.contains('?') { '&' } else { '?' };
        let url = self.absolute(location)?;
        let url = format!("{url}{mark}digest={digest}");
        let done = self.send_to("PUT", &url, &[("content-type", "application/octet-stream")], bytes, MOST_TEXT)?;
        if !done.status.is_success() {
            return Err(done.refusal("the registry"));
        }
        Ok(descriptor)
    }

    fn get_blob(&mut self, descriptor: &Value, what: &str, most: u64) -> Result<Vec<u8>, Failure> {
        let stated = descriptor["digest"].as_str().unwrap_or_default();
        let is_digest =
            stated.strip_prefix("sha256:").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if !is_digest {
            return Err(Failure::Refused(format!("the {what} has no digest of SHA-256")));
        }
        let answer = self.send("GET", &format!("blobs/{stated}"), &[], b"", most)?;
        if !answer.status.is_success() {
            return Err(answer.refusal(&format!("the {what}")));
        }
        let found = digest(&answer.body);
        if found != stated {
            return Err(changed(&format!("the {what}"), stated, &found));
        }
        Ok(answer.body)
    }

    /// Takes the place of an upload. It may be given as a path; it may not be another host, who would get the password.
    fn absolute(&self, location: &str) -> Result<String, Failure> {
        let base = format!("{}://{}", self.scheme, self.to.host);
        match location.strip_prefix('/') {
            Some(_) => Ok(format!("{base}{location}")),
            None if location.strip_prefix(&base).is_some_and(|rest| rest.starts_with('/')) => Ok(location.to_owned()),
            None => {
                let location = escape_untrusted(location);
                Err(Failure::Refused(format!(
                    "the registry sends uploads to {location}, which is another place than {base}"
                )))
            }
        }
    }

    fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        most: u64,
    ) -> Result<Answer, Failure> {
        let url = format!("{}://{}/v2/{}/{path}", self.scheme, self.to.host, self.to.name);
        self.send_to(method, &url, headers, body, most)
    }

    fn send_to(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        most: u64,
    ) -> Result<Answer, Failure> {
        let send = |authorization: Option<&String>| {
            let mut builder = request(method, url);
            for (name, value) in headers {
                builder = builder.header(*name, *value);
            }
            if let Some(authorization) = authorization {
                builder = builder.header("authorization", authorization);
            }
            self.http.send(with(builder, body.to_vec())?, most)
        };
        let answer = send(self.authorization.as_ref())?;
        let challenge = answer.header("www-authenticate").filter(|_| answer.status.as_u16() == 401);
        let Some(challenge) = challenge.and_then(|challenge| challenge.strip_prefix("Bearer ")) else {
            return Ok(answer);
        };
        self.authorization = Some(format!("Bearer {}", self.fetch_token(challenge)?));
        send(self.authorization.as_ref())
    }

    /// Gets a token from where the registry says, as the user if there is one.
    fn fetch_token(&self, challenge: &str) -> Result<String, Failure> {
        let realm = parameter(challenge, "realm").unwrap_or_default();
        // A password goes where the registry says, but never in the clear if the registry itself is not.
        let is_fine = realm.starts_with("https://") || self.scheme == "http" && realm.starts_with("http://");
        if !is_fine {
            let realm = escape_untrusted(&realm).into_owned();
            return Err(Failure::Refused(format!(
                "the registry has its tokens from {realm:?}: that has to be https://"
            )));
        }
        let mut url = realm;
        for name in ["service", "scope"] {
            if let Some(value) = parameter(challenge, name) {
                let mark = if url.contains('?') { '&' } else { '?' };
                url = format!("{url}{mark}{name}={}", encoded(&value));
            }
        }
        let mut builder = request("GET", &url);
        if let Some(basic) = basic() {
            builder = builder.header("authorization", basic);
        }
        let answer = self.http.send(with(builder, Vec::new())?, MOST_TEXT)?;
        let told: Value = serde_json::from_slice(&answer.body).map_err(|_| answer.refusal("the registry's tokens"))?;
        let token = told["token"].as_str().or(told["access_token"].as_str());
        token.map(str::to_owned).ok_or_else(|| answer.refusal("the registry's tokens"))
    }
}

/// The user that the environment names.
fn basic() -> Option<String> {
    let (user, password) =
        (std::env::var("HOTSLOT_REGISTRY_USER").ok()?, std::env::var("HOTSLOT_REGISTRY_PASSWORD").unwrap_or_default());
    Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

/// Returns a parameter of a challenge: `realm="…",service="…"`.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let at = challenge.find(&format!("{name}=\""))? + name.len() + 2;
    challenge[at..].split('"').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_registry_repository_and_version() {
        let parts = |text: &str| text.parse::<Reference>().map(|it| (it.host, it.name, it.version));
        let of = |host: &str, name: &str, version: &str| Ok((host.to_owned(), name.to_owned(), version.to_owned()));
        assert_eq!(parts("localhost:5000/team/waf:1.2"), of("localhost:5000", "team/waf", "1.2"));
        assert_eq!(parts("r.example/waf"), of("r.example", "waf", "latest"));
        assert_eq!(parts("r.example/waf@sha256:ab"), of("r.example", "waf", "sha256:ab"));
        for wrong in ["waf", "r/", "r/WAF:1", "r/../v2/x:1", "r/a:1 2", "r/a?b:1", "/a:1"] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_challenge_is_read_and_what_it_says_is_escaped() {
        let challenge = r#"realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push""#;
        assert_eq!(parameter(challenge, "realm").unwrap(), "https://auth.example/token");
        assert_eq!(encoded(&parameter(challenge, "scope").unwrap()), "repository%3Aa%2Fb%3Apull%2Cpush");
        assert_eq!(parameter(challenge, "error"), None);
    }
}
