//! A request without one of its parts, as decisions name them: what is left is inspected when a part is excepted from a rule.

use hyper::Uri;
use hyper::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;

/// What of a request can be left out.
#[derive(Clone)]
pub struct Rest {
    pub target: Uri,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Rest {
    /// Takes a part out. Returns whether it could be.
    pub fn remove(&mut self, part: &str) -> bool {
        match part.split_once(':') {
            Some(("header", name)) => self.remove_header(name),
            Some(("cookie", name)) => self.remove_cookie(name),
            Some(("arg", name)) => {
                // In the query and in the body: which of the two is not said.
                let query = self.remove_from_query(name);
                let body = self.remove_from_body(name);
                query || body
            }
            _ if part == "body" => !std::mem::take(&mut self.body).is_empty(),
            _ => false,
        }
    }

    fn remove_header(&mut self, name: &str) -> bool {
        let name = name.to_ascii_lowercase().parse::<HeaderName>();
        name.is_ok_and(|name| self.headers.remove(name).is_some())
    }

    fn remove_cookie(&mut self, name: &str) -> bool {
        let kept = |header: &HeaderValue| {
            let text = String::from_utf8_lossy(header.as_bytes()).into_owned();
            let kept: Vec<_> =
                text.split(';').filter(|pair| pair.split('=').next().unwrap_or_default().trim() != name).collect();
            (kept.len() < text.split(';').count()).then(|| kept.join(";"))
        };
        let headers: Vec<HeaderValue> = self.headers.get_all(COOKIE).iter().cloned().collect();
        let mut removed = false;
        self.headers.remove(COOKIE);
        for header in headers {
            let header = match kept(&header) {
                Some(text) => {
                    removed = true;
                    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
                }
                None => header,
            };
            self.headers.append(COOKIE, header);
        }
        removed
    }

    fn remove_from_query(&mut self, name: &str) -> bool {
        let Some(query) = self.target.query() else { return false };
        let Some(kept) = without(query, name) else { return false };
        let target = format!("{}?{kept}", self.target.path());
        match target.parse::<PathAndQuery>() {
            Ok(target) => {
                self.target = Uri::from(target);
                true
            }
            Err(_) => false,
        }
    }

    fn remove_from_body(&mut self, name: &str) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase()).unwrap_or_default();
        if kind.starts_with(b"application/x-www-form-urlencoded") {
            let kept = std::str::from_utf8(&self.body).ok().and_then(|body| without(body, name));
            return kept.map(|kept| self.body = kept.into_bytes()).is_some();
        }
        if !kind.starts_with(b"application/json") {
            return false;
        }
        let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(&self.body) else { return false };
        let removed = remove_key(&mut value, name);
        if removed && let Ok(body) = serde_json::to_vec(&value) {
            self.body = body;
        }
        removed
    }
}

/// The pairs of a query or a form without those of this name; `None` if there are none.
fn without(pairs: &str, name: &str) -> Option<String> {
    let all = pairs.split('&').count();
    let kept: Vec<_> =
        pairs.split('&').filter(|pair| unescaped(pair.split('=').next().unwrap_or_default()) != name).collect();
    (kept.len() < all).then(|| kept.join("&"))
}

fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        let escaped = || u8::from_str_radix(std::str::from_utf8(more.get(..2)?).ok()?, 16).ok();
        match (byte, if byte == b'%' { escaped() } else { None }) {
            (_, Some(meant)) => {
                bytes.push(meant);
                rest = &more[2..];
            }
            (b'+', None) => {
                bytes.push(b' ');
                rest = more;
            }
            _ => {
                bytes.push(byte);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Takes out all members of this name.
fn remove_key(value: &mut serde_json::Value, name: &str) -> bool {
    match value {
        serde_json::Value::Object(members) => {
            let removed = members.remove(name).is_some();
            members.values_mut().fold(removed, |removed, member| remove_key(member, name) || removed)
        }
        serde_json::Value::Array(list) => {
            // All of them, and not only until one is found.
            let mut removed = false;
            for member in list {
                removed |= remove_key(member, name);
            }
            removed
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(target: &str, kind: &'static str, body: &str) -> Rest {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(COOKIE, HeaderValue::from_static("a=1; session=2"));
        Rest { target: target.parse().unwrap(), headers, body: body.into() }
    }

    #[test]
    fn a_part_is_taken_out_and_the_rest_stays() {
        let mut form = rest("/s?a=1&%71=2&q=3", "application/x-www-form-urlencoded", "q=4&b=5");
        assert!(form.remove("arg:q"));
        assert_eq!((form.target.to_string().as_str(), &form.body[..]), ("/s?a=1", &b"b=5"[..]));
        assert!(!form.remove("arg:q") && !form.remove("path") && !form.remove("header:x-none"));
        assert!(form.remove("cookie:session"));
        assert_eq!(form.headers[COOKIE], "a=1");
        let mut json = rest("/s", "application/json", r#"{"x": [{"q": 1, "y": 2}]}"#);
        assert!(json.remove("arg:q"));
        assert_eq!(json.body, br#"{"x":[{"y":2}]}"#);
    }
}
