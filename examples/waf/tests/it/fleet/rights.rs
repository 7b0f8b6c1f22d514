//! Least rights: what a node's key may do, and what the log says of the rest. Acceptance 13.

use hyper::StatusCode;

use crate::support::Module;
use crate::support::fleet::{Fleet, Nats, Orchestrator, at_once, folder, join};
use crate::support::wait::until;

/// What a node may do, as the README says it.
fn node_rights(name: &str) -> String {
    format!(
        r#"{{
      publish: {{ allow: ["$KV.nodes.{name}", "waf.heartbeat.{name}", "$JS.API.DIRECT.GET.KV_desired.>", "$JS.API.DIRECT.GET.artifacts.>"] }}
      subscribe: {{ allow: ["_INBOX_{name}.>", "secbeat.wasm.reload.>"] }}
    }}"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_least_rights_follows_its_fleet_and_may_do_nothing_else() {
    let rights = node_rights("node-1");
    let (leader, node) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let users = format!(
        "authorization {{ users: [\n  {{ nkey: {} }}\n  {{ nkey: {}, permissions: {rights} }}\n] }}\n",
        leader.public_key(),
        node.public_key()
    );
    let Some(nats) = Nats::configured(&users) else { return };
    let keys = tempfile::tempdir().unwrap();
    let seed = |name: &str, pair: &nkeys::KeyPair| {
        let path = keys.path().join(name);
        std::fs::write(&path, pair.seed().unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let orchestrator = Orchestrator::start(&nats.url(), &at_once(), &["--nkey", &seed("leader", &leader)]);
    let folder = folder(&Module::new("1.0.0"), "");
    let nodes = vec![join(folder, &nats.url(), "node-1", &["--nkey", &seed("node", &node)])];
    let fleet = Fleet { nodes, orchestrator, nats };
    fleet.settle().await;
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[]).await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    fleet.wait_for_version("1.1.0").await;

    // The same key tries what it must not.
    let errors = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = std::sync::Arc::clone(&errors);
    let options = async_nats::ConnectOptions::with_nkey(node.seed().unwrap()).event_callback(move |event| {
        heard.lock().unwrap().push(event.to_string());
        async {}
    });
    let client = options.connect(fleet.nats.url()).await.unwrap();
    let stands = || async {
        let fleet = fleet.orchestrator.fleet().await;
        let figures = [&fleet["rollout"]["rollout"], &fleet["nodes"][0]["rollout"], &fleet["nodes"][0]["step"]];
        figures.map(|figure| figure.as_u64().unwrap_or_else(|| panic!("no number in {fleet}")))
    };
    let before = stands().await;
    for subject in [
        "$KV.desired.slot.waf",
        "$KV.desired.leader.waf",
        "$KV.nodes.node-2",
        "waf.artifact.x.0",
        "$JS.API.STREAM.DELETE.KV_desired",
        "secbeat.wasm.reload.x",
    ] {
        client.publish(subject, "{}".into()).await.unwrap();
        client.flush().await.unwrap();
        let denied = || async {
            let errors = errors.lock().unwrap();
            errors
                .iter()
                .any(|error| error.contains(subject) && error.to_lowercase().contains("violation"))
                .then_some(())
        };
        until(&format!("a denial of {subject}"), denied).await;
    }
    assert_eq!(stands().await, before);
    assert_eq!(fleet.nodes[0].get("/").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_key_may_not_tell_how_it_stands_logs_the_reason() {
    let rights = r#"{ publish: { allow: ["$JS.API.DIRECT.GET.>"] }, subscribe: { allow: ["_INBOX_node-1.>", "secbeat.wasm.reload.>"] } }"#;
    let users = format!("authorization {{ users: [ {{ user: node, password: secret, permissions: {rights} }} ] }}\n");
    let Some(nats) = Nats::configured(&users) else { return };
    let url = format!("nats://node:secret@{}", nats.address());
    let node = join(folder(&Module::new("1.0.0"), ""), &url, "node-1", &[]);
    until("a reason in the log", || async {
        let log = node.folder.log();
        (log.contains("NATS refuses") && log.to_lowercase().contains("permissions violation")).then_some(())
    })
    .await;
    assert_eq!(node.get("/").await.status, StatusCode::OK, "and it serves on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_speaks_tls_to_servers_that_it_is_told_to_trust_and_to_no_others() {
    let keys = tempfile::tempdir().unwrap();
    if !crate::servers::for_localhost(keys.path()) {
        return;
    }
    let path = |name: &str| keys.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("localhost.pem"), path("localhost.key"));
    let tls = format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}\n");
    let Some(nats) = Nats::configured(&tls) else { return };
    let url = format!("tls://localhost:{}", nats.address().port());
    let trust = ["--nats-ca", &certificate];
    let orchestrator = Orchestrator::start(&url, &at_once(), &trust);
    let module = Module::new("1.0.0");
    let stranger = join(folder(&module, ""), &url, "stranger", &[]);
    let nodes = vec![join(folder(&module, ""), &url, "node-1", &trust)];
    let fleet = Fleet { nodes, orchestrator, nats };
    fleet.settle().await;
    // The client says no more of it.
    until("a connection that fails, in the log", || async { stranger.folder.log().contains("IO error").then_some(()) })
        .await;
    assert_eq!(stranger.get("/").await.status, StatusCode::OK, "and it serves on");
    assert_eq!(fleet.orchestrator.fleet().await["nodes"].as_array().unwrap().len(), 1);
}
