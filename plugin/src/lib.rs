//! The plugin's side of [hotslot](https://docs.rs/hotslot): what a cdylib links so that a host can swap it while it serves.
//!
//! A plugin is one type that implements [`Plugin`], and one line that exports it:
//!
//! ```
//! use hotslot_plugin::{Error, Host, Plugin, Stop};
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! struct Ticker {
//!     host: Host,
//!     ticks: AtomicU64,
//! }
//!
//! impl Plugin for Ticker {
//!     const INTERFACE: &'static str = "ticker/1";
//!     const SCHEMA: &'static str = "ticks/1";
//!
//!     fn create(host: Host) -> Result<Self, Error> {
//!         Ok(Ticker { host, ticks: AtomicU64::new(0) })
//!     }
//!
//!     fn run(&self, stop: &Stop) -> Result<(), Error> {
//!         while !stop.is_raised() {
//!             let ticks = self.ticks.fetch_add(1, Ordering::Relaxed);
//!             self.host.send(format!("tick {ticks}").as_bytes());
//! #           break;
//!         }
//!         Ok(())
//!     }
//!
//!     fn save(&self) -> Result<Vec<u8>, Error> {
//!         Ok(self.ticks.load(Ordering::Relaxed).to_le_bytes().to_vec())
//!     }
//!
//!     fn restore(&self, schema: &str, state: &[u8]) -> Result<(), Error> {
//!         if schema != Self::SCHEMA {
//!             return Err(format!("cannot restore a state of schema {schema:?}").into());
//!         }
//!         self.ticks.store(u64::from_le_bytes(state.try_into()?), Ordering::Relaxed);
//!         Ok(())
//!     }
//! }
//!
//! hotslot_plugin::export!(Ticker);
//! # fn main() {}
//! ```
//!
//! [`export!`] writes a [descriptor](abi::Descriptor) into a section of its own, which the host reads from the file
//! before it runs anything, and wraps every entry in a shim that catches panics *inside the plugin*: a panic that
//! crossed into the host would abort it, because each cdylib carries its own copy of the standard library.
//!
//! Nothing but this crate is linked into a plugin. One that is written in another language follows [`abi`], which is
//! plain C.

pub mod abi;
#[cfg(not(target_arch = "wasm32"))]
mod backtrace;
#[cfg(feature = "postcard")]
mod bounded;
mod call_error;
#[allow(missing_docs, reason = "for the macros")]
#[doc(hidden)]
pub mod codec;
#[allow(missing_docs, reason = "for the macros")]
#[doc(hidden)]
pub mod contract;
#[allow(missing_docs, reason = "for the macros")]
mod entries;
mod error;
mod export;

#[cfg(target_arch = "wasm32")]
#[allow(missing_docs, reason = "for the macros")]
mod guest;
#[cfg(not(target_arch = "wasm32"))]
mod harness;
mod host;
mod interface;
#[cfg(any(feature = "log", feature = "tracing"))]
pub mod log;
mod plain;
mod plugin;
#[allow(missing_docs, reason = "for the macros")]
#[doc(hidden)]
pub mod schema;
mod service;
pub mod shim;
pub mod state;
mod stop;

pub use call_error::{CallError, CallErrorKind, Malformed};
pub use error::Error;
#[cfg(not(target_arch = "wasm32"))]
pub use harness::{Harness, HarnessPlugin};
pub use host::{Host, Level};
pub use hotslot_macros::{Plain, Schema, interface};
pub use interface::{
    Answer, Argument, Arguments, CallWatcher, Interest, Interface, Link, NotWatched, Reply, Transport,
};
pub use plain::Plain;
pub use plugin::Plugin;
pub use schema::Schema;
pub use stop::Stop;

/// What the macros write, and nobody else.
#[doc(hidden)]
pub mod __private {
    pub use crate::entries::{Author, ByDefault, Methods, functions, in_process, named, template_of};
    pub use crate::shim::{Serve, method};
    pub use crate::{codec, contract, schema};
    #[cfg(target_arch = "wasm32")]
    pub use crate::{
        entries::{resume_of, schema},
        guest::{Guest, give},
    };
}
