//! From one engine to another one and back: a release is a plugin and the rules that it understands.

use std::process::Command;
use std::sync::LazyLock;

use hotslot::Digest;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::libraries::{ENABLED, MODULE, library, node};
use crate::support::http::Answer;
use crate::support::{Node, TOKEN, request};
use crate::swaps::Clients;

const OK: StatusCode = StatusCode::OK;
const NO: StatusCode = StatusCode::FORBIDDEN;
const INJECTION: &str = "/?id=1%27%20UNION%20SELECT%20pw%20FROM%20t--";

/// The engine for rules in SecLang, as a library of this platform.
static SECLANG: LazyLock<Vec<u8>> = LazyLock::new(|| library("seclang-waf"));

/// The example's rules, and one that no other rules have.
fn rules(path: &str) -> String {
    let own = format!("SecRule REQUEST_FILENAME \"@streq {path}\" \"id:77,phase:1,deny,msg:'Ours'\"\n");
    format!("{}{own}", include_str!("../../seclang/example.conf"))
}

/// Uploads a plugin with its rules.
async fn release(node: &Node, plugin: &[u8], rules: &[u8]) -> Answer {
    let form: [(&str, Option<&str>, &[u8]); 3] =
        [("name", None, b"universal-waf"), ("file", Some("plugin"), plugin), ("rules", Some("rules"), rules)];
    request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&form).send().await
}

async fn put_rules(node: &Node, text: &str) -> Answer {
    let wish = request(node.admin, Method::PUT, "/api/v1/rules/file").token(TOKEN);
    wish.header("content-type", "text/plain; charset=utf-8").body(text.to_owned()).send().await
}

/// Which engine decides: only the rules of the first one have `/login`, and only those of the second one `/ours`.
async fn statuses(node: &Node) -> [StatusCode; 3] {
    [node.get("/login").await.status, node.get("/ours").await.status, node.get(INJECTION).await.status]
}

const UNIVERSAL: [StatusCode; 3] = [NO, OK, NO];
const SECOND: [StatusCode; 3] = [OK, NO, NO];

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_from_one_engine_to_the_other_and_back_under_load_with_the_rules_of_each() {
    let (seclang, rules) = (&*SECLANG, rules("/ours"));
    let node = node(ENABLED);
    let first_rules = std::fs::read(node.folder.rule_file()).unwrap();
    let clients = Clients::start(node.data);
    assert_eq!(statuses(&node).await, UNIVERSAL);
    for _ in 0..2 {
        let answer = release(&node, seclang, rules.as_bytes()).await;
        assert_eq!(answer.status, OK, "{}", answer.text());
        assert_eq!(statuses(&node).await, SECOND);
        let answer = release(&node, MODULE, &first_rules).await;
        assert_eq!(answer.status, OK, "{}", answer.text());
        assert_eq!(statuses(&node).await, UNIVERSAL);
    }
    assert_eq!(release(&node, seclang, rules.as_bytes()).await.status, OK);
    // A plugin goes back with its own rules, as those that serve mean nothing to it.
    let answer = node.roll_back().await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("the module is ") && message.contains("the rules are "), "{message}");
    assert_eq!(statuses(&node).await, UNIVERSAL);
    assert!(clients.end().await > 0);
    assert_eq!(node.admin("/api/v1/wasm/errors").await["errors"], json!([]));

    let history = node.admin("/api/v1/wasm/history").await;
    let pair = |plugin: &[u8], rules: &[u8]| (Digest::of(plugin).to_string(), Digest::of(rules).to_string());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut seen: Vec<_> = history["reloads"]
        .as_array()
        .unwrap_or_else(|| panic!("{history}"))
        .iter()
        .map(|attempt| (text(&attempt["digest"]), text(&attempt["rules_digest"])))
        .collect();
    if seen.first() != Some(&pair(MODULE, &first_rules)) {
        seen.reverse();
    }
    let (one, other) = (pair(MODULE, &first_rules), pair(seclang, rules.as_bytes()));
    let expected = [&one, &other, &one, &other, &one, &other, &one];
    assert_eq!(seen.iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_the_second_engine_are_read_and_replaced_as_a_text() {
    let (seclang, first) = (&*SECLANG, rules("/ours"));
    let node = node(ENABLED);
    // Rules of another engine are refused by each, with what is wrong.
    let answer = node.upload(seclang).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        answer.text().contains("rules.conf:1: ") && answer.text().contains("rules of another engine"),
        "{}",
        answer.text()
    );
    assert_eq!(release(&node, MODULE, first.as_bytes()).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(statuses(&node).await, UNIVERSAL);

    assert_eq!(release(&node, seclang, first.as_bytes()).await.status, OK);
    assert_eq!(node.admin("/api/v1/rules").await["text"], first);
    let rule = json!({"id": "a", "where": ["target"], "kind": "contains", "pattern": "b", "action": "block"});
    let answer = request(node.admin, Method::PUT, "/api/v1/rules").token(TOKEN).json(&rule).send().await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().contains("text/plain"), "{}", answer.text());

    let answer = put_rules(&node, &rules("/theirs")).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    assert_eq!((node.get("/theirs").await.status, node.get("/ours").await.status), (NO, OK));
    let answer = put_rules(&node, &format!("{}SecRule ARGS \"(?=x)\" \"id:78,deny\"\n", rules("/ours"))).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().contains("rule 78: a pattern that this engine cannot match"), "{}", answer.text());
    assert_eq!(node.get("/theirs").await.status, NO);
    let back = request(node.admin, Method::POST, "/api/v1/rules/rollback").token(TOKEN).send().await;
    assert_eq!(back.status, OK, "{}", back.text());
    assert_eq!(node.get("/ours").await.status, NO);
    // What serves is what it starts on.
    let node = node.kill().start();
    assert_eq!(node.version().await["digest"], Digest::of(seclang).to_string());
    assert_eq!(statuses(&node).await, SECOND);
}

/// An exception from a rule holds for both engines: the rule's number is its name.
#[tokio::test(flavor = "multi_thread")]
async fn an_exception_from_a_rule_in_seclang_holds_there_and_nowhere_else() {
    let node = node(&format!("{ENABLED}\n[[waf.exceptions]]\nrule = \"1300\"\npath = \"/wiki\"\nparameter = \"q\""));
    assert_eq!(release(&node, &SECLANG, rules("/ours").as_bytes()).await.status, OK);
    let script = "%3Cscript%3Ealert(1)%3C/script%3E";
    assert_eq!(node.get(&format!("/wiki?q={script}")).await.status, OK);
    assert_eq!(node.get(&format!("/wiki?p={script}")).await.status, NO);
    assert_eq!(node.get(&format!("/blog?q={script}")).await.status, NO);
    assert_eq!(node.get(&format!("/wiki?q={script}&p=/.git/config")).await.status, NO, "another rule");
}

/// Builds the second engine as a module; nothing, with a word about it, where no toolchain can.
fn seclang_module() -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    // The toolchain of the script decides, and not that of the tests.
    let built = Command::new("bash").arg("rules/build.sh").arg(folder.path()).arg("seclang-waf").output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    if built.status.code() == Some(77) {
        eprintln!("skipped: {said}");
        return None;
    }
    assert!(built.status.success(), "{said}");
    Some(std::fs::read(folder.path().join("seclang-waf.wasm")).unwrap())
}

/// It needs more memory than the first one, and reads its rules once for a version.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_engine_serves_as_a_module_too_where_it_has_memory_enough() {
    let Some(seclang) = seclang_module() else { return };
    let own = rules("/ours");
    let few = node("memory_bytes = 1200000");
    let answer = release(&few, &seclang, own.as_bytes()).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text());
    assert!(answer.text().contains("memory"), "{}", answer.text());
    drop(few);

    let node = node("memory_bytes = 67108864\ncalls_per_instance = 1");
    for _ in 0..2 {
        let answer = release(&node, &seclang, own.as_bytes()).await;
        assert_eq!(answer.status, OK, "{}", answer.text());
        for _ in 0..2 {
            assert_eq!(statuses(&node).await, SECOND);
        }
        assert!(node.metric("wasm_snapshot_bytes{module=\"universal-waf\"}").await > 0.0);
        let answer = node.roll_back().await;
        assert_eq!(answer.status, OK, "{}", answer.text());
        assert_eq!(statuses(&node).await, UNIVERSAL);
    }

    let core_rule_set = std::path::Path::new("/usr/share/modsecurity-crs/owasp-crs.load");
    if !core_rule_set.exists() {
        eprintln!("skipped: the Core Rule Set is not installed (modsecurity-crs)");
        return;
    }
    let bundle = Command::new(env!("CARGO_BIN_EXE_waf"))
        .arg("bundle-rules")
        .args([core_rule_set, std::path::Path::new("seclang/crs-3.3.4.conf")])
        .output()
        .unwrap();
    assert!(bundle.status.success(), "{}", String::from_utf8_lossy(&bundle.stderr));
    let answer = release(&node, &seclang, &bundle.stdout).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    assert_eq!(statuses(&node).await, [OK, OK, NO]);
}

#[test]
fn rule_files_are_put_into_one_text_by_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("main.conf"), "Include more.conf\n").unwrap();
    std::fs::write(path("more.conf"), "SecRule ARGS \"@pmFromFile words.data\" \"id:1,deny\"\n").unwrap();
    let bundle = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waf"));
        command.arg("bundle-rules").arg(path("main.conf")).output().unwrap()
    };
    let refused = bundle();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("more.conf:1: ") && said.contains("words.data"), "{said}");
    std::fs::write(path("words.data"), "one\n").unwrap();
    let made = bundle();
    assert!(made.status.success());
    let text = String::from_utf8(made.stdout).unwrap();
    assert!(text.contains("#@ file more.conf\nSecRule ARGS") && text.ends_with("#@ data words.data\none\n"), "{text}");
}
