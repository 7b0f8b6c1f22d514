//! Clients that try to steer the node: what they send, how they send it, and what of it cannot be inspected.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support::http::{raw, read_to_end};
use crate::support::node::Folder;
use crate::support::{Module, Node, request};

const OK: StatusCode = StatusCode::OK;
const NO: StatusCode = StatusCode::FORBIDDEN;

/// A node with the rules that come with it.
fn with_rules(changes: &str, rules: &str) -> Node {
    let folder = Folder::new(&Module::new("1.0.0"), changes);
    std::fs::copy(Path::new("rules/universal-waf.wasm"), folder.module()).unwrap();
    std::fs::create_dir_all(folder.rule_file().parent().unwrap()).unwrap();
    std::fs::write(folder.rule_file(), rules).unwrap();
    folder.start()
}

/// An upstream for one connection, which is handed over.
async fn upstream() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn in_front_of(address: SocketAddr, changes: &str) -> Node {
    Node::configured(&Module::new("1.0.0"), &format!("[waf]\nupstream = \"http://{address}\"\n{changes}"))
}

/// Reads until the text is there.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let read = stream.read_buf(&mut seen).await.unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
    }
    String::from_utf8(seen).unwrap()
}

#[tokio::test]
async fn a_malformed_host_or_target_is_refused() {
    let node = Node::start(&Module::new("1.0.0"));
    for request in [
        "GET / HTTP/1.1",
        "GET / HTTP/1.0",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b",
        "GET / HTTP/1.1\r\nHost:",
        "GET / HTTP/1.1\r\nHost: a b",
        "GET / HTTP/1.1\r\nHost: a, b",
        "GET / HTTP/1.1\r\nHost: user@a",
        "GET / HTTP/1.1\r\nHost: a/b",
        "GET / HTTP/1.1\r\nHost: a:b",
        "GET / HTTP/1.1\r\nHost: a:+80",
        "GET http://a:+80/ HTTP/1.1\r\nHost: a:+80",
        "GET / HTTP/1.1\r\nHost: [::1",
        "GET / HTTP/1.1\r\nHost: a\u{e9}",
        "GET http://b/ HTTP/1.1\r\nHost: a",
        "GET http://a/ HTTP/1.1",
        "GET http://user@a/ HTTP/1.1\r\nHost: user@a",
        "GET ftp://a/ HTTP/1.1\r\nHost: a",
        "GET a HTTP/1.1\r\nHost: a",
        "OPTIONS * HTTP/1.1\r\nHost: a",
        "GET /\t HTTP/1.1\r\nHost: a",
        "GET /\u{1} HTTP/1.1\r\nHost: a",
        "GET / HTTP/1.1\r\nHost : a",
        "METHODMETHODMETHODMETHODMETHODMETHOD / HTTP/1.1\r\nHost: a",
    ] {
        let answer = raw(node.data, format!("{request}\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"), "{request:?}: {answer}");
    }
    for request in
        ["GET / HTTP/1.1\r\nHost: a:80", "GET http://A/?x HTTP/1.1\r\nHost: a", "GET / HTTP/1.1\r\nHost: [::1]:1"]
    {
        let answer = raw(node.data, format!("{request}\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{request:?}: {answer}");
    }
}

/// Behind an upgrade to HTTP/2, requests would pass that no rules have seen.
#[tokio::test]
async fn no_protocol_but_a_websocket_is_changed_to() {
    let (listener, address) = upstream().await;
    let node = in_front_of(address, "");
    for upgrade in ["h2c", "websocket, h2c", "h2c\r\nUpgrade: websocket", "TLS/1.0"] {
        let mut client = TcpStream::connect(node.data).await.unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let sent = read_until(&mut server, "\r\n\r\n").await.to_ascii_lowercase();
        assert!(!sent.contains("upgrade") && !sent.contains("http2-settings"), "{sent}");
        // An upstream that changes the protocol all the same.
        server
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n")
            .await
            .unwrap();
        let answer = read_until(&mut client, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    }
}

/// What goes on is what the rules have seen, without what `Connection` names.
#[tokio::test]
async fn what_is_inspected_is_what_is_sent() {
    let (listener, address) = upstream().await;
    let node = in_front_of(address, "");
    let mut client = TcpStream::connect(node.data).await.unwrap();
    client
        .write_all(
            b"GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\nConnection: x-hidden\r\nX-Hidden: do=b\r\n\r\n",
        )
        .await
        .unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let sent = read_until(&mut server, "\r\n\r\n").await.to_ascii_lowercase();
    assert!(sent.starts_with("get /x?y http/1.1\r\n") && sent.contains("\r\nhost: a.example\r\n"), "{sent}");
    assert!(!sent.contains("x-hidden"), "{sent}");
    // The host is inspected, too.
    let answer = raw(
        node.data,
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nX-Forwarded-Host: do=b\r\nConnection: close\r\nY: do=b\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn a_connection_without_a_whole_header_is_cut_off_whatever_it_begins_with() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf.proxy]\nheader_timeout_seconds = 0.3");
    for listener in [node.data, node.admin] {
        for beginning in [
            "",
            "P",
            "PRI",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "G",
            "GET / HTTP/1.1\r\nHost:",
        ] {
            raw(listener, beginning.as_bytes()).await;
        }
    }
}

#[tokio::test]
async fn a_websocket_counts_among_the_connections() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf.proxy]\nmax_connections = 1");
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/ws", node.data)).await.unwrap();
    let other = tokio::spawn(request(node.data, Method::GET, "/").header("connection", "close").send());
    for _ in 0..20 {
        socket.send(Message::text("still here")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("still here"));
        assert_eq!(node.version().await["version"], "1.0.0");
    }
    assert!(!other.is_finished());
    socket.close(None).await.unwrap();
    drop(socket);
    assert_eq!(other.await.unwrap().status, OK);
}

#[tokio::test]
async fn a_client_that_stops_reading_is_let_go() {
    let (listener, address) = upstream().await;
    let node = in_front_of(address, "[waf.proxy]\nsend_timeout_seconds = 0.3");
    let mut client = TcpStream::connect(node.data).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    read_until(&mut server, "\r\n\r\n").await;
    server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    // Until the node closes the connection, because the client's is gone.
    while server.write_all(&[b'.'; 65536]).await.is_ok() {}
    // What it has not taken is thrown away, and does not wait for it.
    let rest = client.read_to_end(&mut Vec::new()).await;
    assert_eq!(rest.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(body).unwrap();
    out.finish().unwrap()
}

#[tokio::test]
async fn what_cannot_be_inspected_is_decided_by_one_setting() {
    for (setting, status) in [("block", NO), ("challenge", NO), ("log", OK)] {
        let changes = format!("[waf]\nuninspected = \"{setting}\"\n[waf.proxy]\ninspect_body_bytes = 1000");
        let node = Node::configured(&Module::new("1.0.0"), &changes);
        let post = || request(node.data, Method::POST, "/size");
        assert_eq!(post().body(vec![b'.'; 1000]).send().await.status, OK);
        for (request, what) in [
            (post().body(vec![b'.'; 1001]), "a body that is too long"),
            (post().header("content-encoding", "compress").body("x"), "an unknown encoding"),
            (post().header("content-encoding", "gzip, gzip").body(gzip(&gzip(b"x"))), "nested encodings"),
            (post().header("content-encoding", "gzip").body(gzip(&[b'.'; 1001])), "a bomb"),
            (post().header("content-type", "text/plain; charset=utf-7").body("x"), "a charset"),
        ] {
            let answer = request.send().await;
            assert_eq!(answer.status, status, "{what}, {setting}");
            assert_eq!(answer.text().contains("waf_challenge"), setting == "challenge", "{what}: {}", answer.text());
        }
        // What can be seen counts all the same.
        assert_eq!(post().body([&b"do=b"[..], &[b'.'; 1000]].concat()).send().await.status, NO);
        assert_eq!(post().header("content-encoding", "gzip").body(gzip(b"do=b")).send().await.status, NO);
        assert_eq!(post().header("content-encoding", "gzip").body(gzip(b"fine")).send().await.status, OK);
    }
}

/// The rules do not see more than they are willing to look at; the node's setting counts for that, too.
#[tokio::test]
async fn what_is_over_the_limits_of_the_rules_is_decided_by_the_same_setting() {
    let target = format!("/?{}", "a&".repeat(10_001));
    for (setting, status) in [("block", NO), ("log", OK)] {
        let node = with_rules(&format!("[waf]\nuninspected = \"{setting}\""), "{}");
        assert_eq!(node.get(&target).await.status, status, "{setting}");
    }
}

/// FAULTS 76: what is dear to inspect condemns no version.
#[tokio::test]
async fn thirty_dear_requests_undo_no_deployment() {
    // Before there was a budget, the first of them took seconds. A busy machine must not be taken for a dear request.
    let probation =
        "[waf.wasm.probation]\nmin_calls = 10\nmax_error_rate = 0.05\n[waf.wasm.limits]\ndeadline_milliseconds = 2000";
    let node = with_rules(probation, "{}");
    let module = std::fs::read("rules/universal-waf.wasm").unwrap();
    let answer = node.upload(&[&module[..], b"\0\x05\x04more"].concat()).await;
    assert_eq!(answer.status, OK, "{}", answer.text());
    let digest = node.version().await["digest"].clone();
    let kind = "application/x-www-form-urlencoded";
    for body in
        [format!("a={}", "<".repeat(60 << 10)), format!("a={}", "if a ".repeat(12 << 10)), "$(".repeat(30 << 10)]
    {
        for _ in 0..10 {
            request(node.data, Method::POST, "/").header("content-type", kind).body(body.clone()).send().await;
        }
    }
    assert_eq!(node.get("/").await.status, OK);
    let errors = node.admin("/api/v1/wasm/errors").await;
    assert_eq!(
        (&errors["versions"][0]["on_probation"], &node.version().await["digest"]),
        (&json!(true), &digest),
        "{errors}"
    );
}

#[tokio::test]
async fn an_upload_takes_as_long_as_it_goes_on() {
    let changes = "[waf]\nuninspected = \"log\"\n[waf.proxy]\ninspect_body_bytes = 4\nresponse_timeout_seconds = 0.5";
    let node = Node::configured(&Module::new("1.0.0"), changes);
    let mut client = TcpStream::connect(node.data).await.unwrap();
    let head = "POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nConnection: close\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..10 {
        client.write_all(b"0123456789").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let answer = read_to_end(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("100"), "{answer}");
}

#[tokio::test]
async fn a_chunk_goes_on_once_it_has_been_inspected() {
    let (listener, address) = upstream().await;
    let node = in_front_of(address, "");
    let mut client = TcpStream::connect(node.data).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst;\r\n").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    read_until(&mut server, "first;").await;
    client.write_all(b"7\r\nsecond;\r\n").await.unwrap();
    read_until(&mut server, "second;").await;
    // An attack in two pieces.
    client.write_all(b"2\r\ndo\r\n").await.unwrap();
    read_until(&mut server, "do").await;
    client.write_all(b"2\r\n=b\r\n0\r\n\r\n").await.unwrap();
    let answer = read_until(&mut client, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(!read_to_end(&mut server).await.contains("=b"));
}

/// Nothing of a body goes on that the rules cannot read the rest of.
#[tokio::test]
async fn a_beginning_in_another_character_set_does_not_go_on() {
    let (_listener, address) = upstream().await;
    let node = in_front_of(address, "");
    for (kind, declaration) in [("", "utf-7"), ("Content-Type: text/plain\r\n", "utf-16")] {
        let body = format!("<?xml version='1.0' encoding='{declaration}'?><q>");
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{kind}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n",
            body.len()
        );
        let mut client = TcpStream::connect(node.data).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut client, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{kind}: {answer}");
    }
}

/// Servers that read only the first of them would read something else than the rules.
#[tokio::test]
async fn cookies_go_on_in_one_header() {
    let node = Node::start(&Module::new("1.0.0"));
    let answer = request(node.data, Method::GET, "/echo").header("cookie", "a=b").header("cookie", "c=d").send().await;
    assert!(answer.text().contains("[\"cookie\",\"a=b; c=d\"]"), "{}", answer.text());
}

/// The client's address, as far as trusted proxies say.
#[tokio::test]
async fn the_address_of_the_client_reaches_the_rules() {
    let rule = json!({
        "id": "banned", "where": ["headers"], "kind": "contains", "pattern": ":client: 192.0.2.", "action": "block"
    });
    let rules = json!({ "dynamic": [rule] }).to_string();
    for (trusted, status) in [("[]", OK), ("[\"127.0.0.1\"]", NO)] {
        let node = with_rules(&format!("[waf.proxy]\ntrusted_proxies = {trusted}"), &rules);
        let from = |address: &str| request(node.data, Method::GET, "/").header("x-forwarded-for", address).send();
        assert_eq!(from("192.0.2.7").await.status, status, "{trusted}");
        assert_eq!(from("198.51.100.1").await.status, OK);
    }
}
