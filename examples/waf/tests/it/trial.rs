//! Versions that are tried on traffic before they serve: in the shadow of the serving one, and as canaries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::node::{Folder, replace};
use crate::support::wait::until;
use crate::support::{Answer, Module, Node, TOKEN, request};

const OK: StatusCode = StatusCode::OK;
const NO: StatusCode = StatusCode::FORBIDDEN;

/// Clients are told apart by a header, and ten calls are enough to judge. A busy machine is no reason for a failed call.
const TERMS: &str = "[waf.trial]\nsticky = \"header:x-client\"\nstep_seconds = 0\nmin_calls_per_step = 10\n\
                     [waf.wasm.probation]\nmin_calls = 10\nmax_error_rate = 0.2\n\
                     [waf.wasm.limits]\ndeadline_milliseconds = 5000";

fn node() -> Node {
    Node::configured(&Module::new("1.0.0"), TERMS)
}

/// Uploads a module, to be tried.
async fn begin(node: &Node, module: &Module, fields: &[(&str, &str)]) -> Answer {
    let bytes = module.bytes();
    let mut form: Vec<(&str, Option<&str>, &[u8])> = vec![("file", Some("new.wasm"), &bytes)];
    form.extend(fields.iter().map(|(name, value)| (*name, None, value.as_bytes())));
    request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&form).send().await
}

async fn shadow(node: &Node, module: &Module) -> Value {
    let answer = begin(node, module, &[("mode", "shadow")]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    answer.json()
}

async fn canary(node: &Node, module: &Module, fields: &[(&str, &str)]) -> Value {
    let fields: Vec<_> = [("mode", "canary")].into_iter().chain(fields.iter().copied()).collect();
    let answer = begin(node, module, &fields).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    answer.json()
}

async fn ask(node: &Node, what: &str, wish: Value) -> Answer {
    request(node.admin, Method::POST, &format!("/api/v1/wasm/{what}")).token(TOKEN).json(&wish).send().await
}

async fn trial(node: &Node) -> Value {
    node.admin("/api/v1/wasm/trial").await["trials"][0].clone()
}

async fn visit(node: &Node, client: impl std::fmt::Display, target: &str) -> StatusCode {
    request(node.data, Method::GET, target).header("x-client", &client.to_string()).send().await.status
}

/// Waits until the shadow has been through with so many requests, and returns what there is to see.
async fn compared(node: &Node, requests: u64) -> Value {
    until("the comparison", || async move {
        let trial = trial(node).await;
        let of = |what: &str| trial["shadowed"][what].as_u64().unwrap();
        (of("compared") + of("skipped") + of("dropped") == requests).then_some(trial)
    })
    .await
}

async fn ended(node: &Node, how: &str) -> Value {
    until(how, || async move {
        let trial = trial(node).await;
        (trial["state"] == how).then_some(trial)
    })
    .await
}

async fn latest(node: &Node) -> Value {
    node.admin("/api/v1/wasm/history").await["reloads"][0].clone()
}

#[tokio::test]
async fn a_shadow_finds_a_version_that_blocks_what_the_serving_one_passes() {
    let node = node();
    let before = node.version().await;
    let begun = shadow(&node, &Module::new("1.1.0").always('b')).await;
    assert_eq!((&begun["trial"]["state"], &begun["trial"]["version"]), (&json!("running"), &json!("1.1.0")), "{begun}");
    for request in 0..60 {
        // A third is blocked by both, so nothing changes for it.
        let (target, expected) = if request % 3 == 0 { ("/?do=b", NO) } else { ("/", OK) };
        assert_eq!(visit(&node, request, target).await, expected, "clients are told what the serving version says");
    }
    let trial = compared(&node, 60).await;
    assert_eq!((&trial["shadowed"]["offered"], &trial["shadowed"]["differed"]), (&json!(60), &json!(40)), "{trial}");
    let difference = &trial["differences"][0];
    assert_eq!(
        (&difference["from"], &difference["to"], &difference["rule"], &difference["count"]),
        (&json!("allow"), &json!("block"), &json!("test-rule"), &json!(40)),
    );
    assert_eq!(difference["sample"]["target"], "/");
    assert_eq!(node.metric("wasm_trial_differences_total{module=\"universal-waf\"}").await, 40.0);
    assert_eq!(node.metric("wasm_trial_share{module=\"universal-waf\"}").await, 1.0);

    let answer = ask(&node, "abort", json!({"reason": "it blocks the front page"})).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    let over = answer.json()["trial"].clone();
    assert_eq!((&over["state"], &over["reason"]), (&json!("aborted"), &json!("it blocks the front page")));
    assert_eq!(over["differences"][0]["count"], 40, "what was found stays to be read");
    let latest = latest(&node).await;
    assert_eq!(
        (&latest["success"], &latest["stage"], &latest["version"]),
        (&json!(false), &json!("trial"), &json!("1.1.0"))
    );
    assert!(latest["error"].as_str().unwrap().contains("it blocks the front page"), "{latest}");
    let after = node.version().await;
    assert_eq!((&after["digest"], &after["generation"]), (&before["digest"], &before["generation"]));
    assert_eq!(node.metric("wasm_trial_share{module=\"universal-waf\"}").await, 0.0);
    let count = "wasm_trials_ended_total{module=\"universal-waf\",mode=\"shadow\",outcome=\"aborted\"}";
    assert_eq!(node.metric(count).await, 1.0);
    let audit = node.admin("/api/v1/audit").await.to_string();
    assert!(audit.contains("/api/v1/wasm/reload") && audit.contains("/api/v1/wasm/abort"), "{audit}");
}

#[tokio::test]
async fn a_shadow_whose_calls_fail_concerns_nobody() {
    let node = node();
    shadow(&node, &Module::new("1.1.0").always('t')).await;
    for client in 0..30 {
        assert_eq!(visit(&node, client, "/").await, OK);
    }
    let trial = compared(&node, 30).await;
    assert_eq!((&trial["state"], &trial["failures"]), (&json!("running"), &json!(30)), "{trial}");
    let difference = &trial["differences"][0];
    assert_eq!((&difference["to"], &difference["rule"]), (&json!("none"), &json!("trap")), "{trial}");
    assert_eq!(node.admin("/api/v1/wasm/errors").await["errors"], json!([]));
}

#[tokio::test]
async fn a_share_of_requests_is_enough_for_a_shadow_and_it_can_be_promoted() {
    let node = node();
    let answer = begin(&node, &Module::new("1.1.0"), &[("mode", "shadow"), ("share", "25%")]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    for client in 0..40 {
        visit(&node, client, "/").await;
    }
    let trial = compared(&node, 40).await;
    assert_eq!((&trial["shadowed"]["skipped"], &trial["shadowed"]["differed"]), (&json!(30), &json!(0)), "{trial}");
    assert_eq!(ask(&node, "share", json!({"share": 0.5})).await.status, StatusCode::CONFLICT);

    // While it is paused, nothing is offered.
    assert_eq!(ask(&node, "pause", json!({})).await.json()["trial"]["state"], "paused");
    visit(&node, 0, "/").await;
    assert_eq!(compared(&node, 40).await["shadowed"]["offered"], 40);
    assert_eq!(ask(&node, "resume", json!({})).await.json()["trial"]["state"], "running");

    let answer = ask(&node, "promote", json!({})).await;
    assert_eq!((answer.status, &answer.json()["version"]), (OK, &json!("1.1.0")), "{}", answer.text());
    assert_eq!(node.version().await["version"], "1.1.0");
    let latest = latest(&node).await;
    assert_eq!((&latest["success"], &latest["trigger"]), (&json!(true), &json!("upload")), "{latest}");
    assert_eq!(latest["reason"], "tried in the shadow of the serving version");
    assert_eq!(node.roll_back().await.json()["rolled_back_to"], "1.0.0", "the way back is that of a reload");
}

/// The version blocks what the serving one passes: the serving one is asked, too, and says so.
#[tokio::test]
async fn a_canary_that_blocks_what_the_serving_version_passes_is_stopped_at_five_percent() {
    let node = Folder::new(&Module::new("1.0.0"), TERMS).start_logged();
    canary(&node, &Module::new("1.1.0").always('b'), &[]).await;
    let mut refused = 0;
    for client in 0..1_000 {
        refused += u64::from(visit(&node, client, "/").await == NO);
    }
    assert_eq!(refused, 10, "as many as the policy wants to see, of a thousand clients");
    let trial = ended(&node, "stopped").await;
    let reason = trial["reason"].as_str().unwrap();
    assert!(reason.contains("10 of 10 calls failed") && reason.contains("block by test-rule"), "{reason}");
    assert_eq!((&trial["step"], &trial["verdicts"]["tried"]["block"]), (&json!(1), &json!(10)), "{trial}");
    assert!(
        trial["verdicts"]["serving"]["allow"].as_u64().unwrap() > 0,
        "the others were judged by what serves: {trial}"
    );
    assert_eq!(node.version().await["version"], "1.0.0");
    let latest = latest(&node).await;
    assert_eq!((&latest["stage"], &latest["success"]), (&json!("trial"), &json!(false)), "{latest}");
    assert!(latest["error"].as_str().unwrap().contains("10 of 10 calls failed"), "{latest}");
    let count = "wasm_trials_ended_total{module=\"universal-waf\",mode=\"canary\",outcome=\"stopped\"}";
    assert_eq!(node.metric(count).await, 1.0);
    let logged = || async { node.folder.log().contains("ALARM: a trial was stopped").then_some(()) };
    until("the alarm in the log", logged).await;
    let refusal = ask(&node, "promote", json!({})).await;
    assert_eq!((refusal.status, &refusal.json()["kind"]), (StatusCode::CONFLICT, &json!("no_trial")));
}

#[tokio::test]
async fn a_canary_whose_calls_fail_is_stopped_and_one_that_blocks_no_more_than_before_is_not() {
    let node = node();
    canary(&node, &Module::new("1.1.0").always('t'), &[]).await;
    let failed = until("the policy's objection", || async {
        for client in 0..200 {
            visit(&node, client, "/").await;
        }
        (trial(&node).await["state"] == "stopped").then_some(())
    });
    failed.await;
    assert!(trial(&node).await["reason"].as_str().unwrap().contains("calls failed"));
    // Attacks are no reason to stop a version that blocks them as the one before does.
    canary(&node, &Module::new("1.2.0"), &[("share", "1")]).await;
    for client in 0..100 {
        assert_eq!(visit(&node, client, "/?do=b").await, NO);
    }
    let sound = trial(&node).await;
    assert_eq!(
        (&sound["state"], &sound["excused"], &sound["failures"]),
        (&json!("running"), &json!(100), &json!(0)),
        "{sound}"
    );
}

/// It is asked for all the while by many clients, and each of them gets an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_sound_canary_goes_through_all_steps_by_itself_and_no_request_is_lost() {
    let node = Arc::new(node());
    let (done, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients = (0..4).map(|worker| {
        let (node, done, asked) = (Arc::clone(&node), Arc::clone(&done), Arc::clone(&asked));
        tokio::spawn(async move {
            let mut answered = 0_u64;
            for visitor in 0.. {
                if done.load(Relaxed) {
                    break;
                }
                asked.fetch_add(1, Relaxed);
                let attack = visitor % 5 == 0;
                let status = visit(&node, format!("{worker}-{visitor}"), if attack { "/?do=b" } else { "/" }).await;
                assert_eq!(status, if attack { NO } else { OK });
                answered += 1;
            }
            answered
        })
    });
    let clients: Vec<_> = clients.collect();
    let begun = canary(&node, &Module::new("1.1.0"), &[]).await;
    let shares: Vec<_> = begun["trial"]["steps"].as_array().unwrap().iter().map(|step| step["share"].clone()).collect();
    assert_eq!(shares, [json!(0.05), json!(0.25), json!(0.5), json!(1.0)]);
    let trial = ended(&node, "promoted").await;
    assert_eq!(node.version().await["version"], "1.1.0");
    done.store(true, Relaxed);
    let mut answered = 0;
    for client in clients {
        answered += client.await.unwrap();
    }
    assert_eq!(answered, asked.load(Relaxed));
    let given = |by: &str| trial["verdicts"][by].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
    assert!(given("tried") >= 40 && given("serving") > 0, "ten at each of four steps: {trial}");
    assert_eq!(trial["failures"], 0);
    let latest = latest(&node).await;
    assert_eq!(
        (&latest["success"], &latest["version"], &latest["reason"]),
        (&json!(true), &json!("1.1.0"), &json!("tried as a canary"))
    );
    assert_eq!(node.admin("/api/v1/wasm/version").await["previous_version"], "1.0.0");
}

#[tokio::test]
async fn a_client_always_meets_the_same_version_and_a_person_decides_over_the_share() {
    let node = node();
    // It blocks, so that clients show which version they meet.
    let defect = Module::new("1.1.0").always('b');
    canary(&node, &defect, &[("steps", "10%:3600,50%:3600,1:3600"), ("auto", "false"), ("refusals", "ignore")]).await;
    let met = || async {
        let mut met = BTreeSet::new();
        for client in 0..200 {
            if visit(&node, client, "/").await == NO {
                met.insert(client);
            }
        }
        met
    };
    let few = met().await;
    assert!((5..50).contains(&few.len()), "{} of 200 clients with a share of 10 %", few.len());
    assert_eq!(met().await, few);
    let answer = ask(&node, "share", json!({"share": "50%"})).await;
    assert_eq!((&answer.json()["trial"]["share"], answer.status), (&json!(0.5), OK), "{}", answer.text());
    let half = met().await;
    assert!(half.is_superset(&few) && (60..140).contains(&half.len()), "{}", half.len());
    for wrong in [json!({}), json!({"share": 0}), json!({"share": "x"}), json!({"share": 2})] {
        assert_eq!(ask(&node, "share", wrong).await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(ask(&node, "abort", json!({})).await.status, OK);
    assert!(met().await.is_empty());
}

#[tokio::test]
async fn what_is_paused_keeps_its_share_until_it_is_resumed() {
    let node = node();
    canary(&node, &Module::new("1.1.0"), &[("steps", "50%:0,1:0"), ("min_calls", "5")]).await;
    assert_eq!(ask(&node, "pause", json!({})).await.json()["trial"]["state"], "paused");
    let before = trial(&node).await["share"].clone();
    for client in 0..100 {
        visit(&node, client, "/").await;
    }
    let paused = trial(&node).await;
    assert!(paused["calls"].as_u64().unwrap() > 5, "{paused}");
    assert_eq!((&paused["state"], &paused["share"]), (&json!("paused"), &before));
    ask(&node, "resume", json!({})).await;
    let promoted = until("the promotion", || async {
        for client in 0..50 {
            visit(&node, client, "/").await;
        }
        (trial(&node).await["state"] == "promoted").then_some(())
    });
    promoted.await;
    assert_eq!(node.version().await["version"], "1.1.0");
}

#[tokio::test]
async fn nothing_else_begins_to_serve_during_a_trial_but_a_rollback() {
    let node = node();
    node.upload(&Module::new("1.1.0").bytes()).await;
    canary(&node, &Module::new("1.2.0"), &[("share", "0.5")]).await;
    let rule = request(node.admin, Method::POST, "/api/v1/rules").token(TOKEN).json(&json!({"id": "x"})).send().await;
    for answer in [
        node.upload(&Module::new("1.3.0").bytes()).await,
        begin(&node, &Module::new("1.3.0"), &[("mode", "shadow")]).await,
        begin(&node, &Module::new("1.3.0"), &[("mode", "canary")]).await,
        rule,
    ] {
        assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["kind"], "trial_under_way");
        assert_eq!((&answer["trial"]["version"], &answer["trial"]["mode"]), (&json!("1.2.0"), &json!("canary")));
        let error = answer["error"].as_str().unwrap();
        assert!(
            error.contains("v1.2 (generation 3, module ") && error.contains("is being tried as a canary"),
            "{answer}"
        );
    }
    assert_eq!(trial(&node).await["state"], "running");
    // An emergency waits for no trial.
    assert_eq!(node.roll_back().await.json()["rolled_back_to"], "1.0.0");
    let over = ended(&node, "stopped").await;
    assert_eq!(over["reason"], "another version began to serve meanwhile");
    assert_eq!(node.upload(&Module::new("1.3.0").bytes()).await.status, OK);
}

#[tokio::test]
async fn a_wish_that_is_not_understood_reloads_nothing() {
    let node = node();
    for fields in [
        &[("mode", "shadov")][..],
        &[("share", "0.5")],
        &[("mode", "canary"), ("share", "2")],
        &[("mode", "canary"), ("mode", "canary")],
        &[("mode", "canary"), ("steps", "0.5,0.1")],
    ] {
        let answer = begin(&node, &Module::new("1.1.0"), fields).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{fields:?}: {}", answer.text());
    }
    let bytes = Module::new("1.1.0").bytes();
    for (query, status) in [("mod=shadow", StatusCode::BAD_REQUEST), ("mode=shadow", StatusCode::ACCEPTED)] {
        let target = format!("/api/v1/wasm/reload?{query}");
        let wish = request(node.admin, Method::POST, &target).token(TOKEN).form(&[("file", Some("x"), &bytes)]);
        assert_eq!(wish.send().await.status, status, "{query}");
    }
    assert_eq!(node.version().await["version"], "1.0.0");
    // What is refused at a reload is refused here, too, and what serves already needs no trial.
    ask(&node, "abort", json!({})).await;
    let answer = begin(&node, &Module::new("1.1.0").without("hotslot_run"), &[("mode", "shadow")]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text());
    let same = begin(&node, &Module::new("1.0.0"), &[("mode", "shadow")]).await;
    assert_eq!(same.status, OK, "{}", same.text());
    assert!(same.text().contains("serves this already"), "{}", same.text());
}

#[tokio::test]
async fn samples_show_no_secrets() {
    let node = node();
    shadow(&node, &Module::new("1.1.0").always('b')).await;
    let secret = "hunter2SECRET";
    let answer = request(node.data, Method::POST, &format!("/login/{secret}?token={secret}&q=%27--"))
        .header("authorization", &format!("Bearer {secret}"))
        .header("cookie", &format!("session={secret}; theme=dark"))
        .header("x-api-key", secret)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("user=me&password={secret}"))
        .send()
        .await;
    assert_eq!(answer.status, OK);
    let trial = compared(&node, 1).await;
    let sample = &trial["differences"][0]["sample"];
    let text = trial.to_string();
    assert!(
        !text.to_ascii_lowercase().contains("hunter") && !text.contains("SECRET") && !text.contains("dark"),
        "{text}"
    );
    assert_eq!(sample["target"], "/login/aaaaaa0aaaaaa?token=aaaaaa0aaaaaa&q=%27--", "its shape is there to be read");
    assert_eq!(sample["headers"]["cookie"], "session=(13 bytes); theme=(4 bytes)");
    assert_eq!(
        (&sample["headers"]["authorization"], &sample["body"]),
        (&json!("(20 bytes)"), &json!("user=aa&password=aaaaaa0aaaaaa"))
    );
}

#[tokio::test]
async fn a_restart_during_a_trial_serves_the_old_version() {
    let node = node();
    let before = node.version().await;
    canary(&node, &Module::new("1.1.0"), &[("share", "1")]).await;
    for client in 0..20 {
        visit(&node, client, "/").await;
    }
    let mut node = node.kill().start();
    assert_eq!(node.version().await["digest"], before["digest"]);
    assert_eq!(node.admin("/api/v1/wasm/trial").await["trials"], json!([]));
    // A node that is asked to stop has the time to write it down.
    #[cfg(unix)]
    {
        shadow(&node, &Module::new("1.1.0")).await;
        assert!(node.stop().success());
        node = node.kill().start();
        assert_eq!(node.version().await["digest"], before["digest"]);
        let history = node.admin("/api/v1/wasm/history").await.to_string();
        assert!(history.contains("it was tried as a shadow, and ended: the node stops"), "{history}");
    }
    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, OK);
}

#[tokio::test]
async fn a_file_that_changes_during_a_trial_is_taken_up_after_it() {
    let node = node();
    shadow(&node, &Module::new("1.1.0")).await;
    let rules = json!({"dynamic": [{"id": "harmless"}]}).to_string();
    std::fs::write(node.folder.rule_file(), &rules).unwrap();
    node.folder.put_module(&Module::new("1.2.0"));
    // Both are noticed, and wait.
    assert_eq!(node.version().await["version"], "1.0.0");
    let inside = &node;
    ask(&node, "abort", json!({})).await;
    until("the file", || async move { (inside.version().await["version"] == "1.2.0").then_some(()) }).await;
    until("the rules", || async move {
        let rules = inside.admin("/api/v1/rules").await.to_string();
        rules.contains("harmless").then_some(())
    })
    .await;
}

/// Each module has its own trial, and the others are changed meanwhile.
#[tokio::test]
async fn modules_are_tried_apart() {
    let mut folder = Folder::new(&Module::new("1.0.0"), TERMS);
    let second = folder.path("second.wasm");
    replace(&second, &Module::new("1.0.0").bytes());
    folder.configure(&format!("[[waf.wasm.modules]]\nname = \"second\"\nfile = {second:?}"));
    let node = folder.start();
    let defect = Module::new("1.1.0").always('b');
    canary(&node, &defect, &[("name", "second"), ("share", "1"), ("refusals", "ignore")]).await;
    assert_eq!(visit(&node, 1, "/").await, NO, "the second module's canary has its say after the first module");
    assert_eq!(node.upload(&Module::new("1.2.0").bytes()).await.status, OK, "the first one has no trial");
    // Without a name it is the one that is tried.
    assert_eq!(ask(&node, "pause", json!({})).await.json()["trial"]["module"], "second");
    shadow(&node, &Module::new("1.3.0")).await;
    let answer = ask(&node, "abort", json!({})).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text());
    assert!(answer.text().contains("universal-waf, second"), "{}", answer.text());
    assert_eq!(ask(&node, "abort/unknown", json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask(&node, "promote", json!({"module": "universal-waf"})).await.json()["version"], "1.3.0");
    assert_eq!(ask(&node, "abort/second", json!({})).await.status, OK);
    let trials = node.admin("/api/v1/wasm/trial").await["trials"].clone();
    let states: Vec<_> = trials.as_array().unwrap().iter().map(|trial| (&trial["module"], &trial["state"])).collect();
    assert_eq!(states, [(&json!("universal-waf"), &json!("promoted")), (&json!("second"), &json!("aborted"))]);
    assert_eq!(
        node.metric("wasm_trials_ended_total{module=\"second\",mode=\"canary\",outcome=\"aborted\"}").await,
        1.0
    );
    let audit = node.admin("/api/v1/audit").await;
    let paused = audit.to_string();
    assert!(paused.contains("\"path\":\"/api/v1/wasm/pause\",\"module\":\"second\""), "{paused}");
}

/// What is excepted is asked about once more, without the rules that are mild: by the version that judges the request, with its
/// own rules, and not by the one that serves.
#[tokio::test]
async fn a_canary_has_the_exceptions_of_its_own_rules() {
    let exception = "[[waf.exceptions]]\nrule = \"one\"\npath = \"/search\"";
    let folder = Folder::new(&Module::new("1.0.0"), &format!("{TERMS}\n{exception}"));
    std::fs::copy("rules/universal-waf.wasm", folder.module()).unwrap();
    let rule = |id: &str, pattern: &str| json!({"id": id, "where": ["target"], "kind": "contains", "pattern": pattern, "action": "block"});
    std::fs::create_dir_all(folder.rule_file().parent().unwrap()).unwrap();
    std::fs::write(folder.rule_file(), json!({"dynamic": [rule("one", "apples")]}).to_string()).unwrap();
    let node = folder.start();
    let both = "/search?q=apples-and-pears";
    assert_eq!((visit(&node, 1, both).await, visit(&node, 1, "/other?q=apples").await), (OK, NO));
    let module = std::fs::read("rules/universal-waf.wasm").unwrap();
    let rules = json!({"dynamic": [rule("one", "apples"), rule("two", "pears")]}).to_string();
    let form: [(&str, Option<&str>, &[u8]); 5] = [
        ("mode", None, b"canary"),
        ("share", None, b"1"),
        ("refusals", None, b"ignore"),
        ("file", Some("x"), &module),
        ("rules", Some("r"), rules.as_bytes()),
    ];
    let answer = request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&form).send().await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    assert_eq!(visit(&node, 1, "/search?q=apples").await, OK, "it is excepted here, too");
    assert_eq!(visit(&node, 1, both).await, NO, "its own rule stands");
    assert_eq!(ask(&node, "abort", json!({})).await.status, OK);
    assert_eq!(visit(&node, 1, both).await, OK);
}

/// A module and its rules are one artifact: the slot loads the module with the rules as its configuration, and swaps both with
/// one store. A module that challenges everything comes with rules that block everything, so a challenge would be the new
/// module with the old rules.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_judged_by_a_new_module_with_old_rules() {
    let log = "[waf.log]\nformat = \"json\"";
    let node = Arc::new(Folder::new(&Module::new("1.0.0"), &format!("{TERMS}\n{log}")).start_logged());
    let done = Arc::new(AtomicBool::new(false));
    let clients = (0..3).map(|_| {
        let (node, done) = (Arc::clone(&node), Arc::clone(&done));
        tokio::spawn(async move {
            let mut seen = BTreeMap::new();
            while !done.load(Relaxed) {
                let status = node.get("/").await.status;
                *seen.entry(status.as_u16()).or_insert(0) += 1;
            }
            seen
        })
    });
    let clients: Vec<_> = clients.collect();
    let blocking = json!({"dynamic": [], "BLOCK": true}).to_string();
    let plain = json!({"dynamic": []}).to_string();
    let put = |module: Module, rules: String, trial: bool| {
        let node = Arc::clone(&node);
        async move {
            let bytes = module.bytes();
            let mut form: Vec<(&str, Option<&str>, &[u8])> =
                vec![("file", Some("x"), &bytes), ("rules", Some("r"), rules.as_bytes())];
            if trial {
                form.extend([("mode", None, &b"canary"[..]), ("share", None, b"1"), ("refusals", None, b"ignore")]);
            }
            request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&form).send().await
        }
    };
    for round in 0..10 {
        let new = Module::new(&format!("1.{}.0", 2 * round + 1)).always('c');
        let answer = put(new, blocking.clone(), round % 2 == 1).await;
        assert!(answer.status.is_success(), "{}", answer.text());
        if round % 2 == 1 {
            assert_eq!(ask(&node, "promote", json!({})).await.status, OK);
        }
        let answer = put(Module::new(&format!("1.{}.0", 2 * round + 2)), plain.clone(), false).await;
        assert!(answer.status.is_success(), "{}", answer.text());
    }
    done.store(true, Relaxed);
    let mut requests = 0;
    for client in clients {
        requests += client.await.unwrap().values().sum::<u64>();
    }
    let node = Arc::into_inner(node).expect("all clients have ended");
    let (folder, mut lines) = (node.kill(), 0);
    for line in folder.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if line["target"] != "waf::access" {
            continue;
        }
        lines += 1;
        let version = line["version"].as_str().unwrap();
        let minor: u64 = version.split('.').nth(1).unwrap().parse().unwrap();
        assert!(line["trial"].is_null() || minor % 4 == 3, "only every second pair is tried: {line}");
        assert_eq!(line["verdict"], if minor % 2 == 1 { "block" } else { "allow" }, "{line}");
    }
    assert!(lines > 0 && requests > 0, "{lines} lines for {requests} requests");
}
