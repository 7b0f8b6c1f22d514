//! Rules over the API, and ways back for module and rules apart.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Module, Node, TOKEN, get, request};

const OK: StatusCode = StatusCode::OK;

async fn send(node: &Node, method: Method, target: &str, body: Option<Value>) -> Answer {
    let wish = request(node.admin, method, target).token(TOKEN);
    match body {
        Some(body) => wish.json(&body).send().await,
        None => wish.send().await,
    }
}

async fn post(node: &Node, target: &str, body: Value) -> Answer {
    send(node, Method::POST, target, Some(body)).await
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn rules_are_listed_added_changed_deleted_and_compared() {
    let node = Node::start(&Module::new("1.0.0"));
    assert_eq!(node.admin("/api/v1/rules").await["rules"], json!([]));
    assert_eq!(post(&node, "/api/v1/rules", json!({"id": "a", "pattern": "x"})).await.status, OK);
    let again = post(&node, "/api/v1/rules", json!({"id": "a", "pattern": "y"})).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text());
    assert_eq!(send(&node, Method::PUT, "/api/v1/rules", Some(json!({"id": "b", "pattern": "x"}))).await.status, OK);
    let changed = send(&node, Method::PUT, "/api/v1/rules/a", Some(json!({"pattern": "z"}))).await;
    assert_eq!(changed.status, OK, "{}", changed.text());
    let list = node.admin("/api/v1/rules").await;
    assert_eq!(list["rules"], json!([{"pattern": "z", "id": "a"}, {"id": "b", "pattern": "x"}]));
    assert_eq!(list["rules_digest"], changed.json()["rules_digest"]);
    assert_eq!(node.admin("/api/v1/rules/b").await["pattern"], "x");
    let diff = node.admin("/api/v1/rules/diff").await["diff"].clone();
    assert_eq!(diff["changed"][0]["from"]["pattern"], "x");
    assert_eq!(diff["changed"][0]["to"]["pattern"], "z");

    assert_eq!(send(&node, Method::DELETE, "/api/v1/rules/a", None).await.status, OK);
    assert_eq!(send(&node, Method::DELETE, "/api/v1/rules/a", None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(node.admin, "/api/v1/rules/a").await.status, StatusCode::NOT_FOUND);
    assert_eq!(ids(&node.admin("/api/v1/rules").await["rules"]), ["b"]);
    let file = std::fs::read_to_string(node.folder.rule_file()).unwrap();
    assert!(file.contains("\"b\"") && !file.contains("\"a\""), "the file says what serves: {file}");
    let from = changed.json()["rules_digest"].as_str().unwrap().to_owned();
    let diff = node.admin(&format!("/api/v1/rules/diff?from={from}")).await["diff"].clone();
    assert_eq!((ids(&diff["removed"]), &diff["added"]), (vec!["a"], &json!([])));
    // Each change says in the history what it was, and needs the token.
    let latest = node.admin("/api/v1/wasm/history").await["reloads"][0].clone();
    assert_eq!((&latest["trigger"], &latest["reason"]), (&json!("rule_request"), &json!("the rule a was deleted")));
    for (method, target) in [
        (Method::POST, "/api/v1/rules"),
        (Method::DELETE, "/api/v1/rules/b"),
        (Method::PUT, "/api/v1/rules/b"),
        (Method::PUT, "/api/v1/rules/file"),
        (Method::POST, "/api/v1/rules/rollback"),
    ] {
        let answer = request(node.admin, method, target).json(&json!({"id": "b"})).send().await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{target}");
    }
}

#[tokio::test]
async fn rules_that_somebody_else_has_changed_are_not_changed() {
    let node = Node::start(&Module::new("1.0.0"));
    let tag = get(node.admin, "/api/v1/rules").await.headers["etag"].to_str().unwrap().to_owned();
    let put = async |id: &str, tag: &str| {
        let wish = request(node.admin, Method::PUT, "/api/v1/rules").token(TOKEN).header("if-match", tag);
        wish.json(&json!({ "id": id })).send().await.status
    };
    assert_eq!(put("a", &tag).await, OK);
    assert_eq!(put("b", &tag).await, StatusCode::PRECONDITION_FAILED);
    assert_eq!(ids(&node.admin("/api/v1/rules").await["rules"]), ["a"]);
    let back = async |tag: &str| {
        let wish = request(node.admin, Method::POST, "/api/v1/rules/rollback").token(TOKEN).header("if-match", tag);
        wish.send().await.status
    };
    assert_eq!(back(&tag).await, StatusCode::PRECONDITION_FAILED);
    assert_eq!(ids(&node.admin("/api/v1/rules").await["rules"]), ["a"]);
    let serving = get(node.admin, "/api/v1/rules").await.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(back(&serving).await, OK);
    assert_eq!(node.admin("/api/v1/rules").await["rules"], json!([]));
}

#[tokio::test]
async fn a_rule_is_not_called_as_a_route_is() {
    let node = Node::start(&Module::new("1.0.0"));
    for id in ["diff", "file", "rollback"] {
        for method in [Method::PUT, Method::POST] {
            let answer = send(&node, method, "/api/v1/rules", Some(json!({ "id": id }))).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text());
        }
    }
}

/// It is shown in the log and the history, where it must not draw anything.
#[tokio::test]
async fn the_reason_of_a_rollback_is_escaped_and_cut() {
    let node = Node::start(&Module::new("1.0.0"));
    post(&node, "/api/v1/rules", json!({"id": "a"})).await;
    let reason = format!("\u{1b}[2J\n{}", "x".repeat(1000));
    assert_eq!(post(&node, "/api/v1/rules/rollback", json!({ "reason": reason })).await.status, OK);
    let latest = node.admin("/api/v1/wasm/history").await["reloads"][0].clone();
    let told = latest["reason"].as_str().unwrap();
    assert!(!told.contains(['\u{1b}', '\n']) && told.ends_with('x') && told.chars().count() == 512, "{told}");
    node.upload(&Module::new("1.1.0").bytes()).await;
    let answer = post(&node, "/api/v1/wasm/rollback", json!({ "reason": "  " })).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    let latest = node.admin("/api/v1/wasm/history").await["reloads"][0].clone();
    assert_eq!(latest["reason"], "requested");
}

/// The rule that was added in an emergency after a bad module.
#[tokio::test]
async fn a_rollback_of_the_module_keeps_the_rules() {
    for kept in [0, 2] {
        let node = Node::configured(&Module::new("1.0.0"), &format!("[waf.wasm]\nkeep_previous_versions = {kept}"));
        node.upload(&Module::new("1.1.0").bytes()).await;
        post(&node, "/api/v1/rules", json!({"id": "emergency-BLOCK"})).await;
        assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN);
        let answer = node.roll_back().await;
        assert_eq!(answer.status, OK, "{}", answer.text());
        let answer = answer.json();
        assert_eq!((&answer["rolled_back_to"], &answer["rules_changed"]), (&json!("1.0.0"), &json!(false)), "{answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains("the module is v1 again") && message.contains("the rules stay"), "{message}");
        assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN, "its rules are still there");
        assert_eq!(node.version().await["version"], "1.0.0");
        // And after a restart, too.
        let node = node.kill().start();
        assert_eq!(node.version().await["version"], "1.0.0");
        assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn a_rollback_of_the_rules_keeps_the_module() {
    let node = Node::start(&Module::new("1.0.0"));
    post(&node, "/api/v1/rules", json!({"id": "careless-BLOCK"})).await;
    node.upload(&Module::new("1.1.0").bytes()).await;
    let answer = post(&node, "/api/v1/rules/rollback", json!({"reason": "it blocks everybody"})).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["module_changed"], &answer["rules_changed"]), (&json!(false), &json!(true)), "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("the module stays") && message.contains("without careless-BLOCK"), "{message}");
    assert_eq!(node.version().await["version"], "1.1.0");
    assert_eq!(node.get("/").await.status, OK);
    let latest = node.admin("/api/v1/wasm/history").await["reloads"][0].clone();
    assert_eq!((&latest["trigger"], &latest["reason"]), (&json!("rules_rollback"), &json!("it blocks everybody")));
    let more = post(&node, "/api/v1/rules/rollback", json!({})).await;
    assert_eq!(more.status, StatusCode::CONFLICT, "{}", more.text());
}

#[tokio::test]
async fn a_module_can_bring_its_own_rules_back() {
    let node = Node::start(&Module::new("1.0.0"));
    node.upload(&Module::new("1.1.0").bytes()).await;
    post(&node, "/api/v1/rules", json!({"id": "BLOCK"})).await;
    let answer = post(&node, "/api/v1/wasm/rollback", json!({"rules": "restore"})).await.json();
    assert_eq!((&answer["rolled_back_to"], &answer["rules_changed"]), (&json!("1.0.0"), &json!(true)), "{answer}");
    assert_eq!(node.get("/").await.status, OK);
}

#[tokio::test]
async fn module_and_rules_are_deployed_as_one() {
    let node = Node::start(&Module::new("1.0.0"));
    let rules = json!({"dynamic": [{"id": "BLOCK"}]}).to_string();
    let module = Module::new("1.1.0").bytes();
    let form: [(&str, Option<&str>, &[u8]); 3] = [
        ("name", None, b"universal-waf"),
        ("file", Some("m.wasm"), &module),
        ("rules", Some("r.json"), rules.as_bytes()),
    ];
    let answer = request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&form).send().await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN);
    let reloads = node.admin("/api/v1/wasm/history").await["reloads"].clone();
    assert_eq!((&reloads[0]["trigger"], reloads.as_array().unwrap().len()), (&json!("release"), 2));
}

#[tokio::test]
async fn history_and_ways_back_survive_a_restart() {
    let node = Node::start(&Module::new("1.0.0"));
    node.upload(&Module::new("1.1.0").bytes()).await;
    node.upload(&Module::new("1.2.0").bytes()).await;
    post(&node, "/api/v1/rules", json!({"id": "kept"})).await;
    node.upload(b"nothing").await;
    let before = node.admin("/api/v1/wasm/history").await["reloads"].as_array().unwrap().clone();
    let folder = node.kill();
    // A crash in the middle of a line.
    let path = folder.path("data/history.jsonl");
    let mut lines = std::fs::read(&path).unwrap();
    lines.extend_from_slice(b"{\"start\":\"half of a li");
    std::fs::write(&path, lines).unwrap();
    let node = folder.start();
    let after = node.admin("/api/v1/wasm/history").await["reloads"].as_array().unwrap().clone();
    assert_eq!(after.len(), before.len() + 1, "{after:#?}");
    assert_eq!(after[0]["trigger"], "start");
    for (before, after) in before.iter().zip(&after[1..]) {
        for field in ["timestamp", "trigger", "reason", "version", "digest", "duration_ms", "downtime_ms", "error"] {
            assert_eq!(before[field], after[field], "{field}");
        }
        // Generations are numbered anew.
        assert_eq!((&after["kept"], &after["serving"]), (&json!(false), &json!(false)));
    }
    assert_eq!(node.version().await["previous_version"], "1.1.0");

    // Nothing is loaded but what serves: the way back is in the archive.
    let archive = node.admin("/api/v1/wasm/archive").await;
    let previous = archive["modules"].as_array().unwrap().iter().find(|module| module["previous"] == true).unwrap();
    assert_eq!(previous["version"], "1.1.0");
    assert_eq!(node.roll_back().await.json()["rolled_back_to"], "1.1.0");
    assert_eq!(node.roll_back().await.json()["rolled_back_to"], "1.0.0");
    assert_eq!(ids(&node.admin("/api/v1/rules").await["rules"]), ["kept"]);
    assert_eq!(node.roll_back().await.status, StatusCode::CONFLICT);
    // One that was left is still there.
    let digest = hotslot::Digest::of(&Module::new("1.2.0").bytes()).to_string();
    let node = node.kill().start();
    let answer = post(&node, "/api/v1/wasm/rollback", json!({ "digest": digest })).await;
    assert_eq!(answer.json()["rolled_back_to"], "1.2.0", "{}", answer.text());
    let rules = node.admin("/api/v1/wasm/archive").await["rules"].as_array().unwrap().clone();
    let first = rules.iter().find(|rules| rules["serving"] == false).unwrap()["digest"].clone();
    let answer = post(&node, "/api/v1/rules/rollback", json!({ "digest": first })).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    assert_eq!(node.admin("/api/v1/rules").await["rules"], json!([]));
}

#[tokio::test]
async fn a_rule_that_cannot_be_written_to_the_rule_file_is_not_lost() {
    let node = Node::start(&Module::new("1.0.0"));
    assert_eq!(post(&node, "/api/v1/rules", json!({"id": "old", "pattern": "x"})).await.status, OK);
    // No file can take the place of a folder that is not empty.
    let (path, aside) = (node.folder.rule_file(), node.folder.path("aside"));
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir_all(path.join("blocked")).unwrap();
    assert_eq!(post(&node, "/api/v1/rules", json!({"id": "emergency", "pattern": "x"})).await.status, OK);
    let folder = node.kill();
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert!(!std::fs::read_to_string(folder.rule_file()).unwrap().contains("emergency"));
    let node = folder.start();
    assert_eq!(ids(&node.admin("/api/v1/rules").await["rules"]), ["old", "emergency"]);
    assert!(std::fs::read_to_string(node.folder.rule_file()).unwrap().contains("emergency"));
}
