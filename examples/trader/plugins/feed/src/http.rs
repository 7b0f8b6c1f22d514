//! An HTTP client for exchanges, with limits on time and size, that explains error responses.

use std::fmt;
use std::time::Duration;

use hotslot_plugin::Error;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

use crate::Json;

/// The time allowed for a response, connecting included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of a response in bytes.
const LONGEST: usize = 1 << 20;

/// Binance's bans last from 2 minutes to 3 days. A longer `Retry-After` is capped.
const SHORTEST_BAN: Duration = Duration::from_secs(2 * 60);
const LONGEST_BAN: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// A client that reuses connections. It needs a tokio runtime, and its connections end with the runtime.
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// Returns a client without connections.
impl Default for Http {
    fn default() -> Http {
        let connector = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        Http { client: Client::builder(TokioExecutor::new()).build(connector) }
    }
}

impl Http {
    /// Fetches the JSON at `url`.
    ///
    /// # Errors
    /// There was no response within 5 seconds, or it has an error status, is longer than 1 MiB, or is not JSON.
    pub async fn get(&self, url: &str) -> Result<Json, Failure> {
        let answer = tokio::time::timeout(TIMEOUT, self.fetch(url))
            .await
            .map_err(|_| format!("{url}: no answer within {TIMEOUT:?}"))?
            .map_err(|error| format!("{url}: {}", with_sources(&*error)))?;
        let json = serde_json::from_slice(answer.body());
        if answer.status().is_success() {
            json.map_err(|error| format!("{url}: {error}").into())
        } else {
            Err(refusal(url, &answer, json.ok()))
        }
    }

    async fn fetch(&self, url: &str) -> Result<Response<Bytes>, Error> {
        // Some exchanges refuse clients without a user agent.
        let request = Request::get(url).header(USER_AGENT, concat!("hotslot-trader/", env!("CARGO_PKG_VERSION")));
        let (head, body) = self.client.request(request.body(Empty::new())?).await?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// Why there is no price, and how long to wait before asking again.
#[derive(Debug)]
pub struct Failure {
    text: String,
    /// The minimum time to wait before the next request.
    pub retry_after: Option<Duration>,
}

impl<T: Into<String>> From<T> for Failure {
    fn from(text: T) -> Failure {
        Failure { text: text.into(), retry_after: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Explains an error response.
fn refusal(url: &str, answer: &Response<Bytes>, json: Option<Json>) -> Failure {
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let asked = seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_BAN));
    let (meaning, retry_after) = match answer.status().as_u16() {
        418 => (
            "the exchange has temporarily banned this address, because requests continued after HTTP 429",
            asked.or(Some(SHORTEST_BAN)),
        ),
        429 => ("too many requests; continuing would lead to a ban", asked),
        451 => ("the exchange does not serve this location, for legal reasons", asked),
        _ => (message_of(&json).unwrap_or("the exchange gives no reason"), asked),
    };
    Failure { text: format!("{url}: HTTP {}: {meaning}", answer.status()), retry_after }
}

/// Returns the exchange's own message: Binance's field is `msg`, Coinbase's `message`.
fn message_of(json: &Option<Json>) -> Option<&str> {
    let json = json.as_ref()?;
    json.get("msg").or(json.get("message"))?.as_str()
}

/// Formats the error with its sources: "connection refused" is never in the first.
fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
