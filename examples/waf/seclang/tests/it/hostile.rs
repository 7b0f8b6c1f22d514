//! Hostile bytes. The engine is somebody else's code: whatever comes, there is a verdict.

use proptest::collection::vec;
use proptest::prelude::*;
use seclang_waf::Rules;
use waf_interface::Request;

use crate::support::{EXAMPLE, Sent, rules};

/// Has each transformation and each detector of the engine look at everything.
fn everything() -> Rules {
    let transformations = [
        "urlDecode",
        "urlDecodeUni",
        "base64Decode",
        "base64DecodeExt",
        "hexDecode",
        "htmlEntityDecode",
        "jsDecode",
        "cssDecode",
        "base64Encode",
        "hexEncode",
        "urlEncode",
        "lowercase",
        "uppercase",
        "compressWhitespace",
        "removeWhitespace",
        "removeNulls",
        "replaceNulls",
        "trim",
        "trimLeft",
        "trimRight",
        "normalizePath",
        "normalizePathWin",
        "removeComments",
        "replaceComments",
        "cmdLine",
        "removeCommentsChar",
        "md5",
        "sha1",
        "length",
        "sqlHexDecode",
        "utf8toUnicode",
        "escapeSeqDecode",
        "sha256",
    ];
    let targets =
        "ARGS|ARGS_NAMES|REQUEST_HEADERS|REQUEST_COOKIES|REQUEST_URI|REQUEST_BODY|FILES|MULTIPART_PART_HEADERS|XML:/*";
    let mut text = EXAMPLE.to_owned();
    for (number, name) in transformations.iter().enumerate() {
        for (kind, operator) in
            ["@detectSQLi", "@detectXSS", "@validateUrlEncoding", "@validateUtf8Encoding"].iter().enumerate()
        {
            let id = 100_000 + number * 10 + kind;
            text.push_str(&format!("SecRule {targets} \"{operator}\" \"id:{id},phase:2,pass,nolog,t:{name}\"\n"));
        }
    }
    rules(&text)
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&[u8]; 36] = [
        b"%",
        b"%2",
        b"%u00",
        b"%25",
        b"+",
        b"&",
        b"=",
        b"'",
        b"\"",
        b"/*",
        b"*/",
        b"--",
        b";",
        b"\\",
        b"\\u",
        b"\\x4",
        b"&#x",
        b"&#1",
        b"<",
        b">",
        b"<script",
        b"../",
        b"\0",
        "\u{e4}".as_bytes(),
        "\u{1f600}".as_bytes(),
        b"\xff",
        b"\xc0\xae",
        b"0x",
        b"union select",
        b"{\"a\":",
        b"[",
        b"--x\r\n",
        b"Content-Disposition: form-data; name=",
        b"\r\n\r\n",
        b"<![CDATA[",
        b"]]>",
    ];
    let piece = prop_oneof![4 => (0..PIECES.len()).prop_map(|at| PIECES[at].to_vec()), 1 => vec(any::<u8>(), 0..8)];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

#[test]
fn any_request_gets_a_verdict() {
    let rules = everything();
    let kinds = [
        "",
        "application/x-www-form-urlencoded",
        "application/json",
        "text/xml",
        "multipart/form-data; boundary=x",
        "\u{e4}",
    ];
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(target in pieces(), value in pieces(), body in pieces(), kind in 0..kinds.len())| {
        let mut written = Vec::new();
        let headers = [
            (&b"host"[..], &b"x"[..]), (b"x-any", &value), (b"cookie", &value), (&value, b"x"), (b"content-type", kinds[kind].as_bytes()),
        ];
        waf_interface::encode(&mut written, b"POST", &[b"/", &*target].concat(), headers, &body).unwrap();
        prop_assert!(rules.inspect(&Request::decode(&written).unwrap()).is_ok());
    });
}

/// Values nest as deep as they like: the engine has a stack, too.
#[test]
fn deep_bodies_are_read_or_decided() {
    let rules = everything();
    for (kind, open, close) in [
        ("application/json", "[", "]"),
        ("application/json", "{\"a\":", "}"),
        ("text/xml", "<a>", "</a>"),
        ("text/xml", "<a b='c'>", "</a>"),
    ] {
        for depth in [10, 60, 65, 127, 500, 20_000] {
            let body = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            Sent::post(kind, body.as_bytes()).asked(&rules);
        }
    }
}

/// Of the rules' text, too, nothing is believed.
#[test]
fn any_text_is_rules_or_a_mistake() {
    const PIECES: [&str; 24] = [
        "SecRule ",
        "SecAction ",
        "ARGS ",
        "TX:a ",
        "\"@rx a\" ",
        "\"@pm a b\" ",
        "\"id:1,",
        "chain\"",
        "setvar:tx.a=1\"",
        "\n",
        "\\\n",
        "\"",
        "'",
        "#@ file a\n",
        "#@ data b\n",
        "#",
        "\\",
        "|",
        "!",
        "SecMarker A\n",
        "SecRuleRemoveById 1-2\n",
        "\u{e4}",
        "{",
        "%{tx.a}",
    ];
    let text = vec(0..PIECES.len(), 0..40).prop_map(|all| all.into_iter().map(|at| PIECES[at]).collect::<String>());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(text in text)| {
        let _ = Rules::parse(text.as_bytes());
    });
    assert!(Rules::parse(&b"\\".repeat(1 << 20)).is_err());
    assert!(Rules::parse(&[0xff]).is_err());
}
