//! A fleet of nodes that change together: `waf node --fleet nats://…` and `waf orchestrator --nats nats://…`.
//!
//! One [document](Document) says what the fleet should do. [`leader`] writes it, [`node`] follows it, and what either of them
//! does next is decided in the crate `waf-rollout`, which knows no clock and no socket. [`store`] is the only file that knows
//! NATS.

mod api;
mod artifacts;
mod audit;
pub mod demo;
mod demo_key;
mod disk;
mod examiner;
mod leader;
pub mod load;
pub mod managed;
mod node;
pub mod orchestrator;
mod queue;
pub mod region;
mod store;
mod view;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hotslot::Digest;
use hotslot_trust::Signed;
use serde::{Deserialize, Serialize};
use waf_rollout::{Desired, Label, ReleaseId, Report};

pub use self::node::start;
pub use self::store::Endpoint;
use crate::config::{FailurePolicy, Uninspected};
use crate::release::Release;

/// The format of descriptions, and of documents that are for everybody. A node follows no document of another one.
const FORMAT: u32 = 1;
/// The format of documents that have to do with groups: who does not know of them must not take them for the plain ones.
const FORMAT_WITH_GROUPS: u32 = 2;

/// How large a report may be. A larger one is no report: see the test of the largest.
const MOST_TELLING: usize = 16 << 10;
/// How much of it the labels may be.
const MOST_LABELS: usize = 4 << 10;

/// How a node takes part in a fleet.
#[derive(Clone, Debug, Args)]
pub struct Membership {
    #[command(flatten)]
    pub endpoint: Endpoint,

    /// The name of this node in its fleet [default: drawn at the first start]
    #[arg(long = "node", value_name = "NAME", value_parser = plain_name)]
    pub name: Option<String>,

    /// A label of this node, for releases that are for a part of the fleet: KEY=VALUE, any number of times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,

    /// Spread the nodes' fetches of a new release over so many seconds: for large fleets. A plan's stage deadline has to be longer
    #[arg(long, value_name = "SECONDS", value_parser = splay, default_value = "0")]
    pub fetch_splay: Duration,
}

fn splay(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a number of seconds, up to 3600".to_owned())
}

/// Takes a name that is one token of a subject and one component of a path.
fn plain_name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match !text.is_empty() && text.len() <= 64 && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 letters, digits, `-` or `_`".to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    text.parse::<Label>().map_err(|error| error.to_string())?;
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((plain_name(key)?, value.to_owned()))
}

/// What the nodes of a release do with what cannot be inspected or was not answered: the part of their configuration that
/// changes with the release. What is not set is as each node's own configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<FailurePolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uninspected: Option<Uninspected>,
}

impl Settings {
    /// What a signature is over that ties a module to its configuration.
    fn bytes(self) -> Vec<u8> {
        serde_json::to_vec(&self).expect("texts")
    }

    fn check(self) -> Result<(), String> {
        if self.failure_policy == Some(FailurePolicy::Open) && self.uninspected != Some(Uninspected::Log) {
            let problem =
                "the failure policy open lets through what no rules have seen: it needs uninspected = \"log\"";
            return Err(problem.to_owned());
        }
        Ok(())
    }
}

/// What a release is made of. It is an artifact itself, and its digest is the release's name: whoever has the name can fetch
/// and verify all of it, whoever it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format: u32,
    /// The digests of the module and of the rule file.
    module: String,
    rules: String,
    #[serde(default)]
    config: Settings,
    /// Who says what the module is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed: Option<Signed>,
}

impl Description {
    fn of(release: &Release, config: Settings) -> Description {
        let (module, rules) = (release.module.digest().to_string(), release.rules.digest().to_string());
        Description {
            format: FORMAT,
            module,
            rules,
            config,
            signed: release.module.signed().map(|it| Signed::clone(it)),
        }
    }

    fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and numbers").into()
    }

    fn id(&self) -> ReleaseId {
        Digest::of(&self.bytes()).to_string().parse().expect("a digest")
    }

    /// Reads a description that has this name.
    fn read(id: ReleaseId, bytes: &[u8]) -> Result<Description, String> {
        if Digest::of(bytes).to_string() != id.to_string() {
            return Err("its description has another digest".to_owned());
        }
        let description: Description =
            serde_json::from_slice(bytes).map_err(|error| format!("its description: {error}"))?;
        match description.format {
            FORMAT => Ok(description),
            other => Err(format!("its description has format {other}, and this node knows {FORMAT}: update the node")),
        }
    }

    /// Returns the manifest, to go with the module.
    fn manifest(&self) -> Option<Arc<Signed>> {
        self.signed.clone().map(Arc::new)
    }

    fn is_of(&self, release: &Release) -> bool {
        (&self.module, &self.rules) == (&release.module.digest().to_string(), &release.rules.digest().to_string())
    }
}

/// What the fleet should do, as it is stored: what decides, and what people want to know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Document {
    format: u32,
    #[serde(flatten)]
    desired: Desired,
    #[serde(flatten)]
    about: About,
}

impl Document {
    fn new(desired: Desired, about: About) -> Document {
        let is_plain = desired.scope.is_everybody() && desired.groups.is_empty();
        Document { format: if is_plain { FORMAT } else { FORMAT_WITH_GROUPS }, desired, about }
    }

    /// Reads what is stored.
    fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
        #[derive(Deserialize)]
        struct Stated {
            format: u32,
        }
        let Stated { format } = serde_json::from_slice(bytes)?;
        match format {
            FORMAT | FORMAT_WITH_GROUPS => Ok(serde_json::from_slice(bytes)?),
            other => Err(Unreadable::Format(other)),
        }
    }
}

/// Why what is stored is not followed.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    /// A newer program has written it.
    #[error("it has format {0}, and this program knows up to {FORMAT_WITH_GROUPS}: update it")]
    Format(u32),
    /// Nobody has written it who leads.
    #[error("it is no document: {0}")]
    NoDocument(#[from] serde_json::Error),
}

/// Where a rollout comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct About {
    /// Who asked for it.
    by: String,
    reason: String,
    /// The request that it comes from, if that has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<Asked>,
    /// Those of the rollouts before, the latest first: whoever leads next knows them, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    asked_before: Vec<(u64, Asked)>,
    /// The target's version, as people write it.
    version: Option<String>,
}

/// A request that may be sent twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    /// Its `Idempotency-Key`.
    key: String,
    /// The digest of what it asks for.
    digest: String,
}

impl About {
    /// Returns the same for a rollout that follows what is said in `before`.
    fn after(self, before: Option<&Document>) -> About {
        /// Whoever repeats a request does so soon.
        const MOST: usize = 16;
        let Some(Document { desired, about, .. }) = before else { return self };
        let last = about.asked.clone().map(|asked| (desired.order.rollout, asked));
        let asked_before = last.into_iter().chain(about.asked_before.iter().cloned()).take(MOST).collect();
        About { asked_before, ..self }
    }
}

/// What a node tells: how it stands, and what people want to know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Telling {
    #[serde(flatten)]
    report: Report,
    /// What serves.
    version: Option<String>,
    module: String,
    rules: String,
    generation: u64,
    /// The last problem with a release, and the rollout that it came with.
    problem: Option<Problem>,
    /// The last change of what serves, and the rollout that asked for it.
    change: Option<Changed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Problem {
    rollout: u64,
    stage: String,
    error: String,
}

/// All figures were measured by the node, with its own monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Changed {
    rollout: u64,
    release: ReleaseId,
    /// From when the node heard that there is something to read until the release served.
    after_hint_ms: f64,
    downtime_ms: f64,
    requests: u64,
}

#[cfg(test)]
mod tests {
    use waf_rollout::{Group, MOST_GROUPS, MOST_LABEL};

    use super::*;

    #[test]
    fn a_label_on_the_command_line_is_short_and_says_why_it_is_none() {
        assert_eq!(label("region=eu"), Ok(("region".to_owned(), "eu".to_owned())));
        let long = label(&format!("region={}", "x".repeat(MOST_LABEL))).unwrap_err();
        assert!(long.contains("at most 128 bytes") && long.contains("135"), "{long}");
        for text in ["region", "=eu", "a b=c", "region=\u{7}"] {
            assert!(label(text).is_err(), "{text:?}");
        }
    }

    /// Otherwise no report of a fleet with many groups would count, and with them all of its nodes would be gone.
    #[test]
    fn the_largest_report_is_a_report() {
        // What takes two bytes in JSON.
        let quotes = |bytes: usize| "\"".repeat(bytes);
        let group = |_| Group {
            label: format!("k={}", quotes(MOST_LABEL - 2)).parse().expect("a label"),
            release: ReleaseId::new([255; 32]),
        };
        let groups: Vec<Group> = (0..MOST_GROUPS).map(group).collect();
        let text = serde_json::json!({
            "node": "n".repeat(64), "boot": u64::MAX, "seq": u64::MAX, "term": u64::MAX, "rollout": u64::MAX,
            "step": u64::MAX, "aborted": u64::MAX, "settled": ReleaseId::new([255; 32]), "staged": false, "refused": false,
            "condemned": false, "serving": ReleaseId::new([255; 32]), "pinned": false, "held": false,
            "traffic": { "calls": u64::MAX, "errors": u64::MAX, "blocked": u64::MAX, "p99_us": u64::MAX },
            "labels": { "k": "v".repeat(MOST_LABELS) }, "groups": groups, "version": "v".repeat(node::MOST_ERROR + 3),
            "module": "0".repeat(64), "rules": "0".repeat(64), "generation": u64::MAX,
            "problem": { "rollout": u64::MAX, "stage": "examination", "error": "e".repeat(node::MOST_ERROR + 3) },
            "change": { "rollout": u64::MAX, "release": ReleaseId::new([255; 32]), "after_hint_ms": f64::MAX,
                "downtime_ms": f64::MAX, "requests": u64::MAX },
        });
        let telling: Telling = serde_json::from_value(text).expect("a report");
        let bytes = serde_json::to_vec(&telling).expect("texts and numbers").len();
        assert!(bytes <= MOST_TELLING, "{bytes}");
    }
}
