//! A place in a program where exactly one plugin serves at a time, and is replaced while it does.
//!
//! [The guide](guide) begins with a first plugin in five minutes, and has a chapter for each question after that.
//!
//! # The problem
//! A program that must not stop has a part that must change: trading logic, firewall rules, a price feed. The naive
//! way is a lock around a library handle:
//!
//! ```ignore
//! let rules = plugin.read().unwrap();          // every call waits while a new plugin loads
//! rules.inspect(&request);
//! // and elsewhere:
//! *plugin.write().unwrap() = Library::new("rules.so")?;  // often the old code again: the loader caches by name;
//!                                                        // a bad file takes the process down with it;
//!                                                        // the old library is unmapped under its own threads
//! ```
//!
//! # This way
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
//!     .probe(|text: &str| if text.is_empty() { Err("an empty greeting") } else { Ok(()) })
//!     .open(b"1.0.0 hello")?;
//!
//! let old = slot.load();                       // a lease: wait-free, good for as long as it is held
//! let report = slot.reload(b"1.1.0 good day")?; // admitted, loaded, probed, then one pointer store
//! assert_eq!(&*old, "1.0.0 hello");            // whoever was inside finishes with what they had
//! assert_eq!(&*slot.load(), "1.1.0 good day");
//!
//! assert!(slot.reload(b"0.9.0 hi").is_err());  // refused: nothing changed
//! slot.rollback()?;
//! assert_eq!(&*slot.load(), "1.0.0 hello");
//! # assert!(report.is_swap());
//! # Ok::<(), hotslot::Error>(())
//! ```
//!
//! An artifact goes: **admit** (no plugin code runs) → **load** → **probe** → **hand over** (state) → **commit** →
//! **watch**; and the generation it replaced: stop signal → drain → destruction, on a thread of its own.
//! A failure at any stage changes nothing: what served serves on.
//!
//! # Backends
//! A [`Backend`] turns bytes into a live plugin. With the feature `native` (default) there is the `native` module, for
//! dynamic libraries; with `wasm`, the `wasm` module, for WebAssembly; one of your own takes a page. The core knows
//! none of them.
//!
//! # Limits
//! - Two generations never share memory, but native plugins share the process: one that corrupts memory takes the
//!   host down. What can be kept out beforehand is in the docs of `native`.
//! - State goes from one version to the next as bytes or plain structs that both understand, never as Rust types.
//! - A native plugin that will not end cannot be killed on its own; it is reported, and its successor serves.
//! - Only one process is looked after. Moving artifacts between machines is up to the host.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod artifact;
mod auto;
mod backend;
mod call_cost;
mod error;
mod event;
mod failures;
pub mod guide;
pub mod host;
#[cfg(any(feature = "native", feature = "wasm"))]
mod inspect;
mod manifest;
#[cfg(feature = "native")]
#[cfg_attr(docsrs, doc(cfg(feature = "native")))]
pub mod native;
mod plugin_scope;
#[cfg(any(feature = "native", feature = "wasm"))]
mod private_dir;
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

pub use artifact::{Admission, Artifact, ArtifactId, Candidate, Digest, Payload};
pub use auto::Auto;
pub use backend::{Backend, BoxError, Format, KeepAlive, LoadContext, Loaded, Release};
pub use call_cost::CallCost;
pub use error::{Error, ErrorKind, Serving};
pub use event::{Event, Subscription};
pub use failures::FailureCounter;
/// Declares an [interface](mod@host): see [`hotslot_plugin::interface`].
pub use hotslot_plugin::interface;
#[cfg(any(feature = "native", feature = "wasm"))]
pub use inspect::{Inspection, inspect};
pub use manifest::Manifest;
pub use plugin_scope::PluginScope;
pub use report::{Cause, Outcome, Report, Stage};
pub use semver;
pub use slot::{
    Builder, BusyPolicy, CallStats, HotSlot, Lease, LeaseOrigin, Probation, ProbationPolicy, Rollback, Runner, Staged,
};
pub use state::{Runnable, State, Stateful, transfer_state};
pub use status::{Counters, Phase, Retained, RetiredStatus, ServingStatus, StagedStatus, Status};
pub use stop::StopSignal;
pub use text::escape_untrusted;
pub use version_rule::VersionRule;
