//! Bodies are read as what a server may take them for, whatever their type says.

use universal_waf::{Rules, Verdict};

use crate::support::{Sent, inspect};

const FORM: &str = "id=1' UNION SELECT password FROM users--&q=<script>alert(1)</script>";
const JSON: &str = r#"{"id":"1' UNION SELECT password FROM users--"}"#;

fn verdict(kind: &str, body: &[u8]) -> (Verdict, String) {
    let headers = [("Content-Type", kind)];
    let headers = if kind.is_empty() { &headers[..0] } else { &headers[..] };
    let decision = inspect(&Rules::default(), &Sent { target: "/", headers, body });
    (decision.verdict, decision.reason.map(|reason| reason.rule).unwrap_or_default())
}

fn stopped(kind: &str, body: &str) {
    let (verdict, rule) = verdict(kind, body.as_bytes());
    assert!(verdict == Verdict::Block && rule != "limits-unread", "{kind}: {body}: {verdict:?} {rule}");
}

fn passes(kind: &str, body: &[u8]) {
    let (verdict, rule) = verdict(kind, body);
    assert_eq!(verdict, Verdict::Allow, "{kind}: {}: {rule}", String::from_utf8_lossy(body));
}

#[test]
fn a_parameter_of_the_type_chooses_no_reader() {
    for kind in [
        "application/x-www-form-urlencoded; boundary=json",
        "application/x-www-form-urlencoded; x=json",
        "application/x-www-form-urlencoded;charset=utf-8;boundary=xml",
        "application/x-www-form-urlencoded, application/json",
        " Application/X-WWW-Form-URLEncoded ; json",
        "application/x-www-form-urlencoded+json",
        "text/plain; boundary=json",
        "text/plain; boundary=xml",
        "",
    ] {
        stopped(kind, FORM);
    }
    for kind in ["application/json; boundary=xml", "application/vnd.api+json; x=urlencoded", "text/plain; x=xml"] {
        stopped(kind, JSON);
    }
    passes("application/x-www-form-urlencoded; boundary=json", b"q=hello&page=2");
    passes("application/json; charset=utf-8", br#"{"q":"hello","page":2}"#);
}

#[test]
fn what_is_declared_json_and_is_none_is_read_as_a_form_and_said_to_be_unread() {
    for kind in ["application/json", "application/vnd.api+json", "application/x-ndjson", "application/json; a=b"] {
        stopped(kind, FORM);
        for body in ["q=hello", "{'q':'hello'}", "{q:1}", "1&q=hello", "{\"a\":1}&q=hello"] {
            assert_eq!(verdict(kind, body.as_bytes()), (Verdict::Block, "limits-unread".to_owned()), "{kind}: {body}");
        }
    }
    stopped("application/json", "{'q':'<script>alert(1)</script>'}");
    stopped("", &format!("{{&{FORM}"));
    // What is cut off is as valid as its beginning.
    passes("application/json", br#"{"q":"hello","list":[1,2,"thr"#);
    passes("application/json", "\u{feff}{\"q\":\"hello\"}".as_bytes());
    passes("application/x-ndjson", b"{\"q\":1}\n{\"q\":2}\n{\"q");
}

#[test]
fn a_type_that_is_no_text_hides_no_text() {
    for kind in
        ["image/png", "application/octet-stream", "application/javascript", "x", "application/json5x-urlencoded"]
    {
        for body in [FORM, JSON, "[\"<script>alert(1)</script>\"]", "<a>1' UNION SELECT password FROM users--</a>"] {
            stopped(kind, body);
        }
        for start in ["{&", "[&", "\"&", "<&", "<a&"] {
            stopped(kind, &format!("{start}{FORM}"));
        }
        passes(kind, br#"{"q":"hello"}"#);
        passes(kind, b"hello, this is a letter");
        passes(kind, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01");
    }
}

#[test]
fn the_texts_in_a_message_are_read() {
    for kind in ["application/grpc", "application/grpc+proto"] {
        stopped(kind, "\n\u{1c}<script>alert(1)</script>\u{12}\u{1}a");
        stopped(kind, "\u{8}\u{1}\u{12}\u{28}1' UNION SELECT password FROM users--\u{8}\u{2}");
        passes(kind, b"\n\x05hello\x12\x05world\x80\xff\0\x01");
    }
}
