//! Headers on their way through: what ends at this hop, and what is added for the next one.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{
    CONNECTION, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use crate::net::Network;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Those that concern one connection only: RFC 9110, section 7.6.1.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    HTTP2_SETTINGS,
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
    let trailers = headers.get(TE).is_some_and(|te| names(te).iter().any(|name| name.eq_ignore_ascii_case("trailers")));
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

/// The elements of a list. One that is no text does not hide the others.
fn names(value: &HeaderValue) -> Vec<String> {
    String::from_utf8_lossy(value.as_bytes()).split(',').map(|name| name.trim().to_owned()).collect()
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

/// Says where a request came from, and returns the client's address. Only a trusted proxy's word of that is kept: from anyone
/// else, the headers for it are dropped, however they are spelled.
pub fn set_forwarded(
    headers: &mut HeaderMap,
    peer: IpAddr,
    trusted: &[Network],
    host: &HeaderValue,
    id: &HeaderValue,
    scheme: &'static str,
) -> IpAddr {
    let peer = peer.to_canonical();
    let trusts = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut way = Vec::new();
    if trusts(peer) {
        way = said(headers);
    } else {
        let forged: Vec<HeaderName> = headers.keys().filter(|name| tells_the_way(name.as_str())).cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }
    headers.remove(FORWARDED);
    // The last one that is no trusted proxy. What is behind an address that cannot be read is anybody's word.
    let mut client = peer;
    for earlier in way.iter().rev() {
        let Some(address) = trusts(client).then(|| address(earlier)).flatten() else { break };
        client = address;
    }
    way.push(peer.to_string());
    if let Ok(way) = HeaderValue::try_from(way.join(", ")) {
        headers.insert(X_FORWARDED_FOR, way);
    }
    if !headers.contains_key(X_FORWARDED_HOST) {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    headers.insert(X_REQUEST_ID, id.clone());
    client
}

/// The stations of a request so far, as `X-Forwarded-For` or, without it, `Forwarded` has them: a proxy that writes the one
/// passes on whatever a client has said in the other.
fn said(headers: &HeaderMap) -> Vec<String> {
    let all = |name: HeaderName| {
        let texts = headers.get_all(name).into_iter().flat_map(names).filter(|text| !text.is_empty());
        texts.map(|text| if text.is_ascii() { text } else { "unknown".to_owned() }).collect()
    };
    if headers.contains_key(X_FORWARDED_FOR) {
        return all(X_FORWARDED_FOR);
    }
    let elements: Vec<String> = all(FORWARDED);
    let stations = elements.iter().map(|element| {
        let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
            .map(|(_, value)| value.trim().trim_matches('"'))
    });
    stations.filter_map(|mut values| values.next()).map(str::to_owned).collect()
}

/// An address, perhaps with a port. One of IPv4 is one, however it is written.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.split_once(']')).map_or(text, |(address, _)| address);
    let address = bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// What servers take for a proxy's word, besides `X-Forwarded-*`: of the client, of the request that was meant.
const WORDS: [&str; 21] = [
    "forwarded",
    "proxy",
    "x-request-id",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "x-original-forwarded-for",
    "x-originating-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-host",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-http-path-override",
    "x-method-override",
    "x-middleware-subrequest",
];

/// What a request itself goes by. Nobody writes them with an underscore but to have them read by some only.
const OWN: [&str; 8] =
    ["authorization", "connection", "cookie", "host", "te", "trailer", "transfer-encoding", "upgrade"];

/// Whether servers take a header for a proxy's word, or for one that the rules look for by its name. Some take an underscore for
/// a hyphen, and programs know headers with `HTTP_` in front.
fn tells_the_way(name: &str) -> bool {
    let spelled = name.replace('_', "-");
    let bare = spelled.strip_prefix("http-").unwrap_or(&spelled);
    let disguised = name.contains('_') && (spelled.starts_with("content-") || OWN.contains(&spelled.as_str()));
    let told = ["x-forwarded", "x-envoy-"].iter().any(|start| bare.starts_with(start)) || bare.ends_with("client-ip");
    disguised || told || WORDS.contains(&bare)
}

#[cfg(test)]
mod tests {
    use super::{HeaderMap, HeaderValue, Network, end_hop, set_forwarded};

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

    fn forwarded(passing: &mut HeaderMap, peer: &str, trusted: &[&str]) -> String {
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let (host, id) = (HeaderValue::from_static("example.com"), HeaderValue::from_static("7"));
        set_forwarded(passing, peer.parse().unwrap(), &trusted, &host, &id, "http").to_string()
    }

    #[test]
    fn the_way_of_a_request_grows_by_one() {
        let mut passing =
            headers(&[("x-forwarded-for", "192.0.2.1"), ("x-request-id", "forged"), ("x-forwarded-proto", "https")]);
        assert_eq!(forwarded(&mut passing, "198.51.100.2", &["198.51.100.0/24"]), "192.0.2.1");
        assert_eq!(passing["x-forwarded-for"], "192.0.2.1, 198.51.100.2");
        assert_eq!(passing["x-forwarded-host"], "example.com");
        assert_eq!(passing["x-forwarded-proto"], "https");
        assert_eq!(passing["x-request-id"], "7");
    }

    #[test]
    fn nobody_but_a_trusted_proxy_says_where_a_request_came_from() {
        let forged = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x_forwarded_for", "192.0.2.1"),
            ("x-forwarded-prefix", "/admin"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "192.0.2.1"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("x_original_host", "internal"),
            ("cf-connecting-ip", "192.0.2.1"),
            ("x-cluster-client-ip", "192.0.2.1"),
            ("x-remote-ip", "192.0.2.1"),
            ("x-http-method-override", "DELETE"),
            ("x-http-path-override", "/admin"),
            ("x-middleware-subrequest", "middleware"),
            ("x-envoy-original-path", "/admin"),
            ("x-envoy-external-address", "192.0.2.1"),
            ("true-client-ip", "192.0.2.1"),
            ("fastly_client_ip", "192.0.2.1"),
            ("client-ip", "192.0.2.1"),
            ("http_client_ip", "192.0.2.1"),
            ("http-x-forwarded-for", "192.0.2.1"),
            ("proxy", "http://192.0.2.1"),
            ("content_type", "text/plain"),
            ("content_length", "0"),
            ("transfer_encoding", "chunked"),
            ("forwarded", "for=192.0.2.1;host=internal"),
        ];
        let mut passing = headers(&forged);
        assert_eq!(forwarded(&mut passing, "198.51.100.2", &["10.0.0.0/8"]), "198.51.100.2");
        let left = headers(&[
            ("x-forwarded-for", "198.51.100.2"),
            ("x-forwarded-host", "example.com"),
            ("x-forwarded-proto", "http"),
            ("x-request-id", "7"),
        ]);
        assert_eq!(passing, left);
    }

    #[test]
    fn what_only_looks_like_a_proxys_word_goes_on() {
        let usual = [
            ("x-tenant_id", "1"),
            ("content-type", "text/plain"),
            ("cookie", "a=b"),
            ("authorization", "a"),
            ("x_y", "1"),
        ];
        let mut passing = headers(&usual);
        forwarded(&mut passing, "198.51.100.2", &[]);
        assert!(usual.iter().all(|(name, _)| passing.contains_key(*name)), "{passing:?}");
    }

    #[test]
    fn the_client_is_the_last_one_that_no_proxy_is() {
        for (way, client) in [
            ("10.0.0.1", "10.0.0.1"),
            ("1.1.1.1, 192.0.2.1", "192.0.2.1"),
            ("1.1.1.1, 192.0.2.1, 10.0.0.1", "192.0.2.1"),
            ("1.1.1.1, unknown, 10.0.0.1", "10.0.0.1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("192.0.2.1:5000", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:443, ::ffff:10.0.0.1", "192.0.2.1"),
            ("", "10.9.9.9"),
        ] {
            assert_eq!(
                forwarded(&mut headers(&[("x-forwarded-for", way)]), "10.9.9.9", &["10.0.0.0/8"]),
                client,
                "{way}"
            );
        }
        let mut passing = headers(&[("forwarded", "for=1.1.1.1, For=\"[2001:db8::1]:80\";proto=https")]);
        assert_eq!(forwarded(&mut passing, "10.9.9.9", &["10.0.0.0/8"]), "2001:db8::1");
    }

    /// A proxy adds to what the client has sent, and passes on `Forwarded`, which it does not know.
    #[test]
    fn no_byte_in_one_header_makes_another_one_count() {
        for way in [&b"\xff, 192.0.2.1"[..], b"192.0.2.1\xff", b"\xc3\xa9", b"", b" , "] {
            let mut passing = headers(&[("forwarded", "for=203.0.113.9")]);
            passing.insert("x-forwarded-for", HeaderValue::from_bytes(way).unwrap());
            let expected = if way.ends_with(b", 192.0.2.1") { "192.0.2.1" } else { "10.9.9.9" };
            assert_eq!(forwarded(&mut passing, "10.9.9.9", &["10.0.0.0/8"]), expected, "{way:?}");
            assert!(!passing.contains_key("forwarded"));
            assert!(passing["x-forwarded-for"].to_str().unwrap().ends_with("10.9.9.9"), "{passing:?}");
        }
        let mut passing = headers(&[("x-private", "1")]);
        passing.insert("connection", HeaderValue::from_bytes(b"x-private, \xff").unwrap());
        end_hop(&mut passing);
        assert!(passing.is_empty(), "{passing:?}");
    }

    #[test]
    fn a_peer_of_a_listener_for_both_has_its_own_address() {
        let mut passing = headers(&[]);
        assert_eq!(forwarded(&mut passing, "::ffff:198.51.100.2", &[]), "198.51.100.2");
        assert_eq!(passing["x-forwarded-for"], "198.51.100.2");
        let mut passing = headers(&[("x-forwarded-for", "192.0.2.1")]);
        assert_eq!(forwarded(&mut passing, "::ffff:10.0.0.1", &["10.0.0.0/8"]), "192.0.2.1");
    }
}
