//! What `Authorization` and `Proxy-Authorization` have in them: RFC 9110, section 11.4.

use super::{Part, Place, split};
use crate::decode;

pub(super) fn each(name: &str, value: &[u8], see: &mut dyn FnMut(Part) -> bool) -> bool {
    let (scheme, rest) = split(value.trim_ascii(), b' ');
    let token = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"basic") {
        let decoded = decode::base64(token).unwrap_or_else(|| loosely(token));
        let (user, password) = split(&decoded, b':');
        let mut given = [user, password].into_iter().filter(|text| !text.is_empty());
        if !given.all(|text| see(Part::new(Place::Arg, "authorization", decode::text(text)))) {
            return false;
        }
    }
    let plain = is_word(scheme) && is_token(token);
    if plain {
        // Only noise would be found in it. Dynamic rules see it.
        see(Part::new(Place::Host, name, decode::text(value)))
    } else {
        see(Part::new(Place::Header, name, decode::text(&decode::percent(value))))
    }
}

/// What decoders make of it that leave out whatever is no base64.
fn loosely(token: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = token
        .iter()
        .filter_map(|byte| match byte {
            b'-' => Some(b'+'),
            b'_' => Some(b'/'),
            _ => (byte.is_ascii_alphanumeric() || b"+/".contains(byte)).then_some(*byte),
        })
        .collect();
    decode::base64(&digits).unwrap_or_default()
}

fn is_word(scheme: &[u8]) -> bool {
    !scheme.is_empty() && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
}

/// Whether it is what the standard calls `token68`, and no path.
fn is_token(token: &[u8]) -> bool {
    let digits = token.trim_ascii_end();
    let padding = digits.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = digits.get(..digits.len() - padding).unwrap_or_default();
    let usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    !digits.is_empty() && digits.iter().all(usual) && !digits.windows(3).any(|window| window == b"../")
}

#[cfg(test)]
#[test]
fn credentials_are_told_from_what_only_stands_in_their_place() {
    let read = |value: &str| {
        let mut seen = Vec::new();
        each("authorization", value.as_bytes(), &mut |part| {
            seen.push(format!("{:?} {}", part.place, part.text));
            true
        });
        seen
    };
    assert_eq!(read("Bearer a.b-c_d~e+f/g=="), ["Host Bearer a.b-c_d~e+f/g=="]);
    assert_eq!(read("Basic dXNlcjpwYTpzcw=="), ["Arg user", "Arg pa:ss", "Host Basic dXNlcjpwYTpzcw=="]);
    assert_eq!(read("basic  dXN.lcjpw"), ["Arg user", "Arg p", "Host basic  dXN.lcjpw"]);
    for other in ["secret", "Bearer", "Bearer a b", "Bearer ../../etc/passwd", "Bearer =", "' OR", "Digest a=b"] {
        assert_eq!(read(other), [format!("Header {other}")]);
    }
}
