//! The log: text or JSON, one event a line, written by a thread of its own, so that no request waits for whoever reads it.
//!
//! Besides what happens to the node there is a line for each request (target `waf::access`) and a record of each decision that
//! is not to let it through (target `waf::decision`).

use std::time::Duration;

use hotslot::escape_untrusted;
use hyper::StatusCode;
use serde::Deserialize;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::guard::Judgement;
use crate::json::millis;
use crate::listen::Peer;

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// What of it there is.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: Format,
    /// Whether there is a line for each request.
    pub access: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: Format::Text, access: true }
    }
}

/// Lines that wait to be written. If there are more, some are lost: better than that requests wait.
const WAITING: usize = 64_000;

/// Begins to log. What still waits to be written is, when the result is dropped.
pub fn start(log: &Log) -> WorkerGuard {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING).lossy(true).finish(std::io::stderr());
    let filter = EnvFilter::try_from_env("WAF_LOG").unwrap_or_else(|_| "info".into());
    let filter = match log.access {
        true => filter,
        false => filter.add_directive("waf::access=off".parse().expect("a directive")),
    };
    // A log is read by programs. Another crate of the build may ask for a subscriber with colours.
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).with_env_filter(filter);
    match log.format {
        Format::Text => subscriber.init(),
        Format::Json => subscriber.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
    guard
}

/// What is said of a request when its answer begins.
#[derive(Default)]
pub struct Line {
    pub client: Option<std::net::IpAddr>,
    pub method: String,
    pub host: String,
    pub path: String,
    pub judgement: Option<Judgement>,
    /// What the rules took.
    pub rules: Duration,
    pub upstream: Option<String>,
    /// From when the request was sent to the upstream to its answer.
    pub answered_in: Duration,
}

/// The most characters of what a client sent in one value.
const LONGEST: usize = 512;

/// What a client sent, fit to be written.
fn said(text: &str) -> String {
    let short = text.char_indices().nth(LONGEST).map_or(text, |(at, _)| &text[..at]);
    escape_untrusted(short).into_owned()
}

impl Line {
    pub fn write(&self, peer: &Peer, status: StatusCode, took: Duration, id: &str) {
        let judgement = self.judgement.as_ref();
        tracing::info!(
            target: "waf::access",
            request = id,
            client = %self.client.unwrap_or_else(|| peer.address.ip().to_canonical()),
            method = said(&self.method),
            host = said(&self.host),
            path = said(&self.path),
            status = status.as_u16(),
            verdict = judgement.map_or("none", |judgement| judgement.verdict.map_or("failed", |verdict| verdict.name())),
            enforced = judgement.map(|judgement| judgement.enforced),
            module = judgement.and_then(|judgement| judgement.module.as_deref()),
            rule = judgement.and_then(|judgement| judgement.rule.as_deref()),
            version = judgement.and_then(|judgement| judgement.version.as_deref()),
            trial = judgement.and_then(|judgement| judgement.tried.then_some(true)),
            upstream = self.upstream.as_deref(),
            tls = peer.tls,
            rules_ms = millis(self.rules),
            upstream_ms = self.upstream.as_ref().map(|_| millis(self.answered_in)),
            total_ms = millis(took),
        );
    }
}

#[cfg(test)]
#[test]
fn what_a_client_sent_is_cut_before_it_is_escaped() {
    assert_eq!(said("/short"), "/short");
    assert_eq!(said(&"é".repeat(600)), "é".repeat(LONGEST));
    let escaped = said(&"\u{1b}".repeat(1_000_000));
    assert_eq!(escaped, escape_untrusted(&"\u{1b}".repeat(LONGEST)).into_owned());
}
