//! The calls that operators have in their notes, with curl, as they are printed there: no token, no name.

use std::path::Path;
use std::process::Command;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::node::Folder;
use crate::support::{Module, Node, get};

const NONE: &str = "[waf.admin]\ntoken = \"none\"";

/// What curl prints; `None` where there is none.
fn curl(arguments: &[&str]) -> Option<String> {
    match Command::new("curl").args(["--silent", "--show-error", "--max-time", "300"]).args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            println!("skipped: curl: {error}");
            None
        }
    }
}

fn post(url: &str, file: &Path) -> Option<Value> {
    let file = format!("file=@{}", file.display());
    curl(&["-X", "POST", url, "-F", &file]).map(|text| serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn the_usual_calls_work_as_printed() {
    let node = Node::configured(&Module::new("1.0.0"), NONE);
    let api = format!("http://localhost:{}", node.admin.port());
    let reload = format!("{api}/api/v1/wasm/reload");
    let file = node.folder.path("new.wasm");
    std::fs::write(&file, Module::new("2.0.0").bytes()).unwrap();
    let Some(answer) = post(&reload, &file) else { return };
    assert_eq!(answer["success"], true, "{answer}");
    let whole = format!("Reloaded universal-waf ({:.0}ms downtime)", answer["downtime_ms"].as_f64().unwrap());
    assert_eq!(answer["message"], *whole);

    let grep = curl(&[&format!("{api}/metrics")]).unwrap();
    let lines: Vec<_> = grep.lines().filter(|line| line.contains("wasm_reload") && !line.starts_with('#')).collect();
    assert!(lines.contains(&"wasm_reload_total{module=\"universal-waf\"} 1"), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("wasm_reload_duration_seconds{module=\"universal-waf\"} ")));
    assert!(!grep.contains("wasm_reload_duration_seconds_bucket"), "the histogram has a name of its own");

    std::fs::write(&file, Module::new("1.0.0").bytes()).unwrap();
    let answer = post(&reload, &file).unwrap();
    assert_eq!(
        (&answer["success"], &answer["error"]),
        (&json!(false), &json!("Version conflict: expected v2, got v1"))
    );
    assert_eq!(answer["status"], "still_serving_v2");
    // Modules that know nothing of the interface, and one that calls cannot get into.
    let strangers = ["(module)", r#"(module (memory (export "memory") 1) (func (export "allocate")))"#];
    let strangers = strangers.map(|text| wat::parse_str(text).unwrap());
    for bytes in strangers.into_iter().chain([Module::new("3.0.0").without("hotslot_invoke").bytes()]) {
        std::fs::write(&file, bytes).unwrap();
        let answer = post(&reload, &file).unwrap();
        assert_eq!(answer["error"], "Invalid WASM module: missing inspect_request export", "{answer}");
        assert!(answer["detail"].as_str().unwrap().len() > 40, "{answer}");
    }
    std::fs::write(&file, b"\0asm\x01\0\0\0 half of a module").unwrap();
    let answer = post(&reload, &file).unwrap();
    assert!(answer["error"].as_str().unwrap().starts_with("Invalid WASM module: "), "{answer}");

    let answer = curl(&["-X", "POST", &format!("{api}/api/v1/wasm/rollback")]).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["success"], &answer["rolled_back_to"]), (&json!(true), &json!("1.0.0")));
    for route in ["version", "history", "errors"] {
        let answer = curl(&[&format!("{api}/api/v1/wasm/{route}")]).unwrap();
        assert!(serde_json::from_str::<Value>(&answer).is_ok(), "{answer}");
    }
}

#[tokio::test]
async fn no_token_is_no_invitation_to_other_sites() {
    let node = Node::configured(&Module::new("1.0.0"), NONE);
    for (name, value) in
        [("host", "attacker.example"), ("origin", "http://attacker.example"), ("sec-fetch-site", "cross-site")]
    {
        let answer =
            crate::support::request(node.admin, hyper::Method::POST, "/api/v1/wasm/rollback").header(name, value);
        assert_eq!(answer.send().await.status, StatusCode::FORBIDDEN, "{name}");
    }
}

#[test]
fn a_node_without_a_token_is_for_loopback_only() {
    let mut folder = Folder::new(&Module::new("1.0.0"), NONE);
    folder.configure("[waf.admin]\nlisten = \"0.0.0.0:0\"");
    let output = folder.command().output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && complaint.contains("line ") && complaint.contains("loopback"), "{complaint}");
    // Nor by what is said on the command line.
    folder.configure("[waf.admin]\nlisten = \"127.0.0.1:0\"");
    let output = folder.command().args(["--admin", "[::]:0"]).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && complaint.contains("loopback"), "{complaint}");
}

#[tokio::test]
async fn files_are_left_alone_unless_they_are_to_be_watched() {
    let mut folder = Folder::new(&Module::new("1.0.0"), "");
    folder.forget("waf.wasm.reload", "auto_reload_on_file_change");
    folder.forget("waf.wasm.reload", "max_reload_frequency_seconds");
    let node = folder.start();
    // The first reload is never too soon, and the second one is within ten seconds.
    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, StatusCode::OK);
    let answer = node.upload(&Module::new("1.2.0").bytes()).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(seconds <= 10, "{seconds}");
    node.folder.put_module(&Module::new("1.3.0"));
    // The watcher of another node, which is told to watch, has noticed by the time that it has noticed its own.
    let other = Node::start(&Module::new("1.0.0"));
    other.folder.put_module(&Module::new("1.1.0"));
    let other = &other;
    crate::support::wait::until("the other one", || async move {
        (other.version().await["version"] == "1.1.0").then_some(())
    })
    .await;
    let history = get(node.admin, "/api/v1/wasm/history").await;
    assert!(!history.text().contains("module_file"), "{}", history.text());
}
