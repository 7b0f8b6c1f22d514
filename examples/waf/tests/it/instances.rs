//! Which instance of the module a request meets, and what it starts from.

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::support::node::Folder;
use crate::support::{Module, Node, TOKEN, get, request};

const SIZE: &str = "wasm_snapshot_bytes{module=\"universal-waf\"}";

/// A node with the rules of this project.
fn node(limits: &str) -> Node {
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/universal-waf.wasm");
    Node::configured(
        &Module::new("1.0.0"),
        &format!("[waf.wasm]\nmodule = {module:?}\n[waf.wasm.limits]\ndeadline_milliseconds = 10000\n{limits}"),
    )
}

async fn judges(node: &Node, rule: StatusCode) {
    for _ in 0..3 {
        assert_eq!(get(node.data, "/").await.status, StatusCode::OK);
        assert_eq!(get(node.data, "/?id=1%27%20OR%20%271%27=%271").await.status, StatusCode::FORBIDDEN);
        assert_eq!(get(node.data, "/forbidden").await.status, rule);
    }
}

#[tokio::test]
async fn where_every_request_has_an_instance_of_its_own_they_start_from_a_snapshot() {
    let node = node("calls_per_instance = 1");
    judges(&node, StatusCode::OK).await;
    let size = node.metric(SIZE).await;
    assert!(size > 0.0, "there is one");
    // `create` reads the rules.
    let rule = json!({"id": "a", "where": ["target"], "kind": "contains", "pattern": "/forbidden", "action": "block"});
    let answer = request(node.admin, Method::POST, "/api/v1/rules").token(TOKEN).json(&rule).send().await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    judges(&node, StatusCode::FORBIDDEN).await;
    assert!(node.metric(SIZE).await > 0.0, "every release has its own");
    let answer = request(node.admin, Method::DELETE, "/api/v1/rules/a").token(TOKEN).send().await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    judges(&node, StatusCode::OK).await;
}

#[tokio::test]
async fn a_version_is_created_once_where_that_is_wanted() {
    for (limits, has_snapshot) in [("create_once = true", true), ("calls_per_instance = 1\ncreate_once = false", false)]
    {
        let node = node(limits);
        judges(&node, StatusCode::OK).await;
        assert_eq!(node.metric(SIZE).await > 0.0, has_snapshot, "{limits:?}");
    }
}

#[tokio::test]
async fn a_module_of_which_no_snapshot_can_be_taken_serves_and_the_log_says_why() {
    // It grows its table.
    let folder = Folder::new(&Module::new("1.0.0"), "[waf.wasm.limits]\ncalls_per_instance = 1");
    let node = folder.start_logged();
    for _ in 0..3 {
        assert_eq!(get(node.data, "/").await.status, StatusCode::OK);
        assert_eq!(get(node.data, "/?do=b").await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(node.metric(SIZE).await, 0.0);
    assert!(node.folder.log().contains("table.grow"), "{}", node.folder.log());
}
