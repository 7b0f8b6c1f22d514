//! The last minutes of traffic, second by second, for the page.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;

use crate::json::unix;

/// How many seconds are kept.
const SECONDS: usize = 180;

#[derive(Default)]
pub struct Traffic {
    requests: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    latency: Latencies,
    calls: Latencies,
    totals: Totals,
    past: Mutex<VecDeque<Second>>,
}

/// Counts since the start.
#[derive(Default)]
struct Totals {
    calls: AtomicU64,
    failed: AtomicU64,
    blocked: AtomicU64,
}

/// One second of traffic.
#[derive(Clone, Serialize)]
pub struct Second {
    /// When it ended, in seconds since 1970.
    at: f64,
    requests: u64,
    /// Answered with 403: blocked or challenged, or so by the upstream.
    refused: u64,
    /// Answered with 5xx.
    failed: u64,
    /// From a request's header to its answer's, in milliseconds.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    /// The rules' part of it, in microseconds.
    rules_p50_us: Option<f64>,
    rules_p99_us: Option<f64>,
}

impl Traffic {
    /// Counts an answer.
    pub fn answered(&self, status: StatusCode, took: Duration) {
        self.requests.fetch_add(1, Relaxed);
        if status == StatusCode::FORBIDDEN {
            self.refused.fetch_add(1, Relaxed);
        }
        if status.is_server_error() {
            self.failed.fetch_add(1, Relaxed);
        }
        self.latency.note(took);
    }

    /// Counts a call of the rules.
    pub fn called(&self, took: Duration, failed: bool) {
        self.totals.calls.fetch_add(1, Relaxed);
        self.totals.failed.fetch_add(u64::from(failed), Relaxed);
        self.calls.note(took);
    }

    /// Counts a request that was blocked.
    pub fn blocked(&self) {
        self.totals.blocked.fetch_add(1, Relaxed);
    }

    /// Returns what was counted since the start: calls of the rules, those that failed, and requests that were blocked.
    pub fn totals(&self) -> (u64, u64, u64) {
        let Totals { calls, failed, blocked } = &self.totals;
        (calls.load(Relaxed), failed.load(Relaxed), blocked.load(Relaxed))
    }

    /// Returns the median of the last seconds' 99th percentiles of the rules' time, in microseconds.
    pub fn recent_p99_us(&self) -> u64 {
        const LATELY: usize = 30;
        let past = self.past.lock();
        let mut values: Vec<f64> = past.iter().rev().take(LATELY).filter_map(|second| second.rules_p99_us).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).map_or(0, |value| *value as u64)
    }

    /// Ends a second.
    pub fn tick(&self) {
        let (latency, calls) = (self.latency.take(), self.calls.take());
        let milli = |time: Duration| time.as_secs_f64() * 1e3;
        let second = Second {
            at: unix(SystemTime::now()),
            requests: self.requests.swap(0, Relaxed),
            refused: self.refused.swap(0, Relaxed),
            failed: self.failed.swap(0, Relaxed),
            p50_ms: latency.quantile(0.5).map(milli),
            p99_ms: latency.quantile(0.99).map(milli),
            rules_p50_us: calls.quantile(0.5).map(|time| milli(time) * 1e3),
            rules_p99_us: calls.quantile(0.99).map(|time| milli(time) * 1e3),
        };
        let mut past = self.past.lock();
        if past.len() == SECONDS {
            past.pop_front();
        }
        past.push_back(second);
    }

    /// The seconds that ended after `since`.
    pub fn seconds(&self, since: f64) -> Vec<Second> {
        self.past.lock().iter().filter(|second| second.at > since).cloned().collect()
    }
}

/// Eight buckets an octave, from nanoseconds to minutes: a quantile is at most 1/8 too high.
const PER_OCTAVE: u32 = 8;
const BUCKETS: usize = 38 * PER_OCTAVE as usize;

struct Latencies([AtomicU64; BUCKETS]);

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Latencies {
    fn note(&self, time: Duration) {
        self.0[bucket(time)].fetch_add(1, Relaxed);
    }

    fn take(&self) -> Counts {
        Counts(self.0.iter().map(|count| count.swap(0, Relaxed)).collect())
    }
}

struct Counts(Vec<u64>);

impl Counts {
    /// The upper end of the bucket in which this share of the times ends.
    fn quantile(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.0.iter().sum();
        let rank = ((all as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(upper_end(bucket))
    }
}

fn bucket(time: Duration) -> usize {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(u64::from(PER_OCTAVE));
    let octave = nanos.ilog2() - PER_OCTAVE.ilog2();
    let step = (nanos >> octave) as u32 - PER_OCTAVE;
    ((octave * PER_OCTAVE + step) as usize).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> Duration {
    let (octave, step) = (bucket as u32 / PER_OCTAVE, bucket as u32 % PER_OCTAVE);
    Duration::from_nanos(u64::from(PER_OCTAVE + step + 1) << octave)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_at_most_an_eighth_too_high() {
        for nanos in [1, 8, 9, 1_000, 12_345, 10_000_000, 3_000_000_000] {
            let latencies = Latencies::default();
            latencies.note(Duration::from_nanos(nanos));
            let quantile = latencies.take().quantile(0.99).unwrap().as_nanos() as f64;
            let least = nanos.max(8) as f64;
            assert!(quantile > least && quantile <= least * 1.125 + 1.0, "{nanos} became {quantile}");
        }
    }

    #[test]
    fn quantiles_split_the_times() {
        let latencies = Latencies::default();
        (0..99).for_each(|_| latencies.note(Duration::from_micros(10)));
        latencies.note(Duration::from_millis(10));
        let counts = latencies.take();
        assert!(counts.quantile(0.99).unwrap() < Duration::from_micros(12));
        assert!(counts.quantile(1.0).unwrap() >= Duration::from_millis(10));
        assert!(latencies.take().quantile(0.5).is_none());
    }
}
