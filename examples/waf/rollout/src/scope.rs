//! Whom a rollout is for: everybody, or the nodes with a label. Nodes with a label may keep a release of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ReleaseId;

/// What a node says of itself: values by key.
pub type Labels = BTreeMap<String, String>;

/// How many groups of a fleet may have a release of their own: all of them are in each document and each report.
pub const MOST_GROUPS: usize = 16;

/// How many bytes a label may have, written `KEY=VALUE`: those of all groups are in each document and each report.
pub const MOST_LABEL: usize = 128;

/// One label, written `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    key: String,
    value: String,
}

impl Label {
    /// Makes a label.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }

    /// Returns whether it is one of these.
    pub fn is_of(&self, labels: &Labels) -> bool {
        labels.get(&self.key) == Some(&self.value)
    }
}

/// Writes `KEY=VALUE`.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// Why a text is no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotALabel {
    /// There is no `=`, or nothing before it.
    #[error("a label is KEY=VALUE, and its key is not empty")]
    NoKey,
    /// Documents and reports with many of its kind would become too large.
    #[error("a label has at most {MOST_LABEL} bytes, written KEY=VALUE, and this one has {bytes}: shorten it")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// Nobody can read it, and in a document it takes six times its length.
    #[error("a label has no control characters")]
    ControlCharacter,
}

impl Label {
    /// Returns whether the labels that a node says that it has are some.
    ///
    /// # Errors
    /// [`NotALabel`] says what is wrong with the first that is none.
    pub fn check_all(labels: &Labels) -> Result<(), NotALabel> {
        labels.iter().try_for_each(|(key, value)| Self::new(key, value).check())
    }

    fn check(&self) -> Result<(), NotALabel> {
        let bytes = self.key.len() + 1 + self.value.len();
        match () {
            () if self.key.is_empty() => Err(NotALabel::NoKey),
            () if bytes > MOST_LABEL => Err(NotALabel::TooLong { bytes }),
            () if self.key.chars().chain(self.value.chars()).any(char::is_control) => Err(NotALabel::ControlCharacter),
            () => Ok(()),
        }
    }

    fn split(text: &str) -> Result<Self, NotALabel> {
        let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or(NotALabel::NoKey)?;
        Ok(Self::new(key, value))
    }
}

impl FromStr for Label {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        let label = Self::split(text)?;
        label.check().map(|()| label)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Takes one of any length: what a store and a history have of old has to be read.
impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::split(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The nodes with a label, and the release that is theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What its nodes have.
    pub label: Label,
    /// What they serve.
    pub release: ReleaseId,
}

impl Group {
    /// Returns the group whose release a node with these labels has: the last one that it is in.
    pub fn of<'a>(groups: &'a [Self], labels: &Labels) -> Option<&'a Self> {
        groups.iter().rev().find(|group| group.label.is_of(labels))
    }

    /// Returns the release of a node with these labels: that of the last group that it is in.
    pub fn release_for(groups: &[Self], labels: &Labels) -> Option<ReleaseId> {
        Self::of(groups, labels).map(|group| group.release)
    }
}

/// Whom a rollout is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All nodes. Once it is done, no group has a release of its own any more.
    #[default]
    Everybody,
    /// The nodes with this label. Once it is done, the target is their release, and the others keep what is theirs.
    Group(Label),
    /// All nodes, each group with a target of its own: rules that everybody gets, whatever module they are for. The document's
    /// target is for those that are in none of these groups.
    Each(Vec<Group>),
}

impl Scope {
    /// Returns whether it is for all nodes, and one release is for all of them.
    pub fn is_everybody(&self) -> bool {
        *self == Self::Everybody
    }

    /// Returns what the rollout has a node with these labels serve, if it is for this node.
    pub fn target_for(&self, target: ReleaseId, labels: &Labels) -> Option<ReleaseId> {
        match self {
            Self::Everybody => Some(target),
            Self::Group(label) => label.is_of(labels).then_some(target),
            Self::Each(groups) => Some(Group::release_for(groups, labels).unwrap_or(target)),
        }
    }
}
