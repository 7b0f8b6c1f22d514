//! Rules from outside: valid ones reach all nodes, in few rollouts.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::Module;
use crate::support::fleet::{Fleet, Orchestrator, at_once, canary};
use crate::support::wait::until;

/// Acceptance 18.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_rules_in_five_seconds_are_two_rollouts_at_most() {
    let Some(fleet) = Fleet::start(3, at_once()).await else { return };
    let before = fleet.orchestrator.fleet().await["rollout"]["rollout"].as_u64().unwrap();
    let mut posts = Vec::new();
    for number in 0..20 {
        let rule = json!({ "id": format!("rule-{number}"), "pattern": "x" });
        let wish = fleet.orchestrator.ask(Method::POST, "/api/v1/rules?wait=240").json(&rule);
        posts.push(tokio::spawn(async move { wish.send().await }));
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    for post in posts {
        let answer = post.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert!(answer.json()["times"]["validated_ms"].is_number(), "{}", answer.text());
    }
    let after = fleet.orchestrator.fleet().await["rollout"]["rollout"].as_u64().unwrap();
    assert!(after - before <= 2, "{} rollouts", after - before);
    for node in &fleet.nodes {
        let file: Value = serde_json::from_slice(&std::fs::read(node.folder.rule_file()).unwrap()).unwrap();
        assert_eq!(file["dynamic"].as_array().unwrap().len(), 20, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_the_module_refuses_reaches_no_node() {
    let Some(fleet) = Fleet::start(1, at_once()).await else { return };
    let post = |rule: Value| fleet.orchestrator.ask(Method::POST, "/api/v1/rules").json(&rule).send();
    let before = fleet.orchestrator.fleet().await["rollout"]["rollout"].clone();
    for bad in [json!({ "id": "REFUSE" }), json!("no rule"), json!({ "pattern": "x" })] {
        let answer = post(bad).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text());
    }
    assert_eq!(fleet.orchestrator.fleet().await["rollout"]["rollout"], before);

    let file = json!({ "dynamic": [{ "id": "BLOCK" }] });
    let answer = fleet.orchestrator.ask(Method::PUT, "/api/v1/rules?wait=240").json(&file).send().await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    assert_eq!(fleet.nodes[0].get("/").await.status, StatusCode::FORBIDDEN);
    assert_eq!(fleet.orchestrator.get("/api/v1/rules").await["rules"], file);
    // Rules and module change as one: a rollback takes both back.
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[]).await.json();
    assert_eq!(answer["state"], "done", "{answer}");
    assert_eq!(fleet.nodes[0].get("/").await.status, StatusCode::FORBIDDEN, "a module comes with the fleet's rules");
    for _ in 0..2 {
        let to = json!({ "to": "1.0.0" });
        let wish = fleet.orchestrator.ask(Method::POST, "/api/v1/fleet/rollback").json(&to);
        assert_eq!(wish.send().await.json()["state"], "done");
    }
    assert_eq!(fleet.nodes[0].get("/").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_comes_while_rules_are_rolled_out_does_not_take_them_back() {
    let Some(fleet) = Fleet::start(2, at_once()).await else { return };
    let orchestrator = &fleet.orchestrator;
    let rule = json!({ "id": "BLOCK" });
    let rules = tokio::spawn(orchestrator.ask(Method::POST, "/api/v1/rules?wait=240").json(&rule).send());
    // Its canary has the rule, and the other node has not yet.
    orchestrator.wait_for_state("committing").await;
    let answer = orchestrator.release(&Module::new("1.1.0").bytes(), &[("wait", "240")]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let rules = rules.await.unwrap().json();
    assert_eq!(rules["state"], "done", "{rules}");
    assert!(answer.json()["rollout"].as_u64() > rules["rollout"].as_u64(), "{}", answer.text());
    fleet.wait_for_version("1.1.0").await;
    for node in &fleet.nodes {
        assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN, "the rule is still there");
    }
}

/// Whoever was told that they wait need not send them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_wait_outlive_the_orchestrator() {
    let Some(mut fleet) = Fleet::start(2, canary(600_000)).await else { return };
    let hold_up = async |orchestrator: &Orchestrator, version: &str| {
        let begun = orchestrator.release(&Module::new(version).bytes(), &[("wait", "0")]).await;
        assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.text());
        begun.json()["rollout"].as_u64().unwrap()
    };
    let rollout = hold_up(&fleet.orchestrator, "1.1.0").await;
    let rule = json!({ "id": "BLOCK" });
    let queued = fleet.orchestrator.ask(Method::POST, "/api/v1/rules?wait=0").json(&rule).send().await;
    assert_eq!((queued.status, &queued.json()["state"]), (StatusCode::ACCEPTED, &json!("queued")), "{}", queued.text());
    fleet.orchestrator.kill();
    fleet.orchestrator.restart();
    fleet.orchestrator.wait_to_lead().await;
    let aborted = fleet.orchestrator.command(&format!("/api/v1/rollouts/{rollout}/abort")).await;
    assert!(aborted.status.is_success(), "{}", aborted.text());
    let is_told = |line: &Value| line["what"] == "rules that had to wait" && line["rollout"] == rollout + 1;
    until("the rules to be rolled out, and that to be in the audit", || async {
        let audit = fleet.orchestrator.get("/api/v1/audit").await;
        audit["lines"].as_array().unwrap().iter().any(is_told).then_some(())
    })
    .await;
    fleet.orchestrator.wait_for_state("done").await;
    for node in &fleet.nodes {
        assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN);
    }

    // Also while the fleet is stopped, in which nothing begins.
    let rollout = hold_up(&fleet.orchestrator, "1.1.0").await;
    let rule = json!({ "id": "another" });
    let queued = fleet.orchestrator.ask(Method::POST, "/api/v1/rules?wait=0").json(&rule).send().await;
    assert_eq!(queued.status, StatusCode::ACCEPTED, "{}", queued.text());
    assert!(fleet.orchestrator.command("/api/v1/fleet/stop").await.status.is_success());
    until("the rules to have to wait", || async { fleet.orchestrator.log().contains("have to wait").then_some(()) })
        .await;
    assert!(fleet.orchestrator.command("/api/v1/fleet/resume").await.status.is_success());
    until("the rules to be rolled out", || async {
        let fleet = fleet.orchestrator.fleet().await;
        (fleet["rollout"]["rollout"] == rollout + 1 && fleet["rollout"]["state"] == "done").then_some(())
    })
    .await;

    // A whole file that came before what others have brought since would take that back.
    let rollout = hold_up(&fleet.orchestrator, "1.1.0").await;
    let file = json!({ "dynamic": [] });
    let queued = fleet.orchestrator.ask(Method::PUT, "/api/v1/rules?wait=0").json(&file).send().await;
    assert_eq!(queued.status, StatusCode::ACCEPTED, "{}", queued.text());
    fleet.orchestrator.kill();
    let other = Orchestrator::start(&fleet.nats.url(), &at_once(), &[]);
    other.wait_to_lead().await;
    let release = other.release(&Module::new("1.2.0").bytes(), &[]).await.json();
    assert_eq!((&release["state"], &release["rollout"]), (&json!("done"), &json!(rollout + 1)), "{release}");
    drop(other);
    fleet.orchestrator.restart();
    let is_told = |line: &Value| line["what"] == "rules that had to wait" && line["error"].is_string();
    until("the file to be given up, and that to be in the audit", || async {
        let audit = fleet.orchestrator.get("/api/v1/audit").await;
        audit["lines"].as_array().unwrap().iter().any(is_told).then_some(())
    })
    .await;
    assert_eq!(fleet.orchestrator.fleet().await["rollout"]["rollout"], rollout + 1);
}
