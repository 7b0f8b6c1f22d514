//! What the configuration may say, and how it says what it may not.

use super::Config;

fn complaint(text: &str) -> String {
    Config::parse(text).err().expect("a mistake that is found").to_string()
}

#[test]
fn an_empty_file_is_the_default() {
    let config = Config::parse("").unwrap();
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9090");
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let complaint = complaint("[waf.wasm]\nmodule = \"x.wasm\"\nhot_reload = true\n");
    assert!(complaint.contains("line 3") && complaint.contains("hot_reload"), "{complaint}");
}

#[test]
fn a_bad_value_is_named_with_its_line() {
    for (text, line, what) in [
        ("[waf.wasm.reload]\n\ntimeout_seconds = -1", 3, "no number of seconds"),
        ("[waf.wasm]\nkeep_previous_versions = \"two\"", 2, "invalid type"),
        ("[waf]\nlisten = \"everywhere\"", 2, "socket address"),
        ("[waf]\nfailure_policy = \"maybe\"", 2, "maybe"),
        ("[waf]\nupstream = \"ftp://x\"", 2, "ftp"),
        ("[waf.wasm.probation]\nmax_error_rate = 7", 2, "share"),
        ("[[waf.wasm.golden]]\nname = \"x\"\ntarget = \"/\"\nverdict = 4", 4, "no verdict"),
        ("[waf.wasm.limits]\nconcurrent_calls = 0", 2, "cannot work"),
        ("[waf.wasm.limits]\nconcurrent_calls = 1000000", 2, "from 1 to 10000"),
        ("[waf.wasm.limits]\nmemory_bytes = 1000", 2, "cannot work"),
        ("[waf.wasm.limits]\ndeadline_milliseconds = 0", 2, "above 0"),
        ("[waf.wasm.limits]\ncalls_per_instance = 0", 2, "cannot work"),
        ("[waf.wasm]\nkeep_previous_versions = 1000", 2, "from 0 to 64"),
        ("[waf.wasm.reload]\ntimeout_seconds = 0", 2, "above 0"),
        ("[waf.proxy]\nmax_connections = 0", 2, "cannot work"),
        ("[waf.proxy]\n\nheader_timeout_seconds = 0", 3, "above 0"),
        ("[waf.admin]\nmax_upload_bytes = 0", 2, "cannot work"),
        ("[waf.health]\neject_after = 0", 2, "cannot work"),
        ("[waf.admin]\ntoken = \"short\"", 2, "16 characters"),
        ("[waf.admin]\nlisten = \"0.0.0.0:9090\"\ntoken = \"none\"", 3, "loopback"),
        ("[waf]\n\nfailure_policy = \"last_good\"\n[waf.wasm]\nkeep_previous_versions = 0", 3, "last_good needs"),
        ("[waf]\nfailure_policy = \"open\"", 2, "uninspected"),
        ("[waf]\nuninspected = \"pass\"", 2, "pass"),
        ("[waf.proxy]\ntrusted_proxies = [\"10.0.0.0/33\"]", 2, "no network"),
        ("[waf]\n[[waf.exceptions]]\npath = \"/a\"", 2, "needs the `rule`"),
        ("[[waf.exceptions]]\nrule = \"a\"\npart = \"target\"", 1, "left out of a request"),
        ("[[waf.detect]]\nrule = \"a\"\npart = \"file:a\"", 1, "left out of a request"),
        ("[[waf.exceptions]]\nrule = \"a\"\npart = \"header:Cookie\"", 1, "left out of a request"),
        ("[[waf.sites]]\nhosts = []\nupstreams = [\"http://a\"]", 1, "needs `hosts`"),
        (
            "[[waf.sites]]\nhosts = [\"a\"]\nupstreams = [\"http://a\"]\ntls = { certificate = \"a\", key = \"b\" }",
            1,
            "only with",
        ),
        ("[waf.health]\npath = \"health\"", 2, "no path"),
        ("[waf.health]\ninterval_seconds = 0", 2, "above 0"),
        ("[[waf.rate_limits]]\nname = \"a\"\nrequests = 0\nper_seconds = 1", 3, "nonzero"),
        ("[[waf.rate_limits]]\nname = \"a\"\nrequests = 1\nper_seconds = 1\nby = \"x\"", 5, "x"),
        ("[[waf.rate_limits]]\nname = \"a\"\nrequests = 1\nper_seconds = 0", 4, "above 0"),
        ("[[waf.deny]]\n", 1, "for everything"),
        ("[[waf.detect]]\n", 1, "for everything"),
        ("[[waf.allow]]\nrule = \"a\"\npath = \"/\"", 1, "exceptions"),
        ("[[waf.detect]]\npath = \"/a*b\"", 2, "no path"),
        ("[waf.admin]\nlisten = \"unix:here\"", 2, "Unix socket"),
        ("[[waf.admin.tokens]]\nname = \"a\"\nrole = \"view\"", 1, "needs a `token`"),
        ("[[waf.admin.tokens]]\nname = \"a\"\nrole = \"root\"", 3, "root"),
        ("[[waf.admin.tokens]]\nname = \"a\"\nrole = \"view\"\nhash = \"ab\"", 4, "64 hexadecimal"),
        ("[waf.log]\nformat = \"xml\"", 2, "xml"),
        ("[waf.archive]\nfolder = \"a\"\n[waf.archive.s3]\nbucket = \"b\"", 3, "either a folder"),
        ("[waf\n", 1, ""),
    ] {
        let complaint = complaint(text);
        assert!(complaint.contains(&format!("line {line}")) && complaint.contains(what), "{text}\n{complaint}");
    }
}
