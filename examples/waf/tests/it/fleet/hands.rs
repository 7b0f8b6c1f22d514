//! People and the fleet: who may do what, changes by hand, commands to a rollout, requests that are sent twice.

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::support::fleet::{Fleet, Orchestrator, at_once, canary};
use crate::support::wait::until;
use crate::support::{Module, TOKEN, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_managed_node_is_changed_by_hand_only_behind_glass_and_shows_as_drifted() {
    let Some(fleet) = Fleet::start(2, at_once()).await else { return };
    let node = &fleet.nodes[0];
    let form = |wish: crate::support::http::Wish, module: &[u8]| {
        wish.token(TOKEN).form(&[("name", None, b"universal-waf"), ("file", Some("x.wasm"), module)])
    };
    let upload = || request(node.admin, Method::POST, "/api/v1/wasm/reload");
    let rule = || request(node.admin, Method::PUT, "/api/v1/rules").token(TOKEN).json(&json!({ "id": "a" }));
    let by_hand = Module::new("1.5.0").bytes();
    for answer in [form(upload(), &by_hand).send().await, rule().send().await, node.roll_back().await] {
        assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text());
        assert!(answer.text().contains("Break-Glass"), "{}", answer.text());
    }
    assert_eq!(node.version().await["version"], "1.0.0");

    let answer = form(upload().header("break-glass", "the fleet is on fire"), &by_hand).send().await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let drifted = || async {
        let it = fleet.orchestrator.fleet().await;
        let nodes = it["nodes"].as_array().unwrap().clone();
        nodes.into_iter().find(|node| node["state"] == "drifted" && node["version"] == "1.5.0")
    };
    let shown = until("drift", drifted).await;
    assert_eq!(shown["node"], "node-1", "{shown}");

    // The fleet goes on without it.
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[("wait", "240")]).await.json();
    assert_eq!(answer["deployed_to"], json!(["node-2"]), "{answer}");
    assert_eq!(answer["drifted"], json!(["node-1"]), "{answer}");
    assert_eq!(node.version().await["version"], "1.5.0");

    // Once it is let go, what it has is newer than what the fleet serves: bringing it together goes back.
    let unpinned = request(node.admin, Method::POST, "/api/v1/fleet/unpin").token(TOKEN).send().await;
    assert_eq!(unpinned.json()["was_pinned"], true, "{}", unpinned.text());
    let refused = until("a conflict", || async {
        let answer = fleet.orchestrator.release(&Module::new("1.6.0").bytes(), &[("expected_version", "v1.1.0")]).await;
        (answer.status == StatusCode::CONFLICT).then(|| answer.json())
    })
    .await;
    assert_eq!(refused["error"], "Version conflict: expected v1.1.0, got v1.5.0", "{refused}");
    assert_eq!(refused["resolve"], "POST /api/v1/wasm/sync-versions");
    let answer = fleet.orchestrator.command("/api/v1/wasm/sync-versions").await.json();
    assert_eq!((answer["kind"].clone(), answer["state"].clone()), (json!("sync"), json!("done")), "{answer}");
    fleet.wait_for_version("1.1.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_do_its_part_and_the_audit_says_who_did_it() {
    let Some(fleet) = Fleet::start(1, at_once()).await else { return };
    let orchestrator = &fleet.orchestrator;
    let token = |role: &str| std::fs::read_to_string(orchestrator.path(&format!("roles/{role}/token"))).unwrap();
    let (view, stop) = (token("view"), token("stop"));
    let ask =
        |token: &str, method: Method, target: &str| request(orchestrator.address, method, target).token(token).send();
    for (token, method, target, status) in [
        ("nobody-knows-this-one", Method::GET, "/api/v1/fleet", StatusCode::UNAUTHORIZED),
        (&view, Method::GET, "/api/v1/fleet", StatusCode::OK),
        (&view, Method::POST, "/api/v1/fleet/stop", StatusCode::FORBIDDEN),
        (&view, Method::POST, "/api/v1/fleet/rollback", StatusCode::FORBIDDEN),
        (&stop, Method::POST, "/api/v1/fleet/stop", StatusCode::OK),
        (&stop, Method::POST, "/api/v1/fleet/resume", StatusCode::FORBIDDEN),
        (&stop, Method::POST, "/api/v1/wasm/reload-fleet", StatusCode::FORBIDDEN),
        (TOKEN, Method::POST, "/api/v1/fleet/resume", StatusCode::OK),
        (TOKEN, Method::POST, "/api/v1/fleet/explode", StatusCode::NOT_FOUND),
        (TOKEN, Method::GET, "/api/v1/rollouts/99", StatusCode::NOT_FOUND),
    ] {
        let answer = ask(token, method, target).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
    }
    let foreign = request(orchestrator.address, Method::POST, "/api/v1/fleet/stop").token(TOKEN);
    let answer = foreign.header("origin", "http://attacker.example").send().await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());

    let audit = orchestrator.get("/api/v1/audit").await;
    assert_eq!(audit["whole"], true, "{audit}");
    let lines = audit["lines"].as_array().unwrap();
    assert!(lines.iter().any(|line| line["what"] == "fleet/stop" && line["by"] == "stop"), "{audit}");
    assert!(lines.iter().any(|line| line["what"] == "document" && line["document"]["state"] == "done"), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_sent_twice_begins_one_rollout() {
    let Some(mut fleet) = Fleet::start(1, at_once()).await else { return };
    let module = Module::new("1.1.0").bytes();
    let send = |module: Vec<u8>| {
        let wish =
            fleet.orchestrator.ask(Method::POST, "/api/v1/wasm/reload-fleet").header("idempotency-key", "the-key");
        async move { wish.form(&[("file", Some("x.wasm"), &module)]).send().await }
    };
    let (first, second) = tokio::join!(send(module.clone()), send(module.clone()));
    let (first, second) = (first.json(), second.json());
    assert_eq!(first["state"], "done", "{first}");
    assert_eq!(first["rollout"], second["rollout"]);
    let other = send(Module::new("1.2.0").bytes()).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", other.text());

    // What it comes to may be another thing by now: it is the same request.
    let rule = fleet.orchestrator.ask(Method::POST, "/api/v1/rules?wait=240").json(&json!({ "id": "a" })).send().await;
    assert_eq!(rule.json()["state"], "done", "{}", rule.text());
    let again = send(module.clone()).await.json();
    assert_eq!((&again["rollout"], &again["state"]), (&first["rollout"], &first["state"]), "{again}");
    // Whoever leads next has it from the document.
    let next = Orchestrator::start(&fleet.nats.url(), &at_once(), &[]);
    fleet.orchestrator.kill();
    next.wait_to_lead().await;
    let wish = request(next.address, Method::POST, "/api/v1/wasm/reload-fleet").token(TOKEN);
    let again = wish.header("idempotency-key", "the-key").form(&[("file", Some("x.wasm"), &module)]).send().await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text());
    assert!(again.text().contains(&format!("rollout {} has begun", first["rollout"])), "{}", again.text());
    let wish = request(next.address, Method::POST, "/api/v1/wasm/reload-fleet").token(TOKEN);
    let long = wish.header("idempotency-key", &"k".repeat(256)).form(&[("file", Some("x.wasm"), &module)]).send().await;
    assert_eq!(long.status, StatusCode::BAD_REQUEST, "{}", long.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_waits_to_be_promoted_and_its_events_are_there_to_be_followed() {
    let Some(fleet) = Fleet::start(2, canary(0)).await else { return };
    let orchestrator = &fleet.orchestrator;
    let answer = orchestrator.release(&Module::new("1.1.0").bytes(), &[("target", "canary"), ("wait", "0")]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    let number = answer.json()["rollout"].as_u64().unwrap();
    let paused = until("a canary that waits", || async {
        let rollout = orchestrator.fleet().await["rollout"].clone();
        (rollout["paused"] == true && rollout["served"].as_object()?.len() == 1).then_some(rollout)
    })
    .await;
    assert_eq!(paused["state"], "paused", "{paused}");
    let other = orchestrator.command(&format!("/api/v1/rollouts/{}/promote", number + 1)).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "{}", other.text());
    let events = tokio::spawn(orchestrator.ask(Method::GET, &format!("/api/v1/rollouts/{number}/events")).send());
    let promoted = orchestrator.command(&format!("/api/v1/rollouts/{number}/promote")).await;
    assert!(promoted.status.is_success(), "{}", promoted.text());
    orchestrator.wait_for_state("done").await;
    // The stream ends with the rollout.
    let events = events.await.unwrap();
    let text = events.text();
    for found in ["event: state", "event: node", "\"staging\"", "\"paused\"", "\"done\"", "\"serving\""] {
        assert!(text.contains(found), "{found} in {text}");
    }
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let after = orchestrator.ask(Method::GET, &format!("/api/v1/rollouts/{number}/events"));
    let rest = after.header("last-event-id", ids[ids.len() - 2]).send().await;
    let rest: Vec<&str> = rest
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .map(|id| id.to_owned().leak() as &str)
        .collect();
    assert_eq!(rest, &ids[ids.len() - 1..]);
}
