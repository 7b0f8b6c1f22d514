//! Every route of the API, with the fields that it promises.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Module, Node, TOKEN, get, request};

fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "{field} is missing in {value}");
    }
}

#[tokio::test]
async fn a_module_is_replaced_and_the_answer_has_every_field() {
    let node = Node::start(&Module::new("1.0.0"));
    let answer = node.upload(&Module::new("1.1.0").bytes()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["success"], true);
    assert_eq!(answer["version"], "1.1.0");
    assert!(answer["message"].is_string() && answer["downtime_ms"].is_number(), "{answer}");
    assert!(answer["requests_during_reload"].is_u64(), "{answer}");
    let version = node.version().await;
    assert_eq!(version["version"], "1.1.0");
    assert_eq!(version["previous_version"], "1.0.0");
}

#[tokio::test]
async fn a_bad_module_is_refused_and_the_answer_says_what_serves() {
    let node = Node::start(&Module::new("1.0.0"));
    let whole = Module::new("1.1.0").bytes();
    for (bytes, complaint) in [
        (b"no module at all".to_vec(), "not a valid WebAssembly module"),
        (whole[..whole.len() / 2].to_vec(), "not a valid WebAssembly module"),
        (Module::new("1.1.0").without("inspect_request").bytes(), "inspect_request"),
        (Module::new("0.9.0").bytes(), "0.9.0 is older than 1.0.0"),
    ] {
        let answer = node.upload(&bytes).await;
        assert!(answer.status.is_client_error(), "{}", answer.status);
        let answer = answer.json();
        assert_eq!(answer["success"], false);
        assert_eq!(answer["current_version"], "1.0.0");
        assert_eq!(answer["status"], "still_serving_v1.0.0");
        assert!(answer["error"].as_str().unwrap().contains(complaint), "{answer}");
    }
    assert_eq!(node.version().await["version"], "1.0.0");
}

#[tokio::test]
async fn the_version_has_every_field() {
    let module = Module::new("1.0.0");
    let node = Node::start(&module);
    let version = node.version().await;
    has(&version, &["name", "version", "loaded_at", "previous_version", "size_bytes", "digest"]);
    assert_eq!(version["name"], "universal-waf");
    assert_eq!(version["size_bytes"], module.bytes().len());
    assert_eq!(version["previous_version"], Value::Null);
    assert_eq!(version["digest"], hotslot::Digest::of(&module.bytes()).to_string());
}

#[tokio::test]
async fn a_rollback_returns_to_the_version_before() {
    let node = Node::start(&Module::new("1.0.0"));
    assert_eq!(node.roll_back().await.status, StatusCode::CONFLICT);
    node.upload(&Module::new("1.1.0").bytes()).await;
    node.upload(&Module::new("1.2.0").bytes()).await;
    let answer = node.roll_back().await;
    assert_eq!(answer.status, StatusCode::OK);
    let answer = answer.json();
    assert_eq!(answer["success"], true);
    assert_eq!(answer["rolled_back_to"], "1.1.0");
    assert!(answer["reason"].is_string() && answer["downtime_ms"].is_number(), "{answer}");

    let wish = json!({ "generation": 1, "reason": "1.1.0 is no better" });
    let answer =
        request(node.admin, Method::POST, "/api/v1/wasm/rollback").token(TOKEN).json(&wish).send().await.json();
    assert_eq!((&answer["rolled_back_to"], &answer["reason"]), (&json!("1.0.0"), &wish["reason"]));
    assert_eq!(node.version().await["version"], "1.0.0");
}

#[tokio::test]
async fn the_history_has_every_attempt_the_latest_first() {
    let node = Node::start(&Module::new("1.0.0"));
    node.upload(&Module::new("1.1.0").bytes()).await;
    node.upload(b"nothing").await;
    node.roll_back().await;
    let history = node.admin("/api/v1/wasm/history").await;
    let reloads = history["reloads"].as_array().unwrap();
    for reload in reloads {
        has(reload, &["timestamp", "version", "duration_ms", "requests_during_reload", "success"]);
    }
    let seen: Vec<_> = reloads.iter().map(|reload| (reload["trigger"].as_str(), reload["success"].as_bool())).collect();
    let expected = [("rollback", true), ("upload", false), ("upload", true), ("start", true)];
    assert_eq!(seen, expected.map(|(trigger, success)| (Some(trigger), Some(success))));
}

#[tokio::test]
async fn errors_are_told_by_version() {
    let node = Node::start(&Module::new("1.0.0"));
    node.get("/?do=t").await;
    node.upload(&Module::new("1.1.0").bytes()).await;
    node.get("/?do=n").await;
    node.get("/").await;
    let errors = node.admin("/api/v1/wasm/errors").await;
    let seen: Vec<_> =
        errors["errors"].as_array().unwrap().iter().map(|error| (&error["version"], &error["kind"])).collect();
    assert_eq!(seen, [(&json!("1.1.0"), &json!("verdict")), (&json!("1.0.0"), &json!("trap"))]);
    let canary = &errors["versions"][0];
    assert_eq!((&canary["calls"], &canary["errors"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn metrics_are_named_as_promised() {
    let node = Node::start(&Module::new("1.0.0"));
    node.get("/").await;
    node.get("/?do=b").await;
    node.upload(&Module::new("1.1.0").bytes()).await;
    node.upload(b"nothing").await;
    let metrics = get(node.admin, "/metrics").await;
    for line in [
        "wasm_reload_total{module=\"universal-waf\"} 2\n",
        "wasm_reload_failures_total{module=\"universal-waf\"} 1\n",
        "wasm_reload_duration_seconds_count{module=\"universal-waf\"} 2\n",
        "wasm_retired_generations{module=\"universal-waf\"} 1\n",
        "waf_verdicts_total{verdict=\"allow\"} 1\n",
        "waf_verdicts_total{verdict=\"block\"} 1\n",
        "waf_rule_matches_total{rule=\"test-rule\"} 1\n",
        "waf_rules_call_duration_seconds_count 2\n",
        "waf_requests_total{status=\"4xx\"} 1\n",
    ] {
        assert!(metrics.text().contains(line), "{line}{}", metrics.text());
    }
    assert!(metrics.text().contains("wasm_instances{"));
}

/// FAULTS 47.
#[tokio::test]
async fn names_that_come_from_outside_make_no_labels() {
    let node = Node::start(&Module::new("1.0.0"));
    for name in 0..200 {
        let target = format!("/api/v1/{name}");
        get(node.admin, &target).await;
        node.get(&target).await;
        request(node.admin, Method::POST, "/api/v1/wasm/reload")
            .token(TOKEN)
            .form(&[("name", None, format!("module-{name}").as_bytes()), ("file", Some("x.wasm"), b"x")])
            .send()
            .await;
    }
    let metrics = get(node.admin, "/metrics").await;
    let lines = metrics.text().lines().filter(|line| !line.contains("_bucket")).count();
    assert!(lines < 60, "{lines} lines:\n{}", metrics.text());
}

#[tokio::test]
async fn a_node_says_that_it_is_well_and_ready() {
    let node = Node::start(&Module::new("1.0.0"));
    assert_eq!(get(node.admin, "/healthz").await.status, StatusCode::OK);
    assert_eq!(get(node.admin, "/readyz").await.status, StatusCode::OK);
}
