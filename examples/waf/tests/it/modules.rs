//! Several modules in one node: requests meet them in order, and each is changed without the others.

use std::path::PathBuf;
use std::process::Command;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::node::{Folder, replace};
use crate::support::wait::until;
use crate::support::{Answer, Module, Node, TOKEN, get, request};
use crate::swaps::Clients;

const OK: StatusCode = StatusCode::OK;
const NO: StatusCode = StatusCode::FORBIDDEN;
const FIRST: &str = "universal-waf";
const SECOND: &str = "bad-bot-blocker";

/// The file of the second module.
fn second_file(folder: &Folder) -> PathBuf {
    folder.path("bad-bot-blocker.wasm")
}

/// A folder with two modules. The first one is `[waf.wasm] module`, as in every node; the second one is listed, with `settings`.
fn two(first: &Module, second: &Module, changes: &str, settings: &str) -> Folder {
    let mut folder = Folder::new(first, changes);
    replace(&second_file(&folder), &second.bytes());
    folder.configure(&format!("[[waf.wasm.modules]]\nfile = {:?}\n{settings}", second_file(&folder)));
    folder
}

/// A node with two modules, which keeps its log in JSON.
fn node(first: &Module, second: &Module, changes: &str, settings: &str) -> Node {
    let mut folder = two(first, second, changes, settings);
    folder.configure("[waf.log]\nformat = \"json\"");
    folder.start_logged()
}

/// What a node has logged of one kind, once there is as much of it.
async fn logged(node: &Node, target: &str, count: usize) -> Vec<Value> {
    until("the lines", || async move {
        let text = node.folder.log();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<_> = lines.filter(|line| line["target"] == target).collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

async fn upload(node: &Node, path: &str, name: Option<(&str, &str)>, bytes: &[u8]) -> Answer {
    let mut fields = vec![("file", Some("module.wasm"), bytes)];
    if let Some((field, name)) = name {
        fields.push((field, None, name.as_bytes()));
    }
    request(node.admin, Method::POST, path).token(TOKEN).form(&fields).send().await
}

async fn reload(node: &Node, name: &str, module: &Module) -> Answer {
    upload(node, "/api/v1/wasm/reload", Some(("name", name)), &module.bytes()).await
}

async fn post(node: &Node, path: &str, wish: Value) -> Answer {
    request(node.admin, Method::POST, path).token(TOKEN).json(&wish).send().await
}

/// The versions that serve, in order, each with its module.
async fn versions(node: &Node) -> Vec<(String, String)> {
    let modules = node.admin("/api/v1/wasm/modules").await["modules"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    modules.as_array().unwrap().iter().map(|module| (text(&module["name"]), text(&module["version"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
}

async fn verdicts(node: &Node, module: &str, verdict: &str) -> f64 {
    node.metric(&format!("waf_module_verdicts_total{{module=\"{module}\",verdict=\"{verdict}\"}}")).await
}

#[tokio::test]
async fn modules_are_asked_in_order_until_one_decides() {
    let node = node(&Module::new("1.0.0"), &Module::new("2.0.0").always('b'), "", "");
    assert_eq!(versions(&node).await, pairs(&[(FIRST, "1.0.0"), (SECOND, "2.0.0")]));
    // The first one decides, and the second one is not asked.
    assert_eq!(node.get("/?do=b").await.status, NO);
    assert_eq!(verdicts(&node, FIRST, "block").await, 1.0);
    assert_eq!(verdicts(&node, SECOND, "block").await, 0.0);
    // It lets a request through, or only logs it: the second one has its say.
    assert_eq!(node.get("/").await.status, NO);
    assert_eq!(node.get("/?do=l").await.status, NO);
    assert_eq!(verdicts(&node, FIRST, "allow").await, 1.0);
    assert_eq!(verdicts(&node, SECOND, "block").await, 2.0);
    assert_eq!(node.metric("waf_verdicts_total{verdict=\"block\"}").await, 3.0, "one for each request");
    // Whose decision it was.
    let lines = logged(&node, "waf::access", 3).await;
    let by: Vec<_> = lines.iter().map(|line| (line["module"].clone(), line["version"].clone())).collect();
    let (first, second) = ((json!(FIRST), json!("1.0.0")), (json!(SECOND), json!("2.0.0")));
    assert_eq!(by, [first, second.clone(), second]);
    let records = logged(&node, "waf::decision", 4).await;
    let by: Vec<_> = records.iter().map(|record| (record["module"].clone(), record["verdict"].clone())).collect();
    let said = |module: &str, verdict: &str| (json!(module), json!(verdict));
    assert_eq!(by, [said(FIRST, "block"), said(SECOND, "block"), said(FIRST, "log"), said(SECOND, "block")]);
}

#[tokio::test]
async fn a_challenge_that_was_passed_hides_nothing() {
    let node = node(&Module::new("1.0.0").always('c'), &Module::new("2.0.0"), "", "");
    let page = node.get("/").await;
    assert_eq!(page.status, NO);
    assert_eq!(verdicts(&node, SECOND, "allow").await, 0.0, "the challenge ends the run");
    let (_, rest) = page.text().split_once("[...\"").expect("the word");
    let word: String = rest.split('"').next().unwrap().chars().rev().collect();
    let with =
        |target: &str| request(node.data, Method::GET, target).header("cookie", &format!("waf_challenge={word}"));
    assert_eq!(with("/").send().await.status, OK);
    assert_eq!(with("/?do=b").send().await.status, NO);
    assert_eq!(verdicts(&node, SECOND, "block").await, 1.0);
}

#[tokio::test]
async fn a_module_that_only_detects_hides_nothing() {
    let second = Module::new("2.0.0").always('b');
    // Listed both, the one that only detects before the other.
    let mut folder = two(&Module::new("1.0.0"), &second, "", "");
    folder.forget("waf.wasm", "module");
    folder.configure(&format!(
        "[[waf.wasm.modules]]\nfile = {:?}\nmode = \"detect\"\n[[waf.wasm.modules]]\nfile = {:?}\nrules = true\n\
         [waf.log]\nformat = \"json\"",
        second_file(&folder),
        folder.module()
    ));
    let node = folder.start_logged();
    assert_eq!(node.get("/").await.status, OK);
    assert_eq!(node.get("/?do=b").await.status, NO);
    assert_eq!(node.metric("waf_verdicts_not_enforced_total{verdict=\"block\"}").await, 1.0);
    let records = logged(&node, "waf::decision", 3).await;
    let by: Vec<_> = records.iter().map(|record| (record["module"].clone(), record["enforced"].clone())).collect();
    let said = |module: &str, enforced: bool| (json!(module), json!(enforced));
    assert_eq!(by, [said(SECOND, false), said(SECOND, false), said(FIRST, true)]);
}

#[tokio::test]
async fn each_module_has_its_own_deadline_and_failure_policy() {
    let settings = "failure_policy = \"open\"\n[waf.wasm.modules.limits]\ndeadline_milliseconds = 20";
    let node = node(&Module::new("1.0.0"), &Module::new("2.0.0").always('x'), "", settings);
    // The second one never ends: it is cut off, and the request goes on.
    assert_eq!(node.get("/").await.status, OK);
    assert_eq!(node.metric(&format!("waf_module_errors_total{{module={SECOND:?},kind=\"deadline\"}}")).await, 1.0);
    let errors = node.admin("/api/v1/wasm/errors").await["errors"].clone();
    assert_eq!((&errors[0]["module"], errors.as_array().unwrap().len()), (&json!(SECOND), 1), "{errors}");
    let complaint = errors[0]["error"].as_str().unwrap();
    assert!(complaint.contains("20"), "its own deadline: {complaint}");
    // The first one's failures are for the policy of the node.
    assert_eq!(node.get("/?do=t").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let lines = logged(&node, "waf::access", 2).await;
    for (line, module) in lines.iter().zip([SECOND, FIRST]) {
        assert_eq!((&line["verdict"], &line["module"]), (&json!("failed"), &json!(module)), "{line}");
    }
}

/// A module that fails open must not keep the next one from its say.
#[tokio::test]
async fn a_module_without_a_verdict_hides_nothing() {
    let mut folder = two(&Module::new("1.0.0"), &Module::new("2.0.0").always('t'), "", "");
    folder.forget("waf.wasm", "module");
    folder.configure(&format!(
        "[[waf.wasm.modules]]\nfile = {:?}\nfailure_policy = \"open\"\n[[waf.wasm.modules]]\nfile = {:?}\nrules = true",
        second_file(&folder),
        folder.module()
    ));
    let node = folder.start();
    assert_eq!(node.get("/").await.status, OK);
    assert_eq!(node.get("/?do=b").await.status, NO);
}

#[tokio::test]
async fn a_module_is_reloaded_by_its_name() {
    let node = Node::start_two();
    for (path, name, module, bytes) in [
        ("/api/v1/wasm/reload", Some(("name", SECOND)), SECOND, Module::new("2.1.0")),
        ("/api/v1/wasm/reload", Some(("module", SECOND)), SECOND, Module::new("2.2.0")),
        ("/api/v1/wasm/reload/bad-bot-blocker", None, SECOND, Module::new("2.3.0")),
        ("/api/v1/wasm/reload?module=bad-bot-blocker", Some(("name", SECOND)), SECOND, Module::new("2.4.0")),
        ("/api/v1/wasm/reload", Some(("name", FIRST)), FIRST, Module::new("1.1.0")),
        ("/api/v1/wasm/reload", None, FIRST, Module::new("1.2.0")),
    ] {
        let answer = upload(&node, path, name, &bytes.bytes()).await;
        assert_eq!(answer.status, OK, "{path}: {}", answer.text());
        let answer = answer.json();
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("Reloaded {module} (")), "{message}");
        assert_eq!(answer["module"], *module);
    }
    assert_eq!(versions(&node).await, pairs(&[(FIRST, "1.2.0"), (SECOND, "2.4.0")]));
    // What is told of one, and of all.
    assert_eq!(node.version().await["version"], "1.2.0");
    assert_eq!(node.admin("/api/v1/wasm/version/bad-bot-blocker").await["version"], "2.4.0");
    let count = |history: &Value, module: &str| {
        history["reloads"].as_array().unwrap().iter().filter(|attempt| attempt["module"] == *module).count()
    };
    let all = node.admin("/api/v1/wasm/history").await;
    assert_eq!((count(&all, FIRST), count(&all, SECOND)), (3, 5), "{all}");
    assert_eq!((&all["reloads"][0]["module"], &all["reloads"][0]["version"]), (&json!(FIRST), &json!("1.2.0")));
    let one = node.admin("/api/v1/wasm/history/bad-bot-blocker").await;
    assert_eq!((count(&one, FIRST), count(&one, SECOND)), (0, 5));
    let archive = node.admin("/api/v1/wasm/archive?module=bad-bot-blocker").await;
    assert_eq!((&archive["module"], archive["modules"].as_array().unwrap().len()), (&json!(SECOND), 5), "{archive}");
    for line in [
        "wasm_reload_total{module=\"universal-waf\"} 2\n",
        "wasm_reload_total{module=\"bad-bot-blocker\"} 4\n",
        "wasm_reload_failures_total{module=\"bad-bot-blocker\"} 0\n",
        "wasm_generation{module=\"universal-waf\"} 3\n",
        "wasm_generation{module=\"bad-bot-blocker\"} 5\n",
        "waf_reload_time_seconds_count{module=\"bad-bot-blocker\"} 4\n",
    ] {
        let metrics = get(node.admin, "/metrics").await;
        assert!(metrics.text().contains(line), "{line}{}", metrics.text());
    }
    assert!(node.metric("wasm_reload_duration_seconds{module=\"bad-bot-blocker\"} ").await > 0.0);
    // Who did what, and to which one.
    let audit = node.admin("/api/v1/audit").await;
    let changed: Vec<_> = audit.as_array().unwrap().iter().rev().map(|entry| entry["module"].clone()).collect();
    assert_eq!(changed, [SECOND, SECOND, SECOND, SECOND, FIRST, FIRST].map(Value::from), "{audit}");
}

#[tokio::test]
async fn an_unknown_module_is_told_with_those_that_there_are() {
    let node = Node::start_two();
    let bytes = Module::new("3.0.0").bytes();
    let answers = [
        upload(&node, "/api/v1/wasm/reload", Some(("name", "other")), &bytes).await,
        upload(&node, "/api/v1/wasm/reload/other", None, &bytes).await,
        post(&node, "/api/v1/wasm/rollback/other", json!({})).await,
        post(&node, "/api/v1/wasm/rollback", json!({ "module": "other" })).await,
        post(&node, "/api/v1/rules/rollback", json!({ "module": "other" })).await,
        get(node.admin, "/api/v1/wasm/version/other").await,
        get(node.admin, "/api/v1/wasm/history?module=other").await,
        get(node.admin, "/api/v1/wasm/errors/other").await,
        get(node.admin, "/api/v1/wasm/archive/other").await,
        get(node.admin, "/api/v1/rules?module=other").await,
    ];
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{number}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["modules"], json!([FIRST, SECOND]), "{answer}");
        let error = answer["error"].as_str().unwrap();
        assert_eq!(error, "there is no module other here: this node has universal-waf, bad-bot-blocker");
    }
    // Names that are none, and two at once.
    let answers = [
        upload(&node, "/api/v1/wasm/reload", Some(("name", "../other")), &bytes).await,
        upload(&node, "/api/v1/wasm/reload/..%2Fother", None, &bytes).await,
        upload(&node, "/api/v1/wasm/reload/universal-waf", Some(("name", SECOND)), &bytes).await,
        get(node.admin, "/api/v1/wasm/version/universal-waf?module=bad-bot-blocker").await,
        get(node.admin, "/api/v1/wasm/version?module=").await,
        get(node.admin, "/api/v1/wasm/version?module=universal-waf&module=bad-bot-blocker").await,
        get(node.admin, "/api/v1/wasm/version/%FF").await,
    ];
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{number}: {}", answer.text());
    }
    assert_eq!(versions(&node).await, pairs(&[(FIRST, "1.0.0"), (SECOND, "2.0.0")]));
}

/// Without a name, the second module's file would take the place of the first module.
#[tokio::test]
async fn a_file_that_is_another_module_does_not_become_the_first_one_by_mistake() {
    let node = Node::start_two();
    let bots = std::fs::read("bad-bots/bad-bot-blocker.wasm").unwrap();
    let answer = upload(&node, "/api/v1/wasm/reload", None, &bots).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text());
    assert!(answer.text().contains("send it with name=bad-bot-blocker"), "{}", answer.text());
    assert_eq!(node.version().await["version"], "1.0.0");
}

#[tokio::test]
async fn a_rollback_of_one_module_leaves_the_other() {
    let node = Node::start_two();
    reload(&node, SECOND, &Module::new("2.1.0")).await;
    reload(&node, FIRST, &Module::new("1.1.0")).await;
    let answer = post(&node, "/api/v1/wasm/rollback", json!({ "module": SECOND, "reason": "too many" })).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["module"], &answer["rolled_back_to"]), (&json!(SECOND), &json!("2.0.0")), "{answer}");
    assert_eq!(versions(&node).await, pairs(&[(FIRST, "1.1.0"), (SECOND, "2.0.0")]));
    assert_eq!(post(&node, "/api/v1/wasm/rollback/universal-waf", json!({})).await.status, OK);
    assert_eq!(versions(&node).await, pairs(&[(FIRST, "1.0.0"), (SECOND, "2.0.0")]));
    let more = post(&node, "/api/v1/wasm/rollback/bad-bot-blocker", json!({})).await;
    assert_eq!((more.status, &more.json()["module"]), (StatusCode::CONFLICT, &json!(SECOND)), "{}", more.text());
    let cause = |module: &str| format!("wasm_rollback_total{{module={module:?},cause=\"rollback\"}}");
    assert_eq!((node.metric(&cause(FIRST)).await, node.metric(&cause(SECOND)).await), (1.0, 1.0));
}

#[tokio::test]
async fn a_version_that_fails_is_rolled_back_and_the_other_module_stays() {
    let settings = "[waf.wasm.modules.probation]\nmin_calls = 10\nmax_error_rate = 0.2";
    let node = node(&Module::new("1.0.0"), &Module::new("2.0.0"), "", settings);
    reload(&node, FIRST, &Module::new("1.1.0")).await;
    reload(&node, SECOND, &Module::new("2.1.0").always('t')).await;
    let inside = &node;
    until("the rollback", || async move {
        inside.get("/").await;
        let latest = inside.admin("/api/v1/wasm/history/bad-bot-blocker").await["reloads"][0].clone();
        (latest["trigger"] == "automatic_rollback").then_some(())
    })
    .await;
    assert_eq!(versions(&node).await, pairs(&[(FIRST, "1.1.0"), (SECOND, "2.0.0")]));
    assert_eq!(node.get("/").await.status, OK);
}

#[tokio::test]
async fn no_request_is_lost_while_one_module_is_reloaded_and_the_other_serves() {
    let node = Node::start_two();
    let clients = Clients::start(node.data);
    let modules = [1, 2].map(|salt| Module::new("2.0.0").salted(salt));
    let mut meanwhile = 0;
    for swap in 0..50 {
        let answer = reload(&node, SECOND, &modules[swap % 2]).await;
        assert_eq!(answer.status, OK, "{}", answer.text());
        meanwhile += answer.json()["requests_during_reload"].as_u64().unwrap();
    }
    let answered = clients.end().await;
    assert!(meanwhile > 0 && meanwhile <= answered, "{meanwhile} of {answered} requests came across a reload");
    assert_eq!(node.admin("/api/v1/wasm/version/bad-bot-blocker").await["generation"], 51);
    assert_eq!(node.version().await["generation"], 1, "the other one was not touched");
    // Each request had both verdicts.
    let both = (verdicts(&node, FIRST, "allow").await, verdicts(&node, SECOND, "allow").await);
    assert_eq!(both, (answered as f64, answered as f64));
}

#[tokio::test]
async fn reloads_of_two_modules_have_their_own_times() {
    let changes = "[waf.wasm.reload]\nmax_reload_frequency_seconds = 3600";
    let node = node(&Module::new("1.0.0"), &Module::new("2.0.0"), changes, "");
    assert_eq!(reload(&node, FIRST, &Module::new("1.1.0")).await.status, OK);
    // What `[waf.wasm]` says holds for each of them, and each has its own clock.
    assert_eq!(reload(&node, SECOND, &Module::new("2.1.0")).await.status, OK);
    assert_eq!(reload(&node, SECOND, &Module::new("2.2.0")).await.status, StatusCode::TOO_MANY_REQUESTS);
    let settings = "[waf.wasm.modules.reload]\nmax_reload_frequency_seconds = 0";
    let node = self::node(&Module::new("1.0.0"), &Module::new("2.0.0"), changes, settings);
    for version in ["2.1.0", "2.2.0"] {
        assert_eq!(reload(&node, SECOND, &Module::new(version)).await.status, OK);
    }
}

#[tokio::test]
async fn the_rules_are_those_of_the_module_that_takes_them() {
    let node = Node::start_two();
    let rule = json!({ "id": "BLOCK" });
    let put = async |path: &str| request(node.admin, Method::PUT, path).token(TOKEN).json(&rule).send().await;
    let answer = put("/api/v1/rules").await;
    assert_eq!((answer.status, &answer.json()["module"]), (OK, &json!(FIRST)), "{}", answer.text());
    assert_eq!(verdicts(&node, SECOND, "block").await, 0.0);
    assert_eq!(node.get("/").await.status, NO);
    assert_eq!(verdicts(&node, FIRST, "block").await, 1.0);
    assert_eq!(post(&node, "/api/v1/rules/rollback", json!({})).await.json()["module"], FIRST);
    // Another one is meant only if it is named, and has its own file.
    let answer = put("/api/v1/rules?module=bad-bot-blocker").await;
    assert_eq!((answer.status, &answer.json()["module"]), (OK, &json!(SECOND)), "{}", answer.text());
    assert_eq!(node.get("/").await.status, NO);
    assert_eq!(verdicts(&node, SECOND, "block").await, 1.0);
    let written = std::fs::read_to_string(node.folder.path("data/modules/bad-bot-blocker/config.json")).unwrap();
    assert!(written.contains("BLOCK"), "{written}");
    assert!(!std::fs::read_to_string(node.folder.rule_file()).unwrap().contains("BLOCK"));
    let answer = post(&node, "/api/v1/rules/rollback", json!({ "module": SECOND })).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    assert_eq!(node.get("/").await.status, OK);
}

/// Where no module says that it takes the rules, nobody guesses which one is meant.
#[tokio::test]
async fn rules_that_no_module_takes_are_refused() {
    let mut folder = two(&Module::new("1.0.0"), &Module::new("2.0.0"), "", "");
    folder.forget("waf.wasm", "module");
    folder.configure(&format!(
        "[[waf.wasm.modules]]\nfile = {:?}\n[[waf.wasm.modules]]\nfile = {:?}",
        folder.module(),
        second_file(&folder)
    ));
    let node = folder.start();
    let answer = get(node.admin, "/api/v1/rules").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.text().contains("rules = true"), "{}", answer.text());
    assert_eq!(get(node.admin, "/api/v1/rules?module=bad-bot-blocker").await.status, OK);
}

#[tokio::test]
async fn files_of_each_module_are_taken_up() {
    let node = Node::start_two();
    let inside = &node;
    replace(&second_file(&node.folder), &Module::new("2.1.0").bytes());
    let serves = async |expected: [(&str, &str); 2]| {
        let expected = pairs(&expected);
        let expected = &expected;
        until("the versions", || async move { (versions(inside).await == *expected).then_some(()) }).await;
    };
    serves([(FIRST, "1.0.0"), (SECOND, "2.1.0")]).await;
    node.folder.put_module(&Module::new("1.1.0"));
    serves([(FIRST, "1.1.0"), (SECOND, "2.1.0")]).await;
    // And what it is set up with.
    replace(&node.folder.path("data/modules/bad-bot-blocker/config.json"), b"BLOCK");
    until("the configuration", || async move { (inside.get("/").await.status == NO).then_some(()) }).await;
    assert_eq!(verdicts(&node, FIRST, "block").await, 0.0);
}

#[tokio::test]
async fn modules_that_are_added_taken_out_or_moved_wait_for_a_restart_and_are_told() {
    let mut node = node(&Module::new("1.0.0"), &Module::new("2.0.0"), "", "");
    let reload = async |node: &Node| {
        drop(node.folder.command());
        request(node.admin, Method::POST, "/api/v1/config/reload").token(TOKEN).send().await.json()
    };
    let files = format!("{:?}", second_file(&node.folder));
    let (first, second) = (node.folder.module(), files.as_str());
    for (listed, why) in [
        (
            format!("[[waf.wasm.modules]]\nfile = {second}\n[[waf.wasm.modules]]\nname = \"third\"\nfile = {second}"),
            "added: third",
        ),
        ("[waf.wasm]\nmodules = []".to_owned(), "taken out: bad-bot-blocker"),
        (format!("[[waf.wasm.modules]]\nfile = {second}\nmode = \"detect\""), "other settings"),
    ] {
        node.folder.configure(&format!("{listed}\n[waf]\nmode = \"detect\""));
        let answer = reload(&node).await;
        assert_eq!(answer["needs_restart"], json!(["waf.wasm.modules"]), "{answer}");
        let told = answer["why"]["waf.wasm.modules"].as_str().unwrap();
        assert!(told.starts_with(why) && told.contains("when the node starts"), "{told}");
        assert_eq!(versions(&node).await, pairs(&[(FIRST, "1.0.0"), (SECOND, "2.0.0")]));
    }
    // What else was said holds.
    assert_eq!(node.get("/?do=b").await.status, OK);
    let moved = format!("[[waf.wasm.modules]]\nfile = {second}\n[[waf.wasm.modules]]\nfile = {first:?}\nrules = true");
    node.folder.forget("waf.wasm", "module");
    node.folder.configure(&moved);
    let answer = reload(&node).await;
    assert!(answer["why"]["waf.wasm.modules"].as_str().unwrap().starts_with("another order"), "{answer}");
    let node = node.kill().start();
    assert_eq!(versions(&node).await, pairs(&[(SECOND, "2.0.0"), (FIRST, "1.0.0")]));
}

/// A folder of a node with one module goes on to be that module's, wherever it stands in the list.
#[tokio::test]
async fn the_state_of_a_single_module_is_still_read_and_modules_are_kept_apart() {
    let one = Node::start(&Module::new("1.0.0"));
    one.upload(&Module::new("1.1.0").bytes()).await;
    request(one.admin, Method::PUT, "/api/v1/rules").token(TOKEN).json(&json!({"id": "kept"})).send().await;
    let mut folder = one.kill();
    let list =
        || -> Value { serde_json::from_slice(&std::fs::read(folder.archive().join("serving.json")).unwrap()).unwrap() };
    assert!(list()["module"].is_null(), "as nodes before this one wrote it");

    replace(&second_file(&folder), &Module::new("2.0.0").bytes());
    let listed = |second_first: bool, folder: &Folder| {
        let first = format!("[[waf.wasm.modules]]\nfile = {:?}\nrules = true\n", folder.module());
        let second = format!("[[waf.wasm.modules]]\nfile = {:?}\n", second_file(folder));
        if second_first { second + &first } else { first + &second }
    };
    folder.forget("waf.wasm", "module");
    folder.configure(&listed(true, &folder));
    let node = folder.start();
    assert_eq!(versions(&node).await, pairs(&[(SECOND, "2.0.0"), (FIRST, "1.1.0")]));
    assert_eq!(node.admin("/api/v1/rules").await["rules"], json!([{"id": "kept"}]));
    let history = node.admin("/api/v1/wasm/history/universal-waf").await["reloads"].as_array().unwrap().len();
    assert_eq!(history, 4, "three of the node with one module, and this start");
    reload(&node, SECOND, &Module::new("2.1.0")).await;

    // In another order, each starts on what it served last.
    let mut folder = node.kill();
    folder.configure(&listed(false, &folder));
    let node = folder.start();
    assert_eq!(versions(&node).await, pairs(&[(FIRST, "1.1.0"), (SECOND, "2.1.0")]));
    let kept = |answer: &Value| answer["modules"].as_array().unwrap().len();
    let archives = [FIRST, SECOND].map(|module| format!("/api/v1/wasm/archive/{module}"));
    assert_eq!((kept(&node.admin(&archives[0]).await), kept(&node.admin(&archives[1]).await)), (2, 2));
    assert_eq!(post(&node, "/api/v1/wasm/rollback/universal-waf", json!({})).await.json()["rolled_back_to"], "1.0.0");
    // The second one alone: it does not take the first one's place in the folder.
    let mut folder = node.kill();
    folder.configure(&format!("[[waf.wasm.modules]]\nfile = {:?}\n", second_file(&folder)));
    let node = folder.start();
    assert_eq!(versions(&node).await, pairs(&[(SECOND, "2.1.0")]));
    // And each of them alone as `[waf.wasm] module`.
    let mut folder = node.kill();
    folder.forget("waf.wasm", "modules");
    for (file, version) in [(folder.module(), "1.0.0"), (second_file(&folder), "2.1.0")] {
        folder.configure(&format!("[waf.wasm]\nmodule = {file:?}"));
        let node = folder.start();
        assert_eq!(node.version().await["version"], version);
        folder = node.kill();
    }
}

/// Whatever is asked first: the folder of a new node is that of the module which takes the rules, as if it were the only one.
#[tokio::test]
async fn a_new_folder_is_for_the_module_that_takes_the_rules() {
    let mut folder = two(&Module::new("1.0.0"), &Module::new("2.0.0"), "", "");
    folder.forget("waf.wasm", "module");
    folder.configure(&format!(
        "[[waf.wasm.modules]]\nfile = {:?}\n[[waf.wasm.modules]]\nfile = {:?}\nrules = true",
        second_file(&folder),
        folder.module()
    ));
    let node = folder.start();
    reload(&node, FIRST, &Module::new("1.1.0")).await;
    let mut folder = node.kill();
    folder.forget("waf.wasm", "modules");
    folder.configure(&format!("[waf.wasm]\nmodule = {:?}", folder.module()));
    let node = folder.start();
    assert_eq!(node.version().await["version"], "1.1.0");
    assert_eq!(node.roll_back().await.json()["rolled_back_to"], "1.0.0");
}

/// A single module whose file is called otherwise is the same one.
#[tokio::test]
async fn a_single_module_may_get_another_name() {
    let node = Node::start(&Module::new("1.0.0"));
    node.upload(&Module::new("1.1.0").bytes()).await;
    let mut folder = node.kill();
    let renamed = folder.path("renamed.wasm");
    std::fs::rename(folder.module(), &renamed).unwrap();
    folder.configure(&format!("[waf.wasm]\nmodule = {renamed:?}"));
    let node = folder.start();
    let version = node.version().await;
    assert_eq!((&version["name"], &version["version"]), (&json!("renamed"), &json!("1.1.0")));
}

#[tokio::test]
async fn a_node_is_ready_when_all_modules_serve_and_starts_with_all_or_not_at_all() {
    let node = Node::start_two();
    assert_eq!(get(node.admin, "/readyz").await.text(), "ready\n");
    let folder = two(&Module::new("1.0.0"), &Module::new("2.0.0"), "", "");
    replace(&second_file(&folder), b"no module");
    for arguments in [&[][..], &["--check"]] {
        let output = folder.command().args(arguments).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && complaint.contains("bad-bot-blocker"), "{complaint}");
    }
}

#[test]
fn a_node_of_a_fleet_has_one_module() {
    let folder = two(&Module::new("1.0.0"), &Module::new("2.0.0"), "", "");
    let command = folder.command();
    let mut command = Command::new(command.get_program());
    command.args(["node", "--fleet", "nats://127.0.0.1:1", "--demo", "--config"]).arg(folder.path("waf.toml"));
    let output = command.env_remove("WAF_ADMIN_TOKEN").output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && complaint.contains("waf.wasm.modules: a node of a fleet"), "{complaint}");
}

impl Node {
    /// A node with two modules that allow what nobody asks them to block.
    fn start_two() -> Node {
        two(&Module::new("1.0.0"), &Module::new("2.0.0"), "", "").start()
    }
}
