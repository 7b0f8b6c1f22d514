//! Where requests go: an origin, and the connections to it.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hotslot::BoxError;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::HOST;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Request, Response, Uri, Version};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tower::ServiceExt;

/// An origin server: `http://host` or `https://host` for HTTP/1.1, `h2c://host` or `h2://host` for HTTP/2; the second one of
/// each behind TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    scheme: Scheme,
    authority: Authority,
    http2: bool,
}

impl Upstream {
    /// Returns its host, and its port if it has one.
    pub fn authority(&self) -> String {
        self.authority.to_string()
    }

    /// The address of a request to it, for this host.
    fn uri(&self, host: Authority, target: Option<&PathAndQuery>) -> Uri {
        let target = target.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let parts = Uri::builder().scheme(self.scheme.clone()).authority(host);
        parts.path_and_query(target).build().expect("a scheme, an authority and a path are an address")
    }
}

/// Connections to an upstream.
pub struct Connections<B> {
    upstream: Upstream,
    pool: Pool<B>,
}

enum Pool<B> {
    Http1(Box<Client<Connector, B>>),
    Http2(Box<Http2Pool<B>>),
}

/// Over HTTP/2 the host of a request takes the place of the address, by which the usual pool tells connections apart: that would be
/// one for each host that clients think up.
struct Http2Pool<B> {
    connector: Connector,
    connect_timeout: Duration,
    connections: Vec<Place<B>>,
    next: AtomicUsize,
    made: AtomicUsize,
}

type Place<B> = Mutex<Option<Kept<B>>>;

/// A connection that is kept, and a number that no other one has.
type Kept<B> = (usize, SendRequest<B>);

/// How much of an answer may be under way, and of all answers on a connection: one that nobody reads must not fill up what is
/// granted to the connection, or no other one goes on.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// How many connections with HTTP/2 are kept.
const CONNECTIONS: usize = 4;

/// How often a request is sent that the server has not looked at: servers end all connections that are equally old at once.
const ATTEMPTS: usize = 3;

/// A body that can be sent again if nobody has looked at it.
pub trait Repeat: Sized {
    /// Returns the same body once more, if all of it is there. Nothing of it has been taken yet.
    fn repeat(&mut self) -> Option<Self>;
}

impl Repeat for Empty<Bytes> {
    fn repeat(&mut self) -> Option<Empty<Bytes>> {
        Some(Empty::new())
    }
}

impl<B> Connections<B>
where
    B: hyper::body::Body + Repeat + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    pub fn new(upstream: Upstream, connect_timeout: Duration) -> Result<Connections<B>, BoxError> {
        let pool = if upstream.http2 {
            let connections = (0..CONNECTIONS).map(|_| Mutex::default()).collect();
            let connector = connector(connect_timeout, true)?;
            let (next, made) = (AtomicUsize::new(0), AtomicUsize::new(0));
            Pool::Http2(Box::new(Http2Pool { connector, connect_timeout, connections, next, made }))
        } else {
            Pool::Http1(Box::new(
                Client::builder(TokioExecutor::new())
                    .pool_timer(TokioTimer::new())
                    // Shorter than what servers usually grant, so that a request rarely meets a connection that is closing.
                    .pool_idle_timeout(Duration::from_secs(15))
                    .build(connector(connect_timeout, false)?),
            ))
        };
        Ok(Connections { upstream, pool })
    }

    /// Sends a request, whose target is a path, and whose host is in its header.
    pub async fn request(&self, mut request: Request<B>) -> Result<Response<Incoming>, BoxError> {
        let own = self.upstream.authority.clone();
        match &self.pool {
            Pool::Http1(client) => {
                *request.uri_mut() = self.upstream.uri(own, request.uri().path_and_query());
                *request.version_mut() = Version::HTTP_11;
                Ok(client.request(request).await?)
            }
            Pool::Http2(pool) => {
                let host =
                    request.headers_mut().remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
                let host = host.unwrap_or_else(|| own.clone());
                *request.uri_mut() = self.upstream.uri(host, request.uri().path_and_query());
                *request.version_mut() = Version::HTTP_2;
                let (own, place) = (self.upstream.uri(own, None), pool.place());
                for _ in 1..ATTEMPTS {
                    let Some(again) = repeat(&mut request) else { break };
                    match pool.send(place, &own, request).await? {
                        Err(error) if is_unread(&error) => request = again,
                        answer => return Ok(answer?),
                    }
                }
                Ok(pool.send(place, &own, request).await??)
            }
        }
    }
}

impl<B> Http2Pool<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// The place of the connection whose turn it is.
    fn place(&self) -> &Place<B> {
        &self.connections[self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len()]
    }

    /// Sends a request to `origin` on the connection of a place if it is open, or else on a new one, which takes its place. The outer
    /// error says why there is none.
    async fn send(
        &self,
        place: &Place<B>,
        origin: &Uri,
        request: Request<B>,
    ) -> Result<Result<Response<Incoming>, hyper::Error>, BoxError> {
        let (number, mut sender) = {
            let mut place = place.lock().await;
            let open = match place.as_mut() {
                Some((_, sender)) => sender.ready().await.is_ok() && !sender.is_closed(),
                None => false,
            };
            match place.as_ref().filter(|_| open) {
                Some(kept) => kept.clone(),
                None => {
                    let new = timeout(self.connect_timeout, connect(&self.connector, origin.clone())).await;
                    let number = self.made.fetch_add(1, Ordering::Relaxed);
                    place.insert((number, new.map_err(|_| "connecting took too long")??)).clone()
                }
            }
        };
        let answer = sender.send_request(request).await;
        if answer.as_ref().is_err_and(|error| is_unread(error) || is_unwelcome(error)) {
            // What is under way on it ends on it; the next request finds another one.
            place.lock().await.take_if(|(kept, _)| *kept == number);
        }
        Ok(answer)
    }
}

fn repeat<B: Repeat>(request: &mut Request<B>) -> Option<Request<B>> {
    let body = request.body_mut().repeat()?;
    let mut again = Request::new(body);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Whether a server has not looked at a request, so that it may be sent again whatever it asks for (RFC 9113, 6.8 and 8.7): the
/// connection ended before it was sent, or it came after those that the server still answers on it, or was refused as a stream.
fn is_unread(error: &hyper::Error) -> bool {
    let Some(reason) = of_http2(error) else { return error.is_canceled() };
    // Streams up to the last one that the server names are given up with another error, if at all.
    let is_over = reason.is_go_away() && reason.reason() == Some(h2::Reason::NO_ERROR);
    let is_refused = reason.is_reset() && reason.reason() == Some(h2::Reason::REFUSED_STREAM);
    reason.is_remote() && (is_over || is_refused)
}

/// Whether a server wants no more requests on a connection.
fn is_unwelcome(error: &hyper::Error) -> bool {
    of_http2(error).is_some_and(|error| error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

fn of_http2(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|error| error.downcast_ref::<h2::Error>())
}

/// A connection that speaks HTTP/2.
async fn connect<B>(connector: &Connector, uri: Uri) -> Result<SendRequest<B>, BoxError>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let stream = connector.clone().oneshot(uri).await?;
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(15));
    http.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let (sender, connection) = http.handshake(stream).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the upstream");
        }
    });
    Ok(sender)
}

/// Connects to upstreams and stores, with TLS where the address says so.
pub type Connector = HttpsConnector<HttpConnector>;

/// A connector that trusts what the system trusts, for one version of HTTP.
pub fn connector(connect_timeout: Duration, http2: bool) -> Result<Connector, BoxError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect_timeout));
    let provider = rustls::crypto::ring::default_provider();
    let https = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?.https_or_http();
    Ok(if http2 { https.enable_http2().wrap_connector(http) } else { https.enable_http1().wrap_connector(http) })
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Upstream, String> {
        let explain =
            |problem: &str| format!("{problem}: an upstream is http://HOST, https://HOST, h2c://HOST or h2://HOST");
        let uri: Uri = text.parse().map_err(|error| explain(&format!("{text:?} is no address ({error})")))?;
        let (scheme, http2) = match uri.scheme_str() {
            Some("http") => (Scheme::HTTP, false),
            Some("https") => (Scheme::HTTPS, false),
            Some("h2c") => (Scheme::HTTP, true),
            Some("h2") => (Scheme::HTTPS, true),
            Some(other) => return Err(explain(&format!("{other} is not spoken"))),
            None => return Err(explain(&format!("{text:?} has no scheme"))),
        };
        let authority = uri.authority().cloned().ok_or_else(|| explain("the host is missing"))?;
        if uri.path_and_query().is_some_and(|target| target.as_str() != "/") {
            return Err(explain("a path cannot be set"));
        }
        Ok(Upstream { scheme, authority, http2 })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.http2, self.scheme == Scheme::HTTPS) {
            (true, true) => "h2",
            (true, false) => "h2c",
            (false, _) => self.scheme.as_str(),
        };
        write!(f, "{scheme}://{}", self.authority)
    }
}
