//! Brings the events of `log` and `tracing` in a plugin, and in the libraries that it is made of, to its host.
//!
//! A plugin has copies of both crates of its own, which know nothing of the host's: without [`init`], what is logged there
//! is lost. Call it first thing in [`Plugin::create`](crate::Plugin::create):
//!
//! ```
//! use hotslot_plugin::{Error, Host, Plugin};
//!
//! struct Pricer;
//!
//! impl Plugin for Pricer {
//!     fn create(host: Host) -> Result<Self, Error> {
//!         hotslot_plugin::log::init(host)?;
//! #       #[cfg(feature = "log")]
//!         log::info!("this and what libraries log reaches the host's tracing");
//!         Ok(Pricer)
//!     }
//! }
//! ```
//!
//! # What arrives
//! An event of the host's `tracing`, with the target `hotslot::plugin`, the event's level and message, and as fields the
//! slot, the generation, the plugin, and
//! - `plugin_target`: the target in the plugin,
//! - `plugin_fields`: the event's fields, as text: `symbol="SOLUSDC" size=3`. Of `log`, the key-value pairs do not cross,
//! - `plugin_spans`: the spans that it is in, from the outermost, with their fields: `reload{version=2}:parse`.
//!
//! Spans themselves do not cross: the host does not see when one begins and ends. The host's
//! [limits](crate::Host::log) on lines and their length apply.
//!
//! # What it costs
//! An event whose level nobody in the host listens to costs a call of the host that reads one number; it is not formatted.
//! The level is asked for each time, because a host can change it while the plugin runs.
//!
//! # Threads, and the end of a plugin
//! Threads of a library log in the same way, for as long as its code is mapped, also while it is torn down. Nothing here
//! registers a destructor with a thread, so that logging does not keep a library from being unmapped.
//!
//! What is logged while an event is formatted is an event of its own. What is logged because of an event, by a host that
//! calls the plugin to log, is passed on four times over, and then dropped.
//!
//! # In tests
//! In a [harness](crate::harness) the plugin has the loggers of the process, which are set once: events of all threads go to
//! the plugin that was made last, and a test that sets a logger of its own gets an error from `init`.

mod listener;
#[cfg(feature = "tracing")]
mod spans;

use std::fmt;
use std::sync::OnceLock;

#[cfg(feature = "log")]
use self::listener::{listener, pass_on};
use crate::Host;
#[cfg(feature = "log")]
use crate::Level;

/// Somebody else takes the events of this plugin already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AlreadyTaken {
    /// Which crate's: `log` or `tracing`.
    pub from: &'static str,
}

impl fmt::Display for AlreadyTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "another logger takes the events of `{}` already: set none, or do not call init", self.from)
    }
}

impl std::error::Error for AlreadyTaken {}

/// Sends the events of `log` (with the feature `log`) and `tracing` (with the feature `tracing`) to this host.
///
/// It may be called again, as by every instance of a plugin; events go to the latest host then.
///
/// # Errors
/// The plugin, or the process of its tests, has set a logger or a subscriber of its own.
pub fn init(host: Host) -> Result<(), AlreadyTaken> {
    static TAKEN: OnceLock<Result<(), AlreadyTaken>> = OnceLock::new();
    listener::set(host);
    *TAKEN.get_or_init(take)
}

fn take() -> Result<(), AlreadyTaken> {
    #[cfg(feature = "log")]
    {
        ::log::set_logger(&Forward).map_err(|_| AlreadyTaken { from: "log" })?;
        // Whether a level is wanted is asked of the host.
        ::log::set_max_level(::log::LevelFilter::Trace);
    }
    #[cfg(feature = "tracing")]
    {
        let dispatch = tracing_core::Dispatch::new(spans::Forward::default());
        tracing_core::dispatcher::set_global_default(dispatch).map_err(|_| AlreadyTaken { from: "tracing" })?;
    }
    Ok(())
}

#[cfg(feature = "log")]
struct Forward;

#[cfg(feature = "log")]
fn level_of(level: ::log::Level) -> Level {
    match level {
        ::log::Level::Error => Level::Error,
        ::log::Level::Warn => Level::Warn,
        ::log::Level::Info => Level::Info,
        ::log::Level::Debug => Level::Debug,
        ::log::Level::Trace => Level::Trace,
    }
}

#[cfg(feature = "log")]
impl ::log::Log for Forward {
    fn enabled(&self, metadata: &::log::Metadata<'_>) -> bool {
        listener(level_of(metadata.level())).is_some()
    }

    fn log(&self, record: &::log::Record<'_>) {
        let level = level_of(record.level());
        if let Some(host) = listener(level) {
            pass_on(host, level, [record.target(), &record.args().to_string(), "", ""]);
        }
    }

    fn flush(&self) {}
}
