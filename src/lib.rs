//! Hot-swap plugins without dropping a call.
//!
//! A program puts a plugin behind a [`HotSlot`] and replaces it while it serves: hot reload of native libraries and
//! WebAssembly modules, with checks before the swap, rollback after it, and zero downtime in between.
//!
//! [The guide](guide) starts with a first plugin in five minutes and has a chapter on every topic.
//!
//! # The problem
//! A long-running program has a part that must change without a restart: trading logic, firewall rules, a price feed.
//! The naive approach is a lock around a library handle:
//!
//! ```ignore
//! let rules = plugin.read().unwrap();          // every call waits while a new plugin loads
//! rules.inspect(&request);
//! // and elsewhere:
//! *plugin.write().unwrap() = Library::new("rules.so")?;  // often the old code again: the loader caches by name;
//!                                                        // a damaged file crashes the process;
//!                                                        // the old library is unmapped under its own threads
//! ```
//!
//! # The solution
//! ```
//! # use hotslot::{Admission, Artifact, Backend, BoxError, LoadContext, Loaded, Manifest, Payload};
//! # struct Words;
//! # impl Backend<str> for Words {
//! #     fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
//! #         let text = std::str::from_utf8(payload.bytes())?;
//! #         Ok(Manifest::new("words").with_version(text.split(' ').next().unwrap_or_default().parse()?).into())
//! #     }
//! #     fn load(&self, artifact: &Artifact, _: &LoadContext) -> Result<Loaded<str>, BoxError> {
//! #         Ok(Loaded::boxed(String::from_utf8(artifact.bytes().to_vec())?.into_boxed_str()))
//! #     }
//! # }
//! # let backend = Words;
//! use hotslot::HotSlot;
//!
//! let slot: HotSlot<str> = HotSlot::builder(backend)
//!     .name("greeting")
//!     .probe(|text: &str| if text.is_empty() { Err("the greeting is empty") } else { Ok(()) })
//!     .open(b"1.0.0 hello")?;
//!
//! let old = slot.load();                        // a lease: never blocks, valid for as long as it is held
//! let report = slot.reload(b"1.1.0 good day")?; // admits, loads, probes, then stores one pointer
//! assert_eq!(&*old, "1.0.0 hello");             // in-flight calls finish on the old plugin
//! assert_eq!(&*slot.load(), "1.1.0 good day");
//!
//! assert!(slot.reload(b"0.9.0 hi").is_err());   // older than the current version: refused, nothing changes
//! slot.rollback()?;
//! assert_eq!(&*slot.load(), "1.0.0 hello");
//! # assert!(report.is_swap());
//! # Ok::<(), hotslot::Error>(())
//! ```
//!
//! # The reload pipeline
//! A new plugin passes through **admit** (no plugin code runs), **load**, **probe**, **hand over** (state) and
//! **commit**, and is then on **probation**. The generation it replaces gets its stop signal, drains, and is destroyed
//! on a separate thread. If a stage fails, the new plugin is discarded and the current plugin keeps serving.
//!
//! # Backends
//! A [`Backend`] turns bytes into a live plugin. The feature `native` (default) provides `native`, for dynamic
//! libraries; the feature `wasm` provides `wasm`, for WebAssembly modules; a custom backend implements two methods, with
//! help from [`host`]. The slot itself knows none of them.
//!
//! # What is guaranteed, and when
//! - **[`HotSlot::load`] never blocks.** It takes no lock and performs a bounded number of steps, whatever reloads,
//!   rollbacks or retirements are under way, also while a library's constructors run. (A thread's first access allocates a
//!   record. On systems without pthread keys the read is arc-swap's, whose first access on a thread may wait for the loader. A
//!   slot that is built to [hold calls](Builder::hold_calls_during_hand_over) during a hand-over blocks for that long.)
//! - **In-flight calls finish on their generation.** Only a call into a module can be ended early: once the `drain_timeout` has
//!   passed since the swap.
//! - **A failed reload changes nothing for callers.** The current generation stays current, with its state. Side effects
//!   that a plugin's own start-up code had outside of its memory are not undone.
//! - **No plugin code runs before admission**, and the bytes that were admitted are the bytes that run.
//! - **No destructor of a plugin runs on a caller's thread**, except for a wasm instance that ends with its call.
//!
//! # Limits
//! - Generations do not share memory with each other through this library, but native plugins share the address space
//!   of the process: one that corrupts memory can crash the host. The docs of `native` list what is detected before a
//!   library is loaded.
//! - State is transferred as bytes or plain structs that both versions understand, never as Rust types.
//! - A native plugin that does not stop cannot be killed on its own. It is reported, and its successor serves.
//! - A slot lives in one process. Distributing artifacts between machines is up to the host.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod artifact;
mod auto;
mod backend;
mod call_cost;
#[cfg(any(feature = "native", feature = "wasm"))]
mod child;
mod detached;
mod error;
mod event;
mod failures;
pub mod guide;
pub mod host;
#[cfg(any(feature = "native", feature = "wasm"))]
mod inspect;
#[cfg(any(feature = "native", feature = "wasm"))]
mod inspection;
#[cfg(any(feature = "native", feature = "wasm"))]
mod linkage;
mod loader_lock;
mod lock;
mod manifest;
#[cfg(all(target_os = "linux", any(feature = "native", feature = "wasm")))]
mod memfd;
#[cfg(feature = "native")]
#[cfg_attr(docsrs, doc(cfg(feature = "native")))]
pub mod native;
mod nesting;
mod plugin_scope;
#[cfg(any(feature = "native", feature = "wasm"))]
mod private_dir;
mod process_id;
mod report;
#[cfg(feature = "serde")]
mod serialize;
mod slot;
mod state;
mod status;
mod stop;
mod text;
mod version_rule;
#[cfg(feature = "wasm")]
#[cfg_attr(docsrs, doc(cfg(feature = "wasm")))]
pub mod wasm;
mod workers;

pub use artifact::{Admission, Artifact, ArtifactId, Candidate, Digest, Payload};
pub use auto::Auto;
pub use backend::{Backend, BoxError, Format, KeepAlive, LoadContext, Loaded, Release};
pub use call_cost::CallCost;
#[cfg(any(feature = "native", feature = "wasm"))]
pub use child::rehearsal_point;
pub use error::{Error, ErrorKind, Serving};
pub use event::{Event, Subscription};
pub use failures::FailureCounter;
/// Declares an [interface](mod@host): see [`hotslot_plugin::interface`].
pub use hotslot_plugin::interface;
#[cfg(any(feature = "native", feature = "wasm"))]
pub use inspect::inspect;
#[cfg(any(feature = "native", feature = "wasm"))]
pub use inspection::Inspection;
#[cfg(any(feature = "native", feature = "wasm"))]
pub use linkage::{
    FoundThrough, Interposition, LibraryChange, Linkage, MappedLibrary, NeededLibrary, ProcessEffect, Protection,
    Replaced,
};
pub use manifest::Manifest;
pub use plugin_scope::PluginScope;
pub use report::{Cause, Outcome, Report, Stage};
pub use semver;
pub use slot::{
    Builder, BusyPolicy, CallStats, Canary, Difference, GroupError, GroupLease, GroupReport, GroupStatus, HotSlot,
    Lease, Members, Probation, ProbationPolicy, Rollback, Runner, Shadow, ShadowBuilder, ShadowReport, SlotGroup,
    Staged, StagedGroup,
};
pub use state::{Runnable, State, Stateful, transfer_state};
pub use status::{
    Counters, Footprint, LeaseOrigin, Phase, Retained, RetiredStatus, ServingStatus, StagedStatus, Status,
};
pub use stop::StopSignal;
pub use text::escape_untrusted;
pub use version_rule::VersionRule;

/// Returns what a child process of this program can be started for.
#[cfg(any(feature = "native", feature = "wasm"))]
fn child_roles() -> Vec<child::Role<'static>> {
    vec![
        #[cfg(feature = "native")]
        native::rehearsal_role(),
        #[cfg(feature = "wasm")]
        wasm::compilation_role(),
    ]
}
