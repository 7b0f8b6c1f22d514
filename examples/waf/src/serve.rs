//! A listener: accepts connections, speaks HTTP/1.1 or HTTP/2 on each, and ends in good order.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tower::ServiceExt;

use crate::activity::{Activity, hand_over};
use crate::body::Body;
use crate::impatient::Impatient;
use crate::listen::{Accepted, Listener, Peer};

/// What a listener grants its clients.
#[derive(Clone, Copy)]
pub struct Terms {
    pub max_connections: usize,
    /// By when a connection has to say something, and a request's header has to be there.
    pub header_timeout: Duration,
    /// How long a client may take to read what was sent to it.
    pub send_timeout: Duration,
    /// How long requests that are under way may take once the listener is told to stop.
    pub shutdown_timeout: Duration,
}

/// A connection's place among those that a listener has room for, to be kept by whatever outlives it.
#[derive(Clone)]
pub struct Place(#[allow(dead_code, reason = "held")] Arc<(OwnedSemaphorePermit, mpsc::Sender<()>, Counted)>);

/// A connection that is open.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Counted {
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Answers requests with `answer` until `stop` is raised; then finishes those that are under way. `open_now` counts connections.
pub async fn serve<A, F>(listener: Listener, terms: Terms, open_now: Gauge, mut stop: watch::Receiver<bool>, answer: A)
where
    A: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(terms.header_timeout).max_buf_size(64 << 10);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(terms.header_timeout).max_concurrent_streams(256);
    let http = Arc::new(http);
    // Closed when the last connection has ended.
    let (open, mut closed) = mpsc::channel::<()>(1);
    let room = Arc::new(Semaphore::new(terms.max_connections));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer, place) = accepted;
        let (http, open, answer, mut stop) = (Arc::clone(&http), open.clone(), answer.clone(), stop.clone());
        let open_now = open_now.clone();
        tokio::spawn(async move {
            // A websocket keeps it beyond the connection: it gets its time when the listener stops.
            let place = Place(Arc::new((place, open, Counted::new(open_now))));
            let activity = Arc::new(Activity::default());
            let requests = Arc::clone(&activity);
            let spoken = Arc::new(Notify::new());
            let first = Arc::clone(&spoken);
            let (held, from) = (place.clone(), peer.clone());
            let _place = place;
            let service = service_fn(move |mut request: Request<Incoming>| {
                first.notify_one();
                request.extensions_mut().insert(held.clone());
                let under_way = (request.version() == Version::HTTP_2).then(|| Activity::begin(&requests));
                let answer = answer(from.clone(), request);
                async move {
                    let answer = answer.await;
                    Ok::<_, Infallible>(match under_way {
                        Some(under_way) => answer.map(|body| hand_over(body, terms.send_timeout, under_way)),
                        None => answer,
                    })
                }
            });
            let opened = timeout(terms.header_timeout, stream.open()).await;
            let stream = match opened {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(peer = &*peer.name, %error, "handshake"),
                Err(_) => return,
            };
            let stream = TokioIo::new(Impatient::new(stream, terms.send_timeout));
            let connection = http.serve_connection_with_upgrades(stream, service).into_owned();
            tokio::pin!(connection);
            // Until the first request is there, whatever is spoken until then, nobody measures the time but us: what may become
            // the preface of HTTP/2 is waited for without an end.
            let late = async {
                tokio::select! {
                    late = timeout(terms.header_timeout, spoken.notified()) => late.is_err(),
                    _ = stop.wait_for(|stop| *stop) => true,
                }
            };
            let mut ended = tokio::select! {
                ended = &mut connection => Some(ended),
                late = late => match late {
                    true => return,
                    false => None,
                },
            };
            if ended.is_none() {
                ended = tokio::select! {
                    ended = &mut connection => Some(ended),
                    // With HTTP/1.1 a connection that waits for a header is measured by hyper.
                    () = activity.rests_for(terms.header_timeout) => None,
                    _ = stop.wait_for(|stop| *stop) => None,
                };
            }
            let ended = match ended {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = &mut connection => ended,
                        // Its streams have been given up, and the client does not even take the end of them.
                        () = activity.rests_for(terms.send_timeout) => return,
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(peer = &*peer.name, %error, "connection");
            }
        });
    }
    drop((listener, open));
    if timeout(terms.shutdown_timeout, closed.recv()).await.is_err() {
        tracing::warn!("requests were still under way after the shutdown timeout");
    }
}

/// The next connection, once there is room for it.
async fn accept(listener: &Listener, room: &Arc<Semaphore>) -> (Accepted, Peer, OwnedSemaphorePermit) {
    let place = Arc::clone(room).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                // Out of descriptors, most likely: connections that end will free some.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Has a router answer a request.
pub async fn through(router: Router, request: Request<Incoming>) -> Response<Body> {
    let answer = router.oneshot(request.map(axum::body::Body::new)).await.unwrap_or_else(|never| match never {});
    answer.map(|body| body.map_err(Into::into).boxed_unsync())
}
