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
mod call_error;
#[allow(missing_docs, reason = "for the macros")]
#[doc(hidden)]
pub mod codec;
#[allow(missing_docs, reason = "for the macros")]
#[doc(hidden)]
pub mod contract;
#[allow(missing_docs, reason = "for the macros")]
mod entries;
mod export;

#[cfg(target_arch = "wasm32")]
#[allow(missing_docs, reason = "for the macros")]
mod guest;
#[cfg(not(target_arch = "wasm32"))]
mod harness;
mod host;
mod interface;
mod plain;
mod service;
pub mod shim;
pub mod state;
mod stop;

pub use call_error::{CallError, CallErrorKind, Malformed};
#[cfg(not(target_arch = "wasm32"))]
pub use harness::{Harness, HarnessPlugin};
pub use host::{Host, Level};
pub use hotslot_macros::{Plain, interface};
pub use interface::{Answer, Argument, Arguments, Interface, Link, Reply, Transport};
pub use plain::Plain;
pub use stop::Stop;

/// What the macros write, and nobody else.
#[doc(hidden)]
pub mod __private {
    pub use crate::entries::{Author, ByDefault, in_process, named, template_of};
    pub use crate::{codec, contract};
    #[cfg(target_arch = "wasm32")]
    pub use crate::{
        entries::schema,
        guest::{Guest, give},
    };
}

/// What a plugin returns when it cannot do what it was asked; its text reaches the host.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A plugin: one instance of the implementing type lives for as long as the host keeps the generation.
///
/// Every method is called through a shim that catches panics, and may be called from any thread. Only
/// [`create`](Plugin::create) must be written; what is not overridden is answered to the host as "not supported".
pub trait Plugin: Sized + Send + Sync + 'static {
    /// What the host and the plugin agree to speak in the raw layer, for instance `"trader-feed/1"`: at most 95 bytes,
    /// compared for equality by the host before it loads the plugin. A declared interface takes its place.
    const INTERFACE: &'static str = "";

    /// The layout of the state that [`save`](Plugin::save) gives, for instance `"indicator/1"`: at most 95 bytes.
    /// Empty, the default, says that the plugin has no state to hand over.
    const SCHEMA: &'static str = "";

    /// Makes the instance. Threads that it starts must end soon after [`Host::stop`] is raised.
    fn create(host: Host) -> Result<Self, Error>;

    /// Runs until `stop` is raised, then returns; for plugins that are run rather than called.
    ///
    /// It may be called again after it returned: a rollback runs the same instance once more, with its state.
    fn run(&self, stop: &Stop) -> Result<(), Error> {
        let _ = stop;
        Err(Unsupported.into())
    }

    /// Answers one call: a method number and bytes, whose meaning the interface defines.
    fn call(&self, method: u32, input: &[u8]) -> Result<Vec<u8>, Error> {
        let _ = (method, input);
        Err(Unsupported.into())
    }

    /// Saves the state as bytes of the layout [`SCHEMA`](Plugin::SCHEMA), for the plugin that comes next.
    fn save(&self) -> Result<Vec<u8>, Error> {
        Err(Unsupported.into())
    }

    /// Takes over the state of the plugin before, which was saved under `schema`: it may be an older layout than
    /// [`SCHEMA`](Plugin::SCHEMA). An error refuses the hand-over, and with it the reload.
    fn restore(&self, schema: &str, state: &[u8]) -> Result<(), Error> {
        let _ = (schema, state);
        Err(Unsupported.into())
    }
}

/// The answer of a method that the plugin did not write; the shims turn it into [`abi::Status::UNSUPPORTED`].
#[derive(Debug)]
struct Unsupported;

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the plugin does not support this")
    }
}

impl std::error::Error for Unsupported {}
