//! What the configuration may say, and how it says what it may not.

use super::{Config, FailurePolicy, Module};

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

/// What all modules of a configuration are, in order.
fn modules(text: &str) -> Vec<Module> {
    Config::parse(text).unwrap().modules().unwrap()
}

#[test]
fn one_module_is_as_the_node_says() {
    let [module] =
        &modules("[waf]\ndata = \"d\"\nfailure_policy = \"last_good\"\n[waf.wasm]\nmodule = \"a/b.wasm\"")[..]
    else {
        panic!("one module")
    };
    assert_eq!((&*module.name, module.file.to_str()), ("b", Some("a/b.wasm")));
    assert!(module.rules && module.failure_policy == FailurePolicy::LastGood && module.samples().len() == 3);
    assert_eq!(module.config.to_str(), Some("d/waf-config.json"));
    // The only one takes the rules, also where it is listed.
    let [module] = &modules("[[waf.wasm.modules]]\nname = \"x\"\nfile = \"a/b.wasm\"")[..] else {
        panic!("one module")
    };
    assert!(&*module.name == "x" && module.rules && module.samples().len() == 3);
}

#[test]
fn modules_have_what_the_node_says_where_they_say_nothing() {
    let modules = modules(
        "[waf]\ndata = \"d\"\nfailure_policy = \"last_good\"\n[waf.wasm]\nmodule = \"first.wasm\"\nkeep_previous_versions = 5\n\
         [waf.wasm.limits]\ndeadline_milliseconds = 70\nmemory_bytes = 1000000\n\
         [waf.wasm.reload]\nauto_reload_on_file_change = true\n\
         [[waf.wasm.modules]]\nfile = \"x/second.wasm\"\nfailure_policy = \"open\"\n[waf.wasm.modules.limits]\n\
         deadline_milliseconds = 5\n\
         [[waf.wasm.modules]]\nname = \"third\"\nfile = \"x/second.wasm\"\nconfig = \"third.json\"\nmode = \"detect\"\n\
         reload.auto_reload_on_file_change = false\n\
         [[waf.wasm.modules.golden]]\nname = \"a\"\ntarget = \"/\"\nverdict = 0",
    );
    let names: Vec<_> = modules.iter().map(|module| &*module.name).collect();
    assert_eq!(names, ["first", "second", "third"]);
    let deadlines: Vec<_> = modules.iter().map(|module| module.limits.deadline.0.as_millis()).collect();
    assert_eq!(deadlines, [70, 5, 70]);
    assert!(modules.iter().all(|module| module.limits.memory_bytes == 1_000_000 && module.keep_previous_versions == 5));
    let policies: Vec<_> = modules.iter().map(|module| module.failure_policy).collect();
    assert_eq!(policies, [FailurePolicy::LastGood, FailurePolicy::Open, FailurePolicy::LastGood]);
    assert_eq!(modules.iter().map(Module::watches_files).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(modules.iter().map(|module| module.samples().len()).collect::<Vec<_>>(), [3, 0, 1]);
    let files: Vec<_> = modules.iter().map(|module| module.config.to_str().unwrap()).collect();
    assert_eq!(files, ["d/waf-config.json", "d/modules/second/config.json", "third.json"]);
    assert_eq!(modules.iter().map(|module| module.rules).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn a_mistake_in_a_module_is_named_with_its_line() {
    let second = "[[waf.wasm.modules]]\nfile = \"a.wasm\"\n";
    for (text, line, what) in [
        ("[[waf.wasm.modules]]\nname = \"a\"".to_owned(), 1, "needs its `file`"),
        (format!("{second}nam = \"a\""), 3, "nam"),
        (format!("{second}[waf.wasm.modules.limits]\ndeadline_milliseconds = 0"), 4, "above 0"),
        (format!("{second}failure_policy = \"maybe\""), 3, "maybe"),
        (format!("{second}mode = \"off\""), 3, "off"),
        (format!("{second}name = \"../a\""), 1, "cannot be the `name`"),
        ("[[waf.wasm.modules]]\nfile = \"a b.wasm\"".to_owned(), 1, "set another `name`"),
        (format!("{second}{second}"), 3, "two by the name a"),
        (format!("{second}[[waf.wasm.modules]]\nname = \"A\"\nfile = \"b.wasm\""), 3, "two by the name A"),
        (format!("[waf.wasm]\nmodule = \"x/a.wasm\"\n{second}"), 3, "two by the name a"),
        (format!("[waf.wasm]\nmodule = \"b.wasm\"\n{second}rules = true"), 3, "b takes the rules already"),
        (
            format!("{second}rules = true\n[[waf.wasm.modules]]\nfile = \"b.wasm\"\nrules = true"),
            4,
            "a takes the rules already",
        ),
        (
            format!("{second}config = \"c\"\n[[waf.wasm.modules]]\nfile = \"b.wasm\"\nconfig = \"c\""),
            4,
            "cannot both be set up with c",
        ),
        (format!("[waf.rules]\nfile = \"r\"\n{second}config = \"c\"\nrules = true"), 3, "the same setting"),
        (format!("{second}failure_policy = \"last_good\"\nkeep_previous_versions = 0"), 1, "last_good needs"),
        (format!("{second}failure_policy = \"open\""), 1, "uninspected"),
        (
            format!("{second}failure_policy = \"open\"\nrules = true\n[[waf.wasm.modules]]\nfile = \"b.wasm\""),
            1,
            "uninspected",
        ),
        (
            (0..17).map(|number| format!("[[waf.wasm.modules]]\nfile = \"m{number}.wasm\"\n")).collect(),
            33,
            "at most 16",
        ),
    ] {
        let complaint = complaint(&text);
        assert!(complaint.contains(&format!("line {line}")) && complaint.contains(what), "{text}\n{complaint}");
    }
    // One that takes no rules may be open beside one that is not.
    modules(&format!("[waf.wasm]\nmodule = \"b.wasm\"\n{second}failure_policy = \"open\""));
}
