//! A request as it arrives: refused if it is malformed, and otherwise made into what is inspected and sent. Nothing of it changes
//! after the rules have seen it.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, Uri};
use hyper::{Method, Version};

use super::headers::{end_hop, set_forwarded, set_upgrade, upgrade};
use crate::listen::Peer;
use crate::net::Network;

/// What was found out about a request.
pub struct Arrival {
    /// The host that it is for.
    pub host: String,
    /// The client's address, as far as the trusted proxies say.
    pub client: IpAddr,
    /// Whether it asks to go on as a websocket. No other protocol passes: whatever is spoken then is not inspected.
    pub websocket: bool,
}

/// The longest method. Those that there are have 17 letters at most.
const LONGEST_METHOD: usize = 32;

/// Makes a request ready to be inspected and sent. An error says what is wrong with it.
pub fn arrive(parts: &mut Parts, peer: &Peer, trusted: &[Network], id: &HeaderValue) -> Result<Arrival, &'static str> {
    if parts.method.as_str().len() > LONGEST_METHOD {
        return Err("the method is too long");
    }
    let host = host(parts)?;
    let target = parts.uri.path_and_query().ok_or("the target has no path")?.clone();
    if !target.as_str().starts_with('/') {
        return Err("the target is no path");
    }
    parts.uri = Uri::from(target);
    let wanted = upgrade(&parts.headers);
    let websocket = parts.version == Version::HTTP_11
        && parts.method == Method::GET
        && wanted.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && !parts.headers.contains_key(TRANSFER_ENCODING)
        && parts.headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0");
    end_hop(&mut parts.headers);
    join_cookies(&mut parts.headers);
    let client = set_forwarded(
        &mut parts.headers,
        peer.address.ip(),
        trusted,
        &host,
        id,
        if peer.tls { "https" } else { "http" },
    );
    let name = host.to_str().unwrap_or_default().to_owned();
    parts.headers.insert(HOST, host);
    if websocket {
        set_upgrade(&mut parts.headers, HeaderValue::from_static("websocket"));
    }
    Ok(Arrival { host: name, client, websocket })
}

/// Makes one header of those for cookies, of which HTTP/2 may have several: RFC 9113, section 8.2.3. Of several, some servers read
/// only one.
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// The host that a request is for: RFC 9112, section 3.2, and RFC 9113, section 8.3.1. Where two could be meant, servers differ.
fn host(parts: &Parts) -> Result<HeaderValue, &'static str> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (header, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err("there is more than one Host");
    }
    let authority = parts.uri.authority().map(Authority::as_str);
    if parts.uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err("the target's scheme is not http or https");
    }
    let host = match (header, authority) {
        (Some(header), None) => header.to_str().map_err(|_| "Host is malformed")?,
        (None, Some(authority)) if parts.version == Version::HTTP_2 => authority,
        (Some(header), Some(authority)) if header.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => authority,
        (Some(_), Some(_)) => return Err("Host and target name different hosts"),
        (None, _) => return Err("there is no Host"),
    };
    if !is_host(host) {
        return Err("Host is malformed");
    }
    HeaderValue::from_str(host).map_err(|_| "Host is malformed")
}

/// A name or an address, and perhaps a port.
fn is_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let (name, port) = (authority.host(), &host[authority.host().len().min(host.len())..]);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let known = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
    };
    // A sign in front of a number is one to some parsers, and not to others.
    let digits = port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    known && !name.is_empty() && (port.is_empty() || digits && authority.port_u16().is_some())
}

#[cfg(test)]
#[test]
fn hosts_are_names_and_addresses() {
    for host in ["a", "example.com", "example.com:80", "192.0.2.1:8080", "[2001:db8::1]", "[::1]:443", "a_b.c"] {
        assert!(is_host(host), "{host}");
    }
    for host in [
        "",
        ":80",
        "a:",
        "a:b",
        "a:+80",
        "a:-80",
        "a: 80",
        "[::1]:+80",
        "a:99999",
        "a@b",
        "user:pw@b",
        "a b",
        "a/b",
        "a?b",
        "a,b",
        "[::1",
        "[a]",
        "::1",
        "a%62",
    ] {
        assert!(!is_host(host), "{host}");
    }
}

#[cfg(test)]
#[test]
fn several_cookie_headers_become_one() {
    let mut headers = HeaderMap::new();
    for value in [&b"a=b"[..], b"c=\xff; d=e", b"f"] {
        headers.append(COOKIE, HeaderValue::from_bytes(value).unwrap());
    }
    join_cookies(&mut headers);
    let all: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(all, [b"a=b; c=\xff; d=e; f"]);
}
