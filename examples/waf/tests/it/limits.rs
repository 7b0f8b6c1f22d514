//! Who gets in at all, and how often.

use hyper::{Method, StatusCode};

use crate::support::node::{Folder, replace};
use crate::support::{Module, Node, TOKEN, request};

const OK: StatusCode = StatusCode::OK;
const MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;

/// Asks as a client that a trusted proxy names.
async fn from(node: &Node, client: &str, target: &str) -> StatusCode {
    request(node.data, Method::GET, target).header("x-forwarded-for", client).send().await.status
}

const TRUST: &str = "[waf.proxy]\ntrusted_proxies = [\"127.0.0.1\"]\n";

#[tokio::test]
async fn clients_of_a_list_are_refused_and_the_list_is_read_again() {
    let mut folder = Folder::new(&Module::new("1.0.0"), TRUST);
    let list = folder.path("deny.txt");
    std::fs::write(&list, "# known\n192.0.2.0/24\n2001:db8::/32 # more\n").unwrap();
    folder.configure(&format!(
        "[waf]\ndeny_lists = [{list:?}]\n[[waf.deny]]\npath = \"/admin/*\"\nclients = [\"198.51.100.7\"]"
    ));
    let node = folder.start();
    for (client, target, status) in [
        ("192.0.2.9", "/", StatusCode::FORBIDDEN),
        ("2001:db8::7", "/", StatusCode::FORBIDDEN),
        ("192.0.3.9", "/", OK),
        ("198.51.100.7", "/", OK),
        ("198.51.100.7", "/admin/x", StatusCode::FORBIDDEN),
        ("198.51.100.7", "/x/..;/%61dmin/x", StatusCode::FORBIDDEN),
    ] {
        assert_eq!(from(&node, client, target).await, status, "{client} {target}");
    }
    assert_eq!(node.metric("waf_rule_matches_total{rule=\"denied\"}").await, 4.0);
    let reload = async || request(node.admin, Method::POST, "/api/v1/config/reload").token(TOKEN).send().await;
    replace(&list, b"203.0.113.1\n");
    assert_eq!(reload().await.status, OK);
    assert_eq!(from(&node, "192.0.2.9", "/").await, OK);
    assert_eq!(from(&node, "203.0.113.1", "/").await, StatusCode::FORBIDDEN);
    // One that cannot be read changes nothing.
    replace(&list, b"10.0.0.1\nnobody\n");
    let answer = reload().await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().contains("line 2"), "{}", answer.text());
    assert_eq!(from(&node, "203.0.113.1", "/").await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn requests_over_a_rate_are_refused_by_client_and_place() {
    let limits = "[[waf.rate_limits]]\nname = \"login\"\nrequests = 3\nper_seconds = 3600\nin = { path = \"/login\" }\n\
        [[waf.rate_limits]]\nname = \"all\"\nrequests = 2\nper_seconds = 3600\nby = \"all\"\nin = { path = \"/dear\" }";
    let node = Node::configured(&Module::new("1.0.0"), &format!("{TRUST}{limits}"));
    for _ in 0..3 {
        assert_eq!(from(&node, "192.0.2.1", "/login").await, OK);
    }
    let wish = request(node.data, Method::GET, "/login").header("x-forwarded-for", "192.0.2.1");
    let answer = wish.send().await;
    assert_eq!(answer.status, MANY);
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=1200).contains(&seconds), "{seconds}");
    assert_eq!(from(&node, "192.0.2.2", "/login").await, OK, "another client");
    assert_eq!(from(&node, "192.0.2.1", "/").await, OK, "another place");
    // One customer's addresses are one client.
    for address in ["2001:db8::1", "2001:db8::2", "2001:db8::3"] {
        assert_eq!(from(&node, address, "/login").await, OK);
    }
    assert_eq!(from(&node, "2001:db8::4", "/login").await, MANY);
    for (client, status) in [("192.0.2.1", OK), ("192.0.2.2", OK), ("192.0.2.3", MANY)] {
        assert_eq!(from(&node, client, "/dear").await, status);
    }
    assert_eq!(node.metric("waf_rate_limited_total{rule=\"login\"}").await, 2.0);
    // What has been counted stays so when the configuration is read again.
    let reload = request(node.admin, Method::POST, "/api/v1/config/reload").token(TOKEN).send().await;
    assert_eq!(reload.status, OK);
    assert_eq!(from(&node, "192.0.2.1", "/login").await, MANY);
}
