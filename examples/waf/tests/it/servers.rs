//! Upstreams as people run them: nginx and hypercorn, and a gRPC server, over each version of HTTP, with TLS and without. Where
//! a program is missing, its test says so and is skipped.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::HOST;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::certificate::certificate;
use crate::support::node::Folder;
use crate::support::wait::until;
use crate::support::{Module, Node, request};

/// A program that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Addresses that are free.
fn free<const N: usize>() -> [SocketAddr; N] {
    let listeners: [StdListener; N] = std::array::from_fn(|_| StdListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

/// Starts a program, if it is there, and waits until it answers on its address.
async fn started(mut command: Command, address: SocketAddr) -> Option<Server> {
    let program = command.get_program().to_owned();
    let Ok(child) = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn() else {
        println!("skipped: there is no {}", program.display());
        return None;
    };
    let server = Server(child);
    until("the server", || async move { TcpStream::connect(address).await.ok().map(drop) }).await;
    Some(server)
}

/// Whether Python has these modules.
fn python_has(modules: &str) -> bool {
    let found = Command::new("python3").args(["-c", &format!("import {modules}")]).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("skipped: Python has no {modules}");
    }
    found
}

/// A certificate for localhost, in `localhost.pem` and `localhost.key`.
pub fn for_localhost(folder: &Path) -> bool {
    certificate(folder, "localhost", "DNS:localhost")
}

/// A node in front of an upstream that it trusts.
fn node(upstream: &str, folder: &Path) -> Node {
    let changes = format!("[waf]\nupstream = \"{upstream}\"");
    Folder::new(&Module::new("1.0.0"), &changes).start_as(|mut command| {
        command.env("SSL_CERT_FILE", folder.join("localhost.pem")).env_remove("SSL_CERT_DIR");
        command
    })
}

/// What an upstream that answers with version and host says to a client of the node.
async fn asked(node: &Node) -> String {
    let answer = request(node.data, hyper::Method::POST, "/hello?a=b")
        .header("host", "shop.example")
        .body("a body")
        .send()
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.text().to_owned()
}

/// An upstream that answers with version, host and more, and the URLs by which a node reaches it, each with the version.
pub struct Upstream {
    pub urls: Vec<(String, &'static str)>,
    _server: Server,
}

/// nginx, with the certificate for localhost that is in the folder.
pub async fn nginx(folder: &Path) -> Option<Upstream> {
    let [plain, h2c, tls, h2] = free();
    let server = |listen: String| {
        format!(
            "server {{ listen {listen}; ssl_certificate localhost.pem; ssl_certificate_key localhost.key;
            location / {{ return 200 \"$server_protocol $host $request_uri\"; }} }}\n"
        )
    };
    let servers = [
        server(plain.to_string()),
        server(format!("{h2c} http2")),
        server(format!("{tls} ssl")),
        server(format!("{h2} ssl http2")),
    ];
    let config = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr crit; events {{}}
        http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
        {} }}",
        servers.concat()
    );
    std::fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "stderr"]);
    let server = started(command, plain).await?;
    let urls = vec![
        (format!("http://{plain}"), "HTTP/1.1"),
        (format!("h2c://{h2c}"), "HTTP/2.0"),
        (format!("https://localhost:{}", tls.port()), "HTTP/1.1"),
        (format!("https://localhost:{}", h2.port()), "HTTP/1.1"),
        (format!("h2://localhost:{}", h2.port()), "HTTP/2.0"),
    ];
    Some(Upstream { urls, _server: server })
}

#[tokio::test]
async fn nginx_is_spoken_to_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    if !for_localhost(folder.path()) {
        return;
    }
    let Some(nginx) = nginx(folder.path()).await else { return };
    for (upstream, version) in &nginx.urls {
        let node = node(upstream, folder.path());
        for _ in 0..3 {
            assert_eq!(asked(&node).await, format!("{version} shop.example /hello?a=b"), "{upstream}");
        }
    }
}

const ASGI: &str = r#"
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    hosts = [value.decode() for name, value in scope["headers"] if name == b"host"]
    text = "%s %s %s %d" % (scope["http_version"], ",".join(hosts), scope["path"], size)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})
"#;

/// hypercorn, with the certificate for localhost that is in the folder.
pub async fn hypercorn(folder: &Path) -> Option<Upstream> {
    if !python_has("hypercorn") {
        return None;
    }
    std::fs::write(folder.join("echo.py"), ASGI).unwrap();
    let [plain, tls] = free();
    let mut command = Command::new("python3");
    command.args([
        "-m",
        "hypercorn",
        "echo:app",
        "--workers",
        "0",
        "--certfile",
        "localhost.pem",
        "--keyfile",
        "localhost.key",
    ]);
    command.args(["--bind", &tls.to_string(), "--insecure-bind", &plain.to_string()]).current_dir(folder);
    let server = started(command, plain).await?;
    let urls = vec![
        (format!("http://{plain}"), "1.1"),
        (format!("h2c://{plain}"), "2"),
        (format!("https://localhost:{}", tls.port()), "1.1"),
        (format!("h2://localhost:{}", tls.port()), "2"),
    ];
    Some(Upstream { urls, _server: server })
}

#[tokio::test]
async fn hypercorn_is_spoken_to_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    if !for_localhost(folder.path()) {
        return;
    }
    let Some(hypercorn) = hypercorn(folder.path()).await else { return };
    for (upstream, version) in &hypercorn.urls {
        let node = node(upstream, folder.path());
        assert_eq!(asked(&node).await, format!("{version} shop.example /hello 6"), "{upstream}");
    }
}

/// A client with HTTP/2 that sends messages as it likes.
async fn call(node: &Node, path: &str, first: Option<Bytes>) -> (mpsc::Sender<Bytes>, Incoming) {
    let stream = TcpStream::connect(node.data).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (messages, mut coming) = mpsc::channel::<Bytes>(8);
    // A server may say nothing, not even its header, before there is something to answer.
    if let Some(first) = first {
        messages.send(first).await.unwrap();
    }
    let body = futures_util::stream::poll_fn(move |cx| coming.poll_recv(cx))
        .map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let request = Request::post(format!("http://shop.example{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(body))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    (messages, answer.into_body())
}

/// A message as gRPC frames it.
fn framed(text: &str) -> Bytes {
    [&[0][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat().into()
}

/// Reads so many bytes.
async fn read(body: &mut Incoming, length: usize) -> Vec<u8> {
    let mut seen = Vec::new();
    while seen.len() < length {
        let frame = body.frame().await.expect("more").expect("a frame");
        seen.extend_from_slice(frame.data_ref().expect("data"));
    }
    seen
}

/// Two messages pass, each of which is answered before the next one is sent; an attack in the third one does not.
async fn converse(node: &Node, path: &str) {
    let (messages, mut answer) = call(node, path, Some(framed("one"))).await;
    assert_eq!(read(&mut answer, 8).await, framed("one"));
    messages.send(framed("two")).await.unwrap();
    assert_eq!(read(&mut answer, 8).await, framed("two"));
    // In two pieces, of which the first one goes on when the second one has been seen.
    let attack = framed("do=b");
    messages.send(attack.slice(..7)).await.unwrap();
    messages.send(attack.slice(7..)).await.unwrap();
    while let Some(Ok(frame)) = answer.frame().await {
        assert!(frame.data_ref().is_none_or(|data| !data.ends_with(b"=b")), "{frame:?}");
    }
}

const GRPC: &str = r#"
import sys, grpc
from concurrent import futures

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: requests)

server = grpc.server(futures.ThreadPoolExecutor())
server.add_generic_rpc_handlers((Echo(),))
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
"#;

#[tokio::test]
async fn a_grpc_server_is_spoken_to_message_by_message() {
    if !python_has("grpc") {
        return;
    }
    let [address] = free();
    let mut command = Command::new("python3");
    command.args(["-c", GRPC, &address.to_string()]);
    let Some(_server) = started(command, address).await else { return };
    let node = Node::configured(&Module::new("1.0.0"), &format!("[waf]\nupstream = \"h2c://{address}\""));
    converse(&node, "/test.Echo/Say").await;
}

/// The same without anything else on the machine; the upstream sees one host.
#[tokio::test]
async fn messages_are_answered_as_they_come() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(|request: Request<Incoming>| async move {
                assert_eq!((request.version(), request.headers().get(HOST)), (Version::HTTP_2, None));
                assert_eq!(request.uri().authority().map(|host| host.as_str()), Some("shop.example"));
                Ok::<_, Infallible>(Response::new(request.into_body()))
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), answer));
        }
    });
    let node = Node::configured(&Module::new("1.0.0"), &format!("[waf]\nupstream = \"h2c://{address}\""));
    converse(&node, "/").await;
    // Headers alone are answered, too.
    let (messages, _) = call(&node, "/", None).await;
    drop(messages);
}

/// An upstream that answers with what it got, and after that with the names of the trailers.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(|request: Request<Incoming>| async move {
                let got = request.into_body().collect().await?;
                let trailers = got.trailers().cloned().unwrap_or_default();
                let names: Vec<_> = trailers.keys().map(|name| name.as_str()).collect();
                let names = names.join(",");
                let answer = [&got.to_bytes()[..], names.as_bytes()].concat();
                Ok::<_, hyper::Error>(Response::new(http_body_util::Full::new(Bytes::from(answer))))
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), answer));
        }
    });
    address
}

/// Sends a body in these frames, whatever its kind.
async fn send(node: &Node, kind: &str, more: (&str, &str), frames: Vec<Frame<Bytes>>) -> (StatusCode, Bytes) {
    let stream = TcpStream::connect(node.data).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body = StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok::<_, Infallible>)));
    let request = Request::post("http://shop.example/").header("content-type", kind).header(more.0, more.1);
    let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
    (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
}

/// How often the rules were called, and how often they had something to log.
async fn looks(node: &Node) -> [u64; 2] {
    let metrics = crate::support::get(node.admin, "/metrics").await;
    ["waf_rules_call_duration_seconds_count ", "waf_verdicts_total{verdict=\"log\"} "].map(|name| {
        let line = metrics.text().lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |count| count.parse().unwrap())
    })
}

#[tokio::test]
async fn a_header_is_inspected_once_however_many_messages_follow() {
    let node = Node::configured(&Module::new("1.0.0"), &format!("[waf]\nupstream = \"h2c://{}\"", echo().await));
    let large = format!("do=l{}", ".".repeat(15_000));
    for (text, more) in [("", 0), ("one", 100)] {
        let before = looks(&node).await;
        let all = Bytes::from(framed(text).repeat(if text.is_empty() { 700 } else { 100 }));
        let (status, answer) =
            send(&node, "application/grpc", ("x-large", &large), vec![Frame::data(all.clone())]).await;
        assert_eq!((status, answer), (StatusCode::OK, all), "{text:?}");
        let after = looks(&node).await;
        assert_eq!([after[0] - before[0], after[1] - before[1]], [1 + more, 1], "{text:?}");
    }
}

/// The same frames under other names, compressed as their own header says.
#[tokio::test]
async fn bodies_that_are_refused_or_break_off_do_not_eject_an_upstream() {
    let node = Node::configured(&Module::new("1.0.0"), &format!("[waf]\nupstream = \"h2c://{}\"", echo().await));
    let said = ("x", "y");
    for _ in 0..12 {
        let (_, answer) = send(&node, "application/grpc", said, vec![Frame::data(framed("do=b"))]).await;
        assert_ne!(answer, framed("do=b"));
    }
    let (status, answer) = send(&node, "application/grpc", said, vec![Frame::data(framed("one"))]).await;
    assert_eq!((status, answer), (StatusCode::OK, framed("one")));
    // The only one there is would get requests in any case.
    for what in ["failures", "ejections"] {
        assert_eq!(node.metric(&format!("waf_upstream_{what}_total{{")).await, 0.0, "{what}");
    }
}

/// The same frames under other names, compressed as their own header says.
#[tokio::test]
async fn messages_of_browsers_are_inspected_one_by_one() {
    let node = Node::configured(&Module::new("1.0.0"), &format!("[waf]\nupstream = \"h2c://{}\"", echo().await));
    let packed = |text: &str| -> Bytes {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut out, text.as_bytes()).unwrap();
        let out = out.finish().unwrap();
        [&[1][..], &(out.len() as u32).to_be_bytes(), &out].concat().into()
    };
    let passes = async |kind: &str, more: (&str, &str), message: Bytes| {
        // An upstream may have begun to answer by the time that something is refused.
        let (status, answer) = send(&node, kind, more, vec![Frame::data(message.clone())]).await;
        status == StatusCode::OK && answer == message
    };
    for (kind, said) in [
        ("application/grpc", "grpc-encoding"),
        ("Application/gRPC+proto", "grpc-encoding"),
        ("application/grpc-web+proto", "grpc-encoding"),
        ("application/grpc-web", "grpc-encoding"),
        ("application/connect+proto", "connect-content-encoding"),
    ] {
        assert!(passes(kind, ("x", "y"), framed("one")).await, "{kind}");
        assert!(passes(kind, (said, "gzip"), packed("one")).await, "{kind}");
        assert!(!passes(kind, ("x", "y"), framed("do=b")).await, "{kind}");
        assert!(!passes(kind, (said, "gzip"), packed("do=b")).await, "{kind}");
        assert!(!passes(kind, ("x", "y"), packed("one")).await, "{kind}");
        assert!(!passes(kind, ("content-encoding", "gzip"), framed("one")).await, "{kind}");
    }
    let other = ("grpc-encoding", "gzip");
    assert!(!passes("application/connect+proto", other, packed("one")).await, "the header of another protocol");
}

#[tokio::test]
async fn trailers_of_a_request_do_not_go_on() {
    let node = Node::configured(&Module::new("1.0.0"), &format!("[waf]\nupstream = \"h2c://{}\"", echo().await));
    for (kind, text) in [("application/grpc", framed("text")), ("text/plain", Bytes::from("text"))] {
        let trailers = [("x-hidden", "do=b")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let frames = vec![Frame::data(text.clone()), Frame::trailers(trailers.into_iter().collect())];
        assert_eq!(send(&node, kind, ("x", "y"), frames).await, (StatusCode::OK, text), "{kind}");
    }
}

/// Half a message holds memory, and nothing can go on before the other half is there.
#[tokio::test]
async fn a_message_that_does_not_come_to_its_end_is_given_up() {
    let changes = format!("[waf]\nupstream = \"h2c://{}\"\n[waf.proxy]\nbody_timeout_seconds = 0.3", echo().await);
    let node = Node::configured(&Module::new("1.0.0"), &changes);
    let stream = TcpStream::connect(node.data).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let half = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(framed("message").slice(..7)))]);
    let body = StreamBody::new(half.chain(futures_util::stream::pending()));
    let request = Request::post("http://shop.example/").header("content-type", "application/grpc").body(body).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::REQUEST_TIMEOUT);
}

/// A client with HTTP/2 can stay, and answer pings, without ever taking a byte of an answer.
#[tokio::test]
async fn an_answer_that_a_client_with_http_2_does_not_read_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("[waf]\nupstream = \"http://{}\"", listener.local_addr().unwrap());
    let changes = format!("{upstream}\n[waf.proxy]\nheader_timeout_seconds = 2\nsend_timeout_seconds = 0.3");
    let node = Node::configured(&Module::new("1.0.0"), &changes);
    let stream = TcpStream::connect(node.data).await.unwrap();
    let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    http.initial_stream_window_size(1);
    let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://shop.example/").body(http_body_util::Empty::<Bytes>::new()).unwrap();
    let answer = tokio::spawn(async move {
        let answer = sender.send_request(request).await.unwrap();
        (sender, answer)
    });
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let (_sender, _unread) = answer.await.unwrap();
    // Until the node closes the connection, because nobody wants the answer.
    while server.write_all(&[b'.'; 65536]).await.is_ok() {}
    // What is left of the client's connection goes, too: it is still open on this side.
    let _ = connection.await.unwrap();
}

#[tokio::test]
async fn a_connection_with_http_2_that_rests_is_closed() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf.proxy]\nheader_timeout_seconds = 2");
    let stream = TcpStream::connect(node.data).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://shop.example/").body(http_body_util::Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().first(), Some(&b'<'));
    connection.await.unwrap().unwrap();
    assert!(sender.is_closed());
}

/// Accepting a connection is not all there is to connecting.
#[tokio::test]
async fn an_upstream_that_accepts_and_says_nothing_is_given_up_after_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("[waf]\nupstream = \"h2://{}\"", silent.local_addr().unwrap());
    let node =
        Node::configured(&Module::new("1.0.0"), &format!("{upstream}\n[waf.proxy]\nconnect_timeout_seconds = 0.3"));
    assert_eq!(node.get("/").await.status, StatusCode::BAD_GATEWAY);
}

/// An upstream over HTTP/2 that resets the first requests, each for its reason, and answers the others with their bodies; and how
/// many it has seen.
async fn resetting(reasons: &'static [h2::Reason]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut answer))) = connection.accept().await {
                    if let Some(reason) = reasons.get(count.fetch_add(1, Ordering::SeqCst)) {
                        answer.send_reset(*reason);
                        continue;
                    }
                    let mut body = request.into_body();
                    tokio::spawn(async move {
                        let mut whole = Vec::new();
                        while let Some(Ok(piece)) = body.data().await {
                            whole.extend_from_slice(&piece);
                        }
                        let mut sender = answer.send_response(Response::new(()), false).unwrap();
                        sender.send_data(whole.into(), true).unwrap();
                    });
                }
            });
        }
    });
    (address, seen)
}

#[tokio::test]
async fn a_request_that_a_server_has_not_looked_at_is_sent_again_and_no_other() {
    use h2::Reason;
    let asked = async |reasons, body: &'static str| {
        let (address, seen) = resetting(reasons).await;
        let node = Node::configured(&Module::new("1.0.0"), &format!("[waf]\nupstream = \"h2c://{address}\""));
        let answer = request(node.data, hyper::Method::POST, "/").body(body).send().await;
        (answer.status, answer.text().to_owned(), seen.load(Ordering::SeqCst))
    };
    let ok = |body: &str, seen| (StatusCode::OK, body.to_owned(), seen);
    assert_eq!(asked(&[], "a body").await, ok("a body", 1));
    assert_eq!(asked(&[Reason::REFUSED_STREAM], "a body").await, ok("a body", 2));
    assert_eq!(asked(&[Reason::REFUSED_STREAM; 2], "").await, ok("", 3));
    // Not for ever.
    let (status, _, seen) = asked(&[Reason::REFUSED_STREAM; 10], "a body").await;
    assert_eq!((status, seen), (StatusCode::BAD_GATEWAY, 3));
    // It may have been carried out.
    for reasons in [&[Reason::INTERNAL_ERROR; 1], &[Reason::CANCEL], &[Reason::NO_ERROR]] {
        let (status, _, seen) = asked(reasons, "a body").await;
        assert_eq!((status, seen), (StatusCode::BAD_GATEWAY, 1), "{reasons:?}");
    }
}
