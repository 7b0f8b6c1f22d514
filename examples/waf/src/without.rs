//! A request without one of its parts, as decisions name them: what is left is inspected when a part is excepted from a rule.

use hyper::Uri;
use hyper::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

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
            _ if part == "body" => self.is_only_text() && !std::mem::take(&mut self.body).is_empty(),
            _ if part == "path" => self.remove_path(),
            _ => false,
        }
    }

    fn remove_header(&mut self, name: &str) -> bool {
        let Ok(name) = name.to_ascii_lowercase().parse::<HeaderName>() else { return false };
        // Without one of these, other parts of the request are gone, or become others.
        if [CONTENT_TYPE, COOKIE].contains(&name) {
            return false;
        }
        self.headers.remove(name).is_some()
    }

    fn remove_path(&mut self) -> bool {
        if self.target.path() == "/" {
            return false;
        }
        let target = match self.target.query() {
            Some(query) => format!("/?{query}"),
            None => "/".to_owned(),
        };
        match target.parse::<PathAndQuery>() {
            Ok(target) => {
                self.target = Uri::from(target);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the body is one text, and has no other parts in it.
    fn is_only_text(&self) -> bool {
        let mut kinds = self.headers.get_all(CONTENT_TYPE).iter();
        let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
        let kind = kind.as_bytes().to_ascii_lowercase();
        let kind = kind.split(|byte| b";,".contains(byte)).next().unwrap_or_default().trim_ascii();
        kind == b"text/plain" && !matches!(self.body.trim_ascii_start().first(), Some(b'{' | b'['))
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
        // What is written down anew must not lack anything else that was there.
        let Ok(Unambiguous(mut value)) = serde_json::from_slice(&self.body) else { return false };
        if remove_key(&mut value, name) != Some(true) {
            return false;
        }
        let Ok(body) = serde_json::to_vec(&value) else { return false };
        self.body = body;
        true
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

/// Takes out all members of this name, and says whether there were any; `None` if one of them has members of its own, which are
/// other parameters.
fn remove_key(value: &mut Value, name: &str) -> Option<bool> {
    let mut removed = false;
    match value {
        Value::Object(members) => {
            if let Some(member) = members.remove(name) {
                removed = true;
                match member {
                    Value::Object(_) => return None,
                    Value::Array(list) if list.iter().any(|value| value.is_object() || value.is_array()) => {
                        return None;
                    }
                    _ => {}
                }
            }
            for member in members.values_mut() {
                removed |= remove_key(member, name)?;
            }
        }
        Value::Array(list) => {
            for member in list {
                removed |= remove_key(member, name)?;
            }
        }
        _ => {}
    }
    Some(removed)
}

/// JSON in which no object has two members of the same name.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unambiguous, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Unambiguous)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unambiguous(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((name, Unambiguous(value))) = members.next_entry::<String, _>()? {
            if values.insert(name, value).is_some() {
                return Err(A::Error::custom("two members have the same name"));
            }
        }
        Ok(values.into())
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
        assert!(!form.remove("arg:q") && !form.remove("file:q") && !form.remove("header:x-none"));
        assert!(form.remove("path") && !form.remove("path"));
        assert_eq!(form.target.to_string(), "/?a=1");
        assert!(form.remove("cookie:session"));
        assert_eq!(form.headers[COOKIE], "a=1");
        let mut json = rest("/s", "application/json", r#"{"x": [{"q": 1, "y": 2}]}"#);
        assert!(json.remove("arg:q"));
        assert_eq!(json.body, br#"{"x":[{"y":2}]}"#);
        let mut list = rest("/s", "application/json", r#"{"q": ["a", 1, null], "y": 2.5}"#);
        assert!(list.remove("arg:q"));
        assert_eq!(list.body, br#"{"y":2.5}"#);
    }

    #[test]
    fn nothing_is_taken_out_that_takes_other_parts_with_it() {
        for body in [
            r#"{"q": "a", "p": "b", "p": "x"}"#,
            r#"{"q": "a", "q": "b"}"#,
            r#"{"x": [{"p": 1, "p": 2}], "q": "a"}"#,
            r#"{"q": ["a", {"p": "b"}]}"#,
            r#"{"q": {"p": "b"}}"#,
            r#"{"q": [["a"]]}"#,
        ] {
            let mut json = rest("/s", "application/json", body);
            assert!(!json.remove("arg:q"), "{body}");
            assert_eq!(json.body, body.as_bytes());
        }
        for (kind, body) in [
            ("text/plain", r#"{"p": "b"}"#),
            ("application/x-www-form-urlencoded", "p=b"),
            ("application/json", "1"),
            ("application/octet-stream", "p=b"),
        ] {
            assert!(!rest("/s", kind, body).remove("body"), "{kind}");
        }
        assert!(rest("/s", "text/plain; charset=utf-8", "p=b").remove("body"));
        let mut headers = rest("/s", "text/plain", "a");
        assert!(!headers.remove("header:content-type") && !headers.remove("header:cookie"));
    }
}
