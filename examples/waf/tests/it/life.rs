//! How a node begins, is told something, and ends.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};

use futures_util::{SinkExt, StreamExt};
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::node::Folder;
use crate::support::wait::until;
use crate::support::{Module, Node, TOKEN, get, request};

const OK: StatusCode = StatusCode::OK;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn signal(node: &Node, name: &str) {
    let done = Command::new("kill").args([&format!("-{name}"), &node.id().to_string()]).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_check_tries_what_a_start_would_need_and_leaves_nothing_behind() {
    let mut folder = Folder::new(&Module::new("1.0.0"), "");
    let check = |folder: &Folder| folder.command().arg("--check").output().unwrap();
    let output = check(&folder);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!folder.path("data").exists());
    folder.configure("[waf.proxy]\nmax_connections = 0");
    let output = check(&folder);
    assert!(!output.status.success() && text(&output).contains("max_connections"), "{}", text(&output));
    folder.configure("[waf.proxy]\nmax_connections = 10");
    // A module that does not pass its golden requests.
    folder.configure("[[waf.wasm.golden]]\nname = \"an attack\"\ntarget = \"/\"\nverdict = 1");
    let output = check(&folder);
    assert!(!output.status.success() && text(&output).contains("an attack"), "{}", text(&output));
    folder.configure("[waf.wasm]\ngolden = []");
    std::fs::create_dir_all(folder.path("data")).unwrap();
    std::fs::write(folder.rule_file(), "REFUSE").unwrap();
    let output = check(&folder);
    assert!(!output.status.success() && text(&output).contains("REFUSE"), "{}", text(&output));
}

#[test]
fn a_demo_upstream_is_asked_for() {
    let folder = Folder::new(&Module::new("1.0.0"), "");
    let command = folder.command();
    let mut command = Command::new(command.get_program());
    command.arg("--config").arg(folder.path("waf.toml")).env_remove("WAF_ADMIN_TOKEN");
    let output = command.output().unwrap();
    assert!(!output.status.success() && text(&output).contains("no upstream is configured"), "{}", text(&output));
    // And is said to be one.
    let log = std::fs::File::create(folder.path("log")).unwrap();
    let node = folder.start_as(|mut command| {
        command.stderr(log);
        command
    });
    assert!(node.folder.log().contains("demo upstream inside this program"), "{}", node.folder.log());
}

#[tokio::test]
async fn two_nodes_do_not_share_a_state_folder() {
    let node = Node::start(&Module::new("1.0.0"));
    let output = node.folder.command().output().unwrap();
    let complaint = text(&output);
    assert!(!output.status.success() && complaint.contains(&format!("process {}", node.id())), "{complaint}");
    assert_eq!(node.get("/").await.status, OK);
    // The lock ends with the process, however that ends.
    let node = node.kill().start();
    assert_eq!(node.get("/").await.status, OK);
}

#[tokio::test]
async fn sighup_takes_up_the_configuration_and_the_files() {
    let mut folder = Folder::new(&Module::new("1.0.0"), "");
    folder.configure("[waf.wasm.reload]\nauto_reload_on_file_change = false");
    let mut node = folder.start_logged();
    assert_eq!(node.get("/?do=b").await.status, StatusCode::FORBIDDEN);
    node.folder.configure("[waf]\nmode = \"detect\"\n[waf.proxy]\nmax_connections = 77");
    drop(node.folder.command());
    node.folder.put_module(&Module::new("1.1.0"));
    signal(&node, "HUP");
    let inside = &node;
    until("the mode", || async move { (inside.get("/?do=b").await.status == OK).then_some(()) }).await;
    until("the module", || async move { (inside.version().await["version"] == "1.1.0").then_some(()) }).await;
    until("what is said of it", || async move {
        inside.folder.log().contains("needs_restart=[\"waf.proxy.max_connections\"]").then_some(())
    })
    .await;

    // The same over the API. A mistake changes nothing, and is named with its line.
    let reload = async || request(node.admin, Method::POST, "/api/v1/config/reload").token(TOKEN).send().await;
    std::fs::write(node.folder.path("waf.toml"), "[waf]\nmode = \"maybe\"").unwrap();
    let answer = reload().await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().contains("line 2"), "{}", answer.text());
    assert_eq!(node.get("/?do=b").await.status, OK);
    let node = {
        let mut node = node;
        node.folder.configure("[waf]\nmode = \"enforce\"");
        drop(node.folder.command());
        node
    };
    let answer = request(node.admin, Method::POST, "/api/v1/config/reload").token(TOKEN).send().await.json();
    assert_eq!(
        (&answer["changed"], &answer["needs_restart"]),
        (&json!(["waf.mode"]), &json!(["waf.proxy.max_connections"]))
    );
    assert_eq!(node.get("/?do=b").await.status, StatusCode::FORBIDDEN);
    assert_eq!(
        request(node.admin, Method::POST, "/api/v1/config/reload").send().await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_configuration_that_cannot_be_taken_up_changes_nothing() {
    let mut folder = Folder::new(&Module::new("1.0.0"), "");
    folder.configure("[waf.admin]\nlisten = \"0.0.0.0:0\"\n[waf.wasm.reload]\nauto_reload_on_file_change = false");
    let mut node = folder.start();
    node.admin.set_ip([127, 0, 0, 1].into());
    let reload = async |node: &Node| {
        drop(node.folder.command());
        request(node.admin, Method::POST, "/api/v1/config/reload").token(TOKEN).send().await
    };
    // The listener that is there is not the one of the configuration.
    node.folder.configure("[waf]\nmode = \"detect\"\n[waf.admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"none\"");
    let answer = reload(&node).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text());
    assert!(answer.text().contains("0.0.0.0") && answer.text().contains("token"), "{}", answer.text());
    let strange = request(node.admin, Method::POST, "/api/v1/wasm/rollback").send().await;
    assert_eq!(strange.status, StatusCode::UNAUTHORIZED);
    assert_eq!(node.get("/?do=b").await.status, StatusCode::FORBIDDEN);
    // What fails last.
    node.folder
        .configure(&format!("[waf]\ndeny_lists = [\"/there/is/none\"]\n[waf.admin]\ntoken = \"{TOKEN}-and-more\""));
    let answer = reload(&node).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text());
    assert_eq!(node.get("/?do=b").await.status, StatusCode::FORBIDDEN);
    // The token that the node keeps is in the folder that it has.
    let other = node.folder.path("other");
    node.folder.configure(&format!("[waf]\ndeny_lists = []\ndata = {other:?}"));
    node.folder.forget("waf.admin", "token");
    let answer = reload(&node).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    assert!(!other.exists());
    let token = std::fs::read_to_string(node.folder.path("data/token")).unwrap();
    let answer = request(node.admin, Method::POST, "/api/v1/config/reload").token(&token).send().await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    assert_eq!(node.get("/?do=b").await.status, OK);
}

#[tokio::test]
async fn a_node_that_is_to_stop_says_so_first_and_serves_on() {
    let mut node = Node::configured(&Module::new("1.0.0"), "[waf.proxy]\ndrain_seconds = 3600");
    signal(&node, "TERM");
    let inside = &node;
    until("it is not ready", || async move {
        (get(inside.admin, "/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    for _ in 0..5 {
        assert_eq!(node.get("/").await.status, OK, "new connections");
    }
    // Asked a second time, it does not wait.
    let status = tokio::task::spawn_blocking(move || node.stop()).await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_websocket_gets_its_time_when_the_node_stops() {
    let mut node = Node::configured(&Module::new("1.0.0"), "[waf.proxy]\nshutdown_timeout_seconds = 300");
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/ws", node.data)).await.unwrap();
    signal(&node, "TERM");
    let data = node.data;
    until("the listener is gone", || async move { tokio::net::TcpStream::connect(data).await.is_err().then_some(()) })
        .await;
    for _ in 0..5 {
        socket.send(Message::text("still here")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("still here"));
    }
    // The admin listener is the last to go.
    assert_eq!(get(node.admin, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    socket.close(None).await.unwrap();
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
    drop(socket);
    let status = tokio::task::spawn_blocking(move || node.ended()).await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn the_service_manager_is_told() {
    let folder = Folder::new(&Module::new("1.0.0"), "");
    let path = folder.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(crate::support::http::FOREVER)).unwrap();
    let next = |what: &str| {
        let mut bytes = [0; 4096];
        loop {
            let length = socket.recv(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.contains(what) {
                return text;
            }
        }
    };
    let mut node = folder.start_as(|mut command| {
        command.env("NOTIFY_SOCKET", &path).stdin(Stdio::null());
        command
    });
    next("READY=1");
    signal(&node, "HUP");
    assert!(next("RELOADING=1").contains("MONOTONIC_USEC="));
    next("READY=1");
    let status = tokio::task::spawn_blocking(move || node.stop()).await.unwrap();
    assert!(status.success(), "{status}");
    next("STOPPING=1");
}
