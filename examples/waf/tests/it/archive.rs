//! FAULTS 34 to 36: what a node starts on after it has gone down, however that came about.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hotslot::Digest;
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::support::disk::SmallDisk;
use crate::support::node::{Folder, replace};
use crate::support::{Module, Node, TOKEN, request};

fn archived(folder: &Folder, module: &Module) -> PathBuf {
    folder.archive().join(format!("modules/{}.wasm", Digest::of(&module.bytes())))
}

#[tokio::test]
async fn a_node_starts_on_the_version_that_served_last() {
    let node = Node::start(&Module::new("1.0.0"));
    node.upload(&Module::new("1.1.0").bytes()).await;
    request(node.admin, Method::PUT, "/api/v1/rules").token(TOKEN).json(&json!({"id": "BLOCK"})).send().await;
    let node = node.kill().start();
    assert_eq!(node.version().await["version"], "1.1.0");
    assert_eq!(node.get("/").await.status, StatusCode::FORBIDDEN, "with its rules");
}

#[tokio::test]
async fn a_version_that_was_rolled_back_is_not_started_on() {
    let node = Node::start(&Module::new("1.0.0"));
    node.upload(&Module::new("1.1.0").bytes()).await;
    node.roll_back().await;
    let node = node.kill().start();
    assert_eq!(node.version().await["version"], "1.0.0");
}

#[tokio::test]
async fn a_module_file_that_was_replaced_meanwhile_is_taken_up() {
    let folder = Node::start(&Module::new("1.0.0")).kill();
    folder.put_module(&Module::new("1.2.0"));
    let node = folder.start();
    assert_eq!(node.version().await["version"], "1.2.0");
    // And one that is bad is not.
    let folder = node.kill();
    replace(&folder.module(), b"no module");
    let node = folder.start();
    assert_eq!(node.version().await["version"], "1.2.0");
}

#[tokio::test]
async fn a_corrupt_version_is_skipped() {
    let (first, second) = (Module::new("1.0.0"), Module::new("1.1.0"));
    for damage in [flip as fn(&Path), truncate, remove] {
        let node = Node::start(&first);
        node.upload(&second.bytes()).await;
        let folder = node.kill();
        damage(&archived(&folder, &second));
        let node = folder.start();
        assert_eq!(node.version().await["version"], "1.0.0");
        // It can be brought back, and is kept whole this time.
        node.upload(&second.bytes()).await;
        let node = node.kill().start();
        assert_eq!(node.version().await["version"], "1.1.0");
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_started_without() {
    let node = Node::start(&Module::new("1.0.0"));
    node.upload(&Module::new("1.1.0").bytes()).await;
    let folder = node.kill();
    std::fs::write(folder.archive().join("serving.json"), b"{ half of a list").unwrap();
    let node = folder.start();
    assert_eq!(node.version().await["version"], "1.0.0", "the module of the configuration");
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

/// FAULTS 34: killed at moments all over a reload.
#[tokio::test]
async fn a_node_that_is_killed_in_a_reload_starts_on_the_old_version_or_the_new_one() {
    let mut folder = Folder::new(&Module::new("1.0.0"), "");
    let mut possible = vec!["1.0.0".to_owned()];
    for round in 1..=12 {
        let node = folder.start();
        let serving = node.version().await["version"].as_str().unwrap().to_owned();
        assert!(possible.contains(&serving), "{serving} and not one of {possible:?}");
        let next = format!("1.{round}.0");
        let bytes = Module::new(&next).bytes();
        let form = [("name", None, &b"universal-waf"[..]), ("file", Some("x"), &bytes[..])];
        let upload = request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&form);
        tokio::spawn(upload.try_send());
        // Each round a little later in the reload: nothing depends on where exactly.
        tokio::time::sleep(Duration::from_millis(round * 4)).await;
        folder = node.kill();
        possible = vec![serving, next];
    }
    let serving = folder.start().version().await["version"].as_str().unwrap().to_owned();
    assert!(possible.contains(&serving), "{serving} and not one of {possible:?}");
}

/// FAULTS 35, where this may mount a small file system.
#[tokio::test]
async fn a_full_disk_refuses_the_reload_and_leaves_the_archive_whole() {
    let folder = Folder::new(&Module::new("1.0.0"), "");
    let small = folder.path("small");
    let Some(disk) = SmallDisk::mount(&small, 128) else {
        eprintln!("skipped: a small file system cannot be mounted here");
        return;
    };
    let mut folder = folder;
    folder.configure(&format!("[waf.archive]\nfolder = {:?}", small.join("archive")));
    let node = folder.start();
    disk.fill();
    let answer = node.upload(&Module::new("1.1.0").bytes()).await;
    assert_eq!(answer.status, StatusCode::INSUFFICIENT_STORAGE, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["stage"], &answer["current_version"]), (&json!("archive"), &json!("1.0.0")));
    assert_eq!(node.get("/").await.status, StatusCode::OK);

    let node = node.kill().start();
    // Dropped before the node's folder.
    let disk = disk;
    assert_eq!(node.version().await["version"], "1.0.0");
    disk.empty();
    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, StatusCode::OK);
}
