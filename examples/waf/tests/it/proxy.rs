//! The data plane: what goes through, in which shape, and what does not.

use std::convert::Infallible;

use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support::http::{raw, read_to_end};
use crate::support::{Module, Node, request};

#[tokio::test]
async fn verdicts_are_carried_out() {
    let node = Node::start(&Module::new("1.0.0"));
    let blocked = node.get("/?do=b").await;
    assert_eq!(blocked.status, StatusCode::FORBIDDEN);
    let id = blocked.headers["x-request-id"].to_str().unwrap();
    assert!(blocked.text().contains(id), "{}", blocked.text());
    assert!(!blocked.text().contains("test-rule"), "the client learns nothing of the rules");
    assert_eq!(node.get("/?do=l").await.status, StatusCode::OK);
    assert_eq!(node.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_challenge_is_passed_by_doing_what_its_page_says() {
    let node = Node::start(&Module::new("1.0.0"));
    let page = node.get("/?do=c").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let (_, rest) = page.text().split_once("[...\"").expect("the word");
    let word: String = rest.split('"').next().unwrap().chars().rev().collect();
    let with = |cookie: String| request(node.data, Method::GET, "/?do=c").header("cookie", &cookie).send();
    assert_eq!(with(format!("waf_challenge={word}")).await.status, StatusCode::OK);
    assert_eq!(with(format!("waf_challenge={word}0")).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn headers_end_where_they_should_and_say_where_a_request_came_from() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf.proxy]\ntrusted_proxies = [\"127.0.0.0/8\"]");
    let answer = request(node.data, Method::GET, "/echo?a=1")
        .header("connection", "x-private")
        .header("x-private", "1")
        .header("proxy-authorization", "secret")
        .header("x-forwarded-for", "192.0.2.1")
        .header("x-request-id", "forged")
        .send()
        .await;
    let echo = answer.json();
    assert_eq!(echo["target"], "/echo?a=1");
    let sent = |name: &str| {
        let headers = echo["headers"].as_array().unwrap().iter();
        headers.clone().find(|header| header[0] == name).map(|header| header[1].as_str().unwrap().to_owned())
    };
    assert_eq!((sent("x-private"), sent("proxy-authorization"), sent("connection")), (None, None, None));
    assert_eq!(sent("x-forwarded-for").unwrap(), "192.0.2.1, 127.0.0.1");
    assert_eq!(sent("host").unwrap(), node.data.to_string());
    assert_eq!(sent("x-forwarded-host").unwrap(), node.data.to_string());
    assert_eq!(sent("x-forwarded-proto").unwrap(), "http");
    assert_eq!(sent("x-request-id").unwrap(), answer.headers["x-request-id"].to_str().unwrap());
}

#[tokio::test]
async fn a_body_is_inspected_up_to_the_cap_and_goes_on_whole() {
    let node =
        Node::configured(&Module::new("1.0.0"), "[waf]\nuninspected = \"log\"\n[waf.proxy]\ninspect_body_bytes = 1000");
    let send = |body: Vec<u8>| request(node.data, Method::POST, "/size").body(body).send();
    let with = |at: usize| [vec![b'.'; at], b"do=b".to_vec(), vec![b'.'; 3_000_000]].concat();
    assert_eq!(send(with(0)).await.status, StatusCode::FORBIDDEN);
    assert_eq!(send(with(900)).await.status, StatusCode::FORBIDDEN);
    let beyond = send(with(1000)).await;
    assert_eq!((beyond.status, beyond.text()), (StatusCode::OK, "3001004"));
    assert_eq!(send(Vec::new()).await.text(), "0");
}

#[tokio::test]
async fn a_chunked_body_goes_on_as_it_comes() {
    let node =
        Node::configured(&Module::new("1.0.0"), "[waf]\nuninspected = \"log\"\n[waf.proxy]\ninspect_body_bytes = 4");
    let mut stream = TcpStream::connect(node.data).await.unwrap();
    let head = "POST /size HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..100 {
        stream.write_all(b"5\r\nhello\r\n").await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.ends_with("500"), "{answer}");
}

#[tokio::test]
async fn an_answer_is_streamed() {
    let node = Node::start(&Module::new("1.0.0"));
    let mut stream = TcpStream::connect(node.data).await.unwrap();
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    while !seen.contains("line 0") {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.unwrap();
        seen.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    assert!(!seen.contains("line 9"), "the first line came with the last one: {seen}");
    assert!(read_to_end(&mut stream).await.contains("line 9"));
}

#[tokio::test]
async fn a_connection_is_kept_for_more_requests() {
    let node = Node::start(&Module::new("1.0.0"));
    let two = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\nGET /?do=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = raw(node.data, two.as_bytes()).await;
    assert!(answers.contains("200 OK") && answers.contains("403 Forbidden"), "{answers}");
}

#[tokio::test]
async fn a_websocket_passes_through() {
    let node = Node::start(&Module::new("1.0.0"));
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/ws", node.data)).await.unwrap();
    for text in ["hello", "do=b is not looked at any more"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    socket.close(None).await.unwrap();
    let refused = tokio_tungstenite::connect_async(format!("ws://{}/ws?do=b", node.data)).await;
    assert!(refused.unwrap_err().to_string().contains("403"));
}

/// An upstream that says which version of HTTP it was spoken to in.
async fn upstream() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(|request: Request<Incoming>| async move {
                let version = format!("{:?}", request.version());
                let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from([version.as_bytes(), b" ", &body].concat()))))
            });
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn http_2_is_spoken_down_and_up() {
    let upstream = upstream().await;
    for (scheme, spoken) in [("http", "HTTP/1.1"), ("h2c", "HTTP/2.0")] {
        let node = Node::configured(&Module::new("1.0.0"), &format!("[waf]\nupstream = \"{scheme}://{upstream}\""));
        assert_eq!(node.get("/").await.text(), format!("{spoken} "));

        let stream = TcpStream::connect(node.data).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for (target, status, body) in
            [("/", StatusCode::OK, Some(format!("{spoken} a body"))), ("/?do=b", StatusCode::FORBIDDEN, None)]
        {
            let uri = format!("http://{}{target}", node.data);
            let request = Request::post(uri).body(Full::new(Bytes::from("a body"))).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!((answer.status(), answer.version()), (status, Version::HTTP_2));
            let answer = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(body.is_none_or(|body| answer == body), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_away_or_says_nothing_is_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let node = Node::configured(&Module::new("1.0.0"), &format!("[waf]\nupstream = \"http://{closed}\""));
    assert_eq!(node.get("/").await.status, StatusCode::BAD_GATEWAY);

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let changes = format!(
        "[waf]\nupstream = \"http://{}\"\n[waf.proxy]\nresponse_timeout_seconds = 0.2",
        silent.local_addr().unwrap()
    );
    let node = Node::configured(&Module::new("1.0.0"), &changes);
    assert_eq!(node.get("/").await.status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn clients_that_dawdle_are_cut_off() {
    let changes = "[waf.proxy]\nheader_timeout_seconds = 0.2\nbody_timeout_seconds = 0.2";
    let node = Node::configured(&Module::new("1.0.0"), changes);
    assert_eq!(raw(node.data, b"").await, "");
    raw(node.data, b"GET / HTTP/1.1\r\nHost:").await;
    let answer = raw(node.data, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_node_that_stops_finishes_what_is_under_way() {
    let mut node = Node::start(&Module::new("1.0.0"));
    let mut stream = TcpStream::connect(node.data).await.unwrap();
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut seen = [0; 1024];
    let _ = stream.read(&mut seen).await.unwrap();
    let rest = tokio::spawn(async move { read_to_end(&mut stream).await });
    let status = tokio::task::spawn_blocking(move || node.stop()).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(rest.await.unwrap().contains("line 9"));
}
