//! TLS on both listeners, with certificates that are replaced while the node serves, and the admin API on a Unix socket. The
//! clients are curl and openssl; where they are missing, the tests say so and are skipped.

use std::process::Command;

use crate::support::certificate::certificate;
use crate::support::node::{Folder, replace};
use crate::support::wait::until;
use crate::support::{Module, Node};

/// What curl prints, or its error; `None` where there is none.
fn curl(arguments: &[&str]) -> Option<Result<String, String>> {
    match Command::new("curl").args(["--silent", "--show-error", "--max-time", "60"]).args(arguments).output() {
        Ok(output) if output.status.success() => Some(Ok(String::from_utf8_lossy(&output.stdout).into_owned())),
        Ok(output) => Some(Err(String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(error) => {
            println!("skipped: curl: {error}");
            None
        }
    }
}

fn section(name: &str, folder: &Folder, file: &str) -> String {
    let path = |ending: &str| folder.path(&format!("{file}.{ending}"));
    format!("[{name}]\ncertificate = {:?}\nkey = {:?}\n", path("pem"), path("key"))
}

#[tokio::test]
async fn both_listeners_speak_tls_and_take_up_new_certificates() {
    let mut folder = Folder::new(&Module::new("1.0.0"), "");
    let at = folder.path("");
    for (file, names) in [("one", "DNS:localhost"), ("two", "DNS:localhost"), ("shop", "DNS:shop.example")] {
        if !certificate(&at, file, names) {
            return;
        }
    }
    let files = |from: &str, to: &str| {
        for ending in ["key", "pem"] {
            let bytes = std::fs::read(at.join(format!("{from}.{ending}"))).unwrap();
            replace(&at.join(format!("{to}.{ending}")), &bytes);
        }
    };
    files("one", "served");
    let upstream = "[[waf.sites]]\nhosts = [\"shop.example\"]\nupstreams = [\"http://127.0.0.1:9\"]";
    let shop = section("waf.sites.tls", &folder, "shop");
    folder.configure(&format!(
        "{}{}{upstream}\n{shop}",
        section("waf.tls", &folder, "served"),
        section("waf.admin.tls", &folder, "served")
    ));
    let node = folder.start();
    let (data, admin) =
        (format!("https://localhost:{}", node.data.port()), format!("https://localhost:{}", node.admin.port()));
    let trust = |file: &str| at.join(format!("{file}.pem")).to_str().unwrap().to_owned();
    let Some(answer) = curl(&["--cacert", &trust("one"), &format!("{admin}/healthz")]) else { return };
    assert_eq!(answer.unwrap(), "ok\n");
    // A host without a site: it is the node that answers, over both versions of HTTP.
    for version in ["--http1.1", "--http2"] {
        let code = ["--write-out", "%{http_code} %{http_version}", "--output", "/dev/null", version];
        let answer = curl(&[&["--cacert", &trust("one"), &data][..], &code].concat()).unwrap().unwrap();
        assert!(answer == "421 1.1" || answer == "421 2", "{version}: {answer}");
    }
    // A site has a certificate of its own, for those who name it.
    let port = node.data.port();
    let resolve = format!("shop.example:{port}:127.0.0.1");
    let shop =
        ["--resolve", &resolve, "--cacert", &trust("shop"), "--output", "/dev/null", "--write-out", "%{http_code}"];
    let answer = curl(&[&shop[..], &[&format!("https://shop.example:{port}/")]].concat()).unwrap().unwrap();
    assert_eq!(answer, "502");

    // Half of a renewal: the certificate does not fit the key, so the old ones are served.
    let unread = std::fs::read(at.join("two.pem")).unwrap();
    replace(&at.join("served.pem"), &unread);
    assert!(curl(&["--cacert", &trust("one"), &format!("{admin}/healthz")]).unwrap().is_ok());
    files("two", "served");
    for url in [format!("{admin}/healthz"), data] {
        let (url, trusted) = (&url, trust("two"));
        let trusted = &trusted;
        until(
            "the new certificate",
            || async move { curl(&["--cacert", trusted, url]).unwrap().is_ok().then_some(()) },
        )
        .await;
        assert!(curl(&["--cacert", &trust("one"), url]).unwrap().is_err(), "the old one is not served any more");
    }
}

#[tokio::test]
async fn the_upstream_learns_that_a_request_came_over_tls() {
    let mut folder = Folder::new(&Module::new("1.0.0"), "");
    if !certificate(&folder.path(""), "own", "DNS:localhost") {
        return;
    }
    folder.configure(&section("waf.tls", &folder, "own"));
    let trust = folder.path("own.pem");
    let node = folder.start();
    let url = format!("https://localhost:{}/echo", node.data.port());
    let Some(answer) = curl(&["--cacert", trust.to_str().unwrap(), &url]) else { return };
    let answer = answer.unwrap();
    assert!(answer.contains("[\"x-forwarded-proto\",\"https\"]"), "{answer}");
    // A connection that never shakes hands is cut like any other.
    let mut folder = node.kill();
    folder.configure("[waf.proxy]\nheader_timeout_seconds = 0.2");
    let node = folder.start();
    assert_eq!(crate::support::http::raw(node.data, b"").await, "");
}

#[test]
fn a_certificate_that_cannot_be_served_stops_the_node_and_is_named() {
    let mut folder = Folder::new(&Module::new("1.0.0"), "");
    folder.configure(&section("waf.tls", &folder, "missing"));
    for arguments in [&[][..], &["--check"]] {
        let output = folder.command().args(arguments).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && complaint.contains("missing.pem"), "{complaint}");
    }
}

#[test]
fn the_admin_api_can_be_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    // One that a node left behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let listen = format!("[waf.admin]\nlisten = \"unix:{}\"\ntoken = \"none\"", socket.display());
    let mut node = Node::configured(&Module::new("1.0.0"), &listen);
    let at = socket.to_str().unwrap();
    let Some(answer) = curl(&["--unix-socket", at, "http://localhost/api/v1/wasm/version"]) else { return };
    assert!(answer.unwrap().contains("\"version\":\"1.0.0\""));
    let rollback = ["--unix-socket", at, "-X", "POST", "http://localhost/api/v1/wasm/rollback"];
    assert!(curl(&rollback).unwrap().unwrap().contains("no other module has served"));
    let audit = std::fs::read_to_string(node.folder.path("data/audit.jsonl")).unwrap();
    assert!(audit.contains("\"from\":\"unix, uid ") && audit.contains("/api/v1/wasm/rollback"), "{audit}");
    // Not for others on this machine.
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o007, 0, "{mode:o}");
    assert!(node.stop().success());
    assert!(!socket.exists());
}
