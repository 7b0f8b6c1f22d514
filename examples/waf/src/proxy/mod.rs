//! The data plane: every request is shown to the rules, and those that may go on are streamed to the upstream.

mod challenge;
mod forward;
mod headers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use tokio::task::block_in_place;
use tokio::time::timeout;

use self::challenge::Challenge;
use self::forward::Forward;
use self::headers::X_REQUEST_ID;
use crate::body::{Body, Held, full};
use crate::config;
use crate::guard::{Action, Guard};
use crate::request_id::RequestIds;
use crate::rules::Inspected;
use crate::upstream::Upstream;

/// From this size on, a body may keep the rules busy for longer than a worker of the runtime should be away.
const LARGE: usize = 16 << 10;

pub struct Proxy {
    guard: Arc<Guard>,
    forward: Forward,
    challenge: Challenge,
    ids: RequestIds,
    terms: config::Proxy,
}

impl Proxy {
    pub fn new(guard: Arc<Guard>, upstream: Upstream, terms: config::Proxy) -> Result<Proxy, hotslot::BoxError> {
        let forward = Forward::new(upstream, terms.connect_timeout.0, terms.response_timeout.0)?;
        Ok(Proxy { guard, forward, challenge: Challenge::new(), ids: RequestIds::new(), terms })
    }

    /// Answers one request.
    pub async fn answer(&self, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
        let began = Instant::now();
        let id = self.ids.next();
        let mut answer = self.inspect_and_forward(peer, request, &id).await;
        self.guard.answered(answer.status(), began.elapsed());
        answer.headers_mut().insert(X_REQUEST_ID, id);
        answer
    }

    async fn inspect_and_forward(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
        id: &HeaderValue,
    ) -> Response<Body> {
        if request.method() == Method::CONNECT {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "this is no forward proxy\n");
        }
        let (parts, body) = request.into_parts();
        let cap = self.terms.inspect_body_bytes;
        let body = if body.is_end_stream() || cap == 0 {
            Held::unread(body)
        } else {
            match timeout(self.terms.body_timeout.0, Held::read(body, cap)).await {
                Ok(Ok(held)) => held,
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "request body");
                    return plain(StatusCode::BAD_REQUEST, "the body of the request broke off\n");
                }
                Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body of the request took too long\n"),
            }
        };
        let beginning = body.beginning(cap);
        let seen = Inspected { method: &parts.method, target: &parts.uri, headers: &parts.headers, body: &beginning };
        // The rules are called right here, on a worker of the runtime: a call takes some ten microseconds, less than
        // moving it to another thread and back, and its deadline bounds the worst one. Only for a large body the
        // runtime is told to move the worker's other tasks out of the way first.
        let action = if beginning.len() < LARGE {
            self.guard.inspect(&seen, id)
        } else {
            block_in_place(|| self.guard.inspect(&seen, id))
        };
        match action {
            Action::Pass => {}
            Action::Block => return refuse(id),
            Action::Challenge if self.challenge.is_passed(peer.ip(), &parts.headers) => {}
            Action::Challenge => return self.challenge.page(peer.ip(), &parts.headers),
            Action::Unavailable => {
                let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, "the rules gave no verdict: try again\n");
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return answer;
            }
        }
        self.forward.send(peer, Request::from_parts(parts, body), id).await
    }
}

/// The client learns the request's id and nothing of the rules; the log has the rest.
fn refuse(id: &HeaderValue) -> Response<Body> {
    let id = id.to_str().unwrap_or_default();
    plain(StatusCode::FORBIDDEN, &format!("The request was blocked. Its id is {id}.\n"))
}

/// An answer of the node's own.
fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(full(text.to_owned()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
