//! Releases go to all nodes or to none.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, Load, Nats, Orchestrator, at_once, canary, folder, join, swaps};
use crate::support::wait::until;
use crate::support::{Module, Node};

fn names(list: &Value) -> usize {
    list.as_array().unwrap_or_else(|| panic!("no list: {list}")).len()
}

async fn generation(node: &Node) -> u64 {
    node.version().await["generation"].as_u64().unwrap()
}

/// Acceptance 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_nodes_change_together_under_load_and_no_request_fails() {
    let Some(fleet) = Fleet::start(8, at_once()).await else { return };
    let load = Load::start(&fleet.nodes, "/");
    let mut figures: Vec<(f64, f64, f64)> = Vec::new();
    for round in 1..=8 {
        let module = Module::new(&format!("1.{round}.0")).bytes();
        let began = std::time::Instant::now();
        let answer = fleet.orchestrator.release(&module, &[("target", "all"), ("wait", "240")]).await;
        let took = began.elapsed().as_secs_f64() * 1e3;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(names(&answer["deployed_to"]), 8, "{answer}");
        assert_eq!((answer["success"].clone(), answer["state"].clone()), (json!(true), json!("done")), "{answer}");
        assert!(names(&answer["failed"]) == 0 && names(&answer["missing"]) == 0, "{answer}");
        let figure = |name: &str| answer[name].as_f64().unwrap_or_else(|| panic!("{name} in {answer}"));
        figures.push((figure("commit_skew_ms"), figure("hint_to_commit_ms"), took));
        let mut digests = Vec::new();
        for node in &fleet.nodes {
            digests.push(node.version().await["digest"].clone());
        }
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    }
    let (count, failed) = load.end().await;
    assert!(count > 0 && failed.is_empty(), "{} of {count} failed: {:?}", failed.len(), failed.first());
    for (index, what) in ["skew", "hint to last commit", "reload-fleet to all serving"].iter().enumerate() {
        let mut values: Vec<f64> = figures.iter().map(|it| [it.0, it.1, it.2][index]).collect();
        values.sort_by(f64::total_cmp);
        println!(
            "{what}: p50 {:.1} ms, most {:.1} ms, of {}",
            values[values.len() / 2],
            values[values.len() - 1],
            values.len()
        );
    }
    println!("{count} requests, none failed");
}

/// Acceptance 2. FAULTS 41.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_half_of_the_nodes_refuse_is_committed_by_none() {
    let poisoned = |number: usize| match number % 2 {
        0 => "[[waf.wasm.golden]]\nname = \"a page\"\ntarget = \"/\"\nverdict = 0".to_owned(),
        _ => String::new(),
    };
    let Some(fleet) = Fleet::configured(6, at_once(), poisoned).await else { return };
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").always('b').bytes(), &[]).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["state"], "aborted", "{answer}");
    assert!(names(&answer["deployed_to"]) == 0 && names(&answer["failed"]) > 0, "{answer}");
    let failures = answer["failures"].as_object().unwrap();
    assert!(failures.values().all(|why| why.as_str().unwrap().contains("a page")), "{answer}");
    assert!(answer["alarms"][0].as_str().unwrap().starts_with("halted"), "{answer}");
    assert_eq!(answer["served"], json!({}));
    for node in &fleet.nodes {
        assert_eq!(generation(node).await, 1, "it never changed");
        assert_eq!(node.get("/").await.status, StatusCode::OK);
    }
}

/// Acceptance 3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_traps_is_the_only_node_that_ever_served_it() {
    let judged = |_| "[waf.wasm.probation]\nmin_calls = 20\nmax_error_rate = 0.05".to_owned();
    let Some(fleet) = Fleet::configured(3, canary(600_000), judged).await else { return };
    let load = Load::start(&fleet.nodes, "/");
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").always('t').bytes(), &[("wait", "240")]).await;
    let answer = answer.json();
    load.end().await;
    assert_eq!(answer["state"], "aborted", "{answer}");
    assert_eq!(answer["served"].as_object().unwrap().len(), 1, "{answer}");
    assert_eq!(names(&answer["failed"]), 1, "{answer}");
    let mut changed = 0;
    for node in &fleet.nodes {
        until("the old version everywhere", || async { (node.version().await["version"] == "1.0.0").then_some(()) })
            .await;
        changed += usize::from(!swaps(node).await.is_empty());
    }
    assert_eq!(changed, 1, "nobody but the canary was touched");
}

/// It goes back while the commit is still being put on record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_fails_at_its_first_call_is_not_taken_for_a_healthy_one() {
    let judged = |_| "[waf.wasm.probation]\nmin_calls = 1\nmax_error_rate = 0.05".to_owned();
    let Some(fleet) = Fleet::configured(2, canary(600_000), judged).await else { return };
    let loads: Vec<Load> = (0..6).map(|_| Load::start(&fleet.nodes, "/")).collect();
    for round in 1..=3 {
        let bad = Module::new(&format!("1.{round}.0")).always('t').bytes();
        let answer = fleet.orchestrator.release(&bad, &[("wait", "60")]).await.json();
        assert_eq!(answer["state"], "aborted", "{answer}");
        assert_eq!((names(&answer["failed"]), answer["served"].as_object().unwrap().len()), (1, 1), "{answer}");
        fleet.wait_for_version("1.0.0").await;
        let stands = fleet.orchestrator.fleet().await;
        for node in stands["nodes"].as_array().unwrap() {
            assert_eq!(node["version"], "1.0.0", "as the node itself says: {node}");
        }
    }
    for load in loads {
        load.end().await;
    }
    let answer = fleet.orchestrator.release(&Module::new("1.9.0").bytes(), &[("plan", "at_once")]).await.json();
    assert_eq!((answer["state"].clone(), names(&answer["deployed_to"])), (json!("done"), 2), "{answer}");
}

/// Acceptance 4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_without_traffic_is_never_promoted() {
    let mut plan = canary(0);
    plan["analysis"]["min_calls"] = json!(1);
    plan["commit_deadline"] = json!(3_000);
    let Some(fleet) = Fleet::start(2, plan).await else { return };
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[]).await.json();
    assert_eq!(answer["state"], "aborted", "no data is no success: {answer}");
    assert_eq!(answer["served"].as_object().unwrap().len(), 1, "{answer}");
    assert!(answer["alarms"][0].as_str().unwrap().contains("deadline"), "{answer}");
    fleet.wait_for_version("1.0.0").await;
}

/// Acceptance 11.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_reaches_a_version_that_is_not_loaded_and_comes_too_soon_for_a_reload() {
    let hasty =
        |_| "[waf.wasm]\nkeep_previous_versions = 0\n[waf.wasm.reload]\nmax_reload_frequency_seconds = 3600".to_owned();
    let Some(fleet) = Fleet::configured(2, at_once(), hasty).await else { return };
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[]).await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    let answer = fleet.orchestrator.command("/api/v1/fleet/rollback").await.json();
    assert_eq!((answer["kind"].clone(), answer["state"].clone()), (json!("rollback"), json!("done")), "{answer}");
    assert_eq!(names(&answer["deployed_to"]), 2, "{answer}");
    fleet.wait_for_version("1.0.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rollback_goes_one_release_further_back_and_never_forward_again() {
    let Some(fleet) = Fleet::start(1, canary(600_000)).await else { return };
    let release = |version: &str| {
        let module = Module::new(version).bytes();
        let orchestrator = &fleet.orchestrator;
        async move { orchestrator.release(&module, &[("plan", "at_once")]).await.json() }
    };
    for version in ["1.1.0", "1.2.0"] {
        assert_eq!(release(version).await["state"], "done", "{version}");
    }
    for version in ["1.1.0", "1.0.0"] {
        let answer = fleet.orchestrator.command("/api/v1/fleet/rollback").await.json();
        assert_eq!((answer["state"].clone(), answer["version"].clone()), (json!("done"), json!(version)), "{answer}");
    }
    let answer = fleet.orchestrator.command("/api/v1/fleet/rollback").await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text());

    // A rollout that is under way is superseded by a newer one, though its nodes serve different things by then.
    let answer = fleet.orchestrator.release(&Module::new("1.3.0").bytes(), &[("wait", "0")]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    assert_eq!(release("1.4.0").await["state"], "done");
    fleet.wait_for_version("1.4.0").await;
    let superseded = fleet.orchestrator.get(&format!("/api/v1/rollouts/{}", answer.json()["rollout"])).await;
    assert_eq!(superseded["state"], "superseded", "{superseded}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_release_is_made_of_leaves_the_store_and_comes_back_when_it_is_wanted_again() {
    let Some(nats) = Nats::start() else { return };
    let orchestrator = Orchestrator::start(&nats.url(), &at_once(), &["--keep-releases", "1"]);
    let nodes = vec![join(folder(&Module::new("1.0.0"), ""), &nats.url(), "node-1", &[])];
    let fleet = Fleet { nodes, orchestrator, nats };
    fleet.settle().await;
    let context = async_nats::jetstream::new(fleet.nats.client().await);
    let modules = ["1.0.0", "1.1.0", "1.2.0"].map(|version| Module::new(version).bytes());
    let has = |module: Vec<u8>| {
        let (context, digest) = (context.clone(), hotslot::Digest::of(&module));
        async move {
            let stream = context.get_stream("artifacts").await.unwrap();
            let info = stream.info_with_subjects(format!("waf.artifact.{digest}.>")).await.unwrap();
            futures_util::StreamExt::count(info).await > 0
        }
    };
    for module in &modules[1..] {
        let answer = fleet.orchestrator.release(module, &[]).await.json();
        assert_eq!(answer["state"], "done", "{answer}");
    }
    until("the first module to be gone", || async { (!has(modules[0].clone()).await).then_some(()) }).await;
    assert!(
        has(modules[1].clone()).await && has(modules[2].clone()).await,
        "what serves, and what it would go back to"
    );

    // The node has it no longer either.
    let first = fleet.orchestrator.get("/api/v1/rollouts/1").await["target"].as_str().unwrap().to_owned();
    let archive = fleet.nodes[0].folder.archive();
    std::fs::remove_dir_all(archive.join("modules")).unwrap();
    let back =
        fleet.orchestrator.ask(Method::POST, "/api/v1/fleet/rollback").json(&json!({ "to": first })).send().await;
    assert_eq!(back.json()["state"], "done", "{}", back.text());
    fleet.wait_for_version("1.0.0").await;
    assert!(has(modules[0].clone()).await);
}

/// It has seen no rollout of theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_orchestrator_removes_that_another_one_has_brought_is_not_lost() {
    let Some(mut fleet) = Fleet::start(1, at_once()).await else { return };
    let release = async |orchestrator: &Orchestrator, version: &str| {
        let answer = orchestrator.release(&Module::new(version).bytes(), &[]).await.json();
        assert_eq!(answer["state"], "done", "{answer}");
        answer["target"].as_str().unwrap().to_owned()
    };
    let second = release(&fleet.orchestrator, "1.1.0").await;
    for version in ["1.2.0", "1.3.0"] {
        release(&fleet.orchestrator, version).await;
    }
    fleet.orchestrator.kill();
    fleet.orchestrator = Orchestrator::start(&fleet.nats.url(), &at_once(), &["--keep-releases", "1"]);
    fleet.orchestrator.wait_to_lead().await;
    release(&fleet.orchestrator, "1.4.0").await;
    let stream = async_nats::jetstream::new(fleet.nats.client().await).get_stream("artifacts").await.unwrap();
    until("its artifacts to be removed from the store", || async {
        let info = stream.info_with_subjects(format!("waf.artifact.{second}.>")).await.unwrap();
        (futures_util::StreamExt::count(info).await == 0).then_some(())
    })
    .await;
    std::fs::remove_dir_all(fleet.nodes[0].folder.archive().join("modules")).unwrap();
    let back =
        fleet.orchestrator.ask(Method::POST, "/api/v1/fleet/rollback").json(&json!({ "to": second })).send().await;
    assert_eq!(back.json()["state"], "done", "{}", back.text());
    fleet.wait_for_version("1.1.0").await;
}

/// Acceptance 17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_freezes_the_fleet_on_its_stable_release_in_every_phase() {
    let Some(mut fleet) = Fleet::start(3, canary(600_000)).await else { return };
    let orchestrator = &fleet.orchestrator;

    // Settled.
    let stopped = orchestrator.command("/api/v1/fleet/stop").await;
    assert_eq!(stopped.json()["stopped"], true, "{}", stopped.text());
    let refused = orchestrator.release(&Module::new("1.1.0").bytes(), &[]).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text());
    assert!(refused.text().contains("stopped"), "{}", refused.text());
    assert!(orchestrator.command("/api/v1/fleet/resume").await.status.is_success());

    // Its canary serves.
    let answer = orchestrator.release(&Module::new("1.1.0").bytes(), &[("wait", "0")]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    until("a canary", || async {
        let rollout = orchestrator.fleet().await["rollout"].clone();
        (rollout["served"].as_object()?.len() == 1).then_some(())
    })
    .await;
    let began = std::time::Instant::now();
    let stopped = orchestrator.command("/api/v1/fleet/stop").await.json();
    assert_eq!((stopped["state"].clone(), stopped["stopped"].clone()), (json!("aborted"), json!(true)), "{stopped}");
    fleet.wait_for_version("1.0.0").await;
    println!("stop in commit to all on stable: {} ms", began.elapsed().as_millis());
    assert!(orchestrator.command("/api/v1/fleet/resume").await.status.is_success());

    // Its nodes are staging: one of them is stopped by the system, and does not answer.
    let signal = |signal: &str| {
        let done =
            std::process::Command::new("kill").arg(signal).arg(fleet.nodes[2].id().to_string()).status().unwrap();
        assert!(done.success());
    };
    let before = generation(&fleet.nodes[1]).await;
    signal("-STOP");
    let answer = orchestrator.release(&Module::new("1.2.0").bytes(), &[("wait", "0")]).await;
    assert_eq!(answer.json()["state"], "staging", "{}", answer.text());
    let stopped = orchestrator.command("/api/v1/fleet/stop").await.json();
    assert_eq!((stopped["state"].clone(), stopped["stopped"].clone()), (json!("aborted"), json!(true)), "{stopped}");
    assert_eq!(stopped["served"], json!({}));
    signal("-CONT");
    fleet.wait_for_version("1.0.0").await;
    assert_eq!(generation(&fleet.nodes[1]).await, before, "nobody has changed");
    assert!(orchestrator.command("/api/v1/fleet/resume").await.status.is_success());

    // One is held: it takes no part.
    let held = fleet.nodes[0].folder.path("data/hold");
    std::fs::write(&held, "").unwrap();
    until("a node that is held", || async {
        let fleet = fleet.orchestrator.fleet().await;
        fleet["nodes"].as_array()?.iter().any(|node| node["held"] == true).then_some(())
    })
    .await;
    let generation_held = generation(&fleet.nodes[0]).await;
    let answer = fleet.orchestrator.release(&Module::new("1.2.0").bytes(), &[("plan", "at_once")]).await.json();
    assert_eq!(answer["state"], "done", "{answer}");
    assert_eq!(answer["deployed_to"], json!(["node-2", "node-3"]), "{answer}");
    for node in &fleet.nodes[1..] {
        assert_eq!(node.version().await["version"], "1.2.0");
    }

    // And by the file alone, with NATS dead.
    fleet.nats.kill();
    fleet.orchestrator.kill();
    assert_eq!(generation(&fleet.nodes[0]).await, generation_held, "who is held changes nothing");
    let other = fleet.nodes[1].folder.path("data/hold");
    std::fs::write(&other, "").unwrap();
    let node = &fleet.nodes[1];
    until("held without NATS", || async {
        (node.admin("/api/v1/fleet").await["report"]["held"] == true).then_some(())
    })
    .await;
    assert_eq!(node.get("/").await.status, StatusCode::OK, "and it serves on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_brings_its_part_of_the_configuration_and_takes_it_along_when_it_goes() {
    let Some(mut fleet) = Fleet::start(2, at_once()).await else { return };
    let traps = "/?do=t";
    assert_eq!(fleet.nodes[0].get(traps).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let module = Module::new("1.0.0").bytes();
    let refused = fleet.orchestrator.release(&module, &[("config", r#"{"failure_policy":"open"}"#)]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text());
    assert!(refused.text().contains("uninspected"), "{}", refused.text());

    // Nothing but the configuration is different.
    let config = r#"{"failure_policy":"open","uninspected":"log"}"#;
    let answer = fleet.orchestrator.release(&module, &[("config", config)]).await.json();
    assert_eq!((answer["state"].clone(), names(&answer["deployed_to"])), (json!("done"), 2), "{answer}");
    for node in &fleet.nodes {
        assert_eq!(node.get(traps).await.status, StatusCode::OK);
    }
    let folder = fleet.nodes.pop().unwrap().kill();
    fleet.nodes.push(join(folder, &fleet.nats.url(), "node-2", &[]));
    assert_eq!(fleet.nodes[1].get(traps).await.status, StatusCode::OK, "also after a restart");

    let answer = fleet.orchestrator.command("/api/v1/fleet/rollback").await.json();
    assert_eq!(answer["state"], "done", "{answer}");
    for node in &fleet.nodes {
        assert_eq!(node.get(traps).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
