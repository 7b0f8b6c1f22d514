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
        ("Authorization", "Bearer ${x}"),
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
