//! The module and the rule file, changed on disk or through the API.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::node::replace;
use crate::support::wait::until;
use crate::support::{Answer, Module, Node, TOKEN, request};

async fn put_rule(node: &Node, rule: &Value) -> Answer {
    request(node.admin, Method::PUT, "/api/v1/rules").token(TOKEN).json(rule).send().await
}

async fn serves(node: &Node, version: &str) {
    until("the new version", || async move { (node.version().await["version"] == version).then_some(()) }).await;
}

#[tokio::test]
async fn a_new_module_file_is_taken_up() {
    let node = Node::start(&Module::new("1.0.0"));
    node.folder.put_module(&Module::new("1.1.0"));
    let node = &node;
    let trigger = until("the reload in the history", || async move {
        let history = node.admin("/api/v1/wasm/history").await;
        (history["reloads"][0]["version"] == "1.1.0").then(|| history["reloads"][0]["trigger"].clone())
    });
    assert_eq!(trigger.await, "module_file");
}

/// FAULTS 38.
#[tokio::test]
async fn a_module_file_that_is_written_slowly_is_taken_up_when_it_is_whole() {
    let node = Node::start(&Module::new("1.0.0"));
    let bytes = Module::new("1.1.0").bytes();
    let path = node.folder.module();
    let writing = std::thread::spawn(move || {
        for end in (0..bytes.len()).step_by(bytes.len() / 10).chain([bytes.len()]) {
            std::fs::write(&path, &bytes[..end]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(40));
        }
    });
    serves(&node, "1.1.0").await;
    writing.join().unwrap();
}

#[tokio::test]
async fn a_bad_module_file_is_told_and_the_next_good_one_taken_up() {
    let node = Node::start(&Module::new("1.0.0"));
    replace(&node.folder.module(), b"no module");
    let refused = &node;
    until("the refusal", || async move {
        let history = refused.admin("/api/v1/wasm/history").await;
        (history["reloads"][0]["success"] == false).then_some(())
    })
    .await;
    assert_eq!(node.version().await["version"], "1.0.0");
    node.folder.put_module(&Module::new("1.1.0"));
    serves(&node, "1.1.0").await;
}

#[tokio::test]
async fn a_rule_is_added_and_rolled_back() {
    let node = Node::start(&Module::new("1.0.0"));
    assert_eq!(node.get("/").await.status, StatusCode::OK);
    let answer = put_rule(&node, &json!({"id": "BLOCK", "pattern": "x"})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["version"], "1.0.0");
    assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN);
    let file = std::fs::read_to_string(node.folder.rule_file()).unwrap();
    assert!(file.contains("BLOCK"), "{file}");

    assert_eq!(node.roll_back().await.status, StatusCode::CONFLICT, "no other module has served");
    let rollback = request(node.admin, Method::POST, "/api/v1/rules/rollback").token(TOKEN);
    assert_eq!(rollback.send().await.status, StatusCode::OK);
    assert_eq!(node.get("/").await.status, StatusCode::OK);
    let file = std::fs::read_to_string(node.folder.rule_file()).unwrap();
    assert!(!file.contains("BLOCK"), "the file says what serves: {file}");
}

#[tokio::test]
async fn a_rule_that_the_module_does_not_take_is_refused() {
    let node = Node::start(&Module::new("1.0.0"));
    let before = std::fs::read_to_string(node.folder.rule_file()).unwrap();
    for (rule, complaint) in [
        (json!({"id": "REFUSE", "pattern": "x"}), "the file says REFUSE"),
        (json!({"pattern": "x"}), "an object with an `id`"),
        (json!(["a rule"]), "an object with an `id`"),
    ] {
        let answer = put_rule(&node, &rule).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.json()["error"].as_str().unwrap().contains(complaint), "{}", answer.text());
    }
    assert_eq!(std::fs::read_to_string(node.folder.rule_file()).unwrap(), before);
    assert_eq!(node.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_changed_rule_file_is_taken_up_and_a_bad_one_is_not() {
    let node = Node::start(&Module::new("1.0.0"));
    let (node, file) = (&node, node.folder.rule_file());
    replace(&file, b"{\"dynamic\": [\"BLOCK\"]}");
    until("the new rules", || async move { (node.get("/").await.status == StatusCode::FORBIDDEN).then_some(()) }).await;
    replace(&file, b"{\"dynamic\": [\"REFUSE\"]}");
    until("the refusal", || async move {
        let history = node.admin("/api/v1/wasm/history").await;
        let latest = &history["reloads"][0];
        (latest["success"] == false).then(|| assert!(latest["error"].as_str().unwrap().contains("REFUSE"), "{latest}"))
    })
    .await;
    assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_new_module_keeps_the_rules() {
    let node = Node::start(&Module::new("1.0.0"));
    put_rule(&node, &json!({"id": "BLOCK", "pattern": "x"})).await;
    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, StatusCode::OK);
    assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn nothing_is_replaced_where_that_is_switched_off() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf.wasm]\nhot_reload_enabled = false");
    let answer = node.upload(&Module::new("1.1.0").bytes()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.json()["error"].as_str().unwrap().contains("hot_reload_enabled"));
    assert_eq!(put_rule(&node, &json!({"id": "x"})).await.status, StatusCode::FORBIDDEN);
    assert_eq!(node.version().await["version"], "1.0.0");
}

/// FAULTS 81: the names stay, and what they lead to is another file: a volume of a ConfigMap, and a link to a release.
#[cfg(unix)]
#[tokio::test]
async fn a_name_that_leads_elsewhere_is_a_change() {
    use std::os::unix::fs::symlink;
    for config_map in [true, false] {
        let mut folder = crate::support::node::Folder::new(&Module::new("1.0.0"), "");
        let root = folder.path("mounted");
        let link = root.join(if config_map { "..data" } else { "current" });
        let release = |number: u32, version: &str, rules: &str| {
            let release = root.join(format!("..release-{number}"));
            std::fs::create_dir_all(&release).unwrap();
            std::fs::write(release.join("m.wasm"), Module::new(version).bytes()).unwrap();
            std::fs::write(release.join("r.json"), rules).unwrap();
            // In one step, as both do it.
            let new = root.join("..new");
            symlink(&release, &new).unwrap();
            std::fs::rename(&new, &link).unwrap();
        };
        release(1, "1.0.0", "{\"dynamic\": []}");
        let at = |name: &str| {
            if config_map {
                symlink(format!("..data/{name}"), root.join(name)).unwrap();
                root.join(name)
            } else {
                link.join(name)
            }
        };
        let (module, rules) = (at("m.wasm"), at("r.json"));
        folder.configure(&format!("[waf.wasm]\nmodule = {module:?}\n[waf.rules]\nfile = {rules:?}"));
        let node = folder.start();
        assert_eq!(node.get("/").await.status, StatusCode::OK);
        release(2, "1.1.0", "{\"dynamic\": [\"BLOCK\"]}");
        serves(&node, "1.1.0").await;
        let inside = &node;
        until("the rules", || async move { (inside.get("/").await.status == StatusCode::FORBIDDEN).then_some(()) })
            .await;
    }
}

/// The same for the configuration.
#[cfg(unix)]
#[tokio::test]
async fn a_configuration_that_is_another_file_is_read() {
    use std::os::unix::fs::symlink;
    let folder = crate::support::node::Folder::new(&Module::new("1.0.0"), "");
    drop(folder.command());
    let (config, link) = (folder.path("waf.toml"), folder.path("current"));
    let text = std::fs::read_to_string(&config).unwrap();
    let release = |name: &str, text: &str| {
        let release = folder.path(name);
        std::fs::create_dir_all(&release).unwrap();
        std::fs::write(release.join("waf.toml"), text).unwrap();
        symlink(&release, folder.path("new")).unwrap();
        std::fs::rename(folder.path("new"), &link).unwrap();
    };
    release("one", &text);
    let other = text.replace("[waf]\n", "[waf]\nmode = \"detect\"\n");
    assert_ne!(text, other);
    let two = folder.path("two");
    std::fs::create_dir_all(&two).unwrap();
    std::fs::write(two.join("waf.toml"), other).unwrap();
    let (new, linked) = (folder.path("new"), link.clone());
    let node = folder.start_as(|mut command| {
        // The last one counts.
        let config = linked.join("waf.toml");
        let mut linked = std::process::Command::new(command.get_program());
        linked.arg("--config").arg(config).arg("--demo").env_remove("WAF_ADMIN_TOKEN");
        std::mem::swap(&mut command, &mut linked);
        command
    });
    assert_eq!(node.get("/?do=b").await.status, StatusCode::FORBIDDEN);
    symlink(&two, &new).unwrap();
    std::fs::rename(&new, &link).unwrap();
    let inside = &node;
    until("the mode", || async move { (inside.get("/?do=b").await.status == StatusCode::OK).then_some(()) }).await;
}
