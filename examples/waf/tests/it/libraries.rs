//! A library of the rules in the place of the module, where the configuration allows that.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::node::{Folder, replace};
use crate::support::{Module, Node, TOKEN, request};
use crate::swaps::Clients;

/// The rules as they are committed.
pub const MODULE: &[u8] = include_bytes!("../../rules/universal-waf.wasm");

/// The same source as a library of this platform.
static LIBRARY: LazyLock<Vec<u8>> = LazyLock::new(|| library("universal-waf"));

/// Builds a package of this workspace as a library, and reads it.
pub fn library(package: &str) -> Vec<u8> {
    let output = Command::new("cargo")
        .args(["build", "--quiet", "--package", package, "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut ours = messages.filter(|message| message["target"]["name"] == package.replace('-', "_"));
    let files = ours.find_map(|message| message["filenames"].as_array().cloned()).expect("cargo says where it put it");
    let mut paths = files.iter().filter_map(|file| file.as_str().map(Path::new));
    let is_library =
        |path: &&Path| path.extension().is_some_and(|kind| ["so", "dylib", "dll"].iter().any(|it| kind == *it));
    std::fs::read(paths.find(is_library).expect("one of the files is the library")).expect("the library")
}

/// A node on the committed module, which has to pass the built-in golden requests, and takes libraries of any size.
pub fn node(changes: &str) -> Node {
    folder(changes).start()
}

fn folder(changes: &str) -> Folder {
    let size = "[waf.admin]\nmax_upload_bytes = 1000000000\n[waf.wasm.limits]\ndeadline_milliseconds = 60000\n";
    let mut folder = Folder::new(&Module::new("1.0.0"), &format!("{size}{changes}"));
    folder.forget("waf.wasm", "golden");
    replace(&folder.module(), MODULE);
    let rule =
        json!({"id": "no-login", "where": ["target"], "kind": "contains", "pattern": "/login", "action": "challenge"});
    std::fs::create_dir(folder.path("data")).unwrap();
    replace(&folder.rule_file(), json!({"dynamic": [rule]}).to_string().as_bytes());
    folder
}

/// What becomes of attacks, of harmless requests that look like some, and of what the rule file names.
async fn verdicts(node: &Node) -> Vec<(String, StatusCode, bool)> {
    const TARGETS: [&str; 9] = [
        "/",
        "/login",
        "/products?category=garden&page=2",
        "/products?id=1%27%20UNION%20SELECT%20password%20FROM%20users--",
        "/search?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "/search?q=%2527%2520or%25201%253D1--",
        "/download?file=..%2f..%2f..%2fetc%2fpasswd",
        "/ping?host=127.0.0.1;cat%20/etc/passwd",
        "/.git/config",
    ];
    let benign = include_str!("../../report/benign.jsonl").lines().step_by(10);
    let benign = benign.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let benign = benign.map(|sample| {
        let field = |name: &str| sample[name].as_str().unwrap_or_default().to_owned();
        (field("method"), field("uri"), field("body"))
    });
    let attacks = TARGETS.map(|target| ("GET".to_owned(), target.to_owned(), String::new()));
    let mut verdicts = Vec::new();
    for (method, target, body) in attacks.into_iter().chain(benign) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = request(node.data, method, &target).body(body).send().await;
        // The page of a challenge has a script, and the answer to what is blocked has none.
        let is_page = answer.status == StatusCode::FORBIDDEN && answer.text().contains("<script");
        verdicts.push((target, answer.status, is_page));
    }
    verdicts
}

pub const ENABLED: &str = "[waf.native]\nenabled = true";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_from_a_module_to_a_library_and_back_and_no_request_is_lost_or_judged_otherwise() {
    let library = &*LIBRARY;
    let node = node(ENABLED);
    let clients = Clients::start(node.data);
    let of_module = verdicts(&node).await;
    let blocked = of_module.iter().filter(|(_, status, is_page)| *status == StatusCode::FORBIDDEN && !is_page).count();
    let challenged = of_module.iter().filter(|(.., is_page)| *is_page).count();
    assert_eq!((blocked, challenged), (6, 1), "{of_module:?}");
    for bytes in [library, MODULE, library, MODULE] {
        let answer = node.upload(bytes).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(node.version().await["digest"], hotslot::Digest::of(bytes).to_string());
        assert_eq!(verdicts(&node).await, of_module);
    }
    assert!(clients.end().await > 0);
    assert_eq!(node.admin("/api/v1/wasm/errors").await["errors"], json!([]));
}

#[tokio::test]
async fn a_library_gets_the_rule_file_and_its_successors() {
    let library = &*LIBRARY;
    let node = node(ENABLED);
    assert_eq!(node.upload(library).await.status, StatusCode::OK);
    let rule =
        |pattern| json!({"id": "ours", "where": ["target"], "kind": "regex", "pattern": pattern, "action": "block"});
    let put =
        async |rule: Value| request(node.admin, Method::PUT, "/api/v1/rules").token(TOKEN).json(&rule).send().await;
    assert_eq!(node.get("/secret").await.status, StatusCode::OK);
    assert_eq!(put(rule("/secret")).await.status, StatusCode::OK);
    assert_eq!(node.get("/secret").await.status, StatusCode::FORBIDDEN);
    let refused = put(rule("(")).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let refused = refused.json();
    assert_eq!(refused["stage"], "load");
    assert!(refused["error"].as_str().unwrap().contains("the rule file: "), "{refused}");
    assert_eq!(node.get("/secret").await.status, StatusCode::FORBIDDEN);

    // What serves is what it starts on.
    let node = node.kill().start();
    assert_eq!(node.version().await["digest"], hotslot::Digest::of(library).to_string());
    assert_eq!(node.get("/secret").await.status, StatusCode::FORBIDDEN);
}

/// The node is a program that can rehearse, and so it does.
#[tokio::test]
async fn a_library_is_loaded_by_a_child_of_the_node_first() {
    let node = folder(ENABLED).start_logged();
    assert_eq!(node.upload(&LIBRARY).await.status, StatusCode::OK);
    let log = node.folder.log();
    assert!(!log.contains("without a rehearsal"), "{log}");
}

#[tokio::test]
async fn a_library_is_refused_unless_the_configuration_allows_it() {
    let node = node("");
    let answer = node.upload(&LIBRARY).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let answer = answer.json();
    assert_eq!(answer["stage"], "admit");
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("`enabled = true`") && error.contains("[waf.native]"), "{error}");
    assert_eq!(answer["status"], "still_serving_v1");
}
