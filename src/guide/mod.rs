//! The guide to hot reload with this library. Start with the first chapter; each of the others stands on its own.
//!
#![cfg_attr(
    feature = "native",
    doc = "- [`first_plugin`]: a host, a plugin and its first hot reload, in five minutes."
)]
//! - [`interfaces`]: from the raw layer, with methods by number, to a trait that is declared once.
//! - [`values`]: the types that can cross between host and plugin, and what each costs.
//! - [`evolution`]: compatible and breaking changes of an interface, and the error messages.
//! - [`reloading`]: reload, stage and commit, and changes that a plugin itself asks for.
//! - [`rollback`]: warm and cold rollbacks.
//! - [`probation`]: automatic rollback, call measurement and second opinions.
//! - [`trials`]: a new version in the shadow of the serving one, for a share of the callers, or together with others.
//! - [`configuration`]: configuration for a backend or for a candidate.
//! - [`state`]: transferring state from one version to the next.
//! - [`running`]: plugins that do work of their own.
//! - [`services`]: functions of the host that plugins call.
//! - [`errors`]: every error, and how to handle it.
//! - [`operation`]: status, history, events, threads and forks.
//! - [`costs`]: what grows with what, and what does not.
//! - [`testing`]: testing plugins and hosts in-process.
#![cfg_attr(
    feature = "native",
    doc = "- [`libraries`]: what a native library may ask of the loader, and how to link it.\n- [`debugging`]: gdb, perf, \
           backtraces and crash reporters on a process with plugins, and what their files take."
)]
#![cfg_attr(
    feature = "wasm",
    doc = "- [`wasm`](mod@wasm): plugins as sandboxed modules, with limits and instance policies."
)]
//! - [`comparison`]: other libraries, and where they are the better choice.
//!
//! Backend authors: start with [`Backend`](crate::Backend), and serve declared interfaces with [`host`](mod@crate::host).
//!
//! Examples are compiled and run as tests. Those that need a library or a module on disk are only compiled, and fragments that
//! need another crate's features are not.

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

#[doc = include_str!("reloading.md")]
pub mod reloading {}

#[doc = include_str!("rollback.md")]
pub mod rollback {}

#[doc = include_str!("probation.md")]
pub mod probation {}

#[doc = include_str!("trials.md")]
pub mod trials {}

#[doc = include_str!("configuration.md")]
pub mod configuration {}

#[doc = include_str!("state.md")]
pub mod state {}

#[doc = include_str!("running.md")]
pub mod running {}

#[doc = include_str!("services.md")]
pub mod services {}

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("operation.md")]
pub mod operation {}

#[doc = include_str!("costs.md")]
pub mod costs {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[cfg(feature = "native")]
#[cfg_attr(docsrs, doc(cfg(feature = "native")))]
#[doc = include_str!("libraries.md")]
pub mod libraries {}

#[cfg(feature = "native")]
#[cfg_attr(docsrs, doc(cfg(feature = "native")))]
#[doc = include_str!("debugging.md")]
pub mod debugging {}

#[cfg(feature = "wasm")]
#[cfg_attr(docsrs, doc(cfg(feature = "wasm")))]
#[doc = include_str!("wasm.md")]
pub mod wasm {}

#[doc = include_str!("comparison.md")]
pub mod comparison {}
