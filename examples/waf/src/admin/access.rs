//! Who may do what: every request to the admin listener has to pass here first.
//!
//! What changes something needs the token. And a browser must not be talked into anything by a page of somebody else:
//! a name in `Host` that is not the listener's (DNS rebinding), an `Origin` that is another, or a browser's own word
//! that the request crosses sites are refused, whatever the request wants.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::Admin;
use super::answers::refusal;
use crate::config::Token;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets a request on, or answers it.
pub async fn check(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if let Err(problem) = same_site(request.headers(), request.uri().authority(), &admin.hosts) {
        return refusal(StatusCode::FORBIDDEN, problem).into_response();
    }
    if !request.method().is_safe() && !may_change(request.headers(), admin.token.as_ref()) {
        let mut answer =
            refusal(StatusCode::UNAUTHORIZED, "this needs the token: Authorization: Bearer …").into_response();
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"waf\""));
        return answer;
    }
    next.run(request).await
}

/// Without a token, whoever reaches the listener may: the configuration grants that on loopback only.
fn may_change(headers: &HeaderMap, token: Option<&Token>) -> bool {
    token.is_none_or(|token| is_authorized(headers, token.0.as_bytes()))
}

fn is_authorized(headers: &HeaderMap, token: &[u8]) -> bool {
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let Some((scheme, given)) = given.split_at_checked("bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(given.ct_eq(token))
}

fn same_site(headers: &HeaderMap, authority: Option<&Authority>, hosts: &[String]) -> Result<(), &'static str> {
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
        let opens = |value| is_authorized(&headers(&[("authorization", value)]), b"0123456789abcdef");
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
