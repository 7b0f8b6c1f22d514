//! Headers with a grammar so narrow, or content so random, that only noise would be found in them: as long as there is nothing
//! in them but what their grammar needs.

const QUIET: [&str; 13] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-length",
    "host",
    "if-none-match",
    "keep-alive",
    "pragma",
    "te",
    "transfer-encoding",
];

/// Headers in which proxies hand on names and addresses: every request behind one has them.
const FORWARDED: [&str; 6] =
    ["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip", "x-request-id"];

/// Words that a browser's name is made of at most.
const LONGEST_BRAND: usize = 3;

/// Whether a header has nothing in it but what its narrow grammar needs.
pub(super) fn is_quiet(name: &str, value: &[u8]) -> bool {
    if FORWARDED.contains(&name) {
        return is_list_of_addresses(value);
    }
    let Some(value) = std::str::from_utf8(value).ok().filter(|value| value.is_ascii()) else { return false };
    match name {
        "sec-websocket-key" => is_key(value),
        _ if name.starts_with("sec-ch-ua") => is_list_of_brands(value),
        _ => (QUIET.contains(&name) || name.starts_with("sec-")) && value.split([',', ';']).all(is_item),
    }
}

/// Whether a value is a list of names and addresses: there is a space only behind a comma, so no two words stand together.
fn is_list_of_addresses(value: &[u8]) -> bool {
    let is_address = |item: &[u8]| item.iter().all(|byte| byte.is_ascii_alphanumeric() || b".:-_[]".contains(byte));
    value.split(|byte| *byte == b',').all(|item| is_address(item.strip_prefix(b" ").unwrap_or(item)))
}

/// Whether a piece of a list is one plain word, number or type, or has one behind its name or in quotes: nothing in it leads
/// anywhere, and no two words stand together.
fn is_item(piece: &str) -> bool {
    let piece = piece.trim();
    let (name, value) = match piece.split_once('"') {
        Some((name, quoted)) => match quoted.strip_suffix('"') {
            Some(value) => (name, value),
            None => return false,
        },
        None => ("", piece),
    };
    // The mark of a weak ETag, or the name of a parameter.
    let named = match name.strip_suffix('=') {
        Some(name) => name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
        None => matches!(name, "" | "W/"),
    };
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._+:-=?~*/".contains(&byte);
    named && value.bytes().all(usual) && !value.contains("..") && is_type(value)
}

/// Whether the slash and the star in a text, if there are any, make a type of it, such as `text/html`, `image/*` or `*/*`.
fn is_type(text: &str) -> bool {
    let alone = |half: &str| !half.contains(['/', '*']);
    match text.split_once('/') {
        None => text == "*" || alone(text),
        Some(("*", sub)) => sub == "*",
        Some((main, "*")) => alone(main) && main.ends_with(|c: char| c.is_ascii_alphanumeric()),
        Some((main, sub)) => {
            alone(main)
                && alone(sub)
                && main.ends_with(|c: char| c.is_ascii_alphanumeric())
                && sub.starts_with(|c: char| c.is_ascii_alphanumeric())
        }
    }
}

/// Whether a value is sixteen bytes in base64.
fn is_key(value: &str) -> bool {
    let digits = value.trim().strip_suffix("==").unwrap_or_default();
    digits.len() == 22 && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
}

/// Whether a value is a list of what browsers say of themselves: texts in quotes with parameters, or a plain word.
fn is_list_of_brands(value: &str) -> bool {
    // What stands in front of the quote, and with that what may follow.
    let mut last = None;
    let mut apart = false;
    for (index, piece) in value.split('"').enumerate() {
        if index % 2 == 1 {
            // A text begins an item, or is a parameter's value.
            if !matches!(last, None | Some(b',' | b'=')) || !is_brand(piece) {
                return false;
            }
            (last, apart) = (Some(b'"'), false);
            continue;
        }
        for byte in piece.bytes() {
            match byte {
                b' ' => {
                    apart = true;
                    continue;
                }
                b',' | b';' => {}
                _ if apart && !matches!(last, None | Some(b',' | b';')) || last == Some(b'"') => return false,
                b'=' | b'?' | b'.' => {}
                _ if byte.is_ascii_alphanumeric() => {}
                _ => return false,
            }
            (last, apart) = (Some(byte), false);
        }
    }
    value.split('"').count() % 2 == 1
}

/// Whether a text is the name of a browser, a system or a version, or the made-up name with which browsers keep servers from
/// taking those for granted: `Not/A)Brand`.
fn is_brand(text: &str) -> bool {
    let letters = text.bytes().filter(u8::is_ascii_alphabetic);
    if letters.map(|byte| byte.to_ascii_lowercase()).eq(*b"notabrand") {
        return text.len() <= "not a brand".len() + 2
            && text.bytes().all(|byte| byte.is_ascii_alphabetic() || b" (:-./);=?_,".contains(&byte));
    }
    text.split(' ').count() <= LONGEST_BRAND
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" .-_+()".contains(&byte))
        && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::is_quiet;

    #[test]
    fn what_browsers_send_is_quiet() {
        for (name, value) in [
            ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"),
            ("accept", "application/signed-exchange;v=b3;q=0.7, image/*, application/vnd.x.v1+json"),
            ("accept", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"),
            ("accept", "*/*"),
            ("accept", ""),
            ("accept-encoding", "gzip, deflate, br, zstd"),
            ("accept-language", "de-CH, de;q=0.9, *;q=0.5"),
            ("cache-control", "max-age=0, no-cache"),
            ("connection", "keep-alive, Upgrade"),
            ("host", "example.com:8080"),
            ("if-none-match", "W/\"67ab43\", \"54ed21\", \"a/b+c==\", *"),
            ("keep-alive", "timeout=5, max=100"),
            ("te", "trailers, deflate;q=0.5"),
            ("sec-fetch-user", "?1"),
            ("sec-fetch-site", "same-origin"),
            ("sec-purpose", "prefetch;prerender"),
            ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-key", "a+/lIHNhbXBsZSBub25jZQ=="),
            ("sec-ch-ua", "\"Chromium\";v=\"130\", \"Google Chrome\";v=\"130\", \"Not?A_Brand\";v=\"99\""),
            ("sec-ch-ua", "\" Not A;Brand\";v=\"99\", \"Microsoft Edge WebView2\";v=\"96\""),
            ("sec-ch-ua", "\"Not/A)Brand\";v=\"8\", \"Not(A:Brand\";v=\"24.0.0.0\" , \"Not=A?Brand\"; v=\"1\""),
            ("sec-ch-ua", "\"(Not(A:Brand\";v=\"8\""),
            ("sec-ch-ua-mobile", "?0"),
            ("sec-ch-ua-platform", "\"Chrome OS\""),
            ("sec-ch-ua-platform-version", "\"15.0.0\""),
            ("sec-ch-ua-model", "\"\""),
            ("sec-ch-ua-model", "\"SM-S918B\""),
        ] {
            assert!(is_quiet(name, value.as_bytes()), "{name}: {value}");
        }
    }

    #[test]
    fn what_says_more_is_not() {
        for (name, value) in [
            ("accept-language", "../../../../../../etc/passwd"),
            ("accept-language", "/etc/passwd"),
            ("accept-language", "1 UNION SELECT password FROM users"),
            ("accept-language", "php://filter/read=convert.base64-encode/resource=index"),
            ("accept", "1 AND sleep(10)"),
            ("accept", "*/x"),
            ("accept", "a/**/b"),
            ("accept", "te*t"),
            ("if-none-match", "\"../../../../etc/passwd\""),
            ("if-none-match", "\"or\"1\"=\"1\""),
            ("if-none-match", "W/\"/etc/passwd\""),
            ("if-none-match", "\"a"),
            ("cache-control", "x\"=\"y z\""),
            ("te", "caf\u{e9}"),
            ("sec-foo", "../../../../../../etc/passwd"),
            ("sec-websocket-key", "1 or 1=1"),
            ("sec-websocket-key", "../../../../etc/passwd=="),
            ("sec-ch-ua", "1 UNION SELECT password FROM users"),
            ("sec-ch-ua", "\"1 UNION SELECT password FROM users\""),
            ("sec-ch-ua", "\"a\";v=\"1\" or \"a\"=\"a\""),
            ("sec-ch-ua", "\"a\"or\"a\""),
            ("sec-ch-ua", "1\"or\"1"),
            ("sec-ch-ua", "\"../../etc/passwd\""),
            ("sec-ch-ua", "\"http://evil.example\""),
            ("sec-ch-ua", "\";id\""),
            ("sec-ch-ua", "\"a"),
            ("accept-charsets", "utf-8"),
        ] {
            assert!(!is_quiet(name, value.as_bytes()), "{name}: {value}");
        }
    }
}
