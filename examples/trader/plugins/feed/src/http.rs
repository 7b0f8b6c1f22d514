//! An HTTP client for exchanges: limited in time and size, and able to say what a refusal means.

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

/// An answer that takes longer than this, connecting included, is as good as none.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer that is read, in bytes.
const LONGEST: usize = 1 << 20;

/// Binance bans for 2 minutes up to 3 days. Nobody waits longer, whatever an exchange asks for.
const SHORTEST_BAN: Duration = Duration::from_secs(2 * 60);
const LONGEST_BAN: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// A client that keeps its connections. It works inside a tokio runtime, and its connections end with that.
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// A client that has no connection yet.
impl Default for Http {
    fn default() -> Http {
        let connector = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        Http { client: Client::builder(TokioExecutor::new()).build(connector) }
    }
}

impl Http {
    /// The JSON at `url`.
    ///
    /// # Errors
    /// There was no answer within 5 seconds, or one that is a refusal, longer than 1 MiB, or not JSON.
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
        // Some exchanges refuse a client that does not say who it is.
        let request = Request::get(url).header(USER_AGENT, concat!("hotslot-trader/", env!("CARGO_PKG_VERSION")));
        let (head, body) = self.client.request(request.body(Empty::new())?).await?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// Why there is no price, and how long the exchange wants to be left alone.
#[derive(Debug)]
pub struct Failure {
    text: String,
    /// How long to wait at least before the next request.
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

/// Explains an answer that is not a success.
fn refusal(url: &str, answer: &Response<Bytes>, json: Option<Json>) -> Failure {
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let asked = seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_BAN));
    let (meaning, retry_after) = match answer.status().as_u16() {
        418 => (
            "the exchange has banned this address for a while, because requests went on after HTTP 429",
            asked.or(Some(SHORTEST_BAN)),
        ),
        429 => ("too many requests, and going on would end in a ban", asked),
        451 => ("the exchange does not serve the place this request came from, for legal reasons", asked),
        _ => (words_of(&json).unwrap_or("the exchange gives no reason"), asked),
    };
    Failure { text: format!("{url}: HTTP {}: {meaning}", answer.status()), retry_after }
}

/// The exchange's own words: Binance calls them `msg`, Coinbase `message`.
fn words_of(json: &Option<Json>) -> Option<&str> {
    let json = json.as_ref()?;
    json.get("msg").or(json.get("message"))?.as_str()
}

/// The error's text, followed by those of its sources: "connection refused" is never in the first.
fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
