//! The module and the rule file, changed on disk or through the API.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::node::replace;
use crate::support::wait::until;
use crate::support::{Answer, Module, Node, TOKEN, request};

async fn put_rule(node: &Node, rule: &Value) -> Answer {
    request(node.admin, Method::PUT, "/api/v1/rules").token(TOKEN).json(rule).send().await
}

async fn serves(node: &Node, version: &str) {
    until("the new version", || async move { (node.version().await["version"] == version).then_some(()) }).await;
}

#[tokio::test]
async fn a_new_module_file_is_taken_up() {
    let node = Node::start(&Module::new("1.0.0"));
    node.folder.put_module(&Module::new("1.1.0"));
    let node = &node;
    let trigger = until("the reload in the history", || async move {
        let history = node.admin("/api/v1/wasm/history").await;
        (history["reloads"][0]["version"] == "1.1.0").then(|| history["reloads"][0]["trigger"].clone())
    });
    assert_eq!(trigger.await, "module_file");
}

/// FAULTS 38.
#[tokio::test]
async fn a_module_file_that_is_written_slowly_is_taken_up_when_it_is_whole() {
    let node = Node::start(&Module::new("1.0.0"));
    let bytes = Module::new("1.1.0").bytes();
    let path = node.folder.module();
    let writing = std::thread::spawn(move || {
        for end in (0..bytes.len()).step_by(bytes.len() / 10).chain([bytes.len()]) {
            std::fs::write(&path, &bytes[..end]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(40));
        }
    });
    serves(&node, "1.1.0").await;
    writing.join().unwrap();
}

#[tokio::test]
async fn a_bad_module_file_is_told_and_the_next_good_one_taken_up() {
    let node = Node::start(&Module::new("1.0.0"));
    replace(&node.folder.module(), b"no module");
    let refused = &node;
    until("the refusal", || async move {
        let history = refused.admin("/api/v1/wasm/history").await;
        (history["reloads"][0]["success"] == false).then_some(())
    })
    .await;
    assert_eq!(node.version().await["version"], "1.0.0");
    node.folder.put_module(&Module::new("1.1.0"));
    serves(&node, "1.1.0").await;
}

#[tokio::test]
async fn a_rule_is_added_and_rolled_back() {
    let node = Node::start(&Module::new("1.0.0"));
    assert_eq!(node.get("/").await.status, StatusCode::OK);
    let answer = put_rule(&node, &json!({"id": "BLOCK", "pattern": "x"})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["version"], "1.0.0");
    assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN);
    let file = std::fs::read_to_string(node.folder.rule_file()).unwrap();
    assert!(file.contains("BLOCK"), "{file}");

    assert_eq!(node.roll_back().await.status, StatusCode::CONFLICT, "no other module has served");
    let rollback = request(node.admin, Method::POST, "/api/v1/rules/rollback").token(TOKEN);
    assert_eq!(rollback.send().await.status, StatusCode::OK);
    assert_eq!(node.get("/").await.status, StatusCode::OK);
    let file = std::fs::read_to_string(node.folder.rule_file()).unwrap();
    assert!(!file.contains("BLOCK"), "the file says what serves: {file}");
}

#[tokio::test]
async fn a_rule_that_the_module_does_not_take_is_refused() {
    let node = Node::start(&Module::new("1.0.0"));
    let before = std::fs::read_to_string(node.folder.rule_file()).unwrap();
    for (rule, complaint) in [
        (json!({"id": "REFUSE", "pattern": "x"}), "the file says REFUSE"),
        (json!({"pattern": "x"}), "an object with an `id`"),
        (json!(["a rule"]), "an object with an `id`"),
    ] {
        let answer = put_rule(&node, &rule).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.json()["error"].as_str().unwrap().contains(complaint), "{}", answer.text());
    }
    assert_eq!(std::fs::read_to_string(node.folder.rule_file()).unwrap(), before);
    assert_eq!(node.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_changed_rule_file_is_taken_up_and_a_bad_one_is_not() {
    let node = Node::start(&Module::new("1.0.0"));
    let (node, file) = (&node, node.folder.rule_file());
    replace(&file, b"{\"dynamic\": [\"BLOCK\"]}");
    until("the new rules", || async move { (node.get("/").await.status == StatusCode::FORBIDDEN).then_some(()) }).await;
    replace(&file, b"{\"dynamic\": [\"REFUSE\"]}");
    until("the refusal", || async move {
        let history = node.admin("/api/v1/wasm/history").await;
        let latest = &history["reloads"][0];
        (latest["success"] == false).then(|| assert!(latest["error"].as_str().unwrap().contains("REFUSE"), "{latest}"))
    })
    .await;
    assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_new_module_keeps_the_rules() {
    let node = Node::start(&Module::new("1.0.0"));
    put_rule(&node, &json!({"id": "BLOCK", "pattern": "x"})).await;
    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, StatusCode::OK);
    assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn nothing_is_replaced_where_that_is_switched_off() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf.wasm]\nhot_reload_enabled = false");
    let answer = node.upload(&Module::new("1.1.0").bytes()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.json()["error"].as_str().unwrap().contains("hot_reload_enabled"));
    assert_eq!(put_rule(&node, &json!({"id": "x"})).await.status, StatusCode::FORBIDDEN);
    assert_eq!(node.version().await["version"], "1.0.0");
}
