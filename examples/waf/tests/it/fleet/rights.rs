//! Least rights: what a node's key may do, and what the log says of the rest. Acceptance 13.

use hyper::{Method, StatusCode};

use crate::support::Module;
use crate::support::fleet::{ANYTHING, Fleet, Nats, Orchestrator, at_once, folder, free_port, join};
use crate::support::wait::until;

/// The roles by which a process is known to the servers, and what each may do: the table in FLEET.md says the same.
struct Role {
    name: &'static str,
    publish: &'static [&'static str],
    subscribe: &'static [&'static str],
}

/// `NAME` is that of `--node`; an orchestrator's inbox ends in the port that it listens on.
const ROLES: [Role; 4] = [
    Role {
        name: "node",
        publish: &[
            "$KV.nodes.NAME",
            "waf.heartbeat.NAME",
            "$JS.API.DIRECT.GET.KV_desired.>",
            "$JS.API.DIRECT.GET.artifacts.>",
        ],
        subscribe: &["_INBOX_NAME.>", "secbeat.wasm.reload.>"],
    },
    Role {
        name: "orchestrator",
        publish: &[
            "$KV.desired.>",
            "$KV.nodes.>",
            "waf.artifact.>",
            "waf.audit",
            "$JS.API.INFO",
            "$JS.API.STREAM.INFO.*",
            "$JS.API.STREAM.CREATE.KV_desired",
            "$JS.API.STREAM.CREATE.KV_nodes",
            "$JS.API.STREAM.CREATE.artifacts",
            "$JS.API.STREAM.CREATE.audit",
            "$JS.API.STREAM.UPDATE.KV_desired",
            "$JS.API.STREAM.UPDATE.KV_nodes",
            "$JS.API.STREAM.PURGE.artifacts",
            "$JS.API.CONSUMER.CREATE.KV_nodes",
            "$JS.API.DIRECT.GET.>",
            "$JS.FC.KV_nodes.>",
        ],
        subscribe: &["_INBOX_orchestrator-PORT.>", "secbeat.wasm.reload.>", "$KV.nodes.>", "waf.heartbeat.>"],
    },
    Role {
        name: "region",
        publish: &[
            "$JS.API.INFO",
            "$JS.API.STREAM.INFO.*",
            "$JS.API.STREAM.CREATE.KV_desired",
            "$JS.API.STREAM.CREATE.artifacts",
        ],
        subscribe: &["_INBOX_region.>"],
    },
    Role {
        name: "reader",
        publish: &["$JS.API.DIRECT.GET.>"],
        subscribe: &["_INBOX_reader.>", "secbeat.wasm.reload.>"],
    },
];

/// What one of the roles must not do, and what others need.
const TRIED: [&str; 20] = [
    "$KV.desired.slot.waf",
    "$KV.desired.leader.waf",
    "$KV.nodes.NAME",
    "$KV.nodes.another",
    "waf.heartbeat.NAME",
    "waf.heartbeat.another",
    "waf.artifact.x.0",
    "waf.audit",
    "secbeat.wasm.reload.x",
    "$JS.API.STREAM.CREATE.KV_desired",
    "$JS.API.STREAM.CREATE.forger",
    "$JS.API.STREAM.UPDATE.KV_desired",
    "$JS.API.STREAM.UPDATE.artifacts",
    "$JS.API.STREAM.UPDATE.forger",
    "$JS.API.STREAM.DELETE.KV_desired",
    "$JS.API.STREAM.PURGE.KV_desired",
    "$JS.API.STREAM.PURGE.artifacts",
    "$JS.API.STREAM.MSG.DELETE.audit",
    "$JS.API.CONSUMER.CREATE.KV_desired",
    "$JS.API.DIRECT.GET.KV_desired.$KV.desired.slot.waf",
];
/// A stream whose messages the servers would publish as the fleet's document, whoever may publish that: its name is all that tells
/// it from another.
const FORGER: &str = r#"{"name":"forger","subjects":["forged"],"retention":"limits","storage":"file","num_replicas":1,
    "republish":{"src":"forged","dest":"$KV.desired.slot.waf"}}"#;
/// What one must not hear.
const HEARD: [&str; 5] = ["$KV.nodes.>", "waf.heartbeat.>", "secbeat.wasm.reload.>", "_INBOX.>", ">"];

impl Role {
    fn filled(text: &str, name: &str, port: u16) -> String {
        text.replace("NAME", name).replace("PORT", &port.to_string())
    }

    fn permissions(&self, name: &str, port: u16) -> String {
        let list = |subjects: &[&str]| {
            subjects.iter().map(|it| format!("{:?}", Role::filled(it, name, port))).collect::<Vec<_>>().join(", ")
        };
        format!(
            "{{ publish: {{ allow: [{}] }}, subscribe: {{ allow: [{}] }} }}",
            list(self.publish),
            list(self.subscribe)
        )
    }

    /// Whether the subjects that it has allow this one, as the servers compare them.
    fn may(subjects: &[&str], tried: &str) -> bool {
        subjects.iter().any(|allowed| {
            let (mut allowed, mut tried) = (allowed.split('.'), tried.split('.'));
            loop {
                match (allowed.next(), tried.next()) {
                    (Some(">"), Some(_)) | (None, None) => return true,
                    (Some("*"), Some(token)) if token != ">" => {}
                    (Some(one), Some(other)) if one == other => {}
                    _ => return false,
                }
            }
        })
    }
}

/// The table as FLEET.md has it.
fn table() -> String {
    let code = |subjects: &mut dyn Iterator<Item = &&str>| {
        let subjects: Vec<String> = subjects.map(|it| format!("`{it}`")).collect();
        if subjects.is_empty() { "–".to_owned() } else { subjects.join(", ") }
    };
    let mut text =
        "| role | may publish | may subscribe to | tried, and denied: publishing | tried, and denied: subscribing |\n\
                    |---|---|---|---|---|\n"
            .to_owned();
    for role in &ROLES {
        text += &format!(
            "| {} | {} | {} | {} | {} |\n",
            role.name,
            code(&mut role.publish.iter()),
            code(&mut role.subscribe.iter()),
            code(&mut TRIED.iter().filter(|it| !Role::may(role.publish, it))),
            code(&mut HEARD.iter().filter(|it| !Role::may(role.subscribe, it))),
        );
    }
    text
}

#[test]
fn the_table_of_rights_in_the_documentation_is_the_one_that_is_tried() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/FLEET.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&table()), "put this into FLEET.md:\n{}", table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_is_denied_what_it_must_not_do_and_is_told_which_subject_that_was() {
    let users: Vec<String> = ROLES
        .iter()
        .map(|role| {
            format!("{{ user: {:?}, password: secret, permissions: {} }}", role.name, role.permissions("node-1", 1))
        })
        .collect();
    let everybody = "{ user: everybody, password: secret }";
    let users = format!("authorization {{ users: [\n{}\n{everybody}\n] }}\n", users.join("\n"));
    let Some(nats) = Nats::configured(&users) else { return };
    // What a region has is enough for what it does.
    let url = format!("nats://region:secret@{}", nats.address());
    let mut region = std::process::Command::new(env!("CARGO_BIN_EXE_waf"));
    let made = region.args(["region", "--nats", &url, "--hub", "hub"]).output().expect("to run");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() && !said.contains("NATS refuses"), "{said}");
    for role in &ROLES {
        let errors = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = std::sync::Arc::clone(&errors);
        let options = async_nats::ConnectOptions::with_user_and_password(role.name.to_owned(), "secret".to_owned());
        let options = options.event_callback(move |event| {
            heard.lock().unwrap().push(event.to_string());
            async {}
        });
        let client = options.connect(nats.url()).await.unwrap();
        let denials = |subject: &str| {
            let errors = errors.lock().unwrap();
            let quoted = format!("\"{subject}\"");
            errors.iter().filter(|it| it.contains(&quoted) && it.to_lowercase().contains("violation")).count()
        };
        let mut allowed = Vec::new();
        for tried in TRIED {
            let subject = Role::filled(tried, "node-1", 1);
            let asked = if subject.ends_with(".forger") { FORGER } else { "{}" };
            client.publish(subject.clone(), asked.into()).await.unwrap();
            client.flush().await.unwrap();
            if Role::may(role.publish, tried) {
                allowed.push(subject);
            } else {
                until(&format!("{}: a denial of {subject}", role.name), || async {
                    (denials(&subject) > 0).then_some(())
                })
                .await;
            }
        }
        for subject in HEARD {
            let _subscription = client.subscribe(subject).await.unwrap();
            client.flush().await.unwrap();
            if Role::may(role.subscribe, subject) {
                allowed.push(subject.to_owned());
            } else {
                until(&format!("{}: a denial of {subject}", role.name), || async {
                    (denials(subject) > 0).then_some(())
                })
                .await;
            }
        }
        // Errors come in the order of what they answer: by now all of them would be there.
        let last = "no.such.subject";
        client.publish(last, "".into()).await.unwrap();
        client.flush().await.unwrap();
        until("the last denial", || async { (denials(last) > 0).then_some(()) }).await;
        for subject in allowed {
            assert_eq!(denials(&subject), 0, "{} may use {subject}", role.name);
        }
        let errors = errors.lock().unwrap();
        println!(
            "{}: {} denials, such as: {}",
            role.name,
            errors.len() - 1,
            errors.iter().find(|it| it.contains("iolation")).unwrap()
        );
    }
    // Who may make any stream could have forged a document: this is what was denied.
    let unrestricted = async_nats::ConnectOptions::with_user_and_password("everybody".to_owned(), "secret".to_owned());
    let context = async_nats::jetstream::new(unrestricted.connect(nats.url()).await.unwrap());
    assert!(context.get_stream("forger").await.is_err(), "no role has made the stream");
    let made = context.client().request("$JS.API.STREAM.CREATE.forger", FORGER.into()).await.unwrap();
    let made = String::from_utf8_lossy(&made.payload).into_owned();
    assert!(!made.contains("\"error\""), "and it is one that the servers make: {made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_least_rights_follows_its_fleet_and_may_do_nothing_else() {
    let ([of_node, of_leader, _, _], port) = (&ROLES, free_port());
    let (leader, node) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let users = format!(
        "authorization {{ users: [\n  {{ nkey: {}, permissions: {} }}\n  {{ nkey: {}, permissions: {} }}\n] }}\n",
        leader.public_key(),
        of_leader.permissions("", port),
        node.public_key(),
        of_node.permissions("node-1", 0)
    );
    let Some(nats) = Nats::configured(&users) else { return };
    let keys = tempfile::tempdir().unwrap();
    let seed = |name: &str, pair: &nkeys::KeyPair| {
        let path = keys.path().join(name);
        std::fs::write(&path, pair.seed().unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = ["--nkey", &seed("leader", &leader)];
    let orchestrator = Orchestrator::listening(port, &nats.url(), &at_once(), &key, ANYTHING);
    let folder = folder(&Module::new("1.0.0"), "");
    let nodes = vec![join(folder, &nats.url(), "node-1", &["--nkey", &seed("node", &node)])];
    let mut fleet = Fleet { nodes, orchestrator, nats };
    fleet.settle().await;
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[]).await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    fleet.wait_for_version("1.1.0").await;
    // One that starts finds streams and nodes there; and it can forget a node.
    fleet.orchestrator.kill();
    fleet.orchestrator.restart();
    fleet.wait_for_nodes().await;
    let forgotten = fleet.orchestrator.ask(Method::DELETE, "/api/v1/fleet/nodes/node-1").send().await;
    assert_eq!(forgotten.status, StatusCode::OK, "{}", forgotten.text());
    fleet.wait_for_nodes().await;
    let denied = [fleet.orchestrator.log(), fleet.nodes[0].folder.log()];
    let denied = denied.iter().flat_map(|log| log.lines()).find(|line| line.contains("NATS refuses"));
    assert_eq!(denied, None, "what each may do is enough");

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
