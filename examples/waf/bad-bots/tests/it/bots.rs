//! Who is turned away, and who is not.

use bad_bot_blocker::BadBots;
use hotslot_plugin::{CallErrorKind, harness};
use waf_interface::{Decision, Verdict, Waf, encode};

fn decide(config: &str, headers: &[(&str, &str)]) -> Decision {
    let bots = harness!(BadBots as Waf).config(config).start().unwrap();
    let mut written = Vec::new();
    let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    encode(&mut written, b"GET", b"/", headers, b"").unwrap();
    bots.inspect_request(&written).unwrap()
}

fn of(config: &str, agent: &str) -> Decision {
    decide(config, &[("host", "example.com"), ("user-agent", agent)])
}

#[test]
fn scanners_and_scrapers_are_blocked_and_nobody_else() {
    for (agent, rule, matched) in [
        ("sqlmap/1.8.2#stable (https://sqlmap.org)", "bot-scanner", "sqlmap"),
        ("Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org)", "bot-scanner", "Nmap Scripting Engine"),
        ("Mozilla/5.00 (Nikto/2.5.0) (Evasions:None)", "bot-scanner", "Nikto"),
        ("Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)", "bot-scraper", "AhrefsBot"),
        ("Scrapy/2.11 (+https://scrapy.org)", "bot-scraper", "Scrapy"),
        ("Mozilla/4.5 (compatible; HTTrack 3.0x; Windows 98)", "bot-scraper", "HTTrack"),
    ] {
        let decision = of("{}", agent);
        let reason = decision.reason.unwrap_or_default();
        assert_eq!((decision.verdict, &*reason.rule, &*reason.matched), (Verdict::Block, rule, matched), "{agent}");
        assert_eq!(reason.part, "header:user-agent");
    }
    for agent in [
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "curl/8.5.0",
        "python-requests/2.32",
        "Hydrangea/1.0",
        "",
    ] {
        assert_eq!(of("{}", agent).verdict, Verdict::Allow, "{agent}");
    }
}

#[test]
fn rules_are_set_otherwise_and_names_are_listed() {
    let config = r#"{
        "rules": {
            "bot-scanner": {"enabled": false}, "bot-scraper": {"action": "challenge"}, "bot-library": {"action": "log"},
            "bot-empty": {"enabled": true}
        },
        "block": ["Acme Crawler"], "allow": ["scrapy/2.99", "curl"]
    }"#;
    for (agent, verdict, rule) in [
        ("sqlmap/1.8", Verdict::Allow, ""),
        ("AhrefsBot/7.0", Verdict::Challenge, "bot-scraper"),
        ("Wget/1.21", Verdict::Log, "bot-library"),
        ("curl/8.5.0", Verdict::Allow, ""),
        ("Scrapy/2.99", Verdict::Allow, ""),
        ("Scrapy/2.11", Verdict::Challenge, "bot-scraper"),
        ("ACME crawler 3", Verdict::Block, "bot-listed"),
        ("AhrefsBot, Acme Crawler", Verdict::Block, "bot-listed"),
        ("", Verdict::Block, "bot-empty"),
        (" \t", Verdict::Block, "bot-empty"),
    ] {
        let decision = of(config, agent);
        assert_eq!((decision.verdict, &*decision.reason.unwrap_or_default().rule), (verdict, rule), "{agent}");
    }
    assert_eq!(decide(config, &[("Host", "x")]).verdict, Verdict::Block);
    let twice = [("host", "x"), ("user-agent", "Firefox"), ("User-Agent", "Acme Crawler")];
    assert_eq!(decide(config, &twice).verdict, Verdict::Block);
}

/// A node shows the rest of a body without the header that it has shown.
#[test]
fn the_rest_of_a_body_is_no_client_without_a_name() {
    let config = r#"{"rules": {"bot-empty": {"action": "block"}}}"#;
    assert_eq!(decide(config, &[("content-type", "text/plain"), (":client", "192.0.2.1")]).verdict, Verdict::Allow);
}

#[test]
fn a_configuration_that_is_wrong_makes_no_plugin() {
    for (config, complaint) in [
        ("", "line 1"),
        ("{\n\"blocks\": []}", "line 2"),
        (r#"{"rules": {"bot": {}}}"#, "no rule `bot`: there are bot-scanner"),
        (r#"{"rules": {"bot-empty": {"action": "drop"}}}"#, "drop"),
        (r#"{"block": [" "]}"#, "cannot be looked for"),
        (r#"{"allow": ["--"]}"#, "cannot be looked for"),
        (r#"{"dynamic": [{"id": "a"}]}"#, "list names under `block`"),
    ] {
        let error = harness!(BadBots as Waf).config(config).start().err().expect(config).to_string();
        assert!(error.starts_with("the configuration: ") && error.contains(complaint), "{error}");
    }
    // An empty rule file of the node is none that is wrong.
    assert!(harness!(BadBots as Waf).config(r#"{"dynamic": []}"#).start().is_ok());
}

#[test]
fn bytes_that_are_no_request_get_an_error() {
    let bots = harness!(BadBots as Waf).config("{}").start().unwrap();
    assert_eq!(bots.inspect_request(b"GET / HTTP/1.1").unwrap_err().kind(), CallErrorKind::Failed);
}

/// Whatever is sent, reading it twice as long takes twice as long: names are looked for at the beginnings of words only.
#[test]
fn long_headers_and_hostile_bytes_are_read() {
    for piece in ["sqlma", "nmap scripting engin", "z", "\u{ff}", "a-", "zap "] {
        let long = piece.repeat((64 << 10) / piece.len());
        assert_eq!(of("{}", &long).verdict, Verdict::Allow, "{piece}");
    }
}
