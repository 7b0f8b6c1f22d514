//! The OWASP Core Rule Set, as a distribution packages it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use seclang_waf::Rules;
use waf_interface::Verdict;

use crate::support::Sent;

const PACKAGED: &str = "/usr/share/modsecurity-crs/owasp-crs.load";

/// The rules; `None` if they are not here, or are of another version than what they are without is written for.
static RULES: LazyLock<Option<Rules>> = LazyLock::new(|| {
    let rules = Path::new("/usr/share/modsecurity-crs/rules/REQUEST-901-INITIALIZATION.conf");
    let is_known =
        std::fs::read_to_string(rules).is_ok_and(|text| text.contains("OWASP ModSecurity Core Rule Set ver.3.3.4"));
    if !is_known {
        println!("skipped: the Core Rule Set 3.3.4 is not here (Debian's package modsecurity-crs)");
        return None;
    }
    let without = concat!(env!("CARGO_MANIFEST_DIR"), "/crs-3.3.4.conf");
    let text = waf_rule_bundle::collect(&[PathBuf::from(PACKAGED), PathBuf::from(without)]).unwrap();
    Some(Rules::parse(text.as_bytes()).unwrap())
});

#[test]
fn the_core_rule_set_loads_and_finds_what_it_is_for() {
    let Some(rules) = &*RULES else { return };
    assert!(rules.count() > 300, "{}", rules.count());
    for (target, rule, part) in [
        ("/items?id=1%27%20UNION%20SELECT%20pw%20FROM%20users--", "942100", "arg:id"),
        ("/search?q=%3Cscript%3Ealert(1)%3C/script%3E", "941100", "arg:q"),
        ("/download?file=..%2f..%2f..%2fetc%2fpasswd", "930100", "target"),
        ("/ping?host=127.0.0.1;cat%20/etc/passwd", "932100", "arg:host"),
    ] {
        let decision = Sent::get(target).asked(rules);
        let reason = decision.reason.unwrap_or_default();
        assert_eq!(
            (decision.verdict, &*reason.rule, &*reason.part),
            (Verdict::Block, rule, part),
            "{target}: {reason:?}"
        );
        assert!(reason.score >= 5, "{reason:?}");
    }
    let scanner = Sent::get("/").header("User-Agent", "Nikto/2.5.0").asked(rules);
    assert_eq!((scanner.verdict, &*scanner.reason.unwrap().rule), (Verdict::Block, "913100"));
    for target in ["/", "/items?id=7&sort=price", "/search?q=garden+chairs"] {
        let decision = Sent::get(target).asked(rules);
        assert_eq!(decision.verdict, Verdict::Allow, "{target}: {decision:?}");
    }
}

#[test]
fn bodies_of_all_kinds_are_read() {
    let Some(rules) = &*RULES else { return };
    let attack = "1' UNION SELECT pw FROM users--";
    for (kind, body) in [
        ("application/x-www-form-urlencoded", "id=1%27+UNION+SELECT+pw+FROM+users--".to_owned()),
        ("application/json", format!("{{\"id\": \"{attack}\"}}")),
        ("text/xml", format!("<a><id>{attack}</id></a>")),
    ] {
        let sent = Sent::post(kind, body.as_bytes());
        let decision = sent.asked(rules);
        assert_eq!(decision.verdict, Verdict::Block, "{kind}: {decision:?}");
    }
    let harmless = Sent::post("application/x-www-form-urlencoded", b"name=Ann&city=Leeds").asked(rules);
    assert_eq!(harmless.verdict, Verdict::Allow, "{harmless:?}");
}
