//! What of a request says which version judges it, so that a client always meets the same one.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{COOKIE, HeaderName};
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::net::customer;

/// Where the key is taken from. Without a cookie or header that is asked for, it is the client's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sticky {
    #[default]
    Client,
    Cookie(String),
    Header(HeaderName),
}

/// The key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Client(IpAddr),
    Value(Vec<u8>),
}

impl Sticky {
    pub fn of(&self, headers: &HeaderMap, client: IpAddr) -> Key {
        let value = match self {
            Sticky::Client => None,
            Sticky::Cookie(name) => cookie(headers, name),
            Sticky::Header(name) => headers.get(name).map(|value| value.as_bytes().to_vec()),
        };
        value.filter(|value| !value.is_empty()).map_or(Key::Client(client), Key::Value)
    }
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let cookies = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let named =
        |cookie: &[u8]| cookie.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec);
    cookies.into_iter().find_map(named)
}

impl Key {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Key::Client(client) => match customer(*client) {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(network) => network.octets().to_vec(),
            },
            Key::Value(value) => value.clone(),
        }
    }
}

impl<'de> Deserialize<'de> for Sticky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sticky, D::Error> {
        let text = String::deserialize(deserializer)?;
        let sticky = match text.split_once(':') {
            None if text == "client" => Some(Sticky::Client),
            Some(("cookie", name)) => name.parse::<HeaderName>().ok().map(|_| Sticky::Cookie(name.to_owned())),
            Some(("header", name)) => name.parse().ok().map(Sticky::Header),
            _ => None,
        };
        sticky.ok_or_else(|| {
            D::Error::custom(format!("{text:?} tells no clients apart: write client, cookie:NAME or header:NAME"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_what_was_asked_for_or_by_its_address() {
        let headers: HeaderMap = [("cookie", "a=1; session=s3"), ("x-user", "u")]
            .into_iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        let client = [192, 0, 2, 1].into();
        let of = |text: &str| {
            let sticky: Sticky = serde_json::from_value(text.into()).unwrap();
            sticky.of(&headers, client)
        };
        assert_eq!(of("client"), Key::Client(client));
        assert_eq!(of("cookie:session"), Key::Value(b"s3".to_vec()));
        assert_eq!(of("header:X-User"), Key::Value(b"u".to_vec()));
        assert_eq!(of("cookie:sess"), Key::Client(client));
        let (one, other) = ("2001:db8::1", "2001:db8::2:3:4:5");
        let key = |address: &str| Key::Client(address.parse().unwrap()).bytes();
        assert_eq!(key(one), key(other));
        assert_ne!(key(one), key("2001:db8:0:1::1"));
        for text in ["", "cookie", "cookie:", "header:a b", "address"] {
            assert!(serde_json::from_value::<Sticky>(text.into()).is_err(), "{text}");
        }
    }
}
