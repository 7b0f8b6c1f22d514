//! A guide, chapter by chapter. Whoever is new begins with the first one; each of the others stands on its own.
//!
#![cfg_attr(feature = "native", doc = "- [`first_plugin`]: a slot, a plugin and its first reload, in five minutes.")]
//! - [`interfaces`]: from the raw layer, methods by number, to a trait that is declared once.
//! - [`values`]: what crosses between host and plugin, and what each type costs.
//! - [`evolution`]: how an interface changes, and what is refused with which text.
//! - [`state`]: what one version hands to the next.
//! - [`running`]: plugins that work by themselves.
//! - [`services`]: what plugins call on their host.
//! - [`errors`]: every error, and what to do about it.
//! - [`testing`]: a plugin in the process of its own tests.
#![cfg_attr(feature = "wasm", doc = "- [`wasm`](mod@wasm): plugins as modules, their limits and their instances.")]
//! - [`comparison`]: this library beside others, and where they are the better choice.
//!
//! The examples run as they stand here, but for those that need a library or a module on disk.

#[cfg(feature = "native")]
#[cfg_attr(docsrs, doc(cfg(feature = "native")))]
#[doc = include_str!("first_plugin.md")]
pub mod first_plugin {}

#[doc = include_str!("interfaces.md")]
pub mod interfaces {}

#[doc = include_str!("values.md")]
pub mod values {}

#[doc = include_str!("evolution.md")]
pub mod evolution {}

#[doc = include_str!("state.md")]
pub mod state {}

#[doc = include_str!("running.md")]
pub mod running {}

#[doc = include_str!("services.md")]
pub mod services {}

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[cfg(feature = "wasm")]
#[cfg_attr(docsrs, doc(cfg(feature = "wasm")))]
#[doc = include_str!("wasm.md")]
pub mod wasm {}

#[doc = include_str!("comparison.md")]
pub mod comparison {}
