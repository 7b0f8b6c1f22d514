//! Sends a request on and its answer back, body by body as they come, and connects the two ends of an upgrade.

use std::net::SocketAddr;
use std::time::Duration;

use hotslot::BoxError;
use http_body_util::BodyExt;
use hyper::header::{HOST, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::timeout;

use super::headers::{end_hop, set_forwarded, set_upgrade, upgrade};
use super::plain;
use crate::body::{Body, Held};
use crate::upstream::{Connector, Upstream};

pub struct Forward {
    upstream: Upstream,
    client: Client<Connector, Held>,
    response_timeout: Duration,
}

impl Forward {
    pub fn new(upstream: Upstream, connect_timeout: Duration, response_timeout: Duration) -> Result<Forward, BoxError> {
        Ok(Forward { client: upstream.client(connect_timeout)?, upstream, response_timeout })
    }

    /// The upstream's answer, or one that says why there is none.
    pub async fn send(&self, peer: SocketAddr, mut request: Request<Held>, id: &HeaderValue) -> Response<Body> {
        let wanted = upgrade(request.headers()).filter(|_| request.version() == Version::HTTP_11);
        let client_side = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
        let host = match request.uri().authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => request.headers().get(HOST).cloned(),
        };
        *request.uri_mut() = self.upstream.uri(request.uri().path_and_query());
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        end_hop(headers);
        set_forwarded(headers, peer.ip(), host.as_ref(), id);
        if let Some(host) = host {
            headers.insert(HOST, host);
        }
        if let Some(protocol) = wanted {
            set_upgrade(headers, protocol);
        }
        match timeout(self.response_timeout, self.client.request(request)).await {
            Ok(Ok(answer)) => pass_back(answer, client_side),
            Ok(Err(error)) => {
                tracing::warn!(request = ?id, error = &error as &dyn std::error::Error, "upstream");
                plain(StatusCode::BAD_GATEWAY, "the upstream cannot be reached\n")
            }
            Err(_) => plain(StatusCode::GATEWAY_TIMEOUT, "the upstream took too long\n"),
        }
    }
}

fn pass_back(mut answer: Response<hyper::body::Incoming>, client_side: Option<OnUpgrade>) -> Response<Body> {
    let granted = (answer.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| upgrade(answer.headers())).flatten();
    let upstream_side = granted.is_some().then(|| hyper::upgrade::on(&mut answer));
    end_hop(answer.headers_mut());
    if let Some(protocol) = granted {
        set_upgrade(answer.headers_mut(), protocol);
    }
    if let (Some(client_side), Some(upstream_side)) = (client_side, upstream_side) {
        tokio::spawn(async move {
            if let Err(error) = tunnel(client_side, upstream_side).await {
                tracing::debug!(%error, "upgraded connection");
            }
        });
    }
    answer.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// Copies both ways until both ends have said all.
async fn tunnel(client_side: OnUpgrade, upstream_side: OnUpgrade) -> Result<(), BoxError> {
    let (client, upstream) = tokio::try_join!(client_side, upstream_side)?;
    copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await?;
    Ok(())
}
