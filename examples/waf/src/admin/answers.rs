//! What the API answers.

use std::collections::VecDeque;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use hotslot::host::ContractError;
use hotslot::wasm::ModuleError;
use hotslot::{ErrorKind, Phase, Stage, escape_untrusted};
use serde::Serialize;

use crate::archive;
use crate::chain::{Chain, Named};
use crate::deploy::{self, Deployments, Record, Refusal};
use crate::guard::{Guard, ModuleGuard, RuleError, Tally};
use crate::json::moment;
use crate::live::Second;
use crate::rule_file::EditError;
use crate::trial::View;
use crate::trust::Untrusted;
use crate::version::shown;

/// A reload that succeeded.
#[derive(Serialize)]
pub struct Reloaded {
    success: bool,
    message: String,
    module: String,
    version: Option<String>,
    downtime_ms: Option<f64>,
    requests_during_reload: Option<u64>,
    duration_ms: f64,
    generation: Option<u64>,
    digest: String,
    rules_digest: String,
}

impl Reloaded {
    pub fn new(module: &str, record: Record, message: String) -> Reloaded {
        Reloaded {
            success: true,
            message,
            module: module.to_owned(),
            version: record.version,
            downtime_ms: record.downtime_ms,
            requests_during_reload: record.requests_during_reload,
            duration_ms: record.duration_ms,
            generation: record.generation,
            digest: record.digest,
            rules_digest: record.rules_digest,
        }
    }
}

/// A rollback that succeeded.
#[derive(Serialize)]
pub struct RolledBack {
    success: bool,
    /// What was done, and what was left as it was.
    message: String,
    module: String,
    rolled_back_to: Option<String>,
    reason: Option<String>,
    module_changed: bool,
    rules_changed: bool,
    downtime_ms: Option<f64>,
    requests_during_reload: Option<u64>,
    generation: Option<u64>,
    digest: String,
    rules_digest: String,
}

impl RolledBack {
    pub fn new(module: &str, done: deploy::RolledBack) -> RolledBack {
        let deploy::RolledBack { record, did, module_changed, rules_changed } = done;
        RolledBack {
            success: true,
            message: did,
            module: module.to_owned(),
            rolled_back_to: record.version,
            reason: record.reason,
            module_changed,
            rules_changed,
            downtime_ms: record.downtime_ms,
            requests_during_reload: record.requests_during_reload,
            generation: record.generation,
            digest: record.digest,
            rules_digest: record.rules_digest,
        }
    }
}

/// A reload or a rollback that was refused.
#[derive(Serialize)]
struct Refused {
    success: bool,
    error: String,
    /// All that is known of it.
    detail: String,
    stage: &'static str,
    module: String,
    /// Why it is not trusted, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    current_version: Option<String>,
    status: String,
    /// What kind of refusal it is, if it is about a trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// The trial that is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    trial: Option<View>,
}

/// Goes with an answer, for the audit log.
#[derive(Clone, Copy)]
pub struct NotTrusted(pub &'static str);

/// Answers a refusal: why, and what keeps serving.
pub fn refused(refusal: &Refusal, guard: &ModuleGuard) -> Response {
    let serving = guard.slot().status().serving;
    let current_version = serving.as_ref().and_then(|serving| serving.version.as_ref()).map(ToString::to_string);
    let status = match (&current_version, &serving) {
        (Some(version), _) => format!("still_serving_{}", shown(version)),
        (None, Some(serving)) => format!("still_serving_{}", serving.digest.short()),
        (None, None) => "not_serving".to_owned(),
    };
    let safe = |text: &str| escape_untrusted(text).into_owned();
    let detail = safe(&refusal.to_string());
    let error = in_short(refusal).map_or_else(|| detail.clone(), |short| safe(&short));
    let (stage, module) = (refusal.stage(), guard.name().to_owned());
    let reason = refusal.untrusted().map(Untrusted::reason);
    let (kind, trial) = match refusal {
        Refusal::TrialUnderWay { .. } => (Some("trial_under_way"), guard.last_trial().map(|trial| trial.view())),
        Refusal::NoTrial => (Some("no_trial"), None),
        _ => (None, None),
    };
    let body = Refused { success: false, error, detail, stage, module, reason, current_version, status, kind, trial };
    let mut answer = (code(refusal), Json(body)).into_response();
    if let Some(reason) = reason {
        answer.extensions_mut().insert(NotTrusted(reason));
    }
    if let Some(wait) = refusal.retry_after() {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
    }
    answer
}

/// The usual refusals in the words that operators look for.
fn in_short(refusal: &Refusal) -> Option<String> {
    match refusal {
        _ if refusal.untrusted().is_some() => refusal.untrusted().map(ToString::to_string),
        Refusal::Version { expected, got, .. } => {
            Some(format!("Version conflict: expected {}, got {}", shown(expected), shown(got)))
        }
        Refusal::Slot(error) => match error.kind() {
            ErrorKind::TimedOut(after) | ErrorKind::QueueTimedOut(after) => {
                Some(format!("Reload timed out after {}s", after.as_secs_f64()))
            }
            ErrorKind::Refused(source) if error.stage() == Stage::Admit => not_a_module(&**source),
            _ => None,
        },
        _ => None,
    }
}

/// Why bytes are no module with rules, if it is that.
fn not_a_module(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    for error in std::iter::successors(Some(error), |error| error.source()) {
        let lacks_method = match (error.downcast_ref::<ModuleError>(), error.downcast_ref::<ContractError>()) {
            // The method is called through these.
            (Some(ModuleError::MissingExport { .. } | ModuleError::NoMemory { .. }), _) => true,
            (Some(error), _) => return Some(format!("Invalid WASM module: {error}")),
            (None, Some(ContractError::Missing { .. } | ContractError::MissingMethod { .. })) => true,
            (None, Some(ContractError::Interface { .. })) => true,
            _ => false,
        };
        if lacks_method {
            return Some("Invalid WASM module: missing inspect_request export".to_owned());
        }
    }
    None
}

fn code(refusal: &Refusal) -> StatusCode {
    if let Some(untrusted) = refusal.untrusted() {
        return match untrusted {
            _ if untrusted.is_transient() => StatusCode::INSUFFICIENT_STORAGE,
            _ if untrusted.is_outdated() => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
    }
    match refusal {
        Refusal::Untrusted(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Disabled => StatusCode::FORBIDDEN,
        Refusal::Rules(EditError::Malformed(_) | EditError::Text) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Rules(EditError::Missing(_)) => StatusCode::NOT_FOUND,
        Refusal::Rules(EditError::Exists(_)) | Refusal::NothingBefore(_) => StatusCode::CONFLICT,
        Refusal::Version { .. } => StatusCode::CONFLICT,
        Refusal::RulesChanged => StatusCode::PRECONDITION_FAILED,
        Refusal::Archive(_) => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::NotArchived(_) | Refusal::Overtaken => StatusCode::CONFLICT,
        Refusal::TrialUnderWay { .. } | Refusal::NoTrial | Refusal::Trial(_) | Refusal::TrialEnded { .. } => {
            StatusCode::CONFLICT
        }
        Refusal::Slot(error) => match error.kind() {
            ErrorKind::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::TooSoon { .. } => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Busy
            | ErrorKind::BaseChanged { .. }
            | ErrorKind::TooManyRetired { .. }
            | ErrorKind::NotWarm { .. }
            | ErrorKind::AlreadyServing(_)
            | ErrorKind::CanaryFailed(_)
            | ErrorKind::CanaryUnderWay(_)
            | ErrorKind::Version(_) => StatusCode::CONFLICT,
            ErrorKind::Closed | ErrorKind::NoThread(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        },
    }
}

/// A request that was not even understood.
pub fn refusal(status: StatusCode, error: impl Into<String>) -> (StatusCode, Json<serde_json::Value>) {
    (status, Json(serde_json::json!({ "success": false, "error": error.into() })))
}

/// What serves.
#[derive(Serialize)]
pub struct Version {
    name: String,
    /// Whether it is the module whose rules the API changes.
    takes_rules: bool,
    version: Option<String>,
    loaded_at: String,
    previous_version: Option<String>,
    size_bytes: usize,
    digest: String,
    rules_digest: String,
    generation: u64,
    age_seconds: f64,
}

impl Version {
    pub fn of(deployments: &Deployments) -> Option<Version> {
        let serving = deployments.guard().slot().status().serving?;
        Some(Version {
            name: deployments.name().to_owned(),
            takes_rules: deployments.takes_rules(),
            version: serving.version.map(|version| version.to_string()),
            loaded_at: moment(serving.loaded_at),
            previous_version: deployments.previous_version(),
            size_bytes: serving.size,
            digest: serving.digest.to_string(),
            rules_digest: deployments.serving_rules().digest().to_string(),
            generation: serving.generation,
            age_seconds: serving.age.as_secs_f64(),
        })
    }
}

/// What serves in each module, in order.
#[derive(Serialize)]
pub struct Modules {
    modules: Vec<Version>,
}

impl Modules {
    pub fn of(modules: &Chain<Deployments>) -> Modules {
        Modules { modules: modules.iter().filter_map(|module| Version::of(module)).collect() }
    }
}

/// Every attempt to change what serves, the latest first.
#[derive(Serialize)]
pub struct History {
    reloads: Vec<Attempt>,
}

#[derive(Serialize)]
struct Attempt {
    module: String,
    #[serde(flatten)]
    record: Record,
    /// Whether its generation is still loaded, and can be rolled back to.
    kept: bool,
    /// Whether it is what serves.
    serving: bool,
}

impl History {
    pub fn of(modules: &Chain<Deployments>) -> History {
        let mut all: Vec<_> = modules.iter().map(|module| Attempt::all(module)).collect();
        let mut reloads = Vec::new();
        // Those of one module stay in the order in which they ended.
        while let Some(next) = all.iter_mut().filter(|left| !left.is_empty()).max_by(|one, other| {
            let at = |left: &VecDeque<Attempt>| left.front().map_or(f64::MIN, |attempt| attempt.record.at);
            at(one).total_cmp(&at(other))
        }) {
            reloads.extend(next.pop_front());
        }
        History { reloads }
    }
}

impl Attempt {
    /// Those of one module, the latest first.
    fn all(deployments: &Deployments) -> VecDeque<Attempt> {
        let status = deployments.guard().slot().status();
        let warm: Vec<u64> = status
            .retired
            .iter()
            .filter(|retired| retired.phase == Phase::Warm)
            .map(|retired| retired.generation)
            .collect();
        let serving = status.serving.map(|serving| serving.generation);
        let attempt = |(record, since_start): (Record, bool)| {
            let kept = since_start && record.generation.is_some_and(|generation| warm.contains(&generation));
            let serving = since_start && record.generation.is_some() && record.generation == serving;
            Attempt { module: deployments.name().to_owned(), record, kept, serving }
        };
        deployments.history().into_iter().rev().map(attempt).collect()
    }
}

/// What the archive has, and what can come back.
#[derive(Serialize)]
pub struct Archived {
    module: String,
    modules: Vec<Kept>,
    rules: Vec<Kept>,
}

#[derive(Serialize)]
struct Kept {
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    size_bytes: u64,
    archived_at: String,
    serving: bool,
    /// Whether a rollback that names no other goes there.
    previous: bool,
}

impl Archived {
    pub fn of(deployments: &Deployments) -> Result<Archived, Refusal> {
        let contents = deployments.archived()?;
        let (module, rules) =
            (deployments.serving_module().to_string(), deployments.serving_rules().digest().to_string());
        let list = |objects: Vec<archive::Archived>, serving: &str, previous: Option<String>, versioned: bool| {
            let kept = |archive::Archived { digest, size, at }| Kept {
                version: versioned.then(|| deployments.version_of(&digest)).flatten(),
                size_bytes: size,
                archived_at: moment(at),
                serving: digest == serving,
                previous: previous.as_ref() == Some(&digest),
                digest,
            };
            objects.into_iter().map(kept).collect()
        };
        let (before, rules_before) = deployments.before();
        Ok(Archived {
            module: deployments.name().to_owned(),
            modules: list(contents.modules, &module, before, true),
            rules: list(contents.rules, &rules, rules_before, false),
        })
    }
}

/// What went wrong lately, and how each version does.
#[derive(Serialize)]
pub struct Errors {
    /// The latest first.
    errors: Vec<RuleError>,
    versions: Vec<Tally>,
}

impl Errors {
    pub fn of(modules: &Chain<Deployments>) -> Errors {
        let mut errors: Vec<_> = modules.iter().flat_map(|module| module.guard().errors().into_iter().rev()).collect();
        // Times are written so that they sort.
        errors.sort_by(|one, other| other.timestamp.cmp(&one.timestamp));
        Errors { errors, versions: modules.iter().flat_map(|module| module.guard().tallies()).collect() }
    }
}

/// The traffic of the last minutes, for the page.
#[derive(Serialize)]
pub struct Live {
    now: f64,
    seconds: Vec<Second>,
    verdicts: Vec<Count>,
    rules: Vec<Count>,
}

#[derive(Serialize)]
struct Count {
    name: String,
    count: u64,
}

impl Live {
    pub fn of(guard: &Guard, since: f64, now: f64) -> Live {
        let metrics = guard.metrics();
        let rules = metrics.matches().into_iter().take(20);
        Live {
            now,
            seconds: guard.traffic().seconds(since),
            verdicts: metrics
                .verdicts()
                .into_iter()
                .map(|(name, count)| Count { name: name.to_owned(), count })
                .collect(),
            rules: rules.map(|(name, count)| Count { name, count }).collect(),
        }
    }
}
