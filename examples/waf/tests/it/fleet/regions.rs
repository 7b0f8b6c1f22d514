//! A region with servers of its own: a leaf of the hub's, which keeps copies of what its nodes read. As FLEET.md has it.

use std::process::Command;

use hyper::StatusCode;

use crate::support::Module;
use crate::support::fleet::{Fleet, Nats, Orchestrator, at_once, folder, free_port, join};
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_a_leaf_follows_its_fleet_and_serves_on_without_the_hub() {
    let leaf_port = free_port();
    let Some(hub) = Nats::with(&format!("leafnodes {{ listen: \"127.0.0.1:{leaf_port}\" }}\n"), "domain: hub") else {
        return;
    };
    // Hints come from the region's own copies, once they are there: the hub's would be too early. And what nodes would store is told
    // to the hub instead: `$KV.` does not cross the border of a domain.
    let remote = format!(
        "leafnodes {{ remotes: [ {{ url: \"nats-leaf://127.0.0.1:{leaf_port}\", deny_imports: [\"secbeat.wasm.reload.>\"], \
         deny_exports: [\"secbeat.wasm.reload.>\"] }} ] }}\nmappings: {{ \"$KV.nodes.*\": \"waf.heartbeat.$1\" }}\n"
    );
    let leaf = Nats::with(&remote, "domain: eu").expect("a server");
    let orchestrator = Orchestrator::start(&hub.url(), &at_once(), &[]);
    until("the hub's documents", || async {
        let context = async_nats::jetstream::new(hub.client().await);
        context.get_stream("KV_desired").await.ok().map(drop)
    })
    .await;
    let region = Command::new(env!("CARGO_BIN_EXE_waf"))
        .args(["region", "--nats", &leaf.url(), "--hub", "hub"])
        .output()
        .expect("to run");
    assert!(region.status.success(), "{}", String::from_utf8_lossy(&region.stderr));

    let module = Module::new("1.0.0");
    let nodes = vec![
        join(folder(&module, ""), &hub.url(), "node-1", &[]),
        join(folder(&module, ""), &leaf.url(), "node-2", &[]),
    ];
    let mut fleet = Fleet { nodes, orchestrator, nats: hub };
    fleet.settle().await;
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[("wait", "240")]).await.json();
    assert_eq!(answer["deployed_to"], serde_json::json!(["node-1", "node-2"]), "{answer}");
    fleet.wait_for_version("1.1.0").await;
    println!("over a leaf: {} ms from the hint of the commit to serving", answer["hint_to_commit_ms"]);

    // The hub is gone. The region's copies answer, and a node that starts there finds what is to be served.
    fleet.nats.kill();
    let started = join(folder(&module, ""), &leaf.url(), "node-3", &[]);
    until("1.1.0 from the region's copies", || async { (started.version().await["version"] == "1.1.0").then_some(()) })
        .await;
    assert_eq!(fleet.nodes[1].get("/").await.status, StatusCode::OK);
    fleet.nodes.push(started);
    fleet.nats.restart();
    fleet.wait_for_nodes().await;
    let answer = fleet.orchestrator.release(&Module::new("1.2.0").bytes(), &[("wait", "240")]).await.json();
    assert_eq!(answer["state"], "done", "{answer}");
    fleet.wait_for_version("1.2.0").await;
}
