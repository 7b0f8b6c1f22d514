//! One request, one answer; and raw bytes where a client is to misbehave.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything here takes; a test that comes to it has failed.
pub const FOREVER: Duration = Duration::from_secs(300);

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// A request that can be added to.
pub struct Wish {
    address: SocketAddr,
    request: hyper::http::request::Builder,
    body: Bytes,
}

pub fn request(address: SocketAddr, method: Method, target: &str) -> Wish {
    let request = Request::builder().method(method).uri(target).header("host", address.to_string());
    Wish { address, request, body: Bytes::new() }
}

pub async fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, Method::GET, target).send().await
}

impl Wish {
    pub fn header(mut self, name: &str, value: &str) -> Wish {
        if name == "host" {
            self.request.headers_mut().expect("a good request").remove("host");
        }
        self.request = self.request.header(name, value);
        self
    }

    pub fn token(self, token: &str) -> Wish {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn json(mut self, json: &Value) -> Wish {
        self.body = json.to_string().into();
        self.header("content-type", "application/json")
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Wish {
        self.body = body.into();
        self
    }

    /// A multipart body with these fields; a file name makes a field a file.
    pub fn form(self, fields: &[(&str, Option<&str>, &[u8])]) -> Wish {
        let mut body = Vec::new();
        for (name, file, content) in fields {
            let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
            body.extend_from_slice(
                format!("--frontier\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes(),
            );
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--frontier--\r\n");
        self.body(body).header("content-type", "multipart/form-data; boundary=frontier")
    }

    pub async fn send(self) -> Answer {
        timeout(FOREVER, self.try_send()).await.expect("an answer in time").expect("an answer")
    }

    /// For a listener that may go away meanwhile.
    pub async fn try_send(self) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let answer = sender.send_request(self.request.body(Full::new(self.body))?).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

/// Sends bytes, and gives what comes back until the other side closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a listener");
    stream.write_all(bytes).await.expect("to be heard");
    read_to_end(&mut stream).await
}

/// Everything that comes until the other side closes.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A close that is not clean ends it too.
    let _ = timeout(FOREVER, stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}
