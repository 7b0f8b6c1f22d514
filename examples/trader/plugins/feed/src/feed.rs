//! The loop that every plugin of the trader runs: warm up once, then fetch, average, print, wait.

use std::collections::hash_map::RandomState;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hotslot_plugin::{Error, Host, Level, Plugin, Stop};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{Config, Failure, Http, Indicator, Price, PriceFeed, Tape, binance};

/// A quote from an exchange.
pub struct Quote {
    /// The price that is averaged.
    pub price: Price,
    /// The text that is printed, for instance `142.31`.
    pub text: String,
}

impl From<Price> for Quote {
    fn from(price: Price) -> Quote {
        Quote { price, text: price.to_string() }
    }
}

/// A source of prices: a symbol, and how to fetch its price from an exchange.
pub trait Source: Send + Sync + 'static {
    /// The symbol, as it is printed.
    const SYMBOL: &'static str;

    /// Fetches a price.
    fn quote(http: &Http, config: &Config) -> impl Future<Output = Result<Quote, Failure>>;

    /// Fetches past prices, oldest first, to warm up the average. By default from Binance.
    fn closes(http: &Http, config: &Config) -> impl Future<Output = Result<Vec<f64>, Failure>> {
        binance::closes(http, &config.binance, Self::SYMBOL)
    }
}

/// A complete plugin: polls a source, and keeps the state.
pub struct Polled<S> {
    host: Host,
    tape: Box<dyn Tape>,
    config: Config,
    indicator: Mutex<Indicator>,
    source: PhantomData<fn() -> S>,
}

impl<S: Source> PriceFeed for Polled<S> {
    fn symbol(&self) -> String {
        S::SYMBOL.to_owned()
    }
}

impl<S: Source> Plugin for Polled<S> {
    const SCHEMA: &'static str = Indicator::SCHEMA;

    fn create(host: Host) -> Result<Self, Error> {
        let config = Config::from_bytes(host.config())?;
        let (tape, indicator) = (host.service::<dyn Tape>()?, Mutex::new(Indicator::COLD));
        Ok(Polled { host, tape, config, indicator, source: PhantomData })
    }

    /// Polls until `stop` is raised: a quote at every interval, preceded by past prices if there is no average yet. An
    /// exchange that cannot be reached is retried with exponential backoff; that does not end the run.
    fn run(&self, stop: &Stop) -> Result<(), Error> {
        // The runtime ends with this function, and its connections with it. If a DNS lookup is in progress, it waits
        // for that: a thread that outlived the plugin would run code that may have been unmapped.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(unless_stopped(stop, async {
            let http = Http::default();
            let mut times = interval(self.config.interval);
            times.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                times.tick().await;
                let mut failures = 0;
                while let Err(failure) = self.poll(&http).await {
                    let pause = pause_after(failures, failure.retry_after);
                    self.host.log(Level::Warn, &format!("{failure}; next try in {pause:.1?}"));
                    sleep(pause).await;
                    failures += 1;
                }
            }
        }));
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        Ok(self.indicator().to_bytes())
    }

    /// Continues with the previous plugin's state: no cold start.
    fn restore(&self, schema: &str, state: &[u8]) -> Result<(), Error> {
        if schema != Indicator::SCHEMA {
            return Err(format!("this plugin restores {}, not {schema}", Indicator::SCHEMA).into());
        }
        *self.indicator() = Indicator::from_bytes(state)?;
        Ok(())
    }
}

impl<S: Source> Polled<S> {
    async fn poll(&self, http: &Http) -> Result<(), Failure> {
        if self.indicator().is_cold() {
            let closes = S::closes(http, &self.config).await?;
            self.indicator().warm_up(S::SYMBOL, &closes);
            self.host.log(Level::Info, &format!("cold start: warmed up with {} candles", closes.len()));
        }
        let Quote { price, text } = S::quote(http, &self.config).await?;
        let Indicator { ema, ticks, .. } = {
            let mut indicator = self.indicator();
            indicator.tick(S::SYMBOL, price.value);
            *indicator
        };
        let details = format!("ema {}   tick {ticks}", price.with_value(ema));
        self.tape.price(&format!("{}: {text}", S::SYMBOL), &details);
        Ok(())
    }

    /// Locks the state; never across an await. A panic elsewhere leaves it valid, because it is a plain value.
    fn indicator(&self) -> MutexGuard<'_, Indicator> {
        self.indicator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` until it finishes or `stop` is raised, whichever comes first.
async fn unless_stopped(stop: &Stop, work: impl Future<Output = ()>) {
    // The flag is a byte in the host that cannot wake a task, so it is polled. This adds to the gap of a reload.
    let mut poll = interval(Duration::from_millis(5));
    let mut work = pin!(work);
    poll_fn(|context| {
        while poll.poll_tick(context).is_ready() {}
        if stop.is_raised() { Poll::Ready(()) } else { work.as_mut().poll(context) }
    })
    .await;
}

/// Returns the pause after this many consecutive failures: exponential up to half a minute, and never less than the
/// exchange asks for. Up to half of it is random, so that clients that failed together do not retry together.
fn pause_after(failures: u32, requested: Option<Duration>) -> Duration {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);
    let pause = FIRST.saturating_mul(1 << failures.min(10)).min(LONGEST);
    // The standard library's source of randomness: the keys of a hash map.
    let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    requested.unwrap_or_default() + pause.mul_f64(0.5 + 0.5 * random)
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
