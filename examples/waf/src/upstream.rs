//! Where requests go: an origin, and the connections to it.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hotslot::BoxError;
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
    /// Over HTTP/2 the host of a request takes the place of the address, by which the usual pool tells connections apart: that
    /// would be one for each host that clients think up.
    Http2 {
        connector: Connector,
        connect_timeout: Duration,
        connections: Vec<Mutex<Option<Kept<B>>>>,
        next: AtomicUsize,
    },
}

/// A connection that is kept, and a number that no other one has.
type Kept<B> = (usize, SendRequest<B>);

/// How much of an answer may be under way, and of all answers on a connection: one that nobody reads must not fill up what is
/// granted to the connection, or no other one goes on.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// How many connections with HTTP/2 are kept.
const CONNECTIONS: usize = 4;

impl<B> Connections<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    pub fn new(upstream: Upstream, connect_timeout: Duration) -> Result<Connections<B>, BoxError> {
        let pool = if upstream.http2 {
            let connections = (0..CONNECTIONS).map(|_| Mutex::default()).collect();
            let connector = connector(connect_timeout, true)?;
            Pool::Http2 { connector, connect_timeout, connections, next: AtomicUsize::new(0) }
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
            Pool::Http2 { connector, connect_timeout, connections, next } => {
                let host =
                    request.headers_mut().remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
                let host = host.unwrap_or_else(|| own.clone());
                *request.uri_mut() = self.upstream.uri(host, request.uri().path_and_query());
                *request.version_mut() = Version::HTTP_2;
                let number = next.fetch_add(1, Ordering::Relaxed);
                let place = &connections[number % connections.len()];
                let (number, mut sender) = {
                    let mut place = place.lock().await;
                    let open = match place.as_mut() {
                        Some((_, sender)) => sender.ready().await.is_ok() && !sender.is_closed(),
                        None => false,
                    };
                    match place.as_ref().filter(|_| open) {
                        Some(kept) => kept.clone(),
                        None => {
                            let new = connect(connector, self.upstream.uri(own, None));
                            let new =
                                timeout(*connect_timeout, new).await.map_err(|_| "connecting took too long")??;
                            place.insert((number, new)).clone()
                        }
                    }
                };
                let answer = sender.send_request(request).await;
                if answer.as_ref().is_err_and(is_unwelcome) {
                    // What is under way on it ends on it; the next request finds another one.
                    place.lock().await.take_if(|(kept, _)| *kept == number);
                }
                Ok(answer?)
            }
        }
    }
}

/// Whether a server wants no more requests on a connection.
fn is_unwelcome(error: &hyper::Error) -> bool {
    let reason = error.source().and_then(|error| error.downcast_ref::<h2::Error>()).and_then(h2::Error::reason);
    matches!(reason, Some(h2::Reason::ENHANCE_YOUR_CALM | h2::Reason::REFUSED_STREAM))
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
