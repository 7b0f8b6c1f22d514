//! Releases for the nodes with a label, and what becomes of the others.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, Nats, Orchestrator, at_once, folder, join, swaps};
use crate::support::wait::until;
use crate::support::{Module, Node};

/// Two nodes in Europe and one in America.
pub(super) async fn in_two_regions() -> Option<Fleet> {
    let nats = Nats::start()?;
    let orchestrator = Orchestrator::start(&nats.url(), &at_once(), &[]);
    let module = Module::new("1.0.0");
    let start = |(name, label)| join(folder(&module, ""), &nats.url(), name, &["--label", label]);
    let nodes = [("node-1", "region=eu"), ("node-2", "region=eu"), ("node-3", "region=us")].into_iter().map(start);
    let fleet = Fleet { nodes: nodes.collect(), orchestrator, nats };
    fleet.settle().await;
    Some(fleet)
}

async fn serve(nodes: &[Node], versions: &[&str]) {
    for (node, version) in nodes.iter().zip(versions) {
        until(version, || async { (node.version().await["version"] == **version).then_some(()) }).await;
    }
}

async fn roll_back(fleet: &Fleet, wish: Value) -> (StatusCode, Value) {
    let wish = fleet.orchestrator.ask(Method::POST, "/api/v1/fleet/rollback").json(&wish);
    let answer = wish.send().await;
    (answer.status, answer.json())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_for_a_label_reaches_its_nodes_and_stays_theirs() {
    let Some(mut fleet) = in_two_regions().await else { return };
    let eu = [("target", "label:region=eu"), ("wait", "240")];
    for (target, found) in
        [("label:region=asia", "label:region=us (1 nodes)"), ("label:eu", "label:KEY=VALUE"), ("x", "canary")]
    {
        let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[("target", target)]).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{target}: {}", answer.text());
        assert!(answer.text().contains(found), "{target}: {}", answer.text());
    }
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &eu).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["deployed_to"], json!(["node-1", "node-2"]), "{answer}");
    assert_eq!((&answer["for"], &answer["missing"]), (&json!("label:region=eu"), &json!([])), "{answer}");
    serve(&fleet.nodes, &["1.1.0", "1.1.0", "1.0.0"]).await;
    assert_eq!(swaps(&fleet.nodes[2]).await.len(), 0, "it never knew of it");

    // Nobody has drifted, and each group is shown with what is its own.
    let shown = until("all of it in view", || async {
        let shown = fleet.orchestrator.fleet().await;
        let serving = shown["nodes"].as_array()?.iter().all(|node| node["state"] == "serving");
        (serving && shown["mixed"] == false).then_some(shown)
    })
    .await;
    assert_eq!(shown["version"], "1.0.0", "{shown}");
    let group = &shown["groups"][0];
    assert_eq!((&group["label"], &group["version"]), (&json!("region=eu"), &json!("1.1.0")), "{shown}");
    assert_eq!(group["nodes"], json!(["node-1", "node-2"]), "{shown}");
    assert_eq!(shown["nodes"][2]["group"], Value::Null, "{shown}");

    // A late joiner takes what is its group's.
    let late = join(folder(&Module::new("1.0.0"), ""), &fleet.nats.url(), "node-4", &["--label", "region=eu"]);
    fleet.nodes.push(late);
    serve(&fleet.nodes, &["1.1.0", "1.1.0", "1.0.0", "1.1.0"]).await;
    let synced = fleet.orchestrator.command("/api/v1/wasm/sync-versions").await.json();
    assert_eq!((&synced["state"], &synced["kind"]), (&json!("done"), &json!("sync")), "{synced}");
    serve(&fleet.nodes, &["1.1.0", "1.1.0", "1.0.0", "1.1.0"]).await;

    // One that is aborted leaves everybody where he was; so does a stop.
    let asked = json!({ "reason": "for nobody in particular" });
    let (status, answer) = roll_back(&fleet, asked).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert_eq!(answer["targets"], json!(["all", "label:region=eu"]), "{answer}");
    let stopped = fleet.orchestrator.command("/api/v1/fleet/stop").await;
    assert!(stopped.status.is_success(), "{}", stopped.text());
    let refused = fleet.orchestrator.release(&Module::new("1.2.0").bytes(), &eu).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text());
    let resumed = fleet.orchestrator.command("/api/v1/fleet/resume").await;
    assert!(resumed.status.is_success(), "{}", resumed.text());

    let (status, answer) = roll_back(&fleet, json!({ "target": "label:region=eu" })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    serve(&fleet.nodes, &["1.0.0"; 4]).await;

    // What a group has may be for everybody, and then nobody has anything of his own.
    let answer = fleet.orchestrator.release(&Module::new("1.3.0").bytes(), &eu).await.json();
    assert_eq!(answer["deployed_to"], json!(["node-1", "node-2", "node-4"]), "{answer}");
    let answer = fleet.orchestrator.release(&Module::new("1.3.0").bytes(), &[("wait", "240")]).await.json();
    assert_eq!((&answer["state"], &answer["for"]), (&json!("done"), &json!("all")), "{answer}");
    serve(&fleet.nodes, &["1.3.0"; 4]).await;
    assert_eq!(fleet.orchestrator.fleet().await["groups"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_reach_every_group_and_leave_each_its_module_and_a_store_that_was_lost_gets_the_groups_back() {
    let Some(mut fleet) = in_two_regions().await else { return };
    let eu = [("target", "label:region=eu"), ("wait", "240")];
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &eu).await.json();
    assert_eq!(answer["state"], "done", "{answer}");
    let rules = json!({ "dynamic": [], "words": "BLOCK" });
    let answer = fleet.orchestrator.ask(Method::PUT, "/api/v1/rules?wait=240").json(&rules).send().await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    for node in &fleet.nodes {
        until("rules that block", || async { (node.get("/").await.status == StatusCode::FORBIDDEN).then_some(()) })
            .await;
    }
    serve(&fleet.nodes, &["1.1.0", "1.1.0", "1.0.0"]).await;

    // The store forgets everything, and with it that there are groups; the nodes know.
    fleet.orchestrator.kill();
    fleet.nats.kill();
    fleet.nats.wipe();
    fleet.nats.restart();
    fleet.orchestrator.restart();
    let shown = until("the groups again", || async {
        let shown = fleet.orchestrator.fleet().await;
        (shown["groups"][0]["label"] == "region=eu" && shown["rollout"]["state"] == "aborted").then_some(shown)
    })
    .await;
    assert!(shown["rollout"]["alarms"].to_string().contains("lost writes"), "{shown}");
    serve(&fleet.nodes, &["1.1.0", "1.1.0", "1.0.0"]).await;
    for node in &fleet.nodes {
        assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_dissolved_whether_it_has_nodes_or_not() {
    let Some(mut fleet) = in_two_regions().await else { return };
    for (label, version) in [("region=eu", "1.1.0"), ("region=us", "1.2.0")] {
        let target = format!("label:{label}");
        let fields = [("target", &*target), ("wait", "240")];
        let answer = fleet.orchestrator.release(&Module::new(version).bytes(), &fields).await.json();
        assert_eq!(answer["state"], "done", "{answer}");
    }
    let dissolve = async |fleet: &Fleet, label: &str| {
        let target = format!("/api/v1/fleet/groups/{label}");
        fleet.orchestrator.ask(Method::DELETE, &target).json(&json!({ "wait": 240 })).send().await
    };
    let labels = async |fleet: &Fleet| {
        let shown = fleet.orchestrator.fleet().await;
        shown["groups"].as_array().unwrap().iter().map(|group| group["label"].clone()).collect::<Vec<_>>()
    };
    let unknown = dissolve(&fleet, "region=asia").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{}", unknown.text());
    assert_eq!(unknown.json()["groups"], json!(["region=eu", "region=us"]));

    let answer = dissolve(&fleet, "region=eu").await;
    assert_eq!((answer.status, &answer.json()["kind"]), (StatusCode::OK, &json!("sync")), "{}", answer.text());
    serve(&fleet.nodes, &["1.0.0", "1.0.0", "1.2.0"]).await;
    assert_eq!(labels(&fleet).await, ["region=us"]);

    // The last node of a group is gone for good.
    drop(fleet.nodes.pop());
    let forgotten = fleet.orchestrator.ask(Method::DELETE, "/api/v1/fleet/nodes/node-3").send().await;
    assert_eq!(forgotten.status, StatusCode::OK, "{}", forgotten.text());
    assert_eq!(labels(&fleet).await, ["region=us"], "it may come back");
    let answer = dissolve(&fleet, "region=us").await;
    assert_eq!((answer.status, &answer.json()["state"]), (StatusCode::OK, &json!("done")), "{}", answer.text());
    assert_eq!(labels(&fleet).await, Vec::<Value>::new());
    serve(&fleet.nodes, &["1.0.0", "1.0.0"]).await;
    assert_eq!(swaps(&fleet.nodes[0]).await.len(), 2, "there and back");
}
