//! FAULTS 17 and 32: modules that hang where a reload waits for them, and calls that stay in what was replaced.

use std::sync::Arc;

use hyper::{Method, StatusCode};

use crate::support::node::Folder;
use crate::support::wait::until;
use crate::support::{Module, Node, TOKEN, request};

const OK: StatusCode = StatusCode::OK;

#[tokio::test]
async fn a_module_that_hangs_before_it_serves_is_refused_and_the_next_one_taken() {
    let golden = "[[waf.wasm.golden]]\nname = \"an attack\"\ntarget = \"/?do=b\"\nverdict = 1";
    let limits = "[waf.wasm.limits]\nload_deadline_milliseconds = 2000";
    let node = Node::configured(&Module::new("1.0.0"), &format!("{golden}\n{limits}"));
    for (function, stage, deadline) in [
        ("start", "load", "2s"),
        ("hotslot_create", "load", "2s"),
        ("hotslot_room", "load", "2s"),
        ("hotslot_invoke", "probe", "1s"),
    ] {
        let hanging = Module::new("1.1.0").hangs_in(function).bytes();
        let others = async {
            for _ in 0..20 {
                assert_eq!(node.get("/").await.status, OK);
            }
        };
        let (answer, ()) = tokio::join!(node.upload(&hanging), others);
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{function}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["stage"], stage, "{function}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(&format!("did not answer within {deadline}")), "{answer}");
        assert_eq!(answer["status"], "still_serving_v1");
    }
    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, OK);
    assert_eq!(node.version().await["version"], "1.1.0");
}

/// A load that the limits of a call do not end.
#[tokio::test]
async fn a_load_that_outlasts_the_timeout_is_given_up_and_the_slot_stays_usable() {
    let patient = "[waf.wasm.reload]\ntimeout_seconds = 5\n[waf.wasm.limits]\ndeadline_milliseconds = 3600000";
    let node = Node::configured(&Module::new("1.0.0"), patient);
    let hanging = Module::new("1.1.0").hangs_in("start").bytes();
    let others = async {
        for _ in 0..20 {
            assert_eq!(node.get("/").await.status, OK);
        }
    };
    let (answer, ()) = tokio::join!(node.upload(&hanging), others);
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["stage"], "load");
    assert_eq!(answer["error"], "Reload timed out after 5s");
    assert!(answer["detail"].as_str().unwrap().contains("no result within 5s"), "{answer}");
    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, OK);
    assert_eq!(node.get("/").await.status, OK);
    assert_eq!(node.roll_back().await.json()["rolled_back_to"], "1.0.0");
}

const RETIRED: &str = "wasm_retired_generations{";
const INSTANCES: &str = "wasm_instances{";

#[tokio::test]
async fn calls_that_stay_in_a_replaced_module_are_named_and_ended_and_hold_up_nobody() {
    let patient = "[waf.wasm]\nkeep_previous_versions = 0\n[waf.wasm.limits]\ndeadline_milliseconds = 3600000";
    let node = Arc::new(Folder::new(&Module::new("1.0.0"), patient).start_logged());
    // In large bodies, so that the node sets threads aside for them. The second one needs an instance of its own.
    let body = format!("{}do=x", " ".repeat(20 << 10));
    let stay = || tokio::spawn(request(node.data, Method::POST, "/echo").body(body.clone()).send());
    let staying = [stay(), stay()];
    let inside = &node;
    until("two calls inside", || async move { (inside.metric(INSTANCES).await == 2.0).then_some(()) }).await;

    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, OK);
    assert_eq!(node.metric(RETIRED).await, 1.0);
    assert!(staying.iter().all(|call| !call.is_finished()));
    for _ in 0..20 {
        assert_eq!(node.get("/").await.status, OK);
    }
    // Others come and go meanwhile.
    assert_eq!(node.upload(&Module::new("1.2.0").bytes()).await.status, OK);

    for call in staying {
        assert_eq!(call.await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let errors = node.admin("/api/v1/wasm/errors").await;
    for error in &errors["errors"].as_array().unwrap()[..2] {
        assert_eq!((&error["version"], &error["generation"]), (&"1.0.0".into(), &1.into()));
        assert!(error["error"].as_str().unwrap().contains("the plugin was replaced"), "{error}");
    }
    let log = node.folder.log();
    let stuck = log.lines().find(|line| line.contains("stuck")).expect("a line in the log");
    assert!(stuck.contains("generation=1") && stuck.contains("leases=2"), "{stuck}");
    until("the end of all that was replaced", || async move { (inside.metric(RETIRED).await == 0.0).then_some(()) })
        .await;
    assert_eq!(node.version().await["version"], "1.2.0");
}

/// FAULTS 33: the node is told to stop while a module is being loaded.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_in_a_hanging_reload_stops_and_starts_again() {
    let patient = "[waf.wasm.reload]\ntimeout_seconds = 5\n[waf.wasm.limits]\ndeadline_milliseconds = 3600000";
    let mut node = Node::configured(&Module::new("1.0.0"), patient);
    let upload = upload(&node, &Module::new("1.1.0").hangs_in("start"));
    let inside = &node;
    // Of the module that serves, and of the one that does not come back.
    until("the new module's start", || async move { (inside.metric(INSTANCES).await == 2.0).then_some(()) }).await;
    assert!(node.stop().success());
    if let Ok(answer) = upload.await.unwrap() {
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text());
    }
    let node = node.kill().start();
    assert_eq!(node.version().await["version"], "1.0.0");
}

/// FAULTS 33, at moments all over a reload.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_in_a_reload_keeps_what_it_answered() {
    let mut folder = Folder::new(&Module::new("1.0.0"), "");
    let mut serving = "1.0.0".to_owned();
    for round in 1..=10 {
        let mut node = folder.start();
        let next = format!("1.{round}.0");
        let upload = upload(&node, &Module::new(&next));
        // Each round a little later in the reload: nothing depends on where exactly.
        tokio::time::sleep(std::time::Duration::from_millis(round * 4)).await;
        assert!(node.stop().success());
        let answered = upload.await.unwrap().is_ok_and(|answer| answer.status == OK);
        node = node.kill().start();
        let found = node.version().await["version"].as_str().unwrap().to_owned();
        assert!(found == next || (!answered && found == serving), "{found} after {serving}; answered: {answered}");
        serving = found;
        folder = node.kill();
    }
}

type Upload = Result<crate::support::Answer, Box<dyn std::error::Error + Send + Sync>>;

#[cfg(unix)]
fn upload(node: &Node, module: &Module) -> tokio::task::JoinHandle<Upload> {
    let bytes = module.bytes();
    let form = [("name", None, &b"universal-waf"[..]), ("file", Some("x"), &bytes[..])];
    tokio::spawn(request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&form).try_send())
}
