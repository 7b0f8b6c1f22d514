//! Rate limits: how many requests a client, or all of them together, may send to a place.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;

use crate::config::{Seconds, some_time};
use crate::net::customer;
use crate::policy::{Place, Readings, Subject};

/// Of more clients than this, those that come later are not told apart: whoever has so many addresses does not get memory for
/// each.
const CLIENTS: usize = 200_000;

/// A limit, as it is configured.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// How it is called in metrics and log.
    pub name: String,
    /// So many requests …
    pub requests: NonZeroU32,
    /// … in so many seconds.
    #[serde(rename = "per_seconds", deserialize_with = "some_time")]
    pub per: Seconds,
    /// So many at once; as many as `requests` if not set.
    pub burst: Option<NonZeroU32>,
    #[serde(default)]
    pub by: By,
    /// Where it holds; everywhere if not set.
    #[serde(default, rename = "in")]
    pub place: Place,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Those of one address; with IPv6, of one network of 64 bits, which is what one customer gets.
    #[default]
    Client,
    All,
}

/// A limit at work.
pub struct Limit {
    terms: Terms,
    rates: Rates,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Client(IpAddr),
    All,
}

/// A request that is one too many.
pub struct TooMany {
    pub limit: String,
    pub wait: Duration,
}

/// All limits.
#[derive(Default)]
pub struct Limits(Vec<Arc<Limit>>);

impl Limits {
    /// Makes the limits of a configuration. Those that stay go on counting.
    pub fn new(terms: &[Terms], before: &Limits) -> Limits {
        let limit = |terms: &Terms| {
            let known = before.0.iter().find(|limit| limit.terms == *terms).cloned();
            known.unwrap_or_else(|| Arc::new(Limit::new(terms.clone())))
        };
        Limits(terms.iter().map(limit).collect())
    }

    /// Counts a request.
    pub fn check(&self, subject: Subject<'_>) -> Result<(), TooMany> {
        let readings = Readings::of(subject.path);
        self.0
            .iter()
            .filter(|limit| limit.terms.place.catches(subject, &readings))
            .try_for_each(|limit| limit.check(subject.client))
    }

    /// Forgets the clients that have not been here for some time.
    pub fn tidy(&self) {
        self.0.iter().for_each(|limit| {
            limit.rates.tidy(Instant::now());
        });
    }
}

impl Limit {
    fn new(terms: Terms) -> Limit {
        let each = (terms.per.0 / terms.requests.get()).max(Duration::from_nanos(1));
        let burst = each.saturating_mul(terms.burst.unwrap_or(terms.requests).get());
        Limit { terms, rates: Rates::new(each, burst) }
    }

    fn check(&self, client: IpAddr) -> Result<(), TooMany> {
        let key = match self.terms.by {
            By::Client => Key::Client(customer(client)),
            By::All => Key::All,
        };
        self.rates.check(key, Instant::now()).map_err(|wait| TooMany { limit: self.terms.name.clone(), wait })
    }
}

/// How many parts the clients are in, each with a lock of its own.
const SHARDS: usize = 16;

/// For each client the moment up to which its requests are paid for, by the generic cell rate algorithm (ITU-T I.371, annex A):
/// each request moves it on by `each`, and it may be at most `burst` ahead.
struct Rates {
    each: Duration,
    burst: Duration,
    hash: RandomState,
    shards: [Mutex<HashMap<Key, Instant>>; SHARDS],
}

impl Rates {
    fn new(each: Duration, burst: Duration) -> Rates {
        Rates { each, burst, hash: RandomState::new(), shards: Default::default() }
    }

    /// Counts a request, or says when there may be one.
    fn check(&self, key: Key, now: Instant) -> Result<(), Duration> {
        let mut paid = self.shards[self.hash.hash_one(key) as usize % SHARDS].lock();
        let key = if paid.len() < CLIENTS / SHARDS || paid.contains_key(&key) { key } else { Key::All };
        let from = paid.get(&key).copied().map_or(now, |until| until.max(now));
        let until = from + self.each;
        match until.saturating_duration_since(now).checked_sub(self.burst) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                paid.insert(key, until);
                Ok(())
            }
        }
    }

    /// Forgets those who have paid for nothing that is to come.
    fn tidy(&self, now: Instant) {
        for shard in &self.shards {
            let mut paid = shard.lock();
            paid.retain(|_, until| *until > now);
            if paid.capacity() > 4 * paid.len() + 64 {
                paid.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_burst_and_then_its_rate() {
        let second = Duration::from_secs(1);
        let rates = Rates::new(second, 3 * second);
        let (start, one, other) =
            (Instant::now(), Key::Client([192, 0, 2, 1].into()), Key::Client([192, 0, 2, 2].into()));
        for _ in 0..3 {
            assert_eq!(rates.check(one, start), Ok(()));
        }
        assert_eq!(rates.check(one, start), Err(second));
        assert_eq!(rates.check(other, start), Ok(()));
        // What is refused costs nothing.
        assert_eq!(rates.check(one, start + second / 2), Err(second / 2));
        assert_eq!(rates.check(one, start + second), Ok(()));
        assert_eq!(rates.check(one, start + second), Err(second));
        rates.tidy(start + 2 * second);
        let known = || rates.shards.iter().map(|shard| shard.lock().len()).sum::<usize>();
        assert_eq!(known(), 1, "the other one is forgotten");
        rates.tidy(start + 4 * second);
        assert_eq!(known(), 0);
        for _ in 0..3 {
            assert_eq!(rates.check(one, start + 10 * second), Ok(()));
        }
    }

    #[test]
    fn clients_without_end_take_no_memory_without_end() {
        let rates = Rates::new(Duration::from_secs(1), Duration::from_secs(1));
        let now = Instant::now();
        for client in 0..2 * CLIENTS as u32 {
            let _ = rates.check(Key::Client(IpAddr::from(client.to_be_bytes())), now);
        }
        let known: usize = rates.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(known <= CLIENTS + SHARDS, "{known}");
    }
}
