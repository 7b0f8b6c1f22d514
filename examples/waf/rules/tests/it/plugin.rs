//! The rules as a host has them: through the interface.

use hotslot_plugin::{CallErrorKind, harness};
use universal_waf::Rules;
use waf_interface::{Verdict, Waf, encode};

fn request(target: &str) -> Vec<u8> {
    let mut written = Vec::new();
    let headers = [(&b"host"[..], &b"example.com"[..]), (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)")];
    encode(&mut written, b"GET", target.as_bytes(), headers, b"").unwrap();
    written
}

#[test]
fn a_verdict_comes_with_its_reason() {
    let rule =
        br#"{"id": "no-login", "where": ["target"], "kind": "contains", "pattern": "/login", "action": "challenge"}"#;
    let file = [b"{\"dynamic\": [", &rule[..], b"]}"].concat();
    let rules = harness!(Rules as Waf).config(file).start().unwrap();
    let of = |target: &str| rules.inspect_request(&request(target)).unwrap();
    assert_eq!((of("/").verdict, of("/").reason), (Verdict::Allow, None));
    assert_eq!(of("/login").reason.unwrap().rule, "no-login");
    assert_eq!(of("/login").verdict, Verdict::Challenge);
    assert_eq!(of("/?id=1%27%20UNION%20SELECT%20pw%20FROM%20t--").verdict, Verdict::Block);
}

#[test]
fn a_rule_file_that_is_wrong_makes_no_plugin() {
    for (file, complaint) in [("", "line 1"), ("{\n\"dynamics\": []}", "line 2"), ("{\"rules\": {\"x\": {}}}", "`x`")] {
        let error = harness!(Rules as Waf).config(file).start().err().expect(file).to_string();
        assert!(error.starts_with("the rule file: ") && error.contains(complaint), "{error}");
    }
}

#[test]
fn bytes_that_are_no_request_get_an_error() {
    let rules = harness!(Rules as Waf).config("{}").start().unwrap();
    let error = rules.inspect_request(b"GET / HTTP/1.1").unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Failed);
    assert!(error.to_string().contains("format version"), "{error}");
}
