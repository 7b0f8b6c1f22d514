//! One upstream: the connections to it, and whether it is well. It is asked itself, if there is a path to ask for; and requests
//! that it does not answer eject it for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hotslot::{BoxError, escape_untrusted};
use http_body_util::Empty;
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, Response};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::body::Held;
use crate::config::Health;
use crate::upstream::{Connections, Upstream};

/// An upstream that is ejected again and again stays away for up to so many times as long.
const LONGEST: u32 = 10;

pub struct Origin {
    upstream: Upstream,
    health: Health,
    connections: Connections<Held>,
    condition: Arc<Condition>,
    probe: Option<JoinHandle<()>>,
}

/// How it is, and what came of the requests to it.
struct Condition {
    name: String,
    /// As far as it was asked itself.
    well: AtomicBool,
    /// Requests in a row that it did not answer.
    failures_in_a_row: AtomicU32,
    ejections_in_a_row: AtomicU32,
    ejected_until: Mutex<Option<Instant>>,
    requests: AtomicU64,
    failures: AtomicU64,
    ejections: AtomicU64,
    under_way: AtomicUsize,
    last_error: Mutex<Option<String>>,
}

/// How an upstream is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct State {
    pub url: String,
    /// Whether it gets requests.
    pub up: bool,
    /// What its health check says; null if there is none.
    healthy: Option<bool>,
    ejected: bool,
    pub under_way: usize,
    pub requests: u64,
    pub failures: u64,
    pub ejections: u64,
    last_error: Option<String>,
}

impl Origin {
    /// Begins to look after an upstream.
    pub(super) fn start(
        upstream: Upstream,
        health: Health,
        connect_timeout: Duration,
    ) -> Result<Arc<Origin>, BoxError> {
        let condition = Arc::new(Condition {
            name: upstream.to_string(),
            well: AtomicBool::new(true),
            failures_in_a_row: AtomicU32::new(0),
            ejections_in_a_row: AtomicU32::new(0),
            ejected_until: Mutex::default(),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            last_error: Mutex::default(),
        });
        let probe = match &health.path {
            None => None,
            Some(path) => {
                let connections = Connections::new(upstream.clone(), connect_timeout)?;
                let (path, health) = (path.clone(), health.clone());
                Some(tokio::spawn(check(connections, upstream.authority(), path, health, Arc::clone(&condition))))
            }
        };
        let connections = Connections::new(upstream.clone(), connect_timeout)?;
        Ok(Arc::new(Origin { upstream, health, connections, condition, probe }))
    }

    pub(super) fn is_for(&self, upstream: &Upstream, health: &Health) -> bool {
        (&self.upstream, &self.health) == (upstream, health)
    }

    /// Whether it gets requests. One whose time away is over does: the next one that it does not answer ejects it again.
    pub fn is_well(&self) -> bool {
        self.condition.well.load(Relaxed) && !self.condition.is_ejected()
    }

    pub fn name(&self) -> &str {
        &self.condition.name
    }

    /// Sends a request, and notes whether it was answered.
    pub async fn request(&self, request: Request<Held>) -> Result<Response<hyper::body::Incoming>, BoxError> {
        let condition = &self.condition;
        condition.requests.fetch_add(1, Relaxed);
        let _under_way = UnderWay::begin(condition);
        let body = request.body().progress();
        let answer = self.connections.request(request).await;
        match &answer {
            Ok(_) => condition.answered(),
            // That says nothing of the upstream. Over HTTP/2 the error does not say that it comes from the body.
            Err(error) if body.broke_off() || is_own(&**error) => {}
            Err(error) => self.failed(&error.to_string()),
        }
        answer
    }

    /// Notes that it did not answer a request.
    pub fn failed(&self, error: &str) {
        let condition = &self.condition;
        condition.failures.fetch_add(1, Relaxed);
        *condition.last_error.lock() = Some(escape_untrusted(error).into_owned());
        let row = condition.failures_in_a_row.fetch_add(1, Relaxed).saturating_add(1);
        // Others that were under way fail, too: that is one ejection.
        if row >= self.health.eject_after && !condition.is_ejected() {
            condition.failures_in_a_row.store(self.health.eject_after.saturating_sub(1), Relaxed);
            let times = condition.ejections_in_a_row.fetch_add(1, Relaxed) + 1;
            let away = self.health.eject.0 * times.min(LONGEST);
            *condition.ejected_until.lock() = Some(Instant::now() + away);
            condition.ejections.fetch_add(1, Relaxed);
            tracing::warn!(upstream = condition.name, seconds = away.as_secs_f64(), error, "ejected");
        }
    }

    pub(super) fn state(&self) -> State {
        let condition = &self.condition;
        State {
            url: condition.name.clone(),
            up: self.is_well(),
            healthy: self.probe.is_some().then(|| condition.well.load(Relaxed)),
            ejected: condition.is_ejected(),
            under_way: condition.under_way.load(Relaxed),
            requests: condition.requests.load(Relaxed),
            failures: condition.failures.load(Relaxed),
            ejections: condition.ejections.load(Relaxed),
            last_error: condition.last_error.lock().clone(),
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.abort();
        }
    }
}

impl Condition {
    fn is_ejected(&self) -> bool {
        self.ejected_until.lock().is_some_and(|until| Instant::now() < until)
    }

    fn answered(&self) {
        self.failures_in_a_row.store(0, Relaxed);
        if self.ejections_in_a_row.swap(0, Relaxed) > 0 {
            *self.ejected_until.lock() = None;
            tracing::info!(upstream = self.name, "answers again");
        }
    }
}

/// A request that is under way, until its answer begins or nobody waits for it.
struct UnderWay<'a>(&'a Condition);

impl UnderWay<'_> {
    fn begin(condition: &Condition) -> UnderWay<'_> {
        condition.under_way.fetch_add(1, Relaxed);
        UnderWay(condition)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// Whether an error comes from the request itself.
fn is_own(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user))
}

/// Asks an upstream again and again how it is.
async fn check(
    connections: Connections<Empty<Bytes>>,
    host: String,
    path: String,
    health: Health,
    condition: Arc<Condition>,
) {
    let (mut good, mut bad) = (0, 0);
    let mut every = tokio::time::interval(health.interval.0);
    loop {
        every.tick().await;
        let request = Request::get(&path).header(HOST, &host).header(USER_AGENT, "waf-health").body(Empty::new());
        let Ok(request) = request else { return };
        let problem = match timeout(health.timeout.0, connections.request(request)).await {
            Ok(Ok(answer)) if answer.status().is_success() => None,
            Ok(Ok(answer)) => Some(format!("the health check says {}", answer.status())),
            Ok(Err(error)) => Some(format!("the health check failed: {error}")),
            Err(_) => Some("the health check took too long".to_owned()),
        };
        match problem {
            None => (good, bad) = (good + 1, 0),
            Some(problem) => {
                (good, bad) = (0, bad + 1);
                *condition.last_error.lock() = Some(escape_untrusted(&problem).into_owned());
            }
        }
        let was = condition.well.load(Relaxed);
        if was && bad >= health.unhealthy_after || !was && good >= health.healthy_after {
            condition.well.store(!was, Relaxed);
            if !was {
                condition.answered();
            }
            tracing::warn!(upstream = condition.name, healthy = !was, "health check");
        }
    }
}
