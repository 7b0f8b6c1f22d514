//! What becomes of requests on which the rules give no verdict, and of versions that fail too often.

use hyper::StatusCode;
use serde_json::json;

use crate::support::wait::until;
use crate::support::{Module, Node};

async fn statuses(node: &Node) -> Vec<StatusCode> {
    let mut statuses = Vec::new();
    for target in ["/", "/?do=t", "/?do=x", "/?do=n", "/?do=o", "/?do=f", "/?do=b"] {
        statuses.push(node.get(target).await.status);
    }
    statuses
}

const OK: StatusCode = StatusCode::OK;
const NO: StatusCode = StatusCode::FORBIDDEN;
const DOWN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

#[tokio::test]
async fn closed_is_the_default() {
    let node = Node::start(&Module::new("1.0.0"));
    assert_eq!(statuses(&node).await, [OK, DOWN, DOWN, DOWN, DOWN, DOWN, NO]);
}

#[tokio::test]
async fn open_lets_requests_through_that_have_no_verdict() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf]\nfailure_policy = \"open\"");
    assert_eq!(statuses(&node).await, [OK, OK, OK, OK, OK, OK, NO]);
}

#[tokio::test]
async fn the_last_good_version_stands_in_for_one_that_fails() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf]\nfailure_policy = \"last_good\"");
    assert_eq!(statuses(&node).await, [OK, DOWN, DOWN, DOWN, DOWN, DOWN, NO]);
    node.upload(&Module::new("1.1.0").always('t').bytes()).await;
    assert_eq!(node.get("/").await.status, OK);
    assert_eq!(node.get("/?do=b").await.status, NO);
    assert_eq!(node.version().await["version"], "1.1.0");
}

const QUICK_TO_JUDGE: &str =
    "[waf.wasm.probation]\nmin_calls = 10\nmax_error_rate = 0.2\nmax_latency_milliseconds = 10000";

/// Asks for a target until the node has rolled back by itself, and gives its reason.
async fn reason_of_rollback(node: &Node, target: &str) -> String {
    until("the rollback", || async move {
        node.get(target).await;
        let latest = node.admin("/api/v1/wasm/history").await["reloads"][0].clone();
        (latest["trigger"] == "automatic_rollback").then(|| latest["reason"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test]
async fn a_version_that_fails_too_often_is_rolled_back() {
    let node = Node::configured(&Module::new("1.0.0"), QUICK_TO_JUDGE);
    node.upload(&Module::new("1.1.0").always('t').bytes()).await;
    let reason = reason_of_rollback(&node, "/").await;
    assert!(reason.contains("calls failed"), "{reason}");
    assert_eq!(node.version().await["version"], "1.0.0");
    assert_eq!(node.get("/").await.status, OK);
}

#[tokio::test]
async fn a_version_that_is_too_slow_is_rolled_back() {
    let limits = "[waf.wasm.probation]\nmin_calls = 10\nmax_error_rate = 1.0\nmax_latency_milliseconds = 100";
    let node = Node::configured(&Module::new("1.0.0"), limits);
    node.upload(&Module::new("1.1.0").bytes()).await;
    // These run into the deadline, which is above the limit.
    let reason = reason_of_rollback(&node, "/?do=x").await;
    assert!(reason.contains("took longer than"), "{reason}");
    assert_eq!(node.version().await["version"], "1.0.0");
}

#[tokio::test]
async fn a_version_that_fails_now_and_then_stays() {
    let node = Node::configured(&Module::new("1.0.0"), QUICK_TO_JUDGE);
    node.upload(&Module::new("1.1.0").bytes()).await;
    for call in 0..100 {
        node.get(if call % 10 == 9 { "/?do=t" } else { "/" }).await;
    }
    assert_eq!(node.version().await["version"], "1.1.0");
}

#[tokio::test]
async fn a_golden_request_with_another_verdict_refuses_the_module() {
    let golden = "[[waf.wasm.golden]]\nname = \"an attack\"\ntarget = \"/?do=b\"\nverdict = 1";
    let node = Node::configured(&Module::new("1.0.0"), golden);
    for (letter, complaint) in [
        ('c', "verdict 2 instead of 1"),
        ('t', "trapped"),
        ('n', "no value of the type"),
        ('o', "not in its memory"),
        ('f', "the request says so"),
        ('x', "within"),
    ] {
        let answer = node.upload(&Module::new("1.1.0").always(letter).bytes()).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        let answer = answer.json();
        assert!(answer["error"].as_str().unwrap().contains(complaint), "{answer}");
        assert_eq!(answer["stage"], "probe");
    }
    assert_eq!(node.version().await["version"], "1.0.0");
    let unchecked = format!("{golden}\n[waf.wasm]\nvalidate_before_reload = false");
    let node = Node::configured(&Module::new("1.0.0"), &unchecked);
    assert_eq!(node.upload(&Module::new("1.1.0").always('c').bytes()).await.status, OK);
}

#[tokio::test]
async fn endless_calls_are_cut_off_and_leave_the_others_alone() {
    let node = Node::start(&Module::new("1.0.0"));
    let endless = async {
        for _ in 0..5 {
            assert_eq!(node.get("/?do=x").await.status, DOWN);
        }
    };
    let others = async {
        for _ in 0..50 {
            assert_eq!(node.get("/").await.status, OK);
        }
    };
    tokio::join!(endless, others);
    let errors = node.admin("/api/v1/wasm/errors").await;
    assert_eq!(errors["errors"][0]["kind"], json!("deadline"));
}
