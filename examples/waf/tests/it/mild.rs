//! Detection only, exceptions, and what is let through unseen, with the real rules.

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::support::node::Folder;
use crate::support::{Module, Node, TOKEN, get, request};

const OK: StatusCode = StatusCode::OK;
const NO: StatusCode = StatusCode::FORBIDDEN;
/// One rule finds this.
const FILE: &str = "/etc/shadow";
const SCRIPT: &str = "%3Cscript%3Ealert(1)%3C/script%3E";

/// A node with the real rules, which has logged what it decided.
fn real(changes: &str) -> Node {
    let mut folder = Folder::new(&Module::new("1.0.0"), changes);
    std::fs::copy("rules/universal-waf.wasm", folder.module()).unwrap();
    folder.configure("[waf.wasm.limits]\ndeadline_milliseconds = 5000");
    folder.start_logged()
}

/// The rule by which a node blocks a request.
async fn rule(node: &Node, target: &str) -> String {
    assert_eq!(node.get(target).await.status, NO);
    let rules = node.admin("/api/v1/live").await["rules"].clone();
    rules[0]["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_node_that_only_detects_lets_everything_through_and_says_so() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf]\nmode = \"detect\"");
    for target in ["/?do=b", "/?do=c", "/?do=t"] {
        let answer = node.get(target).await;
        assert_eq!(answer.status, OK, "{target}");
        assert!(answer.text().contains("demo upstream"));
    }
    assert_eq!(node.metric("waf_verdicts_total{verdict=\"block\"}").await, 1.0);
    assert_eq!(node.metric("waf_verdicts_not_enforced_total{verdict=\"block\"}").await, 1.0);
    // What cannot be inspected goes through, too, as far as it came.
    let long = "a".repeat(100 << 10);
    assert_eq!(request(node.data, Method::POST, "/size").body(long).send().await.text(), "102400");
}

#[tokio::test]
async fn a_site_or_a_path_can_be_watched_only() {
    let changes = "[[waf.detect]]\nsite = \"old.example\"\n[[waf.detect]]\npath = \"/legacy/*\"\n\
        [[waf.allow]]\npath = \"/health\"\nmethods = [\"GET\"]";
    let node = Node::configured(&Module::new("1.0.0"), changes);
    let at = async |host: &str, target: &str| {
        request(node.data, Method::GET, target).header("host", host).send().await.status
    };
    assert_eq!(at("old.example", "/?do=b").await, OK);
    assert_eq!(at("new.example", "/?do=b").await, NO);
    assert_eq!(at("new.example", "/legacy/page?do=b").await, OK);
    for path in ["/legacy/../page?do=b", "/legacy/%2e%2e/page?do=b", "/legacy//page?do=b", "/legacy?do=b"] {
        assert_eq!(at("new.example", path).await, NO, "{path}");
    }
    // Not even a trap counts where nobody looks.
    assert_eq!(at("new.example", "/health?do=t").await, OK);
    let post = request(node.data, Method::POST, "/health?do=b").send().await;
    assert_eq!(post.status, NO);
}

#[tokio::test]
async fn an_exception_is_for_one_rule_at_one_path_in_one_parameter() {
    let scout = real("");
    let by = rule(&scout, &format!("/search?q={FILE}")).await;
    drop(scout);
    let changes = format!("[[waf.exceptions]]\nrule = {by:?}\npath = \"/search\"\nparameter = \"q\"");
    let node = real(&changes);
    assert_eq!(node.get(&format!("/search?q={FILE}")).await.status, OK);
    for (target, why) in [
        (format!("/other?q={FILE}"), "another path"),
        (format!("/search?p={FILE}"), "another parameter"),
        (format!("/search?q={FILE}&p={FILE}"), "another parameter beside it"),
        (format!("/search?q={SCRIPT}"), "another rule"),
        (format!("/search?q={FILE}&p={SCRIPT}"), "another rule in another parameter"),
        (format!("/search?q={FILE}%20{SCRIPT}"), "another rule in the same parameter"),
    ] {
        assert_eq!(node.get(&target).await.status, NO, "{why}");
    }
    // The same in a form, and in JSON.
    let post = async |kind: &str, body: String| {
        request(node.data, Method::POST, "/search").header("content-type", kind).body(body).send().await.status
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(post(form, format!("q={FILE}")).await, OK);
    assert_eq!(post(form, format!("q={FILE}&p={SCRIPT}")).await, NO);
    assert_eq!(post("application/json", json!({"q": FILE}).to_string()).await, OK);
    assert_eq!(post("application/json", json!({"q": FILE, "p": FILE}).to_string()).await, NO);
    // What takes another part with it when it is left out, or cannot be left out, is blocked.
    for body in [
        format!("{{\"q\":\"{FILE}\",\"p\":\"{FILE}\",\"p\":\"x\"}}"),
        format!("{{\"q\":[\"{FILE}\",{{\"p\":\"{FILE}\"}}]}}"),
    ] {
        assert_eq!(post("application/json", body.clone()).await, NO, "{body}");
    }
    let fields: [(&str, Option<&str>, &[u8]); 2] = [("q", None, FILE.as_bytes()), ("p", None, FILE.as_bytes())];
    let multipart = request(node.data, Method::POST, "/search").form(&fields).send().await;
    assert_eq!(multipart.status, NO, "another parameter beside it, in a body of which nothing can be left out");
    // It holds for rules that come later, too.
    let rule =
        json!({"id": "emergency", "where": ["target"], "kind": "contains", "pattern": "shadow", "action": "block"});
    let put = request(node.admin, Method::PUT, "/api/v1/rules").token(TOKEN).json(&rule).send().await;
    assert_eq!(put.status, OK, "{}", put.text());
    assert_eq!(node.get(&format!("/search?q={FILE}")).await.status, NO, "this one is in force");
}

#[tokio::test]
async fn a_rule_can_be_watched_only() {
    let rules = json!({"dynamic": [
        {"id": "new-rule", "where": ["target"], "kind": "contains", "pattern": "/wp-login", "action": "block"},
    ]});
    let mut folder = Folder::new(&Module::new("1.0.0"), "[[waf.detect]]\nrule = \"new-rule\"");
    std::fs::copy("rules/universal-waf.wasm", folder.module()).unwrap();
    folder.configure("[waf.wasm.limits]\ndeadline_milliseconds = 5000");
    std::fs::create_dir_all(folder.path("data")).unwrap();
    std::fs::write(folder.rule_file(), rules.to_string()).unwrap();
    let node = folder.start_logged();
    assert_eq!(node.get("/wp-login").await.status, OK);
    assert_eq!(node.metric("waf_rule_matches_total{rule=\"new-rule\"}").await, 1.0);
    assert_eq!(node.get(&format!("/wp-login?q={SCRIPT}")).await.status, NO, "no rule hides behind it");
    // A rule that is gone is no reason for the others to go.
    let gone = request(node.admin, Method::DELETE, "/api/v1/rules/new-rule").token(TOKEN).send().await;
    assert_eq!(gone.status, OK, "{}", gone.text());
    assert_eq!(node.get(&format!("/?q={SCRIPT}")).await.status, NO);
    assert_eq!(get(node.admin, "/healthz").await.status, OK);
}
