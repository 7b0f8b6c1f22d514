//! Interfaces that are declared once, as a trait, and served by a library or by a module alike.
//!
//! The crate that host and plugins share declares the trait, and depends on `hotslot-plugin` alone:
//!
//! ```
//! #[hotslot_plugin::interface(version = "1.0")]
//! pub trait Pricer {
//!     /// What so many cost.
//!     fn quote(&self, symbol: &str, quantity: u32) -> f64;
//! }
//! ```
//!
//! A plugin implements it, and says so in one line. The same source is built as a library, or for `wasm32` as a module:
//!
//! ```
//! # mod shared { #[hotslot_plugin::interface(version = "1.0")] pub trait Pricer {
//! #     fn quote(&self, symbol: &str, quantity: u32) -> f64;
//! # } }
//! # use shared::Pricer;
//! #[derive(Default)]
//! struct Fixed;
//!
//! impl Pricer for Fixed {
//!     fn quote(&self, _: &str, quantity: u32) -> f64 {
//!         142.5 * f64::from(quantity)
//!     }
//! }
//!
//! hotslot_plugin::export!(Fixed as Pricer);
//! # fn main() {}
//! ```
//!
//! The host has a slot for the trait, and picks the backend:
//!
//! ```ignore
//! let slot: HotSlot<dyn Pricer> = HotSlot::builder(Native::interface::<dyn Pricer>(trust)).open(library)?;
//! let slot: HotSlot<dyn Pricer> = HotSlot::builder(Engine::new()?.interface::<dyn Pricer>()).open(module)?;
//! let price = slot.load().quote("SOLUSDC", 3);
//! ```
//!
//! or takes [whatever comes](crate::Auto).
//!
//! # What fits
//! A plugin carries the [`Contract`] it was built against, and the host compares it with its own before any of the
//! plugin's code runs. Methods are found by name. Every method that the host's trait has must be there with the same
//! signature, down to the fields and variants of its types; what is missing or differs is named in the [`ContractError`]. Methods
//! marked `#[since("1.1")]` are optional: a 1.1 host gets their default body from a 1.0 plugin, and a 1.0 host does not
//! see that a 1.1 plugin has more. Another major version is another interface.
//!
//! # When a call fails
//! A panic in a library and a trap in a module are the same [`CallError`]; they, and answers that cannot be read, count in
//! the generation's [health](crate::FailureCounter). A method that returns `Result<_, E>` with `E: From<CallError>` returns it; one that is marked
//! `#[on_error(value)]` gives the value; every other unwinds to the next [`CallError::catch`].
//!
//! # State, and plugins that run
//! A plugin of an interface implements [`Stateful`](crate::Stateful) and [`Runnable`](crate::Runnable) as any other, so
//! [`transfer_state`](crate::transfer_state) and [`Runner`](crate::Runner) take a `HotSlot<dyn Trait>`.

//!
//! # For backend authors
//! Everything above is there for a backend of your own, too. It takes three steps: at admission it
//! [compares](Contract::methods_in_manifest) the contract that the artifact carries with its interface's; at the load it
//! makes a [`PluginHost`] of its [`Offers`], through which the plugin reaches its configuration, services, log and
//! message handler; and it puts the plugin behind the trait with an [`InterfaceLink`], for which it implements
//! [`InterfacePlugin`]. Text from a plugin is shown only as [`plugin_text`], and a plugin's calls into the host run inside
//! of the generation's [scope](crate::PluginScope), which a `PluginHost` sees to.

mod config;
mod contract;
mod difference;
mod link;
mod log_rate;
mod offers;
mod plugin_info;
mod recorded;
mod services;
mod stateful;

pub use config::ConfigUnsupported;
pub use contract::{Contract, ContractError, Method, MethodNumbers};
#[doc(hidden)]
pub use link::DirectMethod;
#[cfg(feature = "native")]
pub(crate) use link::unsound_buffer;
pub use link::{InterfaceLink, InterfacePlugin};
pub use offers::{Offers, PluginHost};
pub use plugin_info::PluginInfo;
pub use recorded::{RecordedAnswer, RecordedCall, RecordedValue};
pub use services::BoundService;

pub use crate::call_cost::record_wait;
pub use crate::text::plugin_text;
pub use hotslot_plugin::{
    Answer, Argument, Arguments, CallError, CallErrorKind, Interface, Level, Link, Malformed, Plain, Reply, Stop,
    Transport,
};

#[cfg(any(feature = "native", feature = "wasm"))]
pub(crate) use offers::offer_methods;
