//! The logic of a rollout over a fleet: what a node does with a document, and which document its leader writes next.
//!
//! There is no clock in this crate, no socket and no runtime. Events go in together with the time of whoever runs it, and
//! effects come out; so a whole fleet with all that can befall it runs inside a test, thousands of times (see
//! `tests/simulation`).
//!
//! # How a rollout goes
//! One document says what the fleet should do: [`Desired`]. Only the leader writes it, nodes only read it.
//!
//! 1. *Stage*: every node fetches the target, verifies it, and loads it beside what serves. Nothing is committed before
//!    all nodes that are present have answered.
//! 2. *Commit*, wave by wave: a node whose [position](Position) lies in the wave that is open commits what it has staged.
//!    The first wave is a canary. The next one opens when the wave serves the target, has done so for its bake time, and
//!    compares well with the nodes that have not changed.
//! 3. *Done*: the target is what the fleet serves, whoever joins later included. Or *abort*: everybody goes back to the
//!    stable release.
//!
//! # Groups
//! A rollout is for everybody, or for the nodes with a label ([`Scope`]): the others take no part in it, and keep what they
//! serve. Once it is done, its target is the stable release of that group, and stays so until a rollout for everybody is done.
//! There is one document and one rollout at a time for all of them, so fencing and freezing are of the fleet as a whole; who is
//! asked, who is counted and who is compared with whom is a matter of the rollout's nodes alone.
//!
//! # What holds, whatever is lost, late, doubled or reordered
//! - A node never follows a document that is older than one that it has followed. Documents are ordered by
//!   [`Order`], leaders by their term, and a node has [`Memory`] of both on disk before it acts.
//! - A release whose rollout was aborted is not served again by a node that knows of the abort, unless a later rollout
//!   names it as its target.
//! - A release that failed its probation on a node is not tried again by this node in the same rollout.
//! - Every phase ends: each has a deadline with a fixed outcome.
//! - While a wave is open, only its nodes commit the target.
//! - A node that a rollout is not for never serves its target.
//!
//! These rest on one property of the store: a write names the revision that it replaces, and is refused if that is no
//! longer the current one. They do not rest on clocks, on a leader being the only one, or on a store that never loses an
//! acknowledged write: what nodes have seen counts for more than what the store says, within what one node alone can make a
//! leader believe, see [`Leader`].

mod analysis;
mod document;
mod leader;
mod lease;
mod node;
mod plan;
mod scope;

pub use analysis::{Comparison, Finding};
pub use document::{Desired, Kind, NodeId, Order, Phase, Position, ReleaseId, Wave};
pub use leader::{Alarm, Command, Leader, LeaderEffect, NotDone, Standing};
pub use lease::{Lease, LeaseTiming};
pub use node::{Effect, Event, Memory, Node, Refusal, Report, Traffic};
pub use plan::{Analysis, Plan, WavePlan, WaveSize};
pub use scope::{Group, Label, Labels, MOST_GROUPS, MOST_LABEL, NotALabel, Scope};

/// A time or a duration in milliseconds. Times are of a clock that only goes forward, and mean nothing to anybody else.
pub type Millis = u64;

/// The revision of a key in the store: a write names the one that it replaces.
pub type Revision = u64;
