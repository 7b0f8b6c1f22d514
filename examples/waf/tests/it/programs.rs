//! Clients as people run them: curl, h2load and wrk in front of nginx and hypercorn, in each version of HTTP, while the module is
//! replaced; and slowhttptest, which holds connections. Where a program is missing, its test says so and is skipped.

use std::path::Path;
use std::process::{Command, Stdio};

use hyper::StatusCode;
use tokio::net::TcpListener;

use crate::servers::{Upstream, for_localhost, hypercorn, nginx};
use crate::support::node::Folder;
use crate::support::wait::until;
use crate::support::{Module, Node};

/// Whether a program is there.
fn is_installed(program: &str) -> bool {
    // Asked for its version or for nothing, it ends at once.
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: there is no {program}");
    }
    found
}

/// Runs a program to its end, and returns all that it prints, without colours.
async fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new(program).args(arguments).output().await.unwrap();
    let all = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&all);
    let mut plain = String::new();
    for (number, part) in text.split('\u{1b}').enumerate() {
        plain += if number == 0 { part } else { part.split_once('m').map_or("", |(_, rest)| rest) };
    }
    plain
}

/// A node in front of an upstream, with a listener that speaks TLS if it is asked to.
fn node(upstream: &str, folder: &Path, with_tls: bool) -> Node {
    let path = |file: &str| folder.join(file);
    let tls = format!("[waf.tls]\ncertificate = {:?}\nkey = {:?}", path("localhost.pem"), path("localhost.key"));
    let tls = if with_tls { tls } else { String::new() };
    Folder::new(&Module::new("1.0.0"), &format!("[waf]\nupstream = \"{upstream}\"\n{tls}")).start_as(|mut command| {
        command.env("SSL_CERT_FILE", path("localhost.pem")).env_remove("SSL_CERT_DIR");
        command
    })
}

/// Runs a client while modules are replaced one after the other, and returns what it prints.
async fn while_swapping(node: &Node, program: &str, arguments: &[&str]) -> String {
    let client = output_of(program, arguments);
    tokio::pin!(client);
    let modules = [1, 2].map(|salt| Module::new("1.0.0").salted(salt).bytes());
    let mut swaps = 0;
    loop {
        tokio::select! {
            text = &mut client => {
                assert!(swaps > 0, "{program} ended before the first swap: {text}");
                return text;
            }
            answer = node.upload(&modules[swaps % 2]) => {
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                swaps += 1;
            }
        }
    }
}

/// Asks with curl in each version of HTTP.
async fn ask_with_curl(node: &Node, folder: &Path, with_tls: bool, answers: &str) {
    let (scheme, versions) = match with_tls {
        true => ("https", [("--http1.1", "1.1"), ("--http2", "2")]),
        false => ("http", [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")]),
    };
    let url = format!("{scheme}://localhost:{}/hello", node.data.port());
    let authority = folder.join("localhost.pem");
    for (option, version) in versions {
        let arguments = ["--silent", "--show-error", "--cacert", authority.to_str().unwrap(), option];
        let more = ["--data", "a body", "--write-out", "|%{http_code}|%{http_version}", &url];
        let text = output_of("curl", &[&arguments[..], &more].concat()).await;
        assert!(text.starts_with(answers) && text.ends_with(&format!("|200|{version}")), "{option}: {text}");
    }
}

async fn load_with_h2load(node: &Node, with_tls: bool, versions: &[&[&str]]) {
    let scheme = if with_tls { "https" } else { "http" };
    let url = format!("{scheme}://localhost:{}/hello", node.data.port());
    for version in versions {
        let text = while_swapping(
            node,
            "h2load",
            &[*version, &["--duration", "1", "--clients", "8", "--max-concurrent-streams", "4", &url]].concat(),
        )
        .await;
        let requests = text.lines().find(|line| line.starts_with("requests:")).unwrap_or_else(|| panic!("{text}"));
        assert!(requests.contains(" 0 failed, 0 errored, 0 timeout"), "{version:?}: {text}");
        assert!(!requests.contains(" 0 succeeded"), "{version:?}: {text}");
        let codes = text.lines().find(|line| line.starts_with("status codes:")).unwrap_or_else(|| panic!("{text}"));
        assert!(codes.contains(" 0 3xx, 0 4xx, 0 5xx"), "{version:?}: {text}");
    }
}

async fn load_with_wrk(node: &Node, with_tls: bool) {
    let scheme = if with_tls { "https" } else { "http" };
    let url = format!("{scheme}://localhost:{}/hello", node.data.port());
    let text = while_swapping(node, "wrk", &["--threads", "1", "--connections", "16", "--duration", "1s", &url]).await;
    assert!(text.contains("requests in"), "{text}");
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
}

/// Every client that is there, on a listener with TLS and on one without.
async fn all_clients(upstream: &Upstream, folder: &Path, has_status_text: bool) {
    // In HTTP/1.1, h2load takes an answer for failed whose status line has no text, as hypercorn's have.
    let h2load_versions: &[&[&str]] = if has_status_text { &[&[], &["--h1"]] } else { &[&[]] };
    let [curl, h2load, wrk] = ["curl", "h2load", "wrk"].map(is_installed);
    for (url, version) in &upstream.urls {
        for with_tls in [false, true] {
            let node = node(url, folder, with_tls);
            if curl {
                ask_with_curl(&node, folder, with_tls, &format!("{version} localhost")).await;
            }
            if h2load {
                load_with_h2load(&node, with_tls, h2load_versions).await;
            }
            if wrk {
                load_with_wrk(&node, with_tls).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_in_front_of_nginx_lose_no_request_while_modules_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    if !for_localhost(folder.path()) {
        return;
    }
    let Some(upstream) = nginx(folder.path()).await else { return };
    all_clients(&upstream, folder.path(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_in_front_of_hypercorn_lose_no_request_while_modules_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    if !for_localhost(folder.path()) {
        return;
    }
    let Some(upstream) = hypercorn(folder.path()).await else { return };
    all_clients(&upstream, folder.path(), false).await;
}

/// What `slowhttptest` says of each kind of attack, and whether somebody else was served meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_held_are_closed_and_others_are_served_meanwhile() {
    if !is_installed("slowhttptest") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let large = axum::Router::new().route("/large", axum::routing::any(|| async { vec![b'.'; 10 << 20] }));
    tokio::spawn(axum::serve(listener, large.route("/", axum::routing::any(|| async { "hello" }))).into_future());
    let node = Node::configured(
        &Module::new("1.0.0"),
        &format!(
            "[waf]\nupstream = \"http://{upstream}\"\n[waf.proxy]\nheader_timeout_seconds = 1\nbody_timeout_seconds = 1\n\
             send_timeout_seconds = 1"
        ),
    );
    let (url, large) = (format!("http://{}/", node.data), format!("http://{}/large", node.data));
    // 100 connections, opened at once, each with a byte or two every ten seconds, for a minute if the node lets them.
    let common = ["-c", "100", "-r", "100", "-i", "10", "-l", "60", "-p", "5"];
    let attacks: [(&str, &[&str]); 3] = [
        ("headers that do not end", &["-H", "-u", &url]),
        ("bodies that do not end", &["-B", "-s", "100000", "-u", &url]),
        ("many ranges", &["-R", "-a", "1", "-b", "3000", "-u", &url]),
    ];
    for (attack, arguments) in attacks {
        let arguments = [&common[..], arguments].concat();
        let report = output_of("slowhttptest", &arguments);
        tokio::pin!(report);
        let report = loop {
            tokio::select! {
                report = &mut report => break report,
                answer = node.get("/") => assert_eq!(answer.status, StatusCode::OK, "{attack}"),
            }
        };
        // It ends by itself once the node has closed all of them.
        assert!(report.contains("No open connections left"), "{attack}: {report}");
    }

    // Answers that are not read. It does not notice that its connections are reset.
    let arguments = ["-X", "-w", "10", "-y", "20", "-n", "10", "-z", "1", "-u", &large];
    let mut attack = tokio::process::Command::new("slowhttptest");
    let attack = attack.args(common).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let _attack = attack.spawn().unwrap();
    let open = || node.metric("waf_connections{listener=\"data\"}");
    until("connections that are held", || async { (open().await >= 20.0).then_some(()) }).await;
    until("few of them", || async { (open().await <= 5.0).then_some(()) }).await;
    assert_eq!(node.get("/").await.status, StatusCode::OK);
}
