//! The archive in a store that speaks S3: what of it the node uses, in the memory of the test.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::support::{Module, Node};

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

async fn store() -> (SocketAddr, Objects) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, objects) = (listener.local_addr().unwrap(), Objects::default());
    let theirs = Arc::clone(&objects);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let objects = Arc::clone(&theirs);
            let answer = service_fn(move |request| answer(Arc::clone(&objects), request));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    (address, objects)
}

async fn answer(objects: Objects, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    assert!(request.headers()["authorization"].to_str().unwrap().starts_with("AWS4-HMAC-SHA256"));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = Response::builder().header("etag", "\"1\"").header("last-modified", "Sat, 21 Nov 2026 20:00:00 GMT");
    let (status, body) = if method == Method::PUT {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        objects.lock().unwrap().insert(path, body);
        (StatusCode::OK, Bytes::new())
    } else {
        let found = objects.lock().unwrap().get(&path).cloned();
        found.map_or((StatusCode::NOT_FOUND, Bytes::new()), |body| (StatusCode::OK, body))
    };
    Ok(answer.status(status).body(Full::new(body)).unwrap())
}

// The node's start is waited for on this thread, and the store has to answer meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_on_what_it_finds_in_its_store() {
    let (address, objects) = store().await;
    let archive = format!(
        "[waf.archive.s3]\nbucket = \"waf\"\nprefix = \"node-1\"\nendpoint = \"http://{address}\"\nallow_http = true"
    );
    let node = Node::configured(&Module::new("1.0.0"), &archive);
    node.upload(&Module::new("1.1.0").bytes()).await;
    let names: Vec<String> = objects.lock().unwrap().keys().cloned().collect();
    let below = |folder: &str| names.iter().filter(|name| name.starts_with(folder)).count();
    assert_eq!((below("/waf/node-1/modules/"), below("/waf/node-1/rules/")), (2, 1), "{names:?}");

    let folder = node.kill();
    assert!(!folder.archive().exists());
    let node = folder.start();
    assert_eq!(node.version().await["version"], "1.1.0");
}
