//! What becomes of requests, and how it is explained.

use hotslot_plugin::CallErrorKind;
use waf_interface::{Reason, Verdict};

use crate::support::{EXAMPLE, Sent, rules, started};

#[test]
fn the_example_finds_attacks_and_says_by_which_rule_and_where() {
    let rules = rules(EXAMPLE);
    for (target, rule, part) in [
        ("/items?id=1%27%20UNION%20SELECT%20pw%20FROM%20users--", "1200", "arg:id"),
        ("/search?q=%3Cscript%3Ealert(1)%3C/script%3E", "1300", "arg:q"),
        ("/download?file=..%2f..%2fetc%2fhosts", "1400", "target"),
        ("/.git/config", "1410", "target"),
        ("/ping?host=localhost;cat%20/etc/hosts", "1500", "arg:host"),
    ] {
        let decision = Sent::get(target).asked(&rules);
        let reason = decision.reason.unwrap_or_default();
        assert_eq!((decision.verdict, &*reason.rule, &*reason.part), (Verdict::Block, rule, part), "{target}");
        assert!(reason.score >= 5 && reason.matched.contains(": "), "{reason:?}");
    }
    for target in ["/", "/items?id=7&sort=price", "/search?q=O%27Reilly", "/search?q=select+a+seat"] {
        assert_eq!(Sent::get(target).asked(&rules).verdict, Verdict::Allow, "{target}");
    }
}

#[test]
fn every_kind_of_body_is_read() {
    let rules = rules(EXAMPLE);
    let attack = "1' UNION SELECT pw FROM users--";
    let parts = format!("--x\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\n{attack}\r\n--x--\r\n");
    for (kind, body) in [
        ("application/x-www-form-urlencoded", "id=1%27+UNION+SELECT+pw+FROM+users--".to_owned()),
        ("application/json", format!("{{\"a\": [{{\"id\": \"{attack}\"}}], \"id\": 1}}")),
        ("application/xml", format!("<a><id>{attack}</id></a>")),
        ("multipart/form-data; boundary=x", parts),
    ] {
        assert_eq!(Sent::post(kind, body.as_bytes()).asked(&rules).verdict, Verdict::Block, "{kind}");
    }
    let off = EXAMPLE.replace("SecRequestBodyAccess On", "SecRequestBodyAccess Off");
    let sent = Sent::post("application/x-www-form-urlencoded", b"id=1%27+UNION+SELECT+pw+FROM+users--");
    assert_eq!(sent.asked(&crate::support::rules(&off)).verdict, Verdict::Allow);
}

/// What the engine cannot read or look at in time is decided as the host says.
#[test]
fn what_cannot_be_inspected_is_decided_as_the_host_says() {
    let rules = rules(EXAMPLE);
    let many = "a&".repeat(seclang_waf::MOST_VALUES + 1);
    let long = "a".repeat(seclang_waf::LARGEST_VALUE + 1);
    let dear = "'".repeat(seclang_waf::MOST_TOKENS + 1);
    for (kind, body, rule) in [
        ("application/json", "{\"a\": ", "limits-unread"),
        ("application/xml", "<a><b></a>", "limits-unread"),
        ("application/xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "limits-unread"),
        ("multipart/form-data", "--x\r\n\r\n", "limits-unread"),
        ("application/x-www-form-urlencoded", &many, "limits-exceeded"),
        ("text/plain", &long, "limits-exceeded"),
        ("application/json", &dear, "limits-exceeded"),
    ] {
        let sent = |verdict| Sent::post(kind, body.as_bytes()).header(":if-unread", verdict);
        for (name, verdict) in [("block", Verdict::Block), ("challenge", Verdict::Challenge), ("log", Verdict::Log)] {
            let decision = sent(name).asked(&rules);
            assert_eq!(
                (decision.verdict, &*decision.reason.unwrap().rule),
                (verdict, rule),
                "{kind} {}",
                &body[..8.min(body.len())]
            );
        }
    }
    let twice = Sent::post("text/plain", b"x").header("content-type", "application/json");
    assert_eq!(twice.asked(&rules).verdict, Verdict::Block, "two content types");
    assert_eq!(
        Sent::post("application/json", b"").asked(&rules).verdict,
        Verdict::Allow,
        "no body is none that cannot be read"
    );
}

#[test]
fn an_engine_that_only_detects_writes_down_what_it_would_refuse() {
    let rules = rules(&EXAMPLE.replace("SecRuleEngine On", "SecRuleEngine DetectionOnly"));
    let decision = Sent::get("/items?id=1%27%20UNION%20SELECT%20pw%20FROM%20users--").asked(&rules);
    assert_eq!((decision.verdict, &*decision.reason.unwrap().rule), (Verdict::Log, "1200"));
    assert_eq!(Sent::get("/").asked(&rules).verdict, Verdict::Allow);
    let off = crate::support::rules(&EXAMPLE.replace("SecRuleEngine On", "SecRuleEngine Off"));
    assert_eq!(Sent::get("/.git/config").asked(&off).verdict, Verdict::Allow);
}

/// A rule that lets a request pass and says `log` is a rule to write down. What is odd adds to a score, and refuses nothing alone.
#[test]
fn scores_add_up_and_a_rule_that_only_logs_is_told() {
    let rules = rules(EXAMPLE);
    let odd = Sent::get("/").without("User-Agent").asked(&rules);
    assert_eq!((odd.verdict, &*odd.reason.unwrap().rule), (Verdict::Log, "1600"));
    let text = "SecDefaultAction \"phase:2,pass,log\"\n\
        SecRule ARGS:a \"@streq 1\" \"id:1,phase:2,block,msg:'one',severity:NOTICE,setvar:tx.sum=+2\"\n\
        SecRule ARGS:b \"@streq 1\" \"id:2,phase:2,block,msg:'two',severity:ERROR,setvar:tx.sum=+4,chain\"\n\
        SecRule ARGS:c \"@streq 1\" \"setvar:tx.sum=+1\"\n\
        SecRule TX:sum \"@ge 7\" \"id:3,phase:2,deny,msg:'sum'\"";
    let rules = crate::support::rules(text);
    let reason = |target: &str| {
        let decision = Sent::get(target).asked(&rules);
        (decision.verdict, decision.reason.map(|Reason { rule, .. }| rule).unwrap_or_default())
    };
    assert_eq!(reason("/?a=1"), (Verdict::Log, "1".to_owned()));
    assert_eq!(reason("/?b=1"), (Verdict::Allow, String::new()), "half of a chain is no match");
    assert_eq!(reason("/?b=1&c=1"), (Verdict::Log, "2".to_owned()));
    assert_eq!(reason("/?a=1&b=1&c=1"), (Verdict::Block, "2".to_owned()), "the last one of a chain scores, too");
}

#[test]
fn the_client_is_known_and_chains_are_one_rule() {
    let rules = rules(EXAMPLE);
    let admin = |client| Sent::get("/admin/users").without(":client").header(":client", client).asked(&rules);
    let outside = admin("192.0.2.7");
    assert_eq!((outside.verdict, &*outside.reason.unwrap().rule), (Verdict::Block, "1010"));
    assert_eq!(admin("127.0.0.1").verdict, Verdict::Allow);
    assert_eq!(admin("::1").verdict, Verdict::Allow);
}

/// A node shows later pieces of a body without the headers that it has shown.
#[test]
fn the_rest_of_a_body_is_no_request_without_headers() {
    let rules = rules(EXAMPLE);
    let piece = |body| Sent { headers: vec![("content-type", "text/plain")], ..Sent::post("text/plain", body) };
    assert_eq!(piece(b"and so on").asked(&rules).verdict, Verdict::Allow);
}

#[test]
fn through_the_interface_it_is_the_same() {
    let plugin = started(EXAMPLE).unwrap();
    assert_eq!(plugin.inspect_request(&Sent::get("/.git/config").written()).unwrap().verdict, Verdict::Block);
    assert_eq!(plugin.inspect_request(b"GET / HTTP/1.1").unwrap_err().kind(), CallErrorKind::Failed);
}
