//! Who made what serves: FAULTS 24 to 28, at a node by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use hotslot_trust::Signed;
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::clock::libfaketime;
use crate::support::http::Answer;
use crate::support::node::{Folder, replace};
use crate::support::signer::{BAD, HOUR, OLD, Signer, put_beside, refused};
use crate::support::wait::until;
use crate::support::{Module, Node, TOKEN, request};

/// A folder whose module is signed with this counter.
fn folder(signer: &Signer, module: &Module, counter: u64, changes: &str) -> Folder {
    let mut folder = Folder::new(module, &signer.config());
    folder.configure(changes);
    put_beside(&folder.module(), &signer.sign(&module.bytes(), counter));
    folder
}

async fn upload(node: &Node, module: &[u8], signed: Option<&Signed>) -> Answer {
    let signatures = signed.map(|signed| signed.signatures.concat()).unwrap_or_default();
    let mut form: Vec<(&str, Option<&str>, &[u8])> = vec![("file", Some("universal-waf.wasm"), module)];
    if let Some(signed) = signed {
        form.push(("manifest", Some("x.manifest"), &signed.manifest));
        form.push(("signatures", Some("x.manifest.minisig"), signatures.as_bytes()));
    }
    request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&form).send().await
}

/// What a start that fails says.
fn complaint(folder: &Folder) -> String {
    let output = folder.command().output().expect("it runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn nothing_unsigned_is_taken_and_a_refusal_is_answered_counted_and_written_down() {
    let signer = Signer::new(1, 1);
    let node = folder(&signer, &Module::new("1.0.0"), 1, "").start();
    let module = Module::new("1.1.0").bytes();
    let body = refused(&upload(&node, &module, None).await, BAD, "unsigned");
    assert!(
        body["error"].as_str().unwrap().contains("cargo hotslot sign FILE --key KEY --slot universal-waf"),
        "{body}"
    );
    assert_eq!(body["status"], "still_serving_v1", "{body}");
    let audit = node.admin("/api/v1/audit").await;
    assert_eq!((&audit[0]["status"], &audit[0]["reason"]), (&422.into(), &"unsigned".into()), "{audit}");
    assert_eq!(node.metric("waf_trust_refusals_total{reason=\"unsigned\"}").await, 1.0);
    let latest = node.admin("/api/v1/wasm/history").await["reloads"][0].clone();
    assert_eq!((&latest["success"], &latest["stage"]), (&false.into(), &"trust".into()), "{latest}");

    let answer = upload(&node, &module, Some(&signer.sign(&module, 2))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(node.version().await["version"], "1.1.0");

    // A rule is no module: the token's role decides.
    let rule =
        serde_json::json!({ "id": "a", "where": ["target"], "kind": "contains", "pattern": "x", "action": "block" });
    let answer = request(node.admin, Method::PUT, "/api/v1/rules").token(TOKEN).json(&rule).send().await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

#[tokio::test]
async fn a_node_says_at_its_start_what_is_missing_and_what_to_do() {
    let signer = Signer::new(1, 1);
    let text = complaint(&Folder::new(&Module::new("1.0.0"), "[waf.trust]\nrequired = true"));
    for part in
        ["root in [waf.trust] is not set", "cargo hotslot keygen", "cargo hotslot trust init", "required = false"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let unsigned = Folder::new(&Module::new("1.0.0"), &signer.config());
    let text = complaint(&unsigned);
    assert!(text.contains("universal-waf.wasm") && text.contains("came without a manifest"), "{text}");
    let text = complaint(&Folder::new(&Module::new("1.0.0"), "[waf.trust]\nroot = \"/no/such/root.json\""));
    assert!(text.contains("root in [waf.trust]: /no/such/root.json"), "{text}");

    // A manifest that nobody could verify is not taken for a proof.
    let node = Node::start(&Module::new("1.0.0"));
    let module = Module::new("1.1.0").bytes();
    let answer = upload(&node, &module, Some(&signer.sign(&module, 1))).await;
    assert_eq!(answer.status, BAD, "{}", answer.text());
    assert!(answer.text().contains("set root in [waf.trust]"), "{}", answer.text());
    assert_eq!(node.upload(&module).await.status, StatusCode::OK, "without one it is taken, as ever");
}

/// FAULTS 24.
#[tokio::test]
async fn row_24_what_is_older_than_what_served_is_refused_after_a_kill_and_with_the_ledger_lost() {
    let signer = Signer::new(1, 1);
    let module = |salt: u32| Module::new("1.0.0").salted(salt).bytes();
    let node = folder(&signer, &Module::new("1.0.0"), 1, "").start();
    let (second, third) = (signer.sign(&module(2), 2), signer.sign(&module(3), 3));
    assert_eq!(upload(&node, &module(2), Some(&second)).await.status, StatusCode::OK);
    assert_eq!(upload(&node, &module(3), Some(&third)).await.status, StatusCode::OK);
    let body = refused(&upload(&node, &module(2), Some(&second)).await, OLD, "replayed");
    assert!(body["error"].as_str().unwrap().contains("counter 2"), "{body}");
    // What serves may be sent again: that changes nothing.
    assert_eq!(
        upload(&node, &module(3), Some(&third)).await.json()["message"],
        "universal-waf serves this already: nothing was done"
    );

    let node = node.kill().start();
    refused(&upload(&node, &module(2), Some(&second)).await, OLD, "replayed");

    let folder = node.kill();
    std::fs::remove_file(folder.path("data/trust/ledger.json")).unwrap();
    let node = folder.start_logged();
    assert!(node.folder.log().contains("the ledger was lost"), "{}", node.folder.log());
    refused(&upload(&node, &module(2), Some(&second)).await, OLD, "replayed");

    // A way back needs no key, and leaves the counter where it was.
    let answer = node.roll_back().await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["digest"], hotslot::Digest::of(&module(2)).to_string());
    let node = node.kill().start();
    assert_eq!(node.version().await["digest"], hotslot::Digest::of(&module(2)).to_string());
    let between = signer.sign(&module(4), 3);
    refused(&upload(&node, &module(4), Some(&between)).await, OLD, "replayed");
}

/// FAULTS 24 and 34: whenever the node is killed, what serves afterwards is counted, and nothing older comes in.
#[tokio::test]
async fn row_24_a_kill_at_any_moment_of_a_reload_leaves_no_counter_behind_what_serves() {
    let signer = Signer::new(1, 1);
    let module = |counter: u64| Module::new("1.0.0").salted(counter as u32).bytes();
    let mut node = folder(&signer, &Module::new("1.0.0").salted(1), 1, "").start();
    let mut swapped = 0;
    for counter in 2..14 {
        let signed = signer.sign(&module(counter), counter);
        let signatures = signed.signatures.concat();
        let wish = request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&[
            ("file", Some("x.wasm"), &module(counter)),
            ("manifest", Some("x.manifest"), &signed.manifest),
            ("signatures", Some("x.minisig"), signatures.as_bytes()),
        ]);
        let sending = tokio::spawn(wish.try_send());
        // Each round dies when it has come to the next step.
        let digest = hotslot::Digest::of(&module(counter)).to_string();
        let (kept, list) =
            (node.folder.archive().join(format!("modules/{digest}.wasm")), node.folder.archive().join("serving.json"));
        let ledger = node.folder.path("data/trust/ledger.json");
        let says = |file: &std::path::Path, text: &str| std::fs::read_to_string(file).is_ok_and(|it| it.contains(text));
        until("the step", || async {
            let has_come = match counter % 4 {
                0 => kept.exists(),
                1 => says(&ledger, &format!("\"highest\": {counter}")),
                2 => says(&list, &digest),
                _ => sending.is_finished(),
            };
            has_come.then_some(())
        })
        .await;
        let must_serve = counter % 4 > 1;
        let folder = node.kill();
        let _ = sending.await;
        node = folder.start();
        let digest = node.version().await["digest"].as_str().unwrap().to_owned();
        let serves = (1..=counter).find(|it| hotslot::Digest::of(&module(*it)).to_string() == digest).unwrap();
        assert!(serves == counter || !must_serve, "{serves} serves, and {counter} had been listed");
        swapped += u64::from(serves == counter);
        let ledger: Value =
            serde_json::from_slice(&std::fs::read(node.folder.path("data/trust/ledger.json")).unwrap()).unwrap();
        let highest =
            ledger["slots"]["plugin universal-waf"].as_object().unwrap().values().next().unwrap()["highest"].clone();
        assert!(highest.as_u64().unwrap() >= serves, "{serves} serves: {ledger}");
        if serves > 1 {
            let old = signer.sign(&module(100), serves - 1);
            refused(&upload(&node, &module(100), Some(&old)).await, OLD, "replayed");
        }
    }
    println!("{swapped} of 12 had come to serve");
}

#[tokio::test]
async fn what_was_revoked_is_no_way_back_once_its_successor_serves_for_good() {
    let signer = Signer::new(1, 1);
    let node = folder(&signer, &Module::new("1.0.0"), 1, "[waf.wasm.probation]\nseconds = 0.05").start();
    let module = Module::new("1.1.0").bytes();
    let signed = signer.sign_with(&signer.manifest(&module, 5).min_counter(5), 1);
    assert_eq!(upload(&node, &module, Some(&signed)).await.status, StatusCode::OK);
    let ledger = node.folder.path("data/trust/ledger.json");
    until("the ledger to be settled", || async {
        std::fs::read_to_string(&ledger).ok().filter(|text| text.contains("\"floor\": 5")).map(drop)
    })
    .await;
    refused(&node.roll_back().await, OLD, "revoked");
    let node = node.kill().start();
    refused(&node.roll_back().await, OLD, "revoked");
    assert_eq!(node.version().await["version"], "1.1.0");
}

/// FAULTS 25.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn row_25_what_has_expired_is_refused_at_upload_and_at_start() {
    let Some(library) = libfaketime() else {
        eprintln!("skipped: libfaketime is not installed");
        return;
    };
    let late = |folder: Folder| {
        folder.start_as(|mut command| {
            command.env("LD_PRELOAD", &library).env("FAKETIME", "+1d").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command
        })
    };
    let signer = Signer::new(1, 1);
    let node = folder(&signer, &Module::new("1.0.0"), 1, "").start();
    let module = Module::new("1.1.0").bytes();
    let signed = |counter| signer.sign_with(&signer.manifest(&module, counter).expires(SystemTime::now() + HOUR), 1);
    assert_eq!(upload(&node, &module, Some(&signed(2))).await.status, StatusCode::OK);
    let node = late(node.kill());
    assert_eq!(node.version().await["version"], "1.0.0", "what is left holds for ever");
    refused(&upload(&node, &module, Some(&signed(3))).await, BAD, "expired");
    let early = signer.manifest(&module, 3).not_before(SystemTime::now() + 1000 * HOUR);
    refused(&upload(&node, &module, Some(&signer.sign_with(&early, 1))).await, BAD, "too_early");
    // The same module, signed anew.
    let answer = upload(&node, &module, Some(&signer.sign(&module, 3))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let node = late(node.kill());
    assert_eq!(node.version().await["version"], "1.1.0");
}

/// What serves has been verified when it began to: an emergency does not wait for those who sign.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_rule_can_be_added_to_a_module_whose_signature_has_expired_since_it_serves() {
    let Some(library) = libfaketime() else {
        eprintln!("skipped: libfaketime is not installed");
        return;
    };
    let signer = Signer::new(1, 1);
    let start = Module::new("1.0.0");
    let folder = Folder::new(&start, &signer.config());
    let manifest = signer.manifest(&start.bytes(), 1).expires(SystemTime::now() + HOUR);
    put_beside(&folder.module(), &signer.sign_with(&manifest, 1));
    let clock = folder.path("clock");
    replace(&clock, b"+0");
    let node = folder.start_as(|mut command| {
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &clock);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    });
    replace(&clock, b"+1d");
    let rule =
        serde_json::json!({ "id": "a", "where": ["target"], "kind": "contains", "pattern": "x", "action": "block" });
    let answer = request(node.admin, Method::PUT, "/api/v1/rules").token(TOKEN).json(&rule).send().await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

/// FAULTS 26.
#[tokio::test]
async fn row_26_what_was_signed_for_another_slot_interface_or_rule_file_is_refused() {
    use hotslot_trust::{Manifest, Subject};
    let signer = Signer::new(1, 1);
    let node = folder(&signer, &Module::new("1.0.0"), 1, "").start();
    let module = Module::new("1.1.0").bytes();
    let mine = || signer.manifest(&module, 2);
    let elsewhere = Manifest::new("another-slot", &module, signer.keys[0].public().id()).counter(2);
    for (manifest, reason) in [
        (elsewhere, "wrong_slot"),
        (mine().interface("other/1"), "wrong_interface"),
        (mine().subject(Subject::Rules), "wrong_subject"),
        (mine().rules(b"other rules"), "wrong_digest"),
        (signer.manifest(b"another module", 2), "wrong_digest"),
        (mine().min_counter(3), "malformed"),
    ] {
        refused(&upload(&node, &module, Some(&signer.sign_with(&manifest, 1))).await, BAD, reason);
    }
    // Tied to the rules that it would serve with, it is taken, and the rules can no longer be changed under it.
    let rules = std::fs::read(node.folder.rule_file()).unwrap();
    let answer = upload(&node, &module, Some(&signer.sign_with(&mine().rules(&rules), 1))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let rule = serde_json::json!({ "id": "a" });
    let answer = request(node.admin, Method::PUT, "/api/v1/rules").token(TOKEN).json(&rule).send().await;
    refused(&answer, BAD, "wrong_digest");
}

/// FAULTS 27.
#[tokio::test]
async fn row_27_a_flipped_bit_and_a_removed_key_are_refused_also_in_what_lies_in_the_archive() {
    let mut signer = Signer::new(2, 1);
    let (first, second) = (0, 1);
    let module = Module::new("1.1.0").bytes();
    let by = |signer: &Signer, key: usize, module: &[u8], counter| {
        use hotslot::host::Interface;
        let manifest = hotslot_trust::Manifest::new("universal-waf", module, signer.keys[key].public().id());
        let bytes = manifest.interface(<dyn waf_interface::Waf as Interface>::ID).counter(counter).to_bytes();
        Signed { signatures: vec![signer.keys[key].sign(&bytes).unwrap()], manifest: bytes }
    };
    let start = Module::new("1.0.0");
    let folder = Folder::new(&start, &signer.config());
    put_beside(&folder.module(), &by(&signer, second, &start.bytes(), 1));
    let node = folder.start();
    let good = by(&signer, first, &module, 2);
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    for at in [0, module.len() / 2, module.len() - 1] {
        let answer = upload(&node, &flipped(&module, at), Some(&good)).await;
        assert_eq!(answer.status, BAD, "{at}: {}", answer.text());
    }
    for at in (0..good.manifest.len()).step_by(37) {
        let bad = Signed { manifest: flipped(&good.manifest, at), ..good.clone() };
        let answer = upload(&node, &module, Some(&bad)).await;
        assert!(answer.status.is_client_error(), "{at}: {}", answer.text());
    }
    let signature = good.signatures[0].clone().into_bytes();
    let line = signature.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for at in (line..line + 90).step_by(11) {
        let text = String::from_utf8(flipped(&signature, at)).unwrap();
        let answer = upload(&node, &module, Some(&Signed { signatures: vec![text], ..good.clone() })).await;
        assert!(answer.status.is_client_error(), "{at}: {}", answer.text());
    }
    assert_eq!(node.version().await["version"], "1.0.0");
    assert_eq!(upload(&node, &module, Some(&good)).await.status, StatusCode::OK);

    // The key is stolen, and the next root has it no longer.
    signer.remove_first();
    let again = request(node.admin, Method::POST, "/api/v1/config/reload").token(TOKEN).send().await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.text());
    assert_eq!(node.version().await["version"], "1.1.0", "what serves goes on serving");
    let other = Module::new("1.2.0").bytes();
    let answer = upload(&node, &module, Some(&good)).await;
    refused(&answer, BAD, "too_few_signatures");
    let node = node.kill().start();
    assert_eq!(node.version().await["version"], "1.0.0", "and is not started on");
    // The stolen key had a counter near the end of the numbers: nobody is locked out.
    assert_eq!(upload(&node, &other, Some(&by(&signer, 0, &other, 3))).await.status, StatusCode::OK);

    // A bit of the archive's.
    let folder = node.kill();
    let kept = folder.archive().join(format!("manifests/{}.json", hotslot::Digest::of(&other)));
    let text = std::fs::read_to_string(&kept).unwrap();
    std::fs::write(&kept, text.replacen("\\\"counter\\\": 3", "\\\"counter\\\": 4", 1)).unwrap();
    let node = folder.start();
    assert_eq!(node.version().await["version"], "1.0.0");
}

/// FAULTS 28.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_28_a_file_that_changes_while_it_is_checked_never_runs_unsigned() {
    let signer = Signer::new(1, 1);
    let node = folder(&signer, &Module::new("1.0.0"), 1, "").start();
    let (good, evil) = (Module::new("1.1.0").bytes(), Module::new("1.1.0").always('b').bytes());
    let file = node.folder.module();
    put_beside(&file, &signer.sign(&good, 2));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                replace(&file, &evil);
                replace(&file, &good);
            }
        });
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            handle.block_on(async {
                for round in 0..20 {
                    assert_eq!(node.get("/").await.status, StatusCode::OK, "the evil one blocks everything");
                    // The same by hand: the manifest of the one with the bytes of the other.
                    let answer = upload(&node, &evil, Some(&signer.sign(&good, 2))).await;
                    assert_eq!(answer.status, BAD, "{round}: {}", answer.text());
                }
            });
        });
        done.store(true, Ordering::Relaxed);
    });
    until("the good one", || async { (node.version().await["version"] == "1.1.0").then_some(()) }).await;
    let digest = hotslot::Digest::of(&evil).to_string();
    let history = node.admin("/api/v1/wasm/history").await;
    let reloads = history["reloads"].as_array().unwrap();
    assert!(reloads.iter().all(|it| it["digest"] != digest.as_str() || it["success"] == false), "{history}");
    assert!(reloads.iter().any(|it| it["digest"] == digest.as_str()), "it was tried: {history}");
}

#[tokio::test]
async fn a_signed_module_is_uploaded_on_the_page() {
    let Some(browser) = crate::support::browser::Browser::start().await else {
        println!("skipped: there is no chromedriver here");
        return;
    };
    let signer = Signer::new(1, 1);
    let node = folder(&signer, &Module::new("1.0.0"), 1, "").start();
    let (module, file) = (Module::new("1.1.0").bytes(), node.folder.path("new.wasm"));
    std::fs::write(&file, &module).unwrap();
    put_beside(&file, &signer.sign(&module, 2));
    let file = file.to_str().unwrap();
    browser.open(&format!("http://{}/", node.admin)).await;
    browser.wait_for("#version", "v1").await;
    browser.type_into("#token", TOKEN).await;
    browser.type_into("#file", file).await;
    browser.click("#reload").await;
    browser.wait_for("#note", "without a manifest").await;
    browser.type_into("#signed", &format!("{file}.manifest\n{file}.manifest.minisig")).await;
    browser.click("#reload").await;
    browser.wait_for("#version", "v1.1").await;
}
