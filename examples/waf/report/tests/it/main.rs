//! The command as one runs it.

use std::path::Path;
use std::process::Command;

/// Two plugins, as they are committed, on the same requests of a family that no rules know.
#[test]
fn plugins_are_compared_on_the_same_requests_and_the_figures_written_into_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let sample = |family: &str, uri: &str, agent: &str, attack: bool| {
        format!(
            r#"{{"id":"x","family":{family},"method":"GET","uri":"{uri}","headers":{{"Host":"x","User-Agent":"{agent}"}},"body":null,"attack":{attack}}}"#
        )
    };
    let corpus = [
        sample("\"one of ours\"", "/?id=1%27%20UNION%20SELECT%20pw%20FROM%20t--", "Firefox", true),
        sample("\"one of ours\"", "/", "AhrefsBot/7.0", true),
        sample("null", "/", "Firefox", false),
    ];
    std::fs::write(path("corpus.jsonl"), corpus.join("\n")).unwrap();
    let figures =
        "# Figures\n<!-- Written by waf-rules-report. -->\n<!-- The end of what waf-rules-report writes. -->\n";
    std::fs::write(path("figures.md"), figures).unwrap();
    let beside = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_waf-rules-report"));
    command.arg(path("corpus.jsonl")).arg("--write").arg(path("figures.md")).args(["--rounds", "1"]);
    for (name, plugin, rules) in [
        ("rules", "rules/universal-waf.wasm", "rules/waf-config.json"),
        ("bots", "bad-bots/bad-bot-blocker.wasm", "bad-bots/bad-bots.json"),
    ] {
        command.arg("--engine").arg(name).arg(beside(plugin)).arg(beside(rules));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("| one of ours: found, stopped | 2 | 50.0 %, 50.0 % | 50.0 %, "), "{said}");
    assert!(said.contains("| harmless: flagged, stopped | 1 | 0.0 %, 0.0 % | 0.0 %, 0.0 % |"), "{said}");
    let written = std::fs::read_to_string(path("figures.md")).unwrap();
    assert!(written.starts_with("# Figures\n<!--") && written.contains(said.trim()), "{written}");

    let refused = Command::new(env!("CARGO_BIN_EXE_waf-rules-report"))
        .arg(path("corpus.jsonl"))
        .arg("--engine")
        .arg("rules")
        .arg(beside("rules/universal-waf.wasm"))
        .arg(beside("bad-bots/bad-bots.json"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.starts_with("rules: "), "{said}");
}
