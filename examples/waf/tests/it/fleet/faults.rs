//! What breaks heals, and nothing old comes back with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::support::fleet::{Fleet, Load, Nats, Orchestrator, at_once, canary, folder, join, join_as, name, swaps};
use crate::support::wait::until;
use crate::support::{Module, Node, TOKEN, request};

/// A link that can swallow everything and stay open.
struct Link {
    address: std::net::SocketAddr,
    swallows: Arc<AtomicBool>,
}

impl Link {
    async fn to(server: std::net::SocketAddr) -> Link {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, swallows) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let swallowing = Arc::clone(&swallows);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let swallowing = Arc::clone(&swallowing);
                tokio::spawn(async move {
                    wait_while(&swallowing).await;
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let one = tokio::spawn(pass(from_client, to_server, Arc::clone(&swallowing)));
                    pass(from_server, to_client, swallowing).await;
                    one.abort();
                });
            }
        });
        Link { address, swallows }
    }

    fn swallow(&self, swallow: bool) {
        self.swallows.store(swallow, Ordering::SeqCst);
    }
}

async fn wait_while(swallowing: &AtomicBool) {
    while swallowing.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Passes bytes on; those that come while the link swallows are late, as they are with TCP.
async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    swallowing: Arc<AtomicBool>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut piece = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        wait_while(&swallowing).await;
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

/// The swaps of a node once there are any: what serves is seen a moment before it is on record.
async fn recorded(node: &Node) -> Vec<Value> {
    until("a swap on record", || async {
        let swaps = swaps(node).await;
        (!swaps.is_empty()).then_some(swaps)
    })
    .await
}

/// Acceptance 7. FAULTS 39.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hears_nothing_through_a_whole_rollout_catches_up_and_changes_nothing_for_others() {
    let Some(nats) = Nats::start() else { return };
    let link = Link::to(nats.address()).await;
    let orchestrator = Orchestrator::start(&nats.url(), &at_once(), &[]);
    let module = Module::new("1.0.0");
    let urls = [nats.url(), nats.url(), format!("nats://{}", link.address)];
    let nodes =
        urls.iter().enumerate().map(|(number, url)| join(folder(&module, ""), url, &name(number), &[])).collect();
    let fleet = Fleet { nodes, orchestrator, nats };
    fleet.settle().await;

    link.swallow(true);
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[("wait", "240")]).await.json();
    assert_eq!(answer["state"], "done", "who is away does not hold up the others for ever: {answer}");
    assert_eq!(answer["missing"], json!(["node-3"]), "{answer}");
    let away = &fleet.nodes[2];
    assert_eq!(away.version().await["version"], "1.0.0");
    assert_eq!(away.get("/").await.status, StatusCode::OK, "it serves on");

    link.swallow(false);
    fleet.wait_for_version("1.1.0").await;
    assert_eq!(recorded(away).await.len(), 1, "one catch-up");
    let rollout = until("it is present again", || async {
        let it = fleet.orchestrator.fleet().await;
        (it["rollout"]["deployed_to"].as_array()?.len() == 3).then(|| it["rollout"].clone())
    })
    .await;
    assert_eq!(rollout["state"], "done", "what it said late changed nothing: {rollout}");
}

/// Acceptance 6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_in_each_phase_holds_up_a_rollout_and_breaks_nothing() {
    let Some(mut fleet) = Fleet::start(3, canary(2_000)).await else { return };
    let load = Load::start(&fleet.nodes, "/");
    for (round, phase) in ["staging", "committing", "done"].iter().enumerate() {
        let version = format!("1.{}.0", round + 1);
        let answer = fleet.orchestrator.release(&Module::new(&version).bytes(), &[("wait", "0")]).await;
        assert!(answer.status.is_success(), "{}", answer.text());
        until("the phase, or a later one", || async {
            let state = fleet.orchestrator.fleet().await["rollout"]["state"].clone();
            (state == *phase || state == "done" || state == "committing" && *phase == "staging").then_some(())
        })
        .await;
        fleet.nats.kill();
        tokio::time::sleep(Duration::from_secs(2)).await;
        fleet.nats.restart();
        let rollout = fleet.orchestrator.wait_for_state("done").await;
        assert_eq!(rollout["version"], version.as_str(), "{rollout}");
        fleet.wait_for_version(&version).await;
    }
    let (count, failed) = load.end().await;
    assert!(count > 0 && failed.is_empty(), "{} of {count} failed: {:?}", failed.len(), failed.first());
}

/// Acceptance 5. FAULTS 42.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orchestrator_that_is_killed_after_each_of_its_writes_leaves_one_release_everywhere() {
    let Some(mut fleet) = Fleet::start(3, canary(0)).await else { return };
    let client = fleet.nats.client().await;
    let mut documents = client.subscribe("secbeat.wasm.reload.$KV.desired.slot.waf").await.unwrap();
    client.flush().await.unwrap();
    let address = fleet.orchestrator.address;
    let module = Module::new("1.1.0").bytes();
    let upload = tokio::spawn(async move {
        let wish = request(address, Method::POST, "/api/v1/wasm/reload-fleet").token(TOKEN);
        wish.form(&[("wait", None, b"0"), ("file", Some("x.wasm"), &module)]).try_send().await
    });
    // Every life begins by marking the document as its own. So each gets one write further than the one before.
    let (mut kills, mut killed) = (0, std::time::Instant::now());
    'lives: for life in 1.. {
        for _ in 0..life {
            let document =
                tokio::time::timeout(Duration::from_secs(280), documents.next()).await.expect("a write").unwrap();
            let document: Value = serde_json::from_slice(&document.payload).unwrap();
            if document["phase"] == "done" || document["phase"] == "abort" {
                break 'lives;
            }
        }
        fleet.orchestrator.kill();
        (kills, killed) = (kills + 1, std::time::Instant::now());
        fleet.orchestrator.restart();
    }
    drop(upload);
    assert!(kills >= 2, "{kills} kills");
    let settled = until("an orchestrator that knows", || async {
        let fleet = fleet.orchestrator.fleet().await;
        let rollout = &fleet["rollout"];
        (rollout["state"] == "done" || rollout["state"] == "aborted").then(|| fleet["version"].clone())
    })
    .await;
    fleet.wait_for_version(settled.as_str().unwrap()).await;
    println!("{kills} kills, and {settled} everywhere {:.1} s after the last", killed.elapsed().as_secs_f64());
}

/// Acceptance 9. FAULTS 40.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_document_of_the_past_moves_a_node() {
    let Some(mut fleet) = Fleet::start(1, canary(0)).await else { return };
    let client = fleet.nats.client().await;
    let mut past = client.subscribe("secbeat.wasm.reload.$KV.desired.slot.waf").await.unwrap();
    client.flush().await.unwrap();
    let mut documents = Vec::new();
    for (step, version) in ["1.1.0", "1.2.0"].iter().enumerate() {
        let answer = fleet.orchestrator.release(&Module::new(version).bytes(), &[]).await;
        assert_eq!(answer.json()["state"], "done", "{step}: {}", answer.text());
    }
    let last = loop {
        let document = past.next().await.unwrap().payload;
        let value: Value = serde_json::from_slice(&document).unwrap();
        if value["phase"] == "done" && value["version"] == "1.2.0" {
            break document;
        }
        documents.push(document);
    };
    assert!(documents.len() >= 5, "{}", documents.len());
    fleet.orchestrator.kill();
    let node = &fleet.nodes[0];
    let before = (swaps(node).await, node.admin("/api/v1/fleet").await["report"]["rollout"].clone());
    // In an order that is none: each of them twice.
    for index in 0..documents.len() * 2 {
        let document = documents[(index * 7 + 3) % documents.len()].clone();
        client.publish("$KV.desired.slot.waf", document).await.unwrap();
    }
    // The last word again: the node is done with what came before it once it could have read this one.
    client.publish("$KV.desired.slot.waf", last).await.unwrap();
    client.flush().await.unwrap();
    let seq = node.admin("/api/v1/fleet").await["report"]["seq"].as_u64().unwrap();
    until("a heartbeat after it", || async {
        (node.admin("/api/v1/fleet").await["report"]["seq"].as_u64().unwrap() > seq).then_some(())
    })
    .await;
    let after = (swaps(node).await, node.admin("/api/v1/fleet").await["report"]["rollout"].clone());
    assert_eq!(before, after);
}

/// Acceptance 10. Its clock is a day ahead, too, where that can be done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_long_catches_up_in_one_step() {
    let Some(mut fleet) = Fleet::start(2, at_once()).await else { return };
    let away = fleet.nodes.pop().unwrap().kill();
    for version in ["1.1.0", "1.2.0", "1.3.0"] {
        let answer = fleet.orchestrator.release(&Module::new(version).bytes(), &[("wait", "240")]).await;
        assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    }
    let url = fleet.nats.url();
    fleet.nodes.push(join_as(away, &url, "node-2", &[], |command| {
        #[cfg(target_os = "linux")]
        match crate::clock::libfaketime() {
            Some(library) => {
                command.env("LD_PRELOAD", library).env("FAKETIME", "+1d").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            }
            None => eprintln!("libfaketime is not installed: the clock stays"),
        }
        #[cfg(not(target_os = "linux"))]
        let _ = command;
    }));
    fleet.wait_for_version("1.3.0").await;
    let swaps = recorded(&fleet.nodes[1]).await;
    assert_eq!(swaps.len(), 1, "no old release in between: {swaps:?}");
}

/// What it serves is newer than what the fleet has settled on, which is no rollback: its number is that of a release.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_while_the_fleet_went_back_and_then_on_does_so_too() {
    let Some(mut fleet) = Fleet::start(2, at_once()).await else { return };
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[]).await.json();
    assert_eq!(answer["state"], "done", "{answer}");
    let away = fleet.nodes.pop().unwrap().kill();
    let answer = fleet.orchestrator.ask(Method::POST, "/api/v1/fleet/rollback?wait=240").send().await.json();
    assert_eq!(answer["state"], "done", "{answer}");
    let rules = json!({ "dynamic": [{ "id": "BLOCK" }] });
    let answer = fleet.orchestrator.ask(Method::PUT, "/api/v1/rules?wait=240").json(&rules).send().await.json();
    assert_eq!(answer["state"], "done", "{answer}");
    fleet.nodes.push(join_as(away, &fleet.nats.url(), "node-2", &[], |_| ()));
    fleet.wait_for_version("1.0.0").await;
    assert_eq!(fleet.nodes[1].get("/").await.status, StatusCode::FORBIDDEN, "with the rules");
}

/// Acceptance 8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_loses_everything_takes_no_node_back() {
    let Some(mut fleet) = Fleet::start(3, canary(600_000)).await else { return };
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[("plan", "at_once")]).await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    let answer = fleet.orchestrator.release(&Module::new("1.2.0").bytes(), &[("wait", "0")]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    until("a canary", || async {
        let rollout = fleet.orchestrator.fleet().await["rollout"].clone();
        (rollout["served"].as_object()?.len() == 1).then_some(())
    })
    .await;
    fleet.nats.kill();
    fleet.nats.wipe();
    fleet.nats.restart();
    let rollout = fleet.orchestrator.wait_for_state("aborted").await;
    assert!(rollout["alarms"].to_string().contains("lost writes"), "{rollout}");
    fleet.wait_for_version("1.1.0").await;
    for node in &fleet.nodes {
        let versions: Vec<_> = swaps(node).await.iter().map(|swap| swap["version"].clone()).collect();
        assert!(!versions.contains(&json!("1.0.0")), "{versions:?}");
    }
    // And it goes on, once the orchestrator has heard what the nodes say of themselves.
    until("one release", || async { (fleet.orchestrator.fleet().await["mixed"] == false).then_some(()) }).await;
    let answer = fleet.orchestrator.release(&Module::new("1.3.0").bytes(), &[("plan", "at_once")]).await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    fleet.wait_for_version("1.3.0").await;
}

/// Also what only answers elsewhere: a server stores its answer under the subject that the question names for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_the_place_of_the_fleet_s_documents_is_replaced_and_no_node_follows_it() {
    let Some(fleet) = Fleet::start(2, at_once()).await else { return };
    let client = fleet.nats.client().await;
    let bucket = async_nats::jetstream::new(client.clone()).get_key_value("desired").await.unwrap();
    let module = fleet.nodes[0].version().await["digest"].as_str().unwrap().to_owned();
    let artifact = format!("$JS.API.DIRECT.GET.artifacts.waf.artifact.{module}.0");
    let mut serves = 0;
    let harms = ["no document", "deleted", "purged", "an answer", "another document", "nothing"];
    // A leader that has lost its lease listens for a while first: not all of them again.
    for (key, harms) in [("slot.waf", &harms[..]), ("leader.waf", &harms[..2])] {
        for harm in harms {
            let before = bucket.entry(key).await.unwrap().unwrap().revision;
            match *harm {
                "deleted" => bucket.delete(key).await.unwrap(),
                "purged" => bucket.purge(key).await.unwrap(),
                "an answer" => {
                    let answer_to = format!("$KV.desired.{key}");
                    client.publish_with_reply(artifact.clone(), answer_to, "".into()).await.unwrap();
                }
                "another document" => drop(bucket.put(key, r#"{"format":1,"holder":"nobody"}"#.into()).await.unwrap()),
                "no document" => drop(bucket.put(key, "\0garbage".into()).await.unwrap()),
                _ => drop(bucket.put(key, "".into()).await.unwrap()),
            }
            // There is one again, and it is not the harm.
            until("a document again", || async {
                let entry = bucket.entry(key).await.ok()??;
                let document: Value = serde_json::from_slice(&entry.value).ok()?;
                (entry.revision > before + 1 && document["term"].is_u64()).then_some(())
            })
            .await;
            serves += 1;
            let (version, bytes) = (format!("1.{serves}.0"), Module::new(&format!("1.{serves}.0")).bytes());
            let answer = until("an orchestrator that leads", || async {
                let answer = fleet.orchestrator.release(&bytes, &[]).await;
                (answer.status != StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
            })
            .await;
            assert_eq!(answer.json()["state"], "done", "{key} {harm}: {}", answer.text());
            fleet.wait_for_version(&version).await;
        }
    }
    for node in &fleet.nodes {
        assert_eq!(swaps(node).await.len(), serves, "one for each release");
    }
    let log = fleet.orchestrator.log();
    for told in ["the document is lost, and will be written again", "the lease is lost, and will be written again"] {
        assert!(log.contains(told), "{told}: {log}");
    }
}

/// Acceptance 14.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_hundred_clients_fetch_an_artifact_at_once_without_a_consumer() {
    let Some(fleet) = Fleet::start(1, at_once()).await else { return };
    let (module, _) = (fleet.nodes[0].version().await, ());
    let digest = module["digest"].as_str().unwrap().to_owned();
    let size = usize::try_from(module["size_bytes"].as_u64().unwrap()).unwrap();
    let subject = format!("$JS.API.DIRECT.GET.artifacts.waf.artifact.{digest}.0");
    let mut clients = Vec::new();
    for _ in 0..1200 {
        clients.push(fleet.nats.client().await);
    }
    let fetches = clients.iter().map(|client| client.request(subject.clone(), "".into()));
    let answers = futures_util::future::join_all(fetches).await;
    let whole = answers.into_iter().filter(|answer| answer.as_ref().is_ok_and(|it| it.payload.len() == size)).count();
    assert_eq!(whole, 1200);
    let context = async_nats::jetstream::new(fleet.nats.client().await);
    for stream in ["artifacts", "KV_desired"] {
        let info = context.get_stream(stream).await.unwrap().get_info().await.unwrap();
        assert_eq!(info.state.consumer_count, 0, "{stream}");
    }
}

/// Acceptance 12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_servers_the_leader_is_killed_in_commit_and_the_rollout_ends() {
    let Some(mut servers) = Nats::cluster() else { return };
    let url: Vec<String> = servers.iter().map(Nats::url).collect();
    let url = url.join(",");
    let orchestrator = Orchestrator::start(&url, &canary(2_000), &["--replicas", "3"]);
    let module = Module::new("1.0.0");
    let nodes = (0..3).map(|number| join(folder(&module, ""), &url, &name(number), &[])).collect();
    let fleet = Fleet { nodes, orchestrator, nats: servers.pop().unwrap() };
    fleet.settle().await;
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[("wait", "0")]).await;
    assert!(answer.status.is_success(), "{}", answer.text());
    until("commit", || async { (fleet.orchestrator.fleet().await["rollout"]["state"] != "staging").then_some(()) })
        .await;
    let context = async_nats::jetstream::new(async_nats::connect(url.split(',').next().unwrap()).await.unwrap());
    let info = context.get_stream("KV_desired").await.unwrap().get_info().await.unwrap();
    let leader = info.cluster.unwrap().leader.unwrap();
    let Fleet { nodes, orchestrator, nats } = fleet;
    servers.push(nats);
    let began = std::time::Instant::now();
    servers.iter_mut().find(|server| server.name() == leader).unwrap().kill();
    orchestrator.wait_for_state("done").await;
    println!("the leader of the stream killed in commit; done {} ms later", began.elapsed().as_millis());
    for node in &nodes {
        until("1.1.0", || async { (node.version().await["version"] == "1.1.0").then_some(()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_orchestrator_ends_what_one_has_begun() {
    let Some(mut fleet) = Fleet::start(3, canary(4_000)).await else { return };
    let second = Orchestrator::start(&fleet.nats.url(), &at_once(), &[]);
    let told = until("a second one that knows", || async {
        let it = second.fleet().await;
        (it["rollout"]["state"] == "done").then_some(it)
    })
    .await;
    assert_eq!(told["leads"], false, "{told}");
    let refused = second.command("/api/v1/fleet/stop").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.text());
    assert!(refused.text().contains(&fleet.orchestrator.address.to_string()), "it says who leads: {}", refused.text());
    let refused = second.ask(Method::DELETE, "/api/v1/fleet/nodes/node-1").send().await;
    assert_eq!(
        refused.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "the leader would go on counting it: {}",
        refused.text()
    );

    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[("wait", "0")]).await;
    assert!(answer.status.is_success(), "{}", answer.text());
    fleet.orchestrator.kill();
    let rollout = until("the second one to end it", || async {
        let it = second.fleet().await;
        (it["rollout"]["version"] == "1.1.0" && it["rollout"]["state"] == "done").then_some(it)
    })
    .await;
    assert_eq!(rollout["leads"], true, "{rollout}");
    fleet.wait_for_version("1.1.0").await;
}
