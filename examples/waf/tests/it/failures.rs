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
    let node = Node::configured(&Module::new("1.0.0"), "[waf]\nfailure_policy = \"open\"\nuninspected = \"log\"");
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
    // Its calls run into the deadline, which is above the limit.
    node.upload(&Module::new("1.1.0").always('x').bytes()).await;
    let reason = reason_of_rollback(&node, "/").await;
    assert!(reason.contains("took longer than"), "{reason}");
    assert_eq!(node.version().await["version"], "1.0.0");
}

#[tokio::test]
async fn a_version_that_fails_now_and_then_stays() {
    // Each failure counts, although the version before cannot bear these requests either.
    let node = Node::configured(&Module::new("1.0.0"), &format!("{QUICK_TO_JUDGE}\nsecond_opinions = 0"));
    node.upload(&Module::new("1.1.0").bytes()).await;
    for call in 0..100 {
        node.get(if call % 10 == 9 { "/?do=t" } else { "/" }).await;
    }
    assert_eq!(node.version().await["version"], "1.1.0");
}

/// Clients choose the requests, and with them what a version fails on.
#[tokio::test]
async fn requests_that_the_version_before_fails_on_too_condemn_nobody() {
    let node = Node::configured(&Module::new("1.0.0"), QUICK_TO_JUDGE);
    node.upload(&Module::new("1.1.0").bytes()).await;
    for _ in 0..50 {
        assert_eq!(node.get("/?do=t").await.status, DOWN);
    }
    assert_eq!(node.get("/").await.status, OK);
    let errors = node.admin("/api/v1/wasm/errors").await;
    let tally = &errors["versions"][0];
    assert_eq!((&tally["version"], &tally["calls"], &tally["errors"]), (&json!("1.1.0"), &json!(51), &json!(50)));
    assert_eq!(tally["on_probation"], true);
    assert_eq!(node.version().await["version"], "1.1.0");
}

/// The slot does it on its own: the node has to take it up.
#[tokio::test]
async fn what_the_slot_rolled_back_is_written_down_as_if_somebody_had_asked_for_it() {
    let node = Node::configured(&Module::new("1.0.0"), QUICK_TO_JUDGE);
    let rules = json!({"dynamic": [{"id": "harmless"}]}).to_string();
    std::fs::write(node.folder.rule_file(), &rules).unwrap();
    let inside = &node;
    until("the rule file", || async move {
        let latest = inside.admin("/api/v1/wasm/history").await["reloads"][0].clone();
        (latest["trigger"] == "rule_file" && latest["success"] == true).then_some(())
    })
    .await;
    node.upload(&Module::new("1.1.0").always('t').bytes()).await;
    reason_of_rollback(&node, "/").await;
    let latest = node.admin("/api/v1/wasm/history").await["reloads"][0].clone();
    assert_eq!((&latest["version"], &latest["generation"]), (&json!("1.0.0"), &json!(2)), "{latest}");
    assert_eq!((&latest["previous_generation"], &latest["success"]), (&json!(3), &json!(true)), "{latest}");
    let version = node.version().await;
    assert_eq!((&version["digest"], &version["rules_digest"]), (&latest["digest"], &latest["rules_digest"]));
    assert_eq!(version["previous_version"], "1.1.0");
    let cause = "wasm_rollback_total{module=\"universal-waf\",cause=\"automatic_rollback\"}";
    assert_eq!(node.metric(cause).await, 1.0);
    // Nothing of the condemned version is left to start on, or to build on.
    let answer = node.upload(&Module::new("1.0.1").bytes()).await;
    assert_eq!(answer.json()["rules_digest"], version["rules_digest"], "{}", answer.text());
    node.roll_back().await;
    let node = node.kill().start();
    assert_eq!(node.version().await["digest"], version["digest"]);
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
