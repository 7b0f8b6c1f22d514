//! An upstream inside the program, so that the node runs with no argument.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{OriginalUri, Request};
use axum::http::{HeaderMap, Method};
use axum::response::{Html, IntoResponse};
use axum::routing::{any, get};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::listen::Listener;
use crate::serve::{Terms, serve, through};

const PAGE: &str = "<!doctype html><title>Demo</title><h1>The demo upstream</h1>\
    <p>This page came through the firewall. Try <a href=\"/?q=%3Cscript%3Ealert(1)%3C/script%3E\">one that will not</a>.";

/// Starts it on a free port of the loopback interface.
pub async fn start(terms: Terms, stop: watch::Receiver<bool>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/echo", any(echo))
        .route("/stream", get(stream_lines))
        .route("/size", any(size))
        .route("/ws", any(websocket))
        .fallback(|| async { Html(PAGE) });
    tokio::spawn(serve(Listener::Tcp(listener, None), terms, Gauge::default(), stop, move |_, request| {
        through(router.clone(), request)
    }));
    Ok(address)
}

/// What arrived, as JSON.
async fn echo(method: Method, OriginalUri(uri): OriginalUri, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))).collect();
    let answer = json!({
        "method": method.as_str(), "target": uri.to_string(), "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    axum::Json(answer)
}

/// Ten lines, one every 50 ms.
async fn stream_lines() -> impl IntoResponse {
    let lines = stream::iter(0..10).then(|line| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, io::Error>(format!("line {line}\n"))
    });
    axum::body::Body::from_stream(lines)
}

/// How many bytes came, counted as they come.
async fn size(request: Request) -> String {
    let (mut body, mut bytes) = (request.into_body(), 0);
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    bytes.to_string()
}

/// Sends every message back.
async fn websocket(upgrade: WebSocketUpgrade) -> impl IntoResponse {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}
