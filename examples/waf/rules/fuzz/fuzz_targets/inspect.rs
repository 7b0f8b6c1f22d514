//! Inspects requests: any bytes have to get a verdict, within the budget.
//!
//! The first byte of the input says what the body is sent as; the rest is target, a header's value and body, each up to the next
//! null byte.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use universal_waf::{Config, Reason, Rules};
use waf_interface::Request;

/// Every reader of bodies, and dynamic rules of both kinds.
const KINDS: [&str; 10] = [
    "application/x-www-form-urlencoded",
    "application/json",
    "text/xml",
    "text/plain",
    "multipart/form-data; boundary=xyz",
    "multipart/form-data; boundary=\"x\"; charset=y",
    "application/octet-stream",
    "",
    "application/grpc-web-text",
    "application/msgpack",
];
const FILE: &str = r#"{ "dynamic": [
    { "id": "text", "where": ["target", "args", "headers", "body"], "kind": "contains", "pattern": "é", "action": "log" },
    { "id": "pattern", "where": ["args", "body", "user-agent"], "kind": "regex", "pattern": "(a|.b)*c", "action": "log" }
] }"#;

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::new(&Config::parse(FILE.as_bytes()).unwrap()).unwrap());

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    let mut pieces = rest.splitn(3, |byte| *byte == 0);
    let mut next = || pieces.next().unwrap_or_default();
    let (target, header, body) = (next(), next(), next());
    let kind = KINDS[usize::from(*kind) % KINDS.len()].as_bytes();
    let same = ["cookie", "user-agent", "x-filename", "authorization", "accept", "sec-ch-ua"]
        .map(|name| (name.as_bytes(), header));
    let headers = std::iter::once((&b"content-type"[..], kind)).chain(same);
    let mut written = Vec::new();
    waf_interface::encode(&mut written, b"POST", target, headers, body).unwrap();
    let (decision, work) = RULES.measure(&Request::decode(&written).unwrap());
    assert!(work <= 13_000_000);
    if let Some(reason) = decision.reason {
        assert!(reason.part.chars().count() <= Reason::LONGEST_MATCH);
        assert!(reason.matched.chars().count() <= Reason::LONGEST_MATCH);
    }
});
