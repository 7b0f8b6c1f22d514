//! What is no configuration: mistakes, and what the engine cannot do, with their places.

use seclang_waf::ConfigError;
use waf_interface::Verdict;

use crate::support::{EXAMPLE, Sent, rules, started};

fn refused(text: &str) -> String {
    started(text).err().unwrap_or_else(|| panic!("it was taken: {text}"))
}

#[test]
fn a_mistake_is_told_with_file_and_line() {
    for (text, complaint) in [
        ("{\"dynamic\": []}", "is no directive of SecLang: the rules of another engine"),
        ("#@ file a.conf\n\nSecRule ARGS \"x", "a.conf:2: a quote that is not closed"),
        ("#@ file a.conf 40\nSecRule ARGS \"x\"", "a.conf:40: a rule has an id"),
        ("SecRule ARGS \"x\" \"id:'a'\"", "rules.conf:1: a rule has an id, which is a number"),
        (
            "SecRule ARGS \"x\" \"id:1\"\nSecAction \"id:1,pass\"",
            "rules.conf:2: there is a rule 1 already, at rules.conf:1",
        ),
        ("SecRule ARGS \"x\" \"id:1,chain\"\nSecAction \"id:2,pass\"", "rules.conf:1: a chain ends with a rule"),
        ("SecRule ARGS \"x\" \"id:1,phase:6\"", "rules.conf:1: the engine does not know the phase 6"),
        ("SecRuleEngine Perhaps", "rules.conf:1: invalid SecRuleEngine mode"),
        ("SecRequestBodyAccess Perhaps", "rules.conf:1: SecRequestBodyAccess is On or Off"),
        ("SecRuleRemoveById one", "rules.conf:1: \"one\" is no id"),
        ("#@ data a\n#@ data a\n", "bundle:2: there are two data files a"),
    ] {
        let error = refused(text);
        assert!(error.contains(complaint), "{error}");
    }
}

/// A firewall that leaves out rules without a word is worse than none: each of these the engine would take.
#[test]
fn what_the_engine_cannot_do_is_refused_by_name_with_file_and_line() {
    for (rule, complaint) in [
        ("SecRule ARGS \"(?=a)b\" \"id:7\"", "look-around"),
        ("SecRule ARGS \"(a)\\1\" \"id:7\"", "backreferences"),
        ("SecRule ARGS \"!@rx ^%{tx.a}$\" \"id:7\"", "a pattern with a macro"),
        ("SecRule ARGS \"@rx (?:a{1000}){1000}\" \"id:7\"", "cannot match"),
        ("SecRule ARGS:/(/ \"x\" \"id:7\"", "cannot match"),
        ("SecRule ARGS|!ARGS:/(/ \"x\" \"id:7\"", "cannot match"),
        ("SecRule GEO:COUNTRY \"x\" \"id:7\"", "none of its targets: Geo"),
        ("SecRule TX:1 \"x\" \"id:7\"", "TX:1"),
        ("SecRule XML:/a/b/text() \"x\" \"id:7\"", "XML with a path"),
        ("SecRule NO_SUCH \"x\" \"id:7\"", "NO_SUCH"),
        ("SecRule ARGS \"@rbl example.org\" \"id:7\"", "@rbl"),
        ("SecRule ARGS \"@inspectFile /bin/sh\" \"id:7\"", "@inspectfile"),
        ("SecRule ARGS \"@noSuch x\" \"id:7\"", "@noSuch"),
        ("SecRule ARGS \"@streq %{request_headers.host}\" \"id:7\"", "%{request_headers.host}"),
        ("SecRule ARGS \"x\" \"id:7,exec:/bin/sh\"", "does not do exec"),
        ("SecRule ARGS \"x\" \"id:7,proxy:'http://x'\"", "does not do proxy"),
        ("SecRule ARGS \"x\" \"id:7,t:noSuch\"", "t:noSuch"),
        ("SecRule ARGS \"x\" \"id:7,t:parityEven7bit\"", "t:parityEven7bit"),
        ("SecRule ARGS \"x\" \"id:7,setvar:'tx.a=%{MATCHED_VAR}'\"", "%{MATCHED_VAR}"),
        ("SecRule ARGS \"x\" \"id:7,setvar:'tx.a-%{rule.id}=1'\"", "names of variables"),
        ("SecRule ARGS \"x\" \"id:7,ctl:ruleRemoveByTag=a\"", "ctl:ruleRemoveByTag"),
        ("SecRule ARGS \"x\" \"id:7,skipAfter:NOWHERE\"", "a marker \"NOWHERE\""),
        (
            "SecRule ARGS \"x\" \"id:7,chain\"\nSecRule ARGS \"y\" \"chain,setvar:tx.a=1\"\nSecRule ARGS \"z\"",
            "in the middle of a chain",
        ),
    ] {
        let error = refused(&format!("SecRuleEngine On\n{rule}"));
        assert!(error.contains(complaint), "{error}");
        assert!(error.starts_with("rules.conf:2: rule 7: ") || error.starts_with("rules.conf:3: rule 7: "), "{error}");
        assert!(error.ends_with("SecRuleRemoveById 7"), "{error}");
        // As it says, the rest of the rules can be used.
        rules(&format!("SecRuleEngine On\n{rule}\nSecRuleRemoveById 7"));
    }
    for (directive, complaint) in [
        ("Include /etc/passwd", "a plugin reads no files"),
        ("IncludeOptional *", "a plugin reads no files"),
        ("SecRule ARGS \"@pmFromFile /etc/passwd\" \"id:7\"", "passwd is not in the bundle"),
        ("SecRule REMOTE_ADDR \"@ipMatchFromFile https://example.org/a\" \"id:7\"", "is not in the bundle"),
        ("SecRemoteRules key https://example.org/", "does not do SecRemoteRules"),
        ("SecRuleRemoveByTag a", "does not do SecRuleRemoveByTag"),
        ("SecRuleScript a.lua", "does not do SecRuleScript"),
    ] {
        let error = refused(directive);
        assert!(error.starts_with("rules.conf:1: ") && error.contains(complaint), "{error}");
    }
}

#[test]
fn all_that_it_cannot_do_is_told_at_once() {
    let many: String = (1..=40).map(|id| format!("SecRule GEO \"x\" \"id:{id}\"\n")).collect();
    let error = refused(&many);
    assert!(
        error.contains("rules.conf:12: rule 12") && error.contains("and 28 more") && error.ends_with(" 39 40"),
        "{error}"
    );
    let Err(ConfigError::Unsupported(all)) = seclang_waf::Rules::parse(many.as_bytes()) else { panic!() };
    assert_eq!((all.len(), all[39].rule, all[39].at.line), (40, Some(40), 40));
}

#[test]
fn what_it_does_in_part_is_logged() {
    let text = "SecRule ARGS|FILES_SIZES \"x\" \"id:1,multiMatch,setvar:ip.seen=1,expirevar:ip.seen=60\"";
    let plugin = started(text).unwrap();
    let logged: Vec<_> = plugin.logged().into_iter().map(|(_, line)| line).collect();
    for complaint in ["does not look at FilesSizes", "in spite of multiMatch", "remembers nothing"] {
        assert!(
            logged.iter().any(|line| line.starts_with("rules.conf:1: rule 1: ") && line.contains(complaint)),
            "{logged:?}"
        );
    }
}

#[test]
fn data_files_of_the_bundle_take_the_place_of_files() {
    let text = "#@ file a.conf\n\
        SecRule ARGS \"@pmFromFile words.data\" \"id:1,deny\"\n\
        SecRule ARGS \"@pmFromFile lists/phrases.data words.data\" \"id:2,deny\"\n\
        SecRule REMOTE_ADDR \"@ipMatchFromFile nets.data\" \"id:3,deny\"\n\
        #@ data words.data\n# a comment\nxp_cmdshell\n\n#@ data phrases.data\nlet me in\n50%{x}\n#@ data nets.data\n198.51.100.0/24\n::2\n";
    let rules = rules(text);
    let of = |sent: Sent<'_>| sent.asked(&rules).reason.map(|reason| reason.rule).unwrap_or_default();
    assert_eq!(of(Sent::get("/?q=XP_CmdShell")), "1");
    assert_eq!(of(Sent::get("/?q=now+Let+me+in+please")), "2");
    assert_eq!(of(Sent::get("/?q=50%25{x}")), "2");
    assert_eq!(of(Sent::get("/?q=let+you+in")), "");
    assert_eq!(of(Sent::get("/").without(":client").header(":client", "198.51.100.9")), "3");
}

/// Rules for responses and logs are not for a plugin that sees neither.
#[test]
fn later_phases_are_left_out() {
    let rules = rules("SecRule RESPONSE_BODY \"(?=x)\" \"id:1,phase:4,deny\"\nSecAction \"id:2,phase:5,exec:x,pass\"");
    assert_eq!(rules.count(), 0);
    assert_eq!(Sent::get("/").asked(&rules).verdict, Verdict::Allow);
}

#[test]
fn the_example_has_no_weakness() {
    assert_eq!(rules(EXAMPLE).weaknesses(), []);
}
