//! The one document that says what the fleet should do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Group, Labels, Plan, Scope};

/// The digest that identifies a release: its module, its rule file and its configuration, which change as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseId([u8; 32]);

impl ReleaseId {
    /// Wraps a digest.
    pub const fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Returns the digest.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Writes the digest in lower-case hexadecimal.
impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Returned for a text that is not a digest of 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a release is named by the 64 hexadecimal digits of its digest")]
pub struct NotADigest;

impl FromStr for ReleaseId {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        if text.len() != 64 {
            return Err(NotADigest);
        }
        let digit = |byte: u8| (byte as char).to_digit(16).ok_or(NotADigest);
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(Self(digest))
    }
}

impl Serialize for ReleaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReleaseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of a node, unique in its fleet and kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(String);

impl NodeId {
    /// Wraps a name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a node stands in the order in which the nodes of a fleet change, in one rollout: from 0 to 2^32 - 1.
///
/// A hash of the node's name and the rollout's number. So a document of constant size can name a wave, each rollout has
/// other canaries, and nobody needs a list of the nodes to know whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u32);

impl Position {
    /// Computes the position of `node` in `rollout`. Nodes and leaders of all versions must agree on it.
    pub fn of(node: &NodeId, rollout: u64) -> Self {
        // FNV-1a over name and number, then the finalizer of MurmurHash3: FNV alone leaves names that differ in their
        // last letter side by side.
        let bytes = node.0.bytes().chain(rollout.to_le_bytes());
        let mut hash =
            bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        Self((hash ^ hash >> 33) as u32)
    }
}

/// Orders documents: first by the number of the rollout, then by the step within it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Order {
    /// The number of the rollout, never used twice.
    pub rollout: u64,
    /// The number of the document within its rollout. Every change of the document raises it, so that a read that a server
    /// answers from the past is recognised.
    pub step: u64,
}

/// Why there is a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// To serve something new.
    Release,
    /// To go back to something that served before. It has no canary and no bake time.
    Rollback,
    /// To bring nodes together that serve different things.
    Sync,
}

/// How far a rollout has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nodes load the target beside what they serve.
    Stage,
    /// The nodes of the open wave serve the target.
    Commit,
    /// All nodes serve the target. The rollout has ended.
    Done,
    /// All nodes serve the stable release. The rollout has ended.
    Abort,
}

/// Which nodes may commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Counts the waves of the plan, from 0.
    pub index: usize,
    /// The nodes whose position is below this may commit.
    pub below: u64,
}

impl Wave {
    /// Nobody: before the first wave.
    pub const NOBODY: Self = Self { index: 0, below: 0 };
    /// The value of `below` that admits every node.
    pub const EVERYBODY: u64 = 1 << 32;

    /// Reports whether a node at `position` may commit.
    pub fn admits(&self, position: Position) -> bool {
        u64::from(position.0) < self.below
    }

    /// Reports whether every node may commit.
    pub fn is_everybody(&self) -> bool {
        self.below >= Self::EVERYBODY
    }

    /// Returns the smallest `below` that admits the node at `position`.
    pub(crate) fn below_to_admit(position: Position) -> u64 {
        u64::from(position.0) + 1
    }
}

/// What the fleet should do: the document that the leader writes and the nodes follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// The term of the leader that wrote it. A leader of a lower term may not replace it.
    pub term: u64,
    /// The rollout and the step within it.
    #[serde(flatten)]
    pub order: Order,
    /// Why there is this rollout.
    pub kind: Kind,
    /// How far it has come.
    pub phase: Phase,
    /// What the fleet serves if the rollout succeeds.
    pub target: ReleaseId,
    /// What it serves if not. `None` for the first rollout of a fleet: then nodes keep what they have.
    pub stable: Option<ReleaseId>,
    /// Which nodes may commit.
    pub wave: Wave,
    /// How the rollout proceeds.
    pub plan: Plan,
    /// Whether waves and deadlines stand still until somebody resumes.
    pub paused: bool,
    /// Whether nothing may be committed and no rollout may start until somebody resumes. Only an abort goes back meanwhile.
    pub frozen: bool,
    /// Whom the rollout is for.
    #[serde(default, skip_serializing_if = "Scope::is_everybody")]
    pub scope: Scope,
    /// The groups that have had a release of their own when the rollout began, in the order in which they got it: a node that is
    /// in several has that of the last. It takes the place of `stable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

impl Desired {
    /// Returns what the fleet serves if nothing else is asked of it: the nodes that are in no group with a release of its own.
    pub fn settled(&self) -> Option<ReleaseId> {
        match (self.phase, &self.scope) {
            (Phase::Done, Scope::Everybody | Scope::Each(_)) => Some(self.target),
            _ => self.stable,
        }
    }

    /// Returns the groups that have a release of their own if nothing else is asked of the fleet.
    pub fn settled_groups(&self) -> Vec<Group> {
        match (self.phase, &self.scope) {
            (Phase::Done, Scope::Everybody) => Vec::new(),
            (Phase::Done, Scope::Each(groups)) => groups.clone(),
            (Phase::Done, Scope::Group(label)) => {
                let others = self.groups.iter().filter(|group| group.label != *label).cloned();
                others.chain([Group { label: label.clone(), release: self.target }]).collect()
            }
            _ => self.groups.clone(),
        }
    }

    /// Returns what a node with these labels serves if nothing else is asked of it.
    pub fn settled_for(&self, labels: &Labels) -> Option<ReleaseId> {
        let target = self.target_for(labels).filter(|_| self.phase == Phase::Done);
        target.or_else(|| self.stable_for(labels))
    }

    /// Returns what a node with these labels serves if the rollout succeeds; `None` if the rollout is not for it.
    pub fn target_for(&self, labels: &Labels) -> Option<ReleaseId> {
        self.scope.target_for(self.target, labels)
    }

    /// Returns what a node with these labels serves if the rollout does not succeed, or is not for it.
    pub fn stable_for(&self, labels: &Labels) -> Option<ReleaseId> {
        Group::release_for(&self.groups, labels).or(self.stable)
    }

    /// Returns all that a node may serve because of the rollout.
    pub fn targets(&self) -> Vec<ReleaseId> {
        let groups: &[Group] = if let Scope::Each(groups) = &self.scope { groups } else { &[] };
        groups.iter().map(|group| group.release).chain([self.target]).collect()
    }

    /// Returns all that a node may serve without it.
    pub fn stables(&self) -> Vec<ReleaseId> {
        self.groups.iter().map(|group| group.release).chain(self.stable).collect()
    }

    /// Reports whether the rollout has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Done | Phase::Abort)
    }

    /// Returns the document that follows this one in its rollout, written by the leader of `term`, still without a change.
    pub(crate) fn next(&self, term: u64) -> Self {
        Self { term, order: Order { step: self.order.step.saturating_add(1), ..self.order }, ..self.clone() }
    }
}
