//! What a node writes down: a line for each request, a record of each decision, and what the dashboard is made of.

use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::support::node::Folder;
use crate::support::wait::until;
use crate::support::{Module, Node, get, request};

/// The lines of a log in JSON with this target.
fn lines(node: &Node, target: &str) -> Vec<Value> {
    let lines = node.folder.log();
    let lines =
        lines.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["target"] == target).collect()
}

async fn waited(node: &Node, target: &str, count: usize) -> Vec<Value> {
    until("the lines", || async move {
        let lines = lines(node, target);
        (lines.len() >= count).then_some(lines)
    })
    .await
}

#[tokio::test]
async fn each_request_has_a_line_and_each_decision_a_record() {
    let node = Folder::new(&Module::new("1.2.0"), "[waf.log]\nformat = \"json\"").start_logged();
    node.get("/page?secret=1").await;
    let blocked = node.get("/?do=b").await;
    node.get("/?do=t").await;
    request(node.data, Method::GET, "/").header("host", "a b").send().await;
    let lines = waited(&node, "waf::access", 4).await;
    let (first, second, third, fourth) = (&lines[0], &lines[1], &lines[2], &lines[3]);
    for (field, value) in [
        ("method", Value::from("GET")),
        ("path", "/page".into()),
        ("client", "127.0.0.1".into()),
        ("status", 200.into()),
        ("verdict", "allow".into()),
        ("version", "1.2.0".into()),
        ("tls", false.into()),
    ] {
        assert_eq!(first[field], value, "{first}");
    }
    assert_eq!(first["host"], node.data.to_string());
    assert!(first["upstream"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{first}");
    assert!(first["total_ms"].as_f64() >= first["upstream_ms"].as_f64() && first["rules_ms"].is_number(), "{first}");
    assert!(!first.to_string().contains("secret"), "no query: {first}");
    assert_eq!(
        (&second["status"], &second["verdict"], &second["rule"]),
        (&403.into(), &"block".into(), &"test-rule".into())
    );
    assert!(second["upstream"].is_null(), "{second}");
    assert_eq!((&third["status"], &third["verdict"]), (&503.into(), &"failed".into()), "{third}");
    assert_eq!((&fourth["status"], &fourth["verdict"]), (&400.into(), &"none".into()), "{fourth}");

    let record = waited(&node, "waf::decision", 1).await[0].clone();
    assert_eq!((&record["verdict"], &record["enforced"]), (&"block".into(), &true.into()), "{record}");
    assert_eq!((&record["part"], &record["matched"]), (&"path".into(), &"do=".into()), "{record}");
    // By the id that the client was told.
    let id = blocked.headers["x-request-id"].to_str().unwrap();
    assert_eq!((&record["request"], &second["request"]), (&id.into(), &id.into()));
}

#[tokio::test]
async fn lines_can_be_text_or_left_out() {
    let node = Folder::new(&Module::new("1.0.0"), "").start_logged();
    node.get("/page").await;
    let inside = &node;
    until("the line", || async move { inside.folder.log().contains("path=\"/page\"").then_some(()) }).await;
    let node = Folder::new(&Module::new("1.0.0"), "[waf.log]\naccess = false").start_logged();
    node.get("/page").await;
    node.get("/?do=b").await;
    let inside = &node;
    until("the decision", || async move { inside.folder.log().contains("waf::decision").then_some(()) }).await;
    assert!(!node.folder.log().contains("waf::access"), "{}", node.folder.log());
}

#[tokio::test]
async fn requests_latency_connections_and_bodies_are_counted() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf.proxy]\nbody_timeout_seconds = 0.2");
    node.get("/").await;
    let open = tokio::net::TcpStream::connect(node.data).await.unwrap();
    let inside = &node;
    until("the connection", || async move {
        (inside.metric("waf_connections{listener=\"data\"}").await >= 1.0).then_some(())
    })
    .await;
    drop(open);
    until(
        "its end",
        || async move { (inside.metric("waf_connections{listener=\"data\"}").await == 0.0).then_some(()) },
    )
    .await;
    let half = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhalf";
    let answer = crate::support::http::raw(node.data, half).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(node.metric("waf_bodies_given_up_total{kind=\"slow\"}").await, 1.0);
    assert_eq!(node.metric("waf_request_duration_seconds_count").await, 2.0);
    assert_eq!(node.metric("waf_requests_total{status=\"4xx\"}").await, 1.0);
}

/// A panel of a metric that is called otherwise stays empty, and nobody notices.
#[tokio::test]
async fn the_dashboard_shows_metrics_that_there_are() {
    let changes = "[waf.proxy]\nbody_timeout_seconds = 0.2\n[[waf.detect]]\npath = \"/watched\"";
    let node = Node::configured(&Module::new("1.0.0"), changes);
    // A family without a sample is not there.
    for target in ["/", "/?do=b", "/?do=t", "/watched?do=b"] {
        node.get(target).await;
    }
    let half = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhalf";
    crate::support::http::raw(node.data, half).await;
    node.upload(&Module::new("1.1.0").bytes()).await;
    node.roll_back().await;
    let metrics = get(node.admin, "/metrics").await;
    assert_eq!(metrics.status, StatusCode::OK);
    let known: Vec<&str> =
        metrics.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let dashboard: Value = serde_json::from_str(include_str!("../../packaging/grafana.json")).unwrap();
    let mut seen = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let names = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for name in names.filter(|name| name.starts_with("waf_") || name.starts_with("wasm_")) {
                let family = name.strip_suffix("_total").or_else(|| name.strip_suffix("_bucket")).unwrap_or(name);
                assert!(known.contains(&family), "{name} in {expression}, of {known:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 15, "{seen}");
}
