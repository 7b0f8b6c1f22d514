//! Every route of the API, with the fields that it promises.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::module::EXPORTS;
use crate::support::node::Folder;
use crate::support::wait::until;
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
        (b"no module at all".to_vec(), "nor a WebAssembly module"),
        (whole[..whole.len() / 2].to_vec(), "not a valid WebAssembly module"),
        (Module::new("1.1.0").without("hotslot_invoke").bytes(), "hotslot_invoke"),
        (Module::new("0.9.0").bytes(), "0.9.0 is older than 1.0.0"),
    ] {
        let answer = node.upload(&bytes).await;
        assert!(answer.status.is_client_error(), "{}", answer.status);
        let answer = answer.json();
        assert_eq!(answer["success"], false);
        assert_eq!(answer["current_version"], "1.0.0");
        assert_eq!(answer["status"], "still_serving_v1");
        let error = answer["detail"].as_str().unwrap();
        assert!(error.contains(complaint), "{error}");
        assert!(!error.contains("\\u{"), "no line break shows as an escape: {error}");
    }
    assert_eq!(node.version().await["version"], "1.0.0");
}

/// FAULTS 1.
#[tokio::test]
async fn no_part_of_a_module_is_taken_for_a_module() {
    let node = Node::start(&Module::new("1.0.0"));
    let whole = Module::new("1.1.0").bytes();
    let ends = [1, 4, 7, 8, 9].into_iter().chain((1..8).map(|part| whole.len() * part / 8));
    for end in ends.chain([whole.len() - 1]) {
        let answer = node.upload(&whole[..end]).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{end} bytes: {}", answer.text());
        let answer = answer.json();
        assert_eq!((&answer["stage"], &answer["current_version"]), (&json!("admit"), &json!("1.0.0")), "{end} bytes");
    }
    assert_eq!(node.upload(&whole).await.status, StatusCode::OK);
}

/// FAULTS 5.
#[tokio::test]
async fn a_module_without_one_of_the_exports_is_refused_and_the_export_named() {
    let node = Node::start(&Module::new("1.0.0"));
    for export in EXPORTS {
        let answer = node.upload(&Module::new("1.1.0").without(export).bytes()).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        let answer = answer.json();
        assert_eq!(answer["stage"], "admit");
        let error = answer["detail"].as_str().unwrap();
        assert!(error.contains(&format!("does not export the function `{export}`")), "{error}");
    }
}

/// FAULTS 23.
#[tokio::test]
async fn an_older_version_is_a_conflict_unless_it_is_a_rollback() {
    let node = Node::start(&Module::new("1.0.0"));
    node.upload(&Module::new("1.2.0").bytes()).await;
    for older in ["1.1.0", "1.0.0", "1.2.0-rc.1"] {
        let answer = node.upload(&Module::new(older).bytes()).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{older}: {}", answer.text());
        assert_eq!(answer.json()["current_version"], "1.2.0");
    }
    // Not after a restart either.
    let node = node.kill().start();
    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, StatusCode::CONFLICT);
    node.upload(&Module::new("1.3.0").bytes()).await;
    assert_eq!(node.roll_back().await.json()["rolled_back_to"], "1.2.0");
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
async fn a_rollback_to_a_digest_loads_what_is_only_archived() {
    let (first, second) = (Module::new("1.0.0"), Module::new("1.1.0"));
    let digest = |module: &Module| hotslot::Digest::of(&module.bytes()).to_string();
    // None is kept warm, and the interval holds up reloads only.
    let cold = "[waf.wasm]\nkeep_previous_versions = 0\n[waf.wasm.reload]\nmax_reload_frequency_seconds = 3600";
    let node = Node::configured(&first, cold);
    let answer = node.upload(&second.bytes()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let to = async |wish: Value| {
        request(node.admin, Method::POST, "/api/v1/wasm/rollback").token(TOKEN).json(&wish).send().await
    };

    let answer = to(json!({ "digest": digest(&first), "reason": "1.1.0 is no better" })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["rolled_back_to"], &answer["generation"]), (&json!("1.0.0"), &json!(3)));
    assert_eq!(node.version().await["digest"], digest(&first));
    let latest = node.admin("/api/v1/wasm/history").await["reloads"][0].clone();
    assert_eq!((&latest["trigger"], &latest["reason"]), (&json!("rollback"), &json!("1.1.0 is no better")));

    for (wish, status, complaint) in [
        (json!({ "digest": digest(&first) }), StatusCode::CONFLICT, "is already serving"),
        (json!({ "digest": digest(&Module::new("9.9.9")) }), StatusCode::CONFLICT, "does not have this version"),
        (json!({ "digest": "../../waf" }), StatusCode::CONFLICT, "64 hexadecimal digits"),
        (json!({ "digest": digest(&first), "generation": 1 }), StatusCode::BAD_REQUEST, "not to both"),
    ] {
        let answer = to(wish).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.json()["error"].as_str().unwrap().contains(complaint), "{}", answer.text());
    }
    // The one that was left can be gone to as well, until the node is told otherwise.
    let left = to(json!({ "digest": digest(&second) })).await;
    assert_eq!(left.json()["rolled_back_to"], "1.1.0", "{}", left.text());
    to(json!({ "digest": digest(&first) })).await;
    let node = node.kill().start();
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
        "waf_reload_time_seconds_count{module=\"universal-waf\"} 2\n",
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
    let last = node.metric("wasm_reload_duration_seconds{module=\"universal-waf\"} ").await;
    assert!(last > 0.0, "{last}");
    assert!(!metrics.text().contains("waf_interfaces_total"), "{}", metrics.text());
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
    // What stands beside each family says nothing of labels.
    let is_sample = |line: &&str| !line.starts_with('#') && !line.contains("_bucket");
    let lines = metrics.text().lines().filter(is_sample).count();
    assert!(lines < 60, "{lines} lines:\n{}", metrics.text());
}

/// FAULTS 47: names that a module makes up.
#[tokio::test]
async fn rules_of_a_module_make_only_so_many_labels() {
    let node = Node::start(&Module::new("1.0.0"));
    for name in 0..300 {
        assert_eq!(node.get(&format!("/?do=k{name:06}")).await.status, StatusCode::FORBIDDEN);
    }
    let metrics = get(node.admin, "/metrics").await;
    assert_eq!(metrics.text().matches("waf_rule_matches_total{").count(), 257, "{}", metrics.text());
    assert!(metrics.text().contains("waf_rule_matches_total{rule=\"other\"} 44\n"), "{}", metrics.text());
    let live = node.admin("/api/v1/live").await;
    assert!(live["rules"].as_array().unwrap().len() <= 20);
}

/// FAULTS 48: a module's rule is called something that clears the screen of whoever reads the log.
#[tokio::test]
async fn escape_codes_of_a_module_reach_neither_the_log_nor_the_api() {
    let node = Folder::new(&Module::new("1.0.0"), "").start_logged();
    let wish = request(node.data, Method::POST, "/echo").body("do=k\x1b[2J::");
    assert_eq!(wish.send().await.status, StatusCode::FORBIDDEN);
    let escaped = "\\u{1b}[2J::ule";
    until("the verdict in the log", || async { node.folder.log().contains(escaped).then_some(()) }).await;
    let metrics = get(node.admin, "/metrics").await;
    let live = get(node.admin, "/api/v1/live").await;
    for text in [&node.folder.log(), metrics.text(), live.text()] {
        assert!(!text.contains('\x1b'), "{text}");
    }
    assert_eq!(live.json()["rules"][0]["name"], escaped);
}

#[tokio::test]
async fn a_node_says_that_it_is_well_and_ready() {
    let node = Node::start(&Module::new("1.0.0"));
    assert_eq!(get(node.admin, "/healthz").await.status, StatusCode::OK);
    assert_eq!(get(node.admin, "/readyz").await.status, StatusCode::OK);
}
