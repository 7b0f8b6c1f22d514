//! Who may do what: every request to the admin listener has to pass here first.
//!
//! What changes something needs the token. And a browser must not be talked into anything by a page of somebody else:
//! a name in `Host` that is not the listener's (DNS rebinding), an `Origin` that is another, or a browser's own word
//! that the request crosses sites are refused, whatever the request wants.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::Admin;
use super::answers::{NotTrusted, refusal};
use super::audit::{About, Audit, Entry};
use crate::config::{self, Token};
use crate::listen::Peer;
use crate::serve::Place;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What somebody may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    View,
    /// Change rules, and take changes to them back.
    Rules,
    /// Change everything that serves.
    Deploy,
    /// Have the configuration read again.
    Admin,
}

impl Role {
    fn name(self) -> &'static str {
        ["view", "rules", "deploy", "admin"][self as usize]
    }
}

/// Who has which role.
pub struct Tokens {
    /// `None` if nobody has to say who they are.
    known: Option<Vec<Known>>,
    open_reads: bool,
}

struct Known {
    name: String,
    role: Role,
    hash: [u8; 32],
}

impl Tokens {
    /// The token of the node itself, `None` if it asks for none, and those that the configuration names.
    pub fn new(own: Option<&Token>, config: &config::Admin) -> Tokens {
        let hash = |token: &Token| *blake3::hash(token.0.as_bytes()).as_bytes();
        let named = config.tokens.iter().map(toml::Spanned::get_ref).filter_map(|named| {
            let hash = named.hash.or_else(|| named.token.as_ref().map(hash))?;
            Some(Known { name: named.name.clone(), role: named.role, hash })
        });
        let known = own.map(|own| {
            let own = Known { name: "token".to_owned(), role: Role::Admin, hash: hash(own) };
            named.chain([own]).collect()
        });
        Tokens { known, open_reads: config.open_reads }
    }

    /// Returns who sends a request, and what they may do.
    fn who(&self, headers: &HeaderMap) -> Option<(&str, Role)> {
        let Some(known) = &self.known else { return Some(("anybody", Role::Admin)) };
        let given = blake3::hash(bearer(headers)?);
        // All of them are compared, however early one fits.
        let fits = |known: &&Known| bool::from(known.hash.ct_eq(given.as_bytes()));
        let mut found = known.iter().filter(fits).collect::<Vec<_>>().into_iter();
        found.next().map(|known| (known.name.as_str(), known.role))
    }

    /// What a request needs; nothing if anybody may.
    fn needed(&self, method: &Method, path: &str) -> Option<Role> {
        if method.is_safe() {
            // The page asks for everything else by itself.
            return (!self.open_reads && path != "/").then_some(Role::View);
        }
        let under =
            |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        Some(match path {
            _ if under("/api/v1/rules") => Role::Rules,
            _ if under("/api/v1/config") => Role::Admin,
            _ => Role::Deploy,
        })
    }
}

/// Lets a request on, or answers it. What changes something, or is to, is written down.
pub async fn check(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let here = same_site(request.headers(), request.uri().authority(), &admin.hosts);
    let tokens = Arc::clone(&admin.tokens.read());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let who = tokens.who(request.headers());
    let needed = tokens.needed(&method, &path);
    let from = request.extensions().get::<Peer>().map(|peer| peer.name.to_string()).unwrap_or_default();
    let answer = match (here, needed, who) {
        (Err(problem), ..) => {
            let refused = refusal(StatusCode::FORBIDDEN, problem).into_response();
            // Pages of other sites can make any browser ask without a token: that is not written down.
            if who.is_none() || tokens.known.is_none() {
                return refused;
            }
            refused
        }
        (_, Some(_), None) => {
            let problem = "this needs the token: Authorization: Bearer …".to_owned();
            unauthorized(StatusCode::UNAUTHORIZED, problem)
        }
        (_, Some(needed), Some((name, role))) if role < needed => {
            let problem = format!("{name} has the role {}: this needs {}", role.name(), needed.name());
            unauthorized(StatusCode::FORBIDDEN, problem)
        }
        _ if method.is_safe() => return next.run(request).await,
        _ => {
            let who = who.map(|(name, role)| (name.to_owned(), role));
            return run_and_note(admin.audit, request, next, who, from).await;
        }
    };
    if !method.is_safe() {
        let (name, role) = who.map_or((None, None), |(name, role)| (Some(name.to_owned()), Some(role)));
        admin.audit.note(Entry::new(name, role, from, method.as_str(), &path, answer.status())).await;
    }
    answer
}

/// Has a change made and written down, whether or not its client waits for the answer.
async fn run_and_note(
    audit: Audit,
    mut request: Request,
    next: Next,
    who: Option<(String, Role)>,
    from: String,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let about = About::default();
    request.extensions_mut().insert(about.clone());
    // As long as it takes, the node does not stop.
    let place = request.extensions().get::<Place>().cloned();
    let change = tokio::spawn(async move {
        // A panic is written down, too.
        let answer = match tokio::spawn(next.run(request)).await {
            Ok(answer) => answer,
            Err(panic) => {
                tracing::error!(%panic, "a change over the admin API");
                refusal(StatusCode::INTERNAL_SERVER_ERROR, "the change panicked").into_response()
            }
        };
        let (name, role) = who.unzip();
        let entry = Entry::new(name, role, from, method.as_str(), &path, answer.status()).about(&about);
        audit.note(entry.because(answer.extensions().get().map(|NotTrusted(reason)| *reason))).await;
        drop(place);
        answer
    });
    let stopped = |_| refusal(StatusCode::SERVICE_UNAVAILABLE, "the node stops").into_response();
    change.await.unwrap_or_else(stopped)
}

fn unauthorized(status: StatusCode, problem: String) -> Response {
    let mut answer = refusal(status, problem).into_response();
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"waf\""));
    }
    answer
}

/// Returns whether a request has this token with it.
pub fn is_authorized(headers: &HeaderMap, token: &[u8]) -> bool {
    bearer(headers).is_some_and(|given| bool::from(given.ct_eq(token)))
}

/// The token that a request has with it.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, given) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(given)
}

pub fn same_site(headers: &HeaderMap, authority: Option<&Authority>, hosts: &[String]) -> Result<(), &'static str> {
    let host = match authority {
        Some(authority) => authority.clone(),
        None => one(headers, &HOST)
            .and_then(|host| host.parse().ok())
            .ok_or("the request does not say one host that it is for")?,
    };
    if !is_ours(host.host(), hosts) {
        return Err("this listener has another name: add it to `hosts` in [waf.admin] if it should not");
    }
    if headers.contains_key(ORIGIN) {
        let ours = one(headers, &ORIGIN).and_then(|origin| origin.strip_prefix("http://").map(str::to_owned));
        // With TLS in front of the listener, the origin begins otherwise.
        let ours = ours.or_else(|| one(headers, &ORIGIN)?.strip_prefix("https://").map(str::to_owned));
        if ours.is_none_or(|origin| !origin.eq_ignore_ascii_case(host.as_str())) {
            return Err("the request comes from another site");
        }
    }
    match one(headers, &SEC_FETCH_SITE).as_deref() {
        Some("same-origin" | "none") => Ok(()),
        None if !headers.contains_key(SEC_FETCH_SITE) => Ok(()),
        _ => Err("the request comes from another site"),
    }
}

/// The value of a header that is there once.
fn one(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| value.to_owned())
}

/// Whether a name can only mean this listener. An address cannot be rebound to another one.
fn is_ours(host: &str, hosts: &[String]) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|other| other.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_the_whole_token_opens() {
        let tokens = Tokens::new(Some(&Token("0123456789abcdef".to_owned())), &config::Admin::default());
        let opens = |value| tokens.who(&headers(&[("authorization", value)])).is_some();
        assert!(opens("Bearer 0123456789abcdef") && opens("bearer 0123456789abcdef"));
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Basic 0123456789abcdef"]
        {
            assert!(!opens(wrong), "{wrong}");
        }
    }

    #[test]
    fn requests_from_elsewhere_are_told_apart() {
        let hosts = ["waf.internal".to_owned()];
        let passes = |lines: &[(&'static str, &'static str)]| same_site(&headers(lines), None, &hosts).is_ok();
        for ours in [
            &[("host", "127.0.0.1:9090")][..],
            &[("host", "[::1]:9090")],
            &[("host", "localhost:9090"), ("origin", "http://localhost:9090"), ("sec-fetch-site", "same-origin")],
            &[("host", "waf.internal"), ("origin", "https://waf.internal"), ("sec-fetch-site", "none")],
        ] {
            assert!(passes(ours), "{ours:?}");
        }
        for theirs in [
            &[][..],
            &[("host", "attacker.example")],
            &[("host", "localhost.attacker.example:9090")],
            &[("host", "localhost"), ("host", "attacker.example")],
            &[("host", "localhost:9090"), ("origin", "http://attacker.example")],
            &[("host", "localhost:9090"), ("origin", "http://localhost:8080")],
            &[("host", "localhost:9090"), ("origin", "null")],
            &[("host", "localhost:9090"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost:9090"), ("sec-fetch-site", "same-site")],
        ] {
            assert!(!passes(theirs), "{theirs:?}");
        }
    }
}
