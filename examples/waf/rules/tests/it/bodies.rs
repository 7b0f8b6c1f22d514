//! Bodies are read as what a server may take them for, whatever their type says.

use universal_waf::{Rules, Verdict};

use crate::support::{Sent, inspect};

const FORM: &str = "id=1' UNION SELECT password FROM users--&q=<script>alert(1)</script>";
const JSON: &str = r#"{"id":"1' UNION SELECT password FROM users--"}"#;

const ATTACK: &str = "1' UNION SELECT password FROM users-- <script>alert(1)</script>";

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

/// A text in UTF-16 and in UTF-32, in both orders of their bytes.
fn wide(text: &str) -> [Vec<u8>; 4] {
    [
        text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
        text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
    ]
}

fn stopped_bytes(kind: &str, body: &[u8]) {
    let (verdict, rule) = verdict(kind, body);
    assert!(verdict == Verdict::Block && rule != "limits-unread", "{kind}: {body:?}: {verdict:?} {rule}");
}

#[test]
fn text_in_wide_units_is_read_whatever_its_type_says() {
    let json = format!("{{\"q\":\"{ATTACK}\"}}");
    let markup = format!("<q>{}</q>", ATTACK.replace('<', "&lt;"));
    let escaped = "[\"\\u003cscript\\u003ealert(1)\"]";
    for kind in ["application/octet-stream", "image/png", "application/grpc+proto", "application/msgpack", "x", ""] {
        for text in [&json, &markup, escaped] {
            for marked in [false, true] {
                for body in wide(&if marked { format!("\u{feff}{text}") } else { text.to_owned() }) {
                    stopped_bytes(kind, &body);
                }
            }
        }
        for body in wide(&format!("\u{feff}q={}", ATTACK.replace(' ', "+"))) {
            stopped_bytes(kind, &body);
        }
        // What only begins so.
        stopped_bytes(kind, &[&b"{\0\"\0"[..], ATTACK.as_bytes()].concat());
        for body in wide("{\"q\":\"hello\"}") {
            passes(kind, &body);
        }
    }
}

#[test]
fn binaries_pass_and_null_bytes_hide_no_text() {
    for kind in ["application/octet-stream", "image/png", "application/vnd.foo"] {
        for body in [
            &b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0\0\0\x01\0\x08\x06\0\0\0\x5c\x72\xa8\x66"[..],
            b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\x02\x8fmoov\0\0\0\x6cmvhd\0\0\0\0",
            b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x20\0\x68\x04\0\0\x16\0\0\0\x28\0\0\0\x10\0\0\0",
            b"\0\0\0\0",
            b"\0",
        ] {
            passes(kind, body);
        }
        for body in [
            format!("q=1&x={}\0", ATTACK.replace(' ', "+")),
            format!("\0q=1&x={}", ATTACK.replace(' ', "+")),
            format!("{{\"q\":\"{ATTACK}\"}}\0"),
        ] {
            stopped(kind, &body);
        }
    }
}

#[test]
fn messages_of_every_binary_format_are_read() {
    let length = u8::try_from(ATTACK.len()).unwrap();
    let msgpack = [&b"\x81\xa1q\xd9"[..], &[length], ATTACK.as_bytes()].concat();
    let cbor = [&b"\xa1\x61q\x78"[..], &[length], ATTACK.as_bytes()].concat();
    let proto = [&b"\n"[..], &[length], ATTACK.as_bytes(), b"\x10\x96\x01"].concat();
    for kind in [
        "application/msgpack",
        "application/x-msgpack",
        "application/vnd.msgpack",
        "application/cbor",
        "application/x-protobuf",
        "application/x-google-protobuf",
        "application/connect+proto",
        "application/vnd.x+cbor",
        "application/bson",
        "application/avro",
        "application/vnd.apache.thrift.binary",
        "application/x-amf",
    ] {
        for body in [&msgpack, &cbor, &proto] {
            stopped_bytes(kind, body);
        }
        stopped(kind, FORM);
        stopped(kind, JSON);
        passes(kind, b"\x82\xa1q\xa5hello\xa4page\x02");
        passes(kind, b"\n\x05hello\x12\x05world");
    }
}

#[test]
fn frames_in_base64_are_read() {
    let frame = |flag: u8, message: &str| {
        let mut frame = vec![flag];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message.as_bytes());
        frame
    };
    let text = |bytes: &[u8]| {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits = bytes.chunks(3).flat_map(|chunk| {
            let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            let digit = move |at: usize| DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            (0..4).map(move |at| if at <= chunk.len() { digit(at) } else { b'=' })
        });
        String::from_utf8(digits.collect()).unwrap()
    };
    let unread = (Verdict::Block, "limits-unread".to_owned());
    for kind in ["application/grpc-web-text", "application/grpc-web-text+proto", "Application/gRPC-Web-Text; x=y"] {
        stopped(kind, &text(&frame(0, ATTACK)));
        stopped(kind, &text(&[frame(0, "hello"), frame(0x80, "a: b"), frame(0, ATTACK)].concat()));
        // Cut off, and longer than it says.
        let all = text(&frame(0, &format!("{ATTACK} and so on")));
        stopped(kind, &all[..all.len() - 7]);
        stopped(kind, &text(&[&frame(0, "hello")[..], b"\0\xff\xff\xff\xff", ATTACK.as_bytes()].concat()));
        passes(kind, text(&[frame(0, "\n\u{5}hello"), frame(0x80, "a: b")].concat()).as_bytes());
        assert_eq!(verdict(kind, text(&frame(1, "packed")).as_bytes()), unread);
        assert_eq!(verdict(kind, b"AAAA.AA"), unread);
        assert_eq!(verdict(kind, format!("{}{}", text(b"\0"), text(&frame(0, ATTACK))).as_bytes()), unread);
    }
}

#[test]
fn a_comment_in_markup_tears_no_text_apart() {
    for body in [
        "<q>1' UNI<!---->ON SEL<!---->ECT pw FR<!---->OM users-- </q>",
        "<q>1' UNI<![CDATA[ON SEL]]>ECT pw FR<!---->OM users-- </q>",
        "<q><![CDATA[1' UNI]]><![CDATA[ON SELECT pw FROM]]> users-- </q>",
        "<q>1' UNI<?x '?>ON SEL<?x '?>ECT pw FR<?x ?>OM users-- </q>",
        "<q>/etc/<!---->passwd</q>",
        "<q>&lt;scr<!---->ipt&gt;al<!---->ert(1)&lt;/scr<!---->ipt&gt;</q>",
    ] {
        for kind in ["text/xml", "application/soap+xml", "application/octet-stream"] {
            stopped(kind, body);
        }
    }
    passes(
        "text/xml",
        b"<?xml version=\"1.0\"?><?xpacket begin=\"\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?><!-- no --><q>hello<![CDATA[ you]]></q>",
    );
}

#[test]
fn a_boundary_that_is_found_in_two_places_is_said_to_be_unread() {
    let body = format!(
        "--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nhello\r\n--xyz--\r\n--abc\r\n\
         Content-Disposition: form-data; name=\"q\"\r\n\r\n{ATTACK}\r\n--abc--\r\n"
    );
    for parameters in ["boundary=xyz; xboundary=abc", "xboundary=abc; boundary=xyz", "a=\"boundary=abc\"; boundary=xyz"]
    {
        let kind = format!("multipart/form-data; {parameters}");
        assert_eq!(verdict(&kind, body.as_bytes()).0, Verdict::Block, "{kind}");
        let harmless = b"--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nhello\r\n--xyz--\r\n";
        assert_eq!(verdict(&kind, harmless), (Verdict::Block, "limits-unread".to_owned()), "{kind}");
    }
    passes(
        "multipart/form-data; boundary=----WebKitFormBoundaryabc",
        b"------WebKitFormBoundaryabc\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nhello\r\n------WebKitFormBoundaryabc--\r\n",
    );
    // What has no file name but an extended one is a field to some.
    stopped(
        "multipart/form-data; boundary=xyz",
        &format!(
            "--xyz\r\nContent-Disposition: form-data; name=\"q\"; filename*=utf-8''a.txt\r\n\r\n{ATTACK}\r\n--xyz--\r\n"
        ),
    );
}
