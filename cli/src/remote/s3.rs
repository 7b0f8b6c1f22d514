//! A store that speaks S3: the plugin under its key, its manifest and the signatures beside it, as in a folder.
//!
//! Where it is and who asks comes from the usual variables: `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use ring::hmac::{HMAC_SHA256, Key, sign};

use super::http::{Http, request, with};
use super::{Bundle, MOST_PLUGIN, MOST_TEXT, encoded, hex, sha256, text};
use crate::Failure;

/// `BUCKET/KEY`
#[derive(Clone)]
pub(crate) struct Object {
    bucket: String,
    key: String,
}

impl FromStr for Object {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() && !key.ends_with('/') => {
                Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
            }
            _ => Err("write s3://BUCKET/KEY".to_owned()),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

struct Store<'a> {
    http: &'a Http,
    /// `http://` or `https://`, and the host that is spoken to.
    scheme: &'static str,
    host: String,
    /// What stands before the keys in paths.
    path: String,
    region: String,
    caller: Caller,
}

/// Who asks.
struct Caller {
    key: String,
    secret: String,
    session: Option<String>,
}

pub(super) fn push(http: &Http, to: &Object, plain: bool, bundle: &Bundle) -> Result<String, Failure> {
    let store = Store::open(http, to, plain)?;
    // The manifest last: until it is there, nobody takes the plugin for the one that it describes.
    for (extension, bytes) in [
        ("", &bundle.plugin[..]),
        (".manifest.minisig", bundle.signatures.as_bytes()),
        (".manifest", &bundle.manifest[..]),
    ] {
        store.put(&format!("{}{extension}", to.key), bytes)?;
    }
    // A store may say yes and mean something else.
    let stored = pull(http, to, plain)?;
    if stored.plugin != bundle.plugin || stored.manifest != bundle.manifest || stored.signatures != bundle.signatures {
        return Err(Failure::Refused(format!(
            "{to}: the store has something else than was sent: somebody pushes, too"
        )));
    }
    Ok(format!("{to}: {} bytes\n", bundle.plugin.len()))
}

pub(super) fn pull(http: &Http, from: &Object, plain: bool) -> Result<Bundle, Failure> {
    let store = Store::open(http, from, plain)?;
    let get = |extension: &str, most: u64| store.get(&format!("{}{extension}", from.key), most);
    let manifest = get(".manifest", MOST_TEXT)?;
    let signatures = text(get(".manifest.minisig", MOST_TEXT)?, "the signatures")?;
    Ok(Bundle { plugin: get("", MOST_PLUGIN)?, manifest, signatures })
}

impl<'a> Store<'a> {
    fn open(http: &'a Http, object: &Object, plain: bool) -> Result<Self, Failure> {
        let set =
            |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        let region = set(&["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or_else(|| "us-east-1".to_owned());
        let (scheme, host, path) = match set(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]) {
            None => ("https", format!("{}.s3.{region}.amazonaws.com", object.bucket), String::new()),
            Some(endpoint) => {
                let (scheme, host) = match endpoint.trim_end_matches('/').split_once("://") {
                    Some(("https", host)) => ("https", host.to_owned()),
                    Some(("http", host)) if plain => ("http", host.to_owned()),
                    Some(("http", _)) => {
                        let problem = format!("{endpoint} is without TLS: say --plain-http if that is meant");
                        return Err(Failure::Misuse(problem));
                    }
                    _ => return Err(Failure::Misuse("AWS_ENDPOINT_URL is https://HOST".to_owned())),
                };
                if host.contains('/') {
                    return Err(Failure::Misuse("AWS_ENDPOINT_URL is https://HOST, without a path".to_owned()));
                }
                (scheme, host, format!("/{}", encoded(&object.bucket)))
            }
        };
        let (Some(key), Some(secret)) = (set(&["AWS_ACCESS_KEY_ID"]), set(&["AWS_SECRET_ACCESS_KEY"])) else {
            let problem = "a store asks who you are: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
            return Err(Failure::Misuse(problem.to_owned()));
        };
        let caller = Caller { key, secret, session: set(&["AWS_SESSION_TOKEN"]) };
        Ok(Self { http, scheme, host, path, region, caller })
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.send("PUT", key, bytes, MOST_TEXT).map(drop)
    }

    fn get(&self, key: &str, most: u64) -> Result<Vec<u8>, Failure> {
        self.send("GET", key, b"", most)
    }

    fn send(&self, method: &str, key: &str, body: &[u8], most: u64) -> Result<Vec<u8>, Failure> {
        let path = key.split('/').fold(self.path.clone(), |path, part| format!("{path}/{}", encoded(part)));
        // 2026-11-26T17:00:00Z, without what separates.
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let now: String = now.chars().filter(|letter| !"-:".contains(*letter)).collect();
        let mut builder = request(method, &format!("{}://{}{path}", self.scheme, self.host));
        for (name, value) in self.caller.signed_headers(method, &self.host, &path, &self.region, &now, body) {
            builder = builder.header(name, value);
        }
        let answer = self.http.send(with(builder, body.to_vec())?, most)?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(answer.refusal(key)) }
    }
}

impl Caller {
    /// Returns the headers that say who asks for what, and with which body: Signature Version 4. The store checks the body
    /// by its digest.
    fn signed_headers(
        &self,
        method: &str,
        host: &str,
        path: &str,
        region: &str,
        now: &str,
        body: &[u8],
    ) -> Vec<(&'static str, String)> {
        let mut headers = vec![("x-amz-content-sha256", sha256(body)), ("x-amz-date", now.to_owned())];
        headers.extend(self.session.clone().map(|session| ("x-amz-security-token", session)));
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names = headers.iter().fold("host".to_owned(), |names, (name, _)| format!("{names};{name}"));
        let canonical = format!("{method}\n{path}\n\nhost:{host}\n{lines}\n{names}\n{}", sha256(body));
        let day = &now[..8];
        let scope = format!("{day}/{region}/s3/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let first = format!("AWS4{}", self.secret).into_bytes();
        let key = [day, region, "s3", "aws4_request"].into_iter().fold(first, |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &text));
        let credential = format!("{}/{scope}", self.key);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}");
        headers.push(("authorization", authorization));
        headers
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}
