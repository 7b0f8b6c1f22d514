//! HTTP as the commands need it: one request, one answer, whatever its status. Redirections are followed, without what says who
//! asks, and from TLS to TLS only.

use std::path::Path;
use std::time::Duration;

use hotslot::escape_untrusted;
use ureq::http::{HeaderMap, Request, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::Failure;
use crate::files::{read, shown};

/// How long a place may take to be reached.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may take to begin its answer. A rollout is waited for by whoever asked for it.
const ANSWER: Duration = Duration::from_secs(3700);

pub(crate) struct Http(ureq::Agent);

/// What came back, whatever its status.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Returns a header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the refusal that this answer is, of whatever was asked for.
    pub(crate) fn refusal(&self, what: &str) -> Failure {
        let body: String = String::from_utf8_lossy(&self.body).chars().take(500).collect();
        Failure::Refused(format!("{what}: {}: {}", self.status, escape_untrusted(body.trim())))
    }
}

impl Http {
    /// Trusts the certificates of the web, or those in the file; speaks TLS to all, unless it may be `plain`.
    pub(crate) fn new(ca: Option<&Path>, plain: bool) -> Result<Self, Failure> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = ca {
            let bytes = read(path)?;
            let found = parse_pem(&bytes).filter_map(Result::ok);
            let found: Vec<Certificate<'static>> = found
                .filter_map(|item| match item {
                    PemItem::Certificate(certificate) => Some(certificate),
                    _ => None,
                })
                .collect();
            if found.is_empty() {
                return Err(Failure::Misuse(format!("{}: no certificate in PEM", shown(path))));
            }
            tls = tls.root_certs(RootCerts::new_with_certs(&found));
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .https_only(!plain)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .tls_config(tls.build())
            .build();
        Ok(Self(config.into()))
    }

    /// Sends a request, and reads an answer of so many bytes at most.
    pub(crate) fn send(&self, request: Request<Vec<u8>>, most: u64) -> Result<Answer, Failure> {
        // Without what may be secret in it.
        let to = request.uri().clone();
        let to = format!("{} {}", request.method(), to.path());
        let failed = |error: ureq::Error| Failure::Refused(format!("{to}: {}", escape_untrusted(&error.to_string())));
        let mut answer = if request.body().is_empty() && !["POST", "PUT"].contains(&request.method().as_str()) {
            let (parts, _) = request.into_parts();
            self.0.run(Request::from_parts(parts, ())).map_err(failed)?
        } else {
            self.0.run(request).map_err(failed)?
        };
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.body_mut().with_config().limit(most).read_to_vec().map_err(failed)?;
        Ok(Answer { status, headers, body })
    }
}

/// Begins a request.
pub(crate) fn request(method: &str, url: &str) -> ureq::http::request::Builder {
    Request::builder().method(method).uri(url)
}

/// Ends one.
pub(crate) fn with(builder: ureq::http::request::Builder, body: Vec<u8>) -> Result<Request<Vec<u8>>, Failure> {
    builder.body(body).map_err(|error| Failure::Misuse(error.to_string()))
}
