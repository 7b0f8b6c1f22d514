//! Headers on their way through: what ends at this hop, and what is added for the next one.

use std::net::IpAddr;

use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Those that concern one connection only: RFC 9110, section 7.6.1.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Takes out what concerns the connection it came on.
pub fn end_hop(headers: &mut HeaderMap) {
    let trailers = headers.get(TE).is_some_and(|te| names(te).any(|name| name.eq_ignore_ascii_case("trailers")));
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(names)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        // A client must not be able to take out what the proxy or the upstream relies on.
        .filter(|name| *name != HOST && !name.as_str().starts_with("x-forwarded-"))
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn names(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim)
}

/// The protocol that a request or an answer wants to change to.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers.get_all(CONNECTION).iter().flat_map(names).any(|name| name.eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asked).cloned()
}

/// Asks for, or grants, a change of protocol.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Says where a request came from. What the client itself said of its way is kept in front.
pub fn set_forwarded(headers: &mut HeaderMap, peer: IpAddr, host: Option<&HeaderValue>, id: &HeaderValue) {
    let mut way: Vec<u8> = Vec::new();
    for earlier in headers.get_all(X_FORWARDED_FOR) {
        way.extend_from_slice(earlier.as_bytes());
        way.extend_from_slice(b", ");
    }
    way.extend_from_slice(peer.to_string().as_bytes());
    if let Ok(way) = HeaderValue::from_bytes(&way) {
        headers.insert(X_FORWARDED_FOR, way);
    }
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.insert(X_REQUEST_ID, id.clone());
}

#[cfg(test)]
mod tests {
    use super::{HeaderMap, HeaderValue, end_hop, set_forwarded};

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_concerns_one_connection_ends_here() {
        let mut passing = headers(&[
            ("host", "example.com"),
            ("connection", "keep-alive, x-private, host, x-forwarded-for"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers, deflate"),
            ("x-private", "1"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-public", "2"),
        ]);
        end_hop(&mut passing);
        let left = headers(&[
            ("host", "example.com"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-public", "2"),
            ("te", "trailers"),
        ]);
        assert_eq!(passing, left);
    }

    #[test]
    fn the_way_of_a_request_grows_by_one() {
        let mut passing = headers(&[("x-forwarded-for", "192.0.2.1"), ("x-request-id", "forged")]);
        let (host, id) = (HeaderValue::from_static("example.com"), HeaderValue::from_static("7"));
        set_forwarded(&mut passing, [198, 51, 100, 2].into(), Some(&host), &id);
        assert_eq!(passing["x-forwarded-for"], "192.0.2.1, 198.51.100.2");
        assert_eq!(passing["x-forwarded-host"], "example.com");
        assert_eq!(passing["x-forwarded-proto"], "http");
        assert_eq!(passing["x-request-id"], "7");
    }
}
