//! Sends a request on and its answer back, body by body as they come, and connects the two ends of a websocket.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotslot::BoxError;
use http_body_util::BodyExt;
use hyper::header::HeaderValue;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::{sleep_until, timeout};

use super::headers::{end_hop, set_upgrade, upgrade};
use super::{given_up, plain, refuse};
use crate::body::{Body, Held};
use crate::serve::Place;
use crate::sites::Origin;

/// The upstream's answer, or one that says why there is none. `refused` tells that the rules refused the rest of the body.
pub async fn send(
    origin: &Origin,
    response_timeout: Duration,
    mut request: Request<Held>,
    websocket: bool,
    refused: &AtomicBool,
    id: &HeaderValue,
) -> Response<Body> {
    let place = request.extensions_mut().remove::<Place>();
    let client_side = websocket.then(|| hyper::upgrade::on(&mut request));
    let progress = request.body().progress();
    let answer = origin.request(request);
    tokio::pin!(answer);
    loop {
        // An upload may take as long as it goes on.
        let latest = progress.latest();
        tokio::select! {
            answer = &mut answer => match answer {
                Ok(answer) => return pass_back(answer, client_side, place),
                Err(_) if refused.load(Ordering::Acquire) => return refuse(id),
                Err(error) => {
                    if let Some(cut) = progress.cut() {
                        return given_up(cut);
                    }
                    tracing::warn!(request = ?id, upstream = origin.name(), error = &*error as &dyn std::error::Error, "upstream");
                    return plain(StatusCode::BAD_GATEWAY, "the upstream cannot be reached\n");
                }
            },
            () = sleep_until((latest + response_timeout).into()) => if progress.latest() == latest {
                origin.failed("it took too long to answer");
                return plain(StatusCode::GATEWAY_TIMEOUT, "the upstream took too long\n");
            },
        }
    }
}

fn pass_back(
    mut answer: Response<hyper::body::Incoming>,
    client_side: Option<OnUpgrade>,
    place: Option<Place>,
) -> Response<Body> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let granted = upgrade(answer.headers()).is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let Some(client_side) = client_side.filter(|_| granted) else {
            return plain(StatusCode::BAD_GATEWAY, "the upstream changed the protocol\n");
        };
        let upstream_side = hyper::upgrade::on(&mut answer);
        end_hop(answer.headers_mut());
        set_upgrade(answer.headers_mut(), HeaderValue::from_static("websocket"));
        tokio::spawn(async move {
            // The connection counts for as long as it is used.
            let _place = place;
            if let Err(error) = tunnel(client_side, upstream_side).await {
                tracing::debug!(%error, "upgraded connection");
            }
        });
    } else {
        end_hop(answer.headers_mut());
    }
    answer.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// How long the client may take to read the answer that grants the change.
const CHANGE: Duration = Duration::from_secs(30);

/// Copies both ways until both ends have said all.
async fn tunnel(client_side: OnUpgrade, upstream_side: OnUpgrade) -> Result<(), BoxError> {
    let (client, upstream) = timeout(CHANGE, async { tokio::try_join!(client_side, upstream_side) }).await??;
    copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await?;
    Ok(())
}
