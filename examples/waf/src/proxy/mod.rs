//! The data plane: every request is shown to the rules, and those that may go on are streamed to the upstream.

mod arrival;
mod challenge;
mod forward;
mod headers;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use hotslot::BoxError;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use parking_lot::RwLock;
use tokio::task::block_in_place;
use tokio::time::timeout;
use waf_interface::Verdict;

use self::arrival::arrive;
use self::challenge::Challenge;
use self::forward::send;
use self::headers::X_REQUEST_ID;
use crate::body::{Body, Cut, Held, Judge, So, Unreadable, full};
use crate::config;
use crate::config::{Config, Uninspected};
use crate::guard::{Action, Guard, Judgement, Terms};
use crate::listen::Peer;
use crate::log::Line;
use crate::policy::{Policy, Subject};
use crate::rate::Limits;
use crate::readable::{Unread, check_beginning, readable};
use crate::request_id::RequestIds;
use crate::rules::Inspected;
use crate::sites::{SiteStatus, Sites};
use crate::trial::{Key, Sticky};
use crate::upstream::Upstream;

/// From this size on, what is inspected may keep the rules busy for longer than a worker of the runtime should be away.
const LARGE: usize = 16 << 10;

pub struct Proxy {
    guard: Arc<Guard>,
    challenge: Challenge,
    ids: RequestIds,
    /// Stands behind all hosts if the configuration names no upstream.
    demo: Option<Upstream>,
    live: RwLock<Arc<Live>>,
}

/// What the configuration says, which can change between two requests.
struct Live {
    terms: config::Proxy,
    uninspected: Uninspected,
    limits: Limits,
    sites: Sites,
    sticky: Sticky,
}

/// Another configuration, ready to hold.
pub struct Prepared(Live);

impl Proxy {
    /// A proxy for a configuration. Must be called within the runtime.
    pub fn new(guard: Arc<Guard>, config: &Config, demo: Option<Upstream>) -> Result<Proxy, BoxError> {
        let live = Live::new(config, config.policy()?, demo.as_ref(), None)?;
        let live = RwLock::new(Arc::new(live));
        Ok(Proxy { guard, challenge: Challenge::new(), ids: RequestIds::new(), demo, live })
    }

    /// Makes everything that another configuration and its policy need, and changes nothing. Must be called within the runtime.
    pub fn prepare(&self, config: &Config, policy: Policy) -> Result<Prepared, BoxError> {
        let before = Arc::clone(&self.live.read());
        Live::new(config, policy, self.demo.as_ref(), Some(&before)).map(Prepared)
    }

    /// Takes up what was prepared, from the next request on.
    pub fn take_up(&self, Prepared(live): Prepared) {
        *self.live.write() = Arc::new(live);
    }

    /// Forgets clients that have not been here for some time.
    pub fn tidy(&self) {
        let live = Arc::clone(&self.live.read());
        live.limits.tidy();
    }

    /// Says how the upstreams are.
    pub fn upstreams(&self) -> Vec<SiteStatus> {
        self.live.read().sites.status()
    }

    /// Answers one request.
    pub async fn answer(&self, peer: Peer, request: Request<Incoming>) -> Response<Body> {
        let began = Instant::now();
        let id = self.ids.next();
        let mut line =
            Line { method: request.method().to_string(), path: request.uri().path().to_owned(), ..Line::default() };
        let mut answer = self.inspect_and_forward(&peer, request, &id, &mut line).await;
        let took = began.elapsed();
        if let Some(GivenUp(kind)) = answer.extensions_mut().remove() {
            self.guard.metrics().given_up(kind);
        }
        self.guard.answered(answer.status(), took);
        line.write(&peer, answer.status(), took, id.to_str().unwrap_or_default());
        answer.headers_mut().insert(X_REQUEST_ID, id);
        answer
    }

    async fn inspect_and_forward(
        &self,
        peer: &Peer,
        request: Request<Incoming>,
        id: &HeaderValue,
        line: &mut Line,
    ) -> Response<Body> {
        if request.method() == Method::CONNECT {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "this is no forward proxy\n");
        }
        let live = Arc::clone(&self.live.read());
        let terms = &live.terms;
        let (mut parts, body) = request.into_parts();
        let arrival = match arrive(&mut parts, peer, &terms.trusted_proxies, id) {
            Ok(arrival) => arrival,
            Err(problem) => return plain(StatusCode::BAD_REQUEST, &format!("{problem}\n")),
        };
        line.client = Some(arrival.client);
        line.host.clone_from(&arrival.host);
        let Some(site) = live.sites.of(&arrival.host) else {
            return plain(StatusCode::MISDIRECTED_REQUEST, "there is no such site here\n");
        };
        let subject = Subject {
            host: &arrival.host,
            path: parts.uri.path(),
            method: parts.method.as_str(),
            client: arrival.client,
        };
        if let Err(too_many) = live.limits.check(subject)
            && self.guard.limited(&too_many, site.policy.treatment(subject), id)
        {
            let mut answer = plain(StatusCode::TOO_MANY_REQUESTS, "there were too many requests: try again later\n");
            let seconds = too_many.wait.as_secs_f64().ceil().max(1.0) as u64;
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            return answer;
        }
        let cap = terms.inspect_body_bytes;
        let messages = has_messages(&parts.headers) && !body.is_end_stream();
        let streams = streams(&parts.headers);
        let mut body = if body.is_end_stream() || messages {
            Held::unread(body, terms.body_timeout.0)
        } else {
            let patience = terms.body_timeout.0;
            match timeout(patience, Held::read(body, cap, streams, patience)).await {
                Ok(Ok(held)) => held,
                Ok(Err(Unreadable::Cut(cut))) => return given_up(cut),
                Ok(Err(Unreadable::Broken(error))) => {
                    tracing::debug!(peer = &*peer.name, %error, "request body");
                    return plain(StatusCode::BAD_REQUEST, "the body of the request broke off\n");
                }
                Err(_) => return given_up(Cut::Slow),
            }
        };
        let look = Look {
            guard: Arc::clone(&self.guard),
            parts: parts.clone(),
            policy: Arc::clone(&site.policy),
            host: arrival.host.clone(),
            client: arrival.client,
            if_unread: self.guard.uninspected().unwrap_or(live.uninspected).into(),
            cap,
            id: id.clone(),
            key: live.sticky.of(&parts.headers, arrival.client),
            passed_challenge: self.challenge.is_passed(arrival.client, &parts.headers),
        };
        let passed_challenge = look.passed_challenge;
        let beginning = if messages { Bytes::new() } else { body.beginning() };
        let pauses = streams && beginning.len() <= cap && !body.is_whole();
        let so = match beginning.len() > cap {
            true => So::TooLong,
            false if pauses => So::Far,
            false => So::Whole,
        };
        let asked = Instant::now();
        let judgement = look.at(&beginning, so);
        line.rules = asked.elapsed();
        let action = judgement.action;
        line.judgement = Some(judgement);
        match action {
            Action::Pass => {}
            Action::Block => return refuse(id),
            Action::Challenge if passed_challenge => {}
            Action::Challenge => return self.challenge.page(arrival.client, &parts.headers),
            Action::Unavailable => {
                let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, "the rules gave no verdict: try again\n");
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return answer;
            }
        }
        let refused = Arc::new(AtomicBool::new(false));
        if messages {
            body.watch_messages(cap, look.messages(Arc::clone(&refused)));
        } else if pauses {
            body.watch(cap, look.judge(Arc::clone(&refused)));
        }
        let Some(origin) = site.choose() else {
            return plain(StatusCode::BAD_GATEWAY, "there is no upstream\n");
        };
        let request = Request::from_parts(parts, body);
        line.upstream = Some(origin.name().to_owned());
        let sent = Instant::now();
        let answer = send(&origin, terms.response_timeout.0, request, arrival.websocket, &refused, id).await;
        line.answered_in = sent.elapsed();
        self.guard.metrics().upstream_answered(origin.name(), line.answered_in);
        answer
    }
}

impl Live {
    fn new(config: &Config, policy: Policy, demo: Option<&Upstream>, before: Option<&Live>) -> Result<Live, BoxError> {
        let (no_sites, no_limits) = (Sites::default(), Limits::default());
        let (sites, limits) = before.map_or((&no_sites, &no_limits), |live| (&live.sites, &live.limits));
        Ok(Live {
            terms: config.proxy.clone(),
            uninspected: config.uninspected,
            limits: Limits::new(&config.rate_limits, limits),
            sites: Sites::new(config, policy, demo, sites)?,
            sticky: config.trial.sticky.clone(),
        })
    }
}

/// Whether a body may go on in pieces: what has come of it can be read before the rest is there. Who says how long a body is
/// sends it without waiting for anything.
fn streams(headers: &HeaderMap) -> bool {
    if headers.contains_key(CONTENT_LENGTH) || headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    let (kind, more) = (kinds.next(), kinds.next());
    let in_pieces = |kind: &HeaderValue| {
        let kind = kind.as_bytes().trim_ascii().to_ascii_lowercase();
        // A character set can be undone only in the whole.
        let known = [&b"text/plain"[..], b"application/x-ndjson", b"application/octet-stream"].contains(&&kind[..]);
        known || kind.starts_with(b"application/grpc") && !kind.windows(7).any(|window| window == b"charset")
    };
    more.is_none() && kind.is_none_or(in_pieces)
}

/// Whether a body is a sequence of messages to be answered one by one.
fn has_messages(headers: &HeaderMap) -> bool {
    let kind = media_type(headers);
    ["application/grpc", "application/grpc-web", "application/connect+proto"].contains(&kind.as_str())
        || ["application/grpc+", "application/grpc-web+"].iter().any(|start| kind.starts_with(start))
}

/// What the content type says without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> String {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    String::from_utf8_lossy(kind).to_ascii_lowercase()
}

/// A request whose body is looked at while it comes.
struct Look {
    guard: Arc<Guard>,
    parts: Parts,
    policy: Arc<Policy>,
    host: String,
    client: IpAddr,
    if_unread: Verdict,
    cap: usize,
    id: HeaderValue,
    /// What says which version judges it: the same one from its beginning to its end.
    key: Key,
    /// Whether its client has been through the challenge, so that one is no reason not to ask the next module.
    passed_challenge: bool,
}

impl Look {
    /// What is to happen, after this much of the body.
    fn at(&self, body: &Bytes, so: So) -> Judgement {
        let read = match so {
            So::TooLong => Err(Unread::TooLong),
            // The end may be in the middle of a character.
            So::Far => check_beginning(&self.parts.headers, body).map(|()| body.clone()),
            So::Whole => readable(&self.parts.headers, body.clone(), self.cap),
        };
        match read {
            Ok(body) => self.ask(&body, None),
            Err(unread) => self.ask(body.get(..self.cap).unwrap_or(body), Some(unread)),
        }
    }

    fn ask(&self, body: &[u8], unread: Option<Unread>) -> Judgement {
        let seen = Inspected {
            host: &self.host,
            method: &self.parts.method,
            target: &self.parts.uri,
            headers: &self.parts.headers,
            body,
            client: self.client,
            if_unread: self.if_unread,
            key: &self.key,
        };
        // The rules are called right here, on a worker of the runtime: a call takes some ten microseconds, less than
        // moving it to another thread and back, and its deadline bounds the worst one. Only where there is much to
        // inspect the runtime is told to move the worker's other tasks out of the way first.
        let headers: usize = seen.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let target = seen.target.path_and_query().map_or(0, |target| target.as_str().len());
        let terms = Terms { policy: &self.policy, id: &self.id, passed_challenge: self.passed_challenge };
        if target + headers + body.len() < LARGE {
            self.guard.inspect(&seen, unread, terms)
        } else {
            block_in_place(|| self.guard.inspect(&seen, unread, terms))
        }
    }

    /// The same request without what has been inspected: of its header and target only what says how to take a body.
    fn later(mut self) -> Look {
        // It is too late for one.
        self.passed_challenge = false;
        let kinds: Vec<_> = self.parts.headers.get_all(CONTENT_TYPE).iter().cloned().collect();
        self.parts.headers = kinds.into_iter().map(|kind| (CONTENT_TYPE, kind)).collect();
        if let Ok(path) = self.parts.uri.path().parse() {
            self.parts.uri = path;
        }
        self
    }

    /// Looks at a body while it comes. It is too late for a challenge.
    fn judge(self, refused: Arc<AtomicBool>) -> Judge {
        let this = self.later();
        Box::new(move |body, so| keep(this.at(body, so).action == Action::Pass, &refused))
    }

    /// Looks at messages: a flag that tells whether it is compressed, four bytes of length, and the message.
    fn messages(self, refused: Arc<AtomicBool>) -> Judge {
        let mut packed = self.parts.headers.clone();
        packed.remove(CONTENT_ENCODING);
        let said = match media_type(&packed).starts_with("application/connect") {
            true => "connect-content-encoding",
            false => "grpc-encoding",
        };
        let encodings: Vec<_> = packed.get_all(said).iter().cloned().collect();
        for encoding in encodings {
            packed.append(CONTENT_ENCODING, encoding);
        }
        // The whole of it is compressed, which no server of messages asks for.
        let coded = self.parts.headers.get_all(CONTENT_ENCODING).iter().any(|encoding| encoding != "identity");
        let this = self.later();
        Box::new(move |message, so| {
            let judgement = match (so, message.first()) {
                (So::TooLong, _) | (_, None) => this.ask(&[], Some(Unread::TooLong)),
                _ if coded => this.ask(&[], Some(Unread::Encoding)),
                (_, Some(0)) => this.ask(message.get(5..).unwrap_or_default(), None),
                (_, Some(1)) if packed.contains_key(CONTENT_ENCODING) => {
                    match readable(&packed, message.slice(message.len().min(5)..), this.cap) {
                        Ok(message) => this.ask(&message, None),
                        Err(unread) => this.ask(&[], Some(unread)),
                    }
                }
                _ => this.ask(&[], Some(Unread::Encoding)),
            };
            keep(judgement.action == Action::Pass, &refused)
        })
    }
}

fn keep(passes: bool, refused: &AtomicBool) -> bool {
    refused.fetch_or(!passes, Ordering::AcqRel);
    passes
}

/// The client learns the request's id and nothing of the rules; the log has the rest.
fn refuse(id: &HeaderValue) -> Response<Body> {
    let id = id.to_str().unwrap_or_default();
    plain(StatusCode::FORBIDDEN, &format!("The request was blocked. Its id is {id}.\n"))
}

/// Says of an answer that it is one to a request whose body the node has given up on, and why.
#[derive(Clone, Copy)]
struct GivenUp(&'static str);

/// The answer to such a request.
fn given_up(cut: Cut) -> Response<Body> {
    let mut answer = match cut {
        Cut::Slow => plain(StatusCode::REQUEST_TIMEOUT, &format!("{cut}\n")),
        Cut::Crowded => {
            let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{cut}\n"));
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            answer
        }
    };
    answer.extensions_mut().insert(GivenUp(match cut {
        Cut::Slow => "slow",
        Cut::Crowded => "crowded",
    }));
    answer
}

/// An answer of the node's own.
fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(full(text.to_owned()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(lines: &[(&'static str, &'static str)]) -> bool {
        let line = |(name, value): &(&'static str, &'static str)| (name.parse().unwrap(), value.parse().unwrap());
        streams(&lines.iter().map(line).collect())
    }

    #[test]
    fn messages_are_told_by_their_type_however_it_is_written() {
        let is = |kind: &str| has_messages(&[(CONTENT_TYPE, kind.parse().unwrap())].into_iter().collect());
        for kind in [
            "application/grpc",
            "Application/gRPC+proto",
            "application/grpc;x=y",
            "application/grpc-web",
            " application/GRPC-Web+proto ; x=y",
            "application/connect+proto",
        ] {
            assert!(is(kind), "{kind}");
        }
        for kind in
            ["application/grpc-web-text", "application/grpc-web-text+proto", "application/grpcx", "application/proto"]
        {
            assert!(!is(kind), "{kind}");
        }
    }

    #[test]
    fn only_what_can_be_read_in_pieces_goes_on_in_pieces() {
        assert!(decided(&[]));
        for kind in [
            "text/plain",
            "Text/Plain",
            "application/x-ndjson",
            "application/octet-stream",
            "application/grpc",
            "application/grpc-web+proto",
        ] {
            assert!(decided(&[("content-type", kind)]), "{kind}");
            assert!(!decided(&[("content-type", kind), ("content-length", "3")]), "{kind}");
            assert!(!decided(&[("content-type", kind), ("content-encoding", "gzip")]), "{kind}");
            assert!(!decided(&[("content-type", kind), ("content-type", "text/plain")]), "{kind}");
        }
        for kind in [
            "",
            "application/x-www-form-urlencoded; charset=ibm037",
            "application/x-www-form-urlencoded",
            "text/plain; charset=ibm037",
            "text/plain; charset=utf-16le",
            "text/plain, text/plain",
            "application/x-ndjson;charset=utf-16",
            "application/grpc-web; CHARSET=ibm037",
            "application/json",
            "text/xml",
            "multipart/form-data; boundary=x",
            "image/png",
        ] {
            assert!(!decided(&[("content-type", kind)]), "{kind}");
        }
    }
}
