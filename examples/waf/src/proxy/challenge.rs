//! The challenge: a page that only a browser gets past, and the sign by which it is known afterwards.
//!
//! The page runs a script that turns a word around and keeps it as a cookie. The word is a moment, and a keyed hash of
//! it with the client's address and program: nobody but this node can make one, and it is of no use to anyone else.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Response, StatusCode};
use subtle::ConstantTimeEq;

use crate::body::{Body, full};

/// How long a client is not asked again.
const VALID: Duration = Duration::from_secs(30 * 60);
const PAGE: &str = include_str!("challenge.html");
const COOKIE_NAME: &str = "waf_challenge=";

pub struct Challenge {
    /// New with every start of the node.
    key: [u8; 32],
}

impl Challenge {
    pub fn new() -> Challenge {
        Challenge { key: rand::random() }
    }

    /// Whether this client has been through it.
    pub fn is_passed(&self, client: IpAddr, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
        cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().strip_prefix(COOKIE_NAME))
            .any(|word| self.is_good(word, client, headers))
    }

    fn is_good(&self, word: &str, client: IpAddr, headers: &HeaderMap) -> bool {
        let Some(until) = word.split('.').next().and_then(|until| until.parse().ok()) else { return false };
        let genuine: bool = self.word(until, client, headers).as_bytes().ct_eq(word.as_bytes()).into();
        genuine && until > now()
    }

    /// The page, with a word for this client in it.
    pub fn page(&self, client: IpAddr, headers: &HeaderMap) -> Response<Body> {
        let word = self.word(now() + VALID.as_secs(), client, headers);
        let turned: String = word.chars().rev().collect();
        let nonce = format!("{:032x}", rand::random::<u128>());
        let page = PAGE.replace("{nonce}", &nonce).replace("{word}", &turned);
        let policy = format!("default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'");
        let mut answer = Response::new(full(page));
        *answer.status_mut() = StatusCode::FORBIDDEN;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::try_from(policy).expect("hexadecimal digits"));
        answer
    }

    fn word(&self, until: u64, client: IpAddr, headers: &HeaderMap) -> String {
        let mut hash = blake3::Hasher::new_keyed(&self.key);
        hash.update(&until.to_le_bytes());
        hash.update(client.to_string().as_bytes());
        hash.update(&[0]);
        hash.update(headers.get(USER_AGENT).map_or(b"", |program| program.as_bytes()));
        format!("{until}.{}", hash.finalize().to_hex())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::{Challenge, HeaderMap, HeaderValue, USER_AGENT, now};

    #[test]
    fn a_word_is_good_for_one_client_and_for_some_time() {
        let (challenge, client) = (Challenge::new(), [192, 0, 2, 1].into());
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("browser"));
        let word = challenge.word(now() + 60, client, &headers);
        let cookie = |word: &str| HeaderValue::try_from(format!("theme=dark; waf_challenge={word}")).unwrap();
        headers.insert("cookie", cookie(&word));
        assert!(challenge.is_passed(client, &headers));
        assert!(!challenge.is_passed([192, 0, 2, 2].into(), &headers));
        assert!(!Challenge::new().is_passed(client, &headers));
        headers.insert("cookie", cookie(&challenge.word(now() - 1, client, &headers)));
        assert!(!challenge.is_passed(client, &headers));
    }
}
