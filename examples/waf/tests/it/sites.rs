//! Several sites, each with several upstreams, and what becomes of one that is not well.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::support::wait::until;
use crate::support::{Module, Node, get, request};

/// An upstream that says its name, and at `/health` whether it is well. It answers nothing while it is mute.
struct Upstream {
    address: SocketAddr,
    well: Arc<AtomicBool>,
    mute: Arc<AtomicBool>,
}

async fn upstream(name: &'static str) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (well, mute) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (is_well, is_mute) = (Arc::clone(&well), Arc::clone(&mute));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (is_well, is_mute) = (Arc::clone(&is_well), Arc::clone(&is_mute));
            let answer = service_fn(move |request: Request<Incoming>| {
                let (well, mute) = (is_well.load(Relaxed), is_mute.load(Relaxed));
                async move {
                    let mut answer = Response::new(Full::new(Bytes::from(name)));
                    if request.uri().path() == "/health" {
                        *answer.status_mut() = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                        return Ok(answer);
                    }
                    // A connection that ends without an answer.
                    if mute { Err(std::io::Error::other("mute")) } else { Ok(answer) }
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    Upstream { address, well, mute }
}

async fn at(node: &Node, host: &str) -> (StatusCode, String) {
    let answer = request(node.data, Method::GET, "/").header("host", host).send().await;
    (answer.status, answer.text().to_owned())
}

#[tokio::test]
async fn each_host_has_its_upstreams() {
    let (shop, blog, other) = (upstream("shop").await, upstream("blog").await, upstream("other").await);
    let sites = |default: &str| {
        format!(
            "[waf]\n{default}\n[[waf.sites]]\nhosts = [\"shop.example\", \"*.shop.example\"]\nupstreams = [\"http://{}\"]\n\
             [[waf.sites]]\nhosts = [\"blog.example\"]\nmode = \"detect\"\nupstreams = [\"http://{}\"]",
            shop.address, blog.address
        )
    };
    let node = Node::configured(&Module::new("1.0.0"), &sites(&format!("upstream = \"http://{}\"", other.address)));
    for (host, name) in [
        ("shop.example", "shop"),
        ("SHOP.example:8080", "shop"),
        ("www.shop.example", "shop"),
        ("blog.example", "blog"),
        ("shop.example.attacker.example", "other"),
        ("127.0.0.1", "other"),
    ] {
        assert_eq!(at(&node, host).await, (StatusCode::OK, name.to_owned()), "{host}");
    }
    let bad = async |host: &str| request(node.data, Method::GET, "/?do=b").header("host", host).send().await.status;
    assert_eq!((bad("shop.example").await, bad("blog.example").await), (StatusCode::FORBIDDEN, StatusCode::OK));
    // Without an upstream for all others, they are not served.
    let node = Node::configured(&Module::new("1.0.0"), &sites(""));
    assert_eq!(at(&node, "elsewhere.example").await.0, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(at(&node, "shop.example").await.1, "shop");
}

#[tokio::test]
async fn a_site_has_its_own_mode_and_no_other() {
    let one = upstream("one").await;
    let site = |host: &str, mode: &str| {
        format!("[[waf.sites]]\nhosts = [\"{host}\"]\nmode = \"{mode}\"\nupstreams = [\"http://{}\"]\n", one.address)
    };
    let (no, ok) = (StatusCode::FORBIDDEN, StatusCode::OK);
    for (sites, shop, other) in [
        ([site("shop.example", "enforce"), site("*.example", "detect")], no, ok),
        ([site("shop.example", "detect"), site("*.example", "enforce")], ok, no),
        // The first one has it.
        ([site("*.example", "detect"), site("shop.example", "enforce")], ok, ok),
        ([site("*.example", "enforce"), site("shop.example", "detect")], no, no),
    ] {
        let node = Node::configured(&Module::new("1.0.0"), &sites.concat());
        for (host, expected) in [("shop.example", shop), ("SHOP.example:80", shop), ("blog.example", other)] {
            let answer = request(node.data, Method::GET, "/?do=b").header("host", host).send().await;
            assert_eq!(answer.status, expected, "{host} with {}", sites.concat());
        }
    }
}

#[tokio::test]
async fn an_upstream_whose_health_check_fails_gets_no_requests_until_it_is_well() {
    let (one, two) = (upstream("one").await, upstream("two").await);
    let changes = format!(
        "[waf]\nupstreams = [\"http://{}\", \"http://{}\"]\n[waf.health]\npath = \"/health\"\ninterval_seconds = 0.02",
        one.address, two.address
    );
    let node = Node::configured(&Module::new("1.0.0"), &changes);
    let names = async || {
        let mut names = Vec::new();
        for _ in 0..8 {
            names.push(at(&node, "x").await.1);
        }
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(names().await, ["one", "two"]);
    one.well.store(false, Relaxed);
    let up = format!("waf_upstream_up{{upstream=\"http://{}\"}}", one.address);
    let inside = (&node, &up);
    until("it is down", || async move { (inside.0.metric(inside.1).await == 0.0).then_some(()) }).await;
    assert_eq!(names().await, ["two"]);
    let status = node.admin("/api/v1/upstreams").await;
    let first = &status[0]["upstreams"][0];
    assert_eq!((&first["up"], &first["healthy"]), (&false.into(), &false.into()), "{status}");
    assert!(first["last_error"].as_str().unwrap().contains("503"), "{status}");
    one.well.store(true, Relaxed);
    until("it is up", || async move { (inside.0.metric(inside.1).await == 1.0).then_some(()) }).await;
    assert_eq!(names().await, ["one", "two"]);
    // If none is well, they are tried all the same.
    one.well.store(false, Relaxed);
    two.well.store(false, Relaxed);
    until("both are down", || async move {
        let status = inside.0.admin("/api/v1/upstreams").await;
        status[0]["upstreams"].as_array().unwrap().iter().all(|upstream| upstream["up"] == false).then_some(())
    })
    .await;
    assert_eq!(at(&node, "x").await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_ejected_for_a_while() {
    let (one, two) = (upstream("one").await, upstream("two").await);
    one.mute.store(true, Relaxed);
    let changes = format!(
        "[waf]\nupstreams = [\"http://{}\", \"http://{}\"]\n[waf.health]\neject_after = 3\neject_seconds = 3600",
        one.address, two.address
    );
    let node = Node::configured(&Module::new("1.0.0"), &changes);
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(at(&node, "x").await.0 == StatusCode::BAD_GATEWAY);
    }
    assert_eq!(failed, 3);
    let status = get(node.admin, "/api/v1/upstreams").await.json();
    let first = &status[0]["upstreams"][0];
    assert_eq!((&first["ejected"], &first["ejections"], &first["failures"]), (&true.into(), &1.into(), &3.into()));
    assert_eq!(node.metric(&format!("waf_upstream_failures_total{{upstream=\"http://{}\"}}", one.address)).await, 3.0);
    // A client that goes away in the middle of its body is no failure of the upstream's.
    let failures = format!("waf_upstream_failures_total{{upstream=\"http://{}\"}}", two.address);
    let half = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n";
    crate::support::http::raw(node.data, half.as_bytes()).await;
    assert_eq!(at(&node, "x").await.1, "two");
    assert_eq!(node.metric(&failures).await, 0.0);
}
