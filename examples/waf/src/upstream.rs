//! Where requests go: an origin, and the connections to it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hotslot::BoxError;
use hyper::Uri;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// An origin server: `http://host`, `https://host`, or `h2c://host` for HTTP/2 without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    scheme: Scheme,
    authority: Authority,
    http2: bool,
}

impl Upstream {
    /// The address of a request to it.
    pub fn uri(&self, target: Option<&PathAndQuery>) -> Uri {
        let target = target.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let parts = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        parts.path_and_query(target).build().expect("a scheme, an authority and a path are an address")
    }

    /// A pool of connections to it.
    pub fn client<B>(&self, connect_timeout: Duration) -> Result<Client<Connector, B>, BoxError>
    where
        B: hyper::body::Body + Send,
        B::Data: Send,
    {
        Ok(Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            // Shorter than what servers usually grant, so that a request rarely meets a connection that is closing.
            .pool_idle_timeout(Duration::from_secs(15))
            .http2_only(self.http2)
            .build(connector(connect_timeout)?))
    }
}

/// Connects to upstreams and stores, with TLS where the address says so.
pub type Connector = HttpsConnector<HttpConnector>;

/// A connector that trusts what the system trusts.
pub fn connector(connect_timeout: Duration) -> Result<Connector, BoxError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect_timeout));
    let provider = rustls::crypto::ring::default_provider();
    Ok(HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(provider)?
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(http))
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Upstream, String> {
        let explain = |problem: &str| format!("{problem}: an upstream is http://HOST, https://HOST or h2c://HOST");
        let uri: Uri = text.parse().map_err(|error| explain(&format!("{text:?} is no address ({error})")))?;
        let (scheme, http2) = match uri.scheme_str() {
            Some("http") => (Scheme::HTTP, false),
            Some("https") => (Scheme::HTTPS, false),
            Some("h2c") => (Scheme::HTTP, true),
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
        let scheme = if self.http2 { "h2c" } else { self.scheme.as_str() };
        write!(f, "{scheme}://{}", self.authority)
    }
}
