//! Signatures in a fleet: checked at the orchestrator, at each node's stage, and at each node's start. FAULTS 24 to 27.

use std::process::Command;

use hotslot_trust::Signed;
use hyper::Method;
use serde_json::json;

use crate::support::fleet::{Fleet, Nats, Orchestrator, at_once, folder, join, name};
use crate::support::http::Answer;
use crate::support::node::Folder;
use crate::support::signer::{BAD, OLD, Signer, put_beside, refused};
use crate::support::{Module, TOKEN, request};

/// A folder whose module is signed.
fn signed_folder(signer: &Signer) -> Folder {
    let module = Module::new("1.0.0");
    let mut folder = folder(&module, &signer.config());
    folder.forget("waf.trust", "required");
    put_beside(&folder.module(), &signer.sign(&module.bytes(), 1));
    folder
}

async fn release(orchestrator: &Orchestrator, module: &[u8], signed: Option<&Signed>) -> Answer {
    let signed = signed.map(|it| (String::from_utf8(it.manifest.clone()).unwrap(), it.signatures.concat()));
    let mut fields = vec![("plan", "at_once")];
    if let Some((manifest, signatures)) = &signed {
        fields.extend([("manifest", manifest.as_str()), ("signatures", signatures.as_str())]);
    }
    orchestrator.release(module, &fields).await
}

/// A fleet whose orchestrator has this in its configuration, and whose nodes take nothing unsigned.
fn start(signer: &Signer, nodes: usize, orchestrator: &str) -> Option<Fleet> {
    let nats = Nats::start()?;
    let orchestrator = Orchestrator::configured(&nats.url(), &at_once(), &[], orchestrator);
    let nodes = (0..nodes).map(|number| join(signed_folder(signer), &nats.url(), &name(number), &[])).collect();
    Some(Fleet { nodes, orchestrator, nats })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_sign_what_a_fleet_serves_and_what_is_old_stays_out() {
    let signer = Signer::new(3, 2);
    let Some(mut fleet) = start(&signer, 2, &signer.config()) else { return };
    fleet.wait_for_nodes().await;
    let module = |version: &str| Module::new(version).bytes();
    let first = signer.sign(&module("1.0.0"), 1);
    let answer = release(&fleet.orchestrator, &module("1.0.0"), Some(&first)).await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());

    // Checked at upload.
    let second = signer.sign(&module("1.1.0"), 2);
    refused(&release(&fleet.orchestrator, &module("1.1.0"), None).await, BAD, "unsigned");
    let once = signer.sign_with(&signer.manifest(&module("1.1.0"), 2), 1);
    let body = refused(&release(&fleet.orchestrator, &module("1.1.0"), Some(&once)).await, BAD, "too_few_signatures");
    assert!(body["error"].as_str().unwrap().contains("1 of 2 keys"), "{body}");
    assert_eq!(body["status"], "still_serving_v1.0.0", "{body}");
    refused(&release(&fleet.orchestrator, &module("1.2.0"), Some(&second)).await, BAD, "wrong_digest");
    let audit = fleet.orchestrator.get("/api/v1/audit").await;
    let lines = audit["lines"].as_array().unwrap();
    let written = lines.iter().filter(|line| line["what"] == "not trusted" && line["by"] == "deploy");
    let reasons: Vec<_> = written.map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["unsigned", "too_few_signatures", "wrong_digest"], "{audit}");
    let metrics = fleet.orchestrator.ask(Method::GET, "/metrics").send().await;
    assert!(metrics.text().contains("waf_trust_refusals_total{reason=\"unsigned\"} 1"), "{}", metrics.text());

    let answer = release(&fleet.orchestrator, &module("1.1.0"), Some(&second)).await.json();
    assert_eq!((&answer["state"], answer["deployed_to"].as_array().unwrap().len()), (&json!("done"), 2), "{answer}");
    let serving = fleet.orchestrator.get("/api/v1/release").await;
    assert_eq!(serving["signed"]["manifest"], String::from_utf8(second.manifest.clone()).unwrap(), "{serving}");

    // A rule from outside needs no key of those who sign modules, and neither does a way back.
    let rule = json!({ "id": "a", "where": ["target"], "kind": "contains", "pattern": "x", "action": "block" });
    let answer = fleet.orchestrator.ask(Method::POST, "/api/v1/rules?wait=120").json(&rule).send().await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    let answer = fleet.orchestrator.command("/api/v1/fleet/rollback").await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());

    // FAULTS 24: replayed, after a restart of the orchestrator too.
    let older = signer.sign(&module("1.5.0"), 1);
    refused(&release(&fleet.orchestrator, &module("1.5.0"), Some(&older)).await, OLD, "replayed");
    fleet.orchestrator.kill();
    fleet.orchestrator.restart();
    fleet.wait_for_nodes().await;
    refused(&release(&fleet.orchestrator, &module("1.5.0"), Some(&older)).await, OLD, "replayed");

    // Checked at start: a node comes back on what it served, which its archive holds with the manifest.
    let node = fleet.nodes.pop().unwrap().kill();
    fleet.nodes.push(join(node, &fleet.nats.url(), "node-2", &[]));
    fleet.wait_for_version("1.1.0").await;

    // What a release revokes is no way back once the fleet has settled on it. This one is tied to its configuration.
    let config = r#"{"failure_policy":"open","uninspected":"log"}"#;
    let third = signer.manifest(&module("1.2.0"), 3).min_counter(3).config(config.as_bytes());
    let third = signer.sign_with(&third, 2);
    refused(&release(&fleet.orchestrator, &module("1.2.0"), Some(&third)).await, BAD, "wrong_digest");
    let (manifest, signatures) = (String::from_utf8(third.manifest.clone()).unwrap(), third.signatures.concat());
    let fields = [("plan", "at_once"), ("config", config), ("manifest", &manifest), ("signatures", &signatures)];
    let answer = fleet.orchestrator.release(&module("1.2.0"), &fields).await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    refused(&fleet.orchestrator.command("/api/v1/fleet/rollback").await, OLD, "revoked");
    fleet.wait_for_version("1.2.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_nothing_unsigned_whatever_the_orchestrator_lets_through() {
    let signer = Signer::new(1, 1);
    let Some(fleet) = start(&signer, 2, "[waf.trust]\nrequired = false\n") else { return };
    fleet.wait_for_nodes().await;
    let module = |version: &str| Module::new(version).bytes();
    let first = signer.sign(&module("1.0.0"), 1);
    let answer = release(&fleet.orchestrator, &module("1.0.0"), Some(&first)).await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    let other = Signer::new(1, 1);
    for (signed, reason) in [(None, "without a manifest"), (Some(other.sign(&module("1.1.0"), 2)), "0 of 1 keys")] {
        let answer = release(&fleet.orchestrator, &module("1.1.0"), signed.as_ref()).await.json();
        assert_eq!((&answer["state"], &answer["served"]), (&json!("aborted"), &json!({})), "{answer}");
        let failures = answer["failures"].as_object().unwrap();
        assert!(!failures.is_empty(), "{answer}");
        for why in failures.values() {
            assert!(why.as_str().unwrap().starts_with("trust: ") && why.as_str().unwrap().contains(reason), "{answer}");
        }
    }
    for node in &fleet.nodes {
        assert_eq!(node.version().await["version"], "1.0.0");
        assert!(node.metric("waf_trust_refusals_total{reason=\"unsigned\"}").await >= 1.0);
    }
    // The node's own API behind glass takes nothing else either.
    let form = request(fleet.nodes[0].admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN);
    let bytes = module("1.1.0");
    let form = form.header("break-glass", "an emergency").form(&[("file", Some("x.wasm"), &bytes)]);
    refused(&form.send().await, BAD, "unsigned");
    // Signed, it goes on.
    let second = signer.sign(&module("1.1.0"), 2);
    let answer = release(&fleet.orchestrator, &module("1.1.0"), Some(&second)).await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
}

/// What signs, pushes and pulls; the workspace's tests build it beside the node.
fn hotslot() -> Option<Command> {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_waf")).with_file_name("cargo-hotslot");
    if !program.exists() {
        eprintln!("skipped: there is no cargo-hotslot beside the node: cargo build --workspace");
        return None;
    }
    Some(Command::new(program))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_module_is_pushed_to_the_orchestrator_and_what_the_fleet_serves_is_pulled() {
    let signer = Signer::new(1, 1);
    if hotslot().is_none() {
        return;
    }
    let Some(fleet) = start(&signer, 1, &signer.config()) else { return };
    fleet.wait_for_nodes().await;
    let desk = tempfile::tempdir().unwrap();
    let (file, pulled) = (desk.path().join("module.wasm"), desk.path().join("pulled.wasm"));
    let module = Module::new("1.1.0").bytes();
    std::fs::write(&file, &module).unwrap();
    put_beside(&file, &signer.sign(&module, 2));
    let url = format!("http://{}", fleet.orchestrator.address);
    let run = |command: &mut Command| {
        let output = command.env("HOTSLOT_TOKEN", TOKEN).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let push = || {
        let mut command = hotslot().unwrap();
        command.arg("push").arg(&file).arg(&url).args(["--plan", "at_once", "--wait", "120"]);
        command
    };
    let (pushed, said) = run(&mut push());
    assert!(pushed && said == "rollout 1: done, on node-1\n", "{said}");
    let mut pull = hotslot().unwrap();
    pull.arg("pull").arg(&url).arg("--out").arg(&pulled).args(["--slot", "universal-waf", "--root"]).arg(signer.path());
    let (done, said) = run(&mut pull);
    assert!(done && said.contains("counter 2"), "{said}");
    assert!(std::fs::read(&pulled).unwrap() == module);
    // What the orchestrator refuses is a failure, and says why.
    put_beside(&file, &Signer::new(1, 1).sign(&module, 3));
    let (pushed, said) = run(&mut push());
    assert!(!pushed && said.contains("422") && said.contains("0 of 1 keys"), "{said}");
}

/// The default. Nothing of it needs a server.
#[test]
fn without_keys_a_fleet_says_what_to_do_and_does_not_start() {
    let folder = Folder::new(&Module::new("1.0.0"), "");
    let program = folder.command().get_program().to_owned();
    let arguments: Vec<_> = folder.command().get_args().map(ToOwned::to_owned).collect();
    let data = folder.path("orchestrator");
    let mut node = Command::new(&program);
    node.args(["node", "--fleet", "nats://127.0.0.1:1"]).args(arguments);
    let mut orchestrator = Command::new(&program);
    orchestrator.args(["orchestrator", "--nats", "nats://127.0.0.1:1", "--data"]).arg(data);
    for mut command in [node, orchestrator] {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{text}");
        for part in
            ["root in [waf.trust] is not set", "takes nothing unsigned", "cargo hotslot keygen", "required = false"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
