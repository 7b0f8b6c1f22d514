//! The loop that every plugin of the trader runs: warm up once, then ask, average, send, wait.

use std::collections::hash_map::RandomState;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hotslot_plugin::{Error, Host, Level, Stop};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{Config, Failure, Http, Indicator, Price};

/// One answer of an exchange.
pub struct Quote {
    /// What the average is of.
    pub price: Price,
    /// What is shown, for instance `142.31`.
    pub text: String,
}

impl From<Price> for Quote {
    fn from(price: Price) -> Quote {
        Quote { price, text: price.to_string() }
    }
}

/// A symbol that is polled, and the state that comes of it.
pub struct Feed {
    host: Host,
    config: Config,
    symbol: &'static str,
    indicator: Mutex<Indicator>,
}

impl Feed {
    /// A feed of `symbol` that asks as `host` is configured.
    ///
    /// # Errors
    /// See [`Config::from_bytes`].
    pub fn new(host: Host, symbol: &'static str) -> Result<Feed, Error> {
        let config = Config::from_bytes(host.config())?;
        Ok(Feed { host, config, symbol, indicator: Mutex::new(Indicator::COLD) })
    }

    /// Where to ask, and how often.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Polls until `stop` is raised: `quote` at every interval, and first `closes`, past prices for the average, if
    /// there is no average to go on with.
    ///
    /// An exchange that cannot be reached is asked again, later and later; that ends nothing.
    ///
    /// # Errors
    /// The system gives no runtime: out of file descriptors, for instance.
    pub fn run(
        &self,
        stop: &Stop,
        closes: impl AsyncFn(&Http) -> Result<Vec<f64>, Failure>,
        quote: impl AsyncFn(&Http) -> Result<Quote, Failure>,
    ) -> Result<(), Error> {
        // The runtime ends with this function and takes its connections along. If it is looking up a name just then,
        // it waits for that: a thread that outlived the plugin would run code that may no longer be there.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(unless_stopped(stop, async {
            let http = Http::default();
            let mut times = interval(self.config.interval);
            times.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                times.tick().await;
                let mut failures = 0;
                while let Err(failure) = self.poll(&http, &closes, &quote).await {
                    let pause = pause_after(failures, failure.retry_after);
                    self.host.log(Level::Warn, &format!("{failure}; next try in {pause:.1?}"));
                    sleep(pause).await;
                    failures += 1;
                }
            }
        }));
        Ok(())
    }

    async fn poll(
        &self,
        http: &Http,
        closes: impl AsyncFn(&Http) -> Result<Vec<f64>, Failure>,
        quote: impl AsyncFn(&Http) -> Result<Quote, Failure>,
    ) -> Result<(), Failure> {
        if self.indicator().is_cold() {
            let closes = closes(http).await?;
            self.indicator().warm_up(self.symbol, &closes);
            self.host.log(Level::Info, &format!("cold start: warmed up with {} candles", closes.len()));
        }
        let Quote { price, text } = quote(http).await?;
        let Indicator { ema, ticks, .. } = {
            let mut indicator = self.indicator();
            indicator.tick(self.symbol, price.value);
            *indicator
        };
        let line = format!("{}: {text}\tema {}\ttick {ticks}", self.symbol, price.with_value(ema));
        self.host.send(line.as_bytes());
        Ok(())
    }

    /// The state, for the plugin that comes next.
    pub fn save(&self) -> Vec<u8> {
        self.indicator().to_bytes()
    }

    /// Goes on with the state of the plugin before: no cold start.
    ///
    /// # Errors
    /// The state has another schema.
    pub fn restore(&self, schema: &str, state: &[u8]) -> Result<(), Error> {
        if schema != Indicator::SCHEMA {
            return Err(format!("this plugin goes on from {}, not from {schema}", Indicator::SCHEMA).into());
        }
        *self.indicator() = Indicator::from_bytes(state)?;
        Ok(())
    }

    /// The state; never locked across an await. A panic elsewhere leaves it whole, because it is a plain value.
    fn indicator(&self) -> MutexGuard<'_, Indicator> {
        self.indicator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `work` until it is done or `stop` is raised, whichever comes first.
async fn unless_stopped(stop: &Stop, work: impl Future<Output = ()>) {
    // The flag is a byte in the host that can wake nobody, so it is looked at. This is part of the gap of a reload.
    let mut look = interval(Duration::from_millis(5));
    let mut work = pin!(work);
    poll_fn(|context| {
        while look.poll_tick(context).is_ready() {}
        if stop.is_raised() { Poll::Ready(()) } else { work.as_mut().poll(context) }
    })
    .await;
}

/// How long to wait after so many failures in a row: twice as long each time, up to half a minute, and never less than
/// the exchange asks for. Up to half of it is left to chance, so that clients that failed together come back one by one.
fn pause_after(failures: u32, asked: Option<Duration>) -> Duration {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);
    let pause = FIRST.saturating_mul(1 << failures.min(10)).min(LONGEST);
    // The standard library's source of randomness: the keys of a hash map.
    let chance = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    asked.unwrap_or_default() + pause.mul_f64(0.5 + 0.5 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_longer_up_to_a_limit_and_never_less_than_asked() {
        assert!(pause_after(0, None) <= Duration::from_millis(500));
        assert!(pause_after(3, None) >= Duration::from_secs(2));
        assert!(pause_after(u32::MAX, None) <= Duration::from_secs(30));
        assert!(pause_after(0, Some(Duration::from_secs(60))) >= Duration::from_secs(60));
    }
}
