//! The orchestrator's HTTP API.
//!
//! Each role has a token: `view` may look, `stop` may also abort, pause and stop, `deploy` may do everything.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post};
use hotslot::Digest;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use waf_rollout::{
    Command, Desired, Group, Kind, Label, Labels, MOST_LABEL, NodeId, NotALabel, NotDone, Phase, Plan, ReleaseId,
    Scope, WavePlan, WaveSize,
};

use super::artifacts::Artifacts;
use super::audit::{self, Audit};
use super::examiner::{Examiner, Use};
use super::leader::{AskError, Basis, Desk};
use super::orchestrator::{Problem, start_rollout};
use super::queue::{Change, Queue};
use super::view::{Heard, Rollout, View, settled_of};
use super::{About, Asked, Description, Settings};
use crate::admin::access::{is_authorized, same_site};
use crate::admin::{harden, json as read_json, page, refusal};
use crate::config::Token;
use crate::release::{Module, Release};
use crate::rule_file::RuleFile;
use crate::trust;

/// How long a request waits for its rollout to end if it does not say.
const WAIT_SECONDS: f64 = 60.0;
/// How long a release waits for rules that are being rolled out.
const RULES_PATIENCE: Duration = Duration::from_secs(60);
/// Rule files and wishes are small.
const JSON_LIMIT: usize = 1 << 20;
/// A rule file that changes nothing about the built-in rules: what a fleet's first release has if it brings none.
const NO_RULES: &[u8] = b"{\n  \"dynamic\": []\n}\n";

/// The token of each role.
pub(super) struct Tokens {
    pub view: Token,
    pub stop: Token,
    pub deploy: Token,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    View,
    Stop,
    Deploy,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::View => "view",
            Role::Stop => "stop",
            Role::Deploy => "deploy",
        }
    }
}

impl Tokens {
    fn role(&self, headers: &HeaderMap) -> Option<Role> {
        // All are compared, whichever it is.
        let is = |token: &Token| is_authorized(headers, token.0.as_bytes());
        let (view, stop, deploy) = (is(&self.view), is(&self.stop), is(&self.deploy));
        match () {
            () if deploy => Some(Role::Deploy),
            () if stop => Some(Role::Stop),
            () if view => Some(Role::View),
            () => None,
        }
    }
}

/// What the routes work on.
#[derive(Clone)]
pub(super) struct Api {
    pub desk: Desk,
    pub artifacts: Artifacts,
    pub examiner: Arc<Examiner>,
    pub queue: Queue,
    pub tokens: Arc<Tokens>,
    pub hosts: Arc<[String]>,
    pub plan: Arc<Plan>,
    pub max_upload_bytes: usize,
    pub upload_timeout: Duration,
    pub data: Arc<PathBuf>,
    pub stop: watch::Receiver<bool>,
    /// Held while a release is begun.
    pub starting: Arc<tokio::sync::Mutex<()>>,
    /// Held while the audit is checked.
    pub checking: Arc<tokio::sync::Mutex<()>>,
}

/// All routes, behind the access check.
pub(super) fn router(api: Api) -> Router {
    let upload = DefaultBodyLimit::max(api.max_upload_bytes.saturating_add(JSON_LIMIT));
    Router::new()
        .route("/api/v1/wasm/reload-fleet", post(reload_fleet).layer(upload))
        .route("/api/v1/wasm/sync-versions", post(sync_versions))
        .route("/api/v1/rules", post(add_rule).put(replace_rules).get(rules))
        .route("/api/v1/fleet", get(fleet))
        .route("/api/v1/fleet/{command}", post(command_fleet))
        .route("/api/v1/fleet/nodes/{node}", delete(forget))
        .route("/api/v1/fleet/groups/{label}", delete(dissolve_group))
        .route("/api/v1/rollouts", get(rollouts))
        .route("/api/v1/rollouts/{rollout}", get(rollout))
        .route("/api/v1/rollouts/{rollout}/events", get(events))
        .route("/api/v1/rollouts/{rollout}/{command}", post(command_rollout))
        .route("/api/v1/audit", get(read_audit))
        .route("/api/v1/release", get(settled_release))
        .route("/api/v1/artifacts/{digest}", get(artifact))
        .route("/metrics", get(metrics))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "there is no such route") })
        .method_not_allowed_fallback(|| async { refusal(StatusCode::METHOD_NOT_ALLOWED, "not with this method") })
        .layer(DefaultBodyLimit::max(JSON_LIMIT))
        .layer(from_fn_with_state(api.clone(), check))
        // It has no secret in it, and asks for a token.
        .route("/", get(|| async { page::serve(include_str!("page.html")) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(from_fn(harden))
        .with_state(api)
}

/// Lets a request on if its token has the role that it needs, and answers it otherwise.
async fn check(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    if let Err(problem) = same_site(request.headers(), request.uri().authority(), &api.hosts) {
        return refusal(StatusCode::FORBIDDEN, problem).into_response();
    }
    let command = request.uri().path().rsplit('/').next().unwrap_or_default();
    let needs = match command {
        _ if request.method().is_safe() => Role::View,
        "abort" | "pause" | "stop" => Role::Stop,
        _ => Role::Deploy,
    };
    match api.tokens.role(request.headers()) {
        Some(role) if role >= needs => {
            request.extensions_mut().insert(By(role.name().to_owned()));
            next.run(request).await
        }
        Some(role) => {
            let problem = format!("this needs the role {}, and the token is of the role {}", needs.name(), role.name());
            refusal(StatusCode::FORBIDDEN, problem).into_response()
        }
        None => {
            let problem = format!("this needs a token of the role {}: Authorization: Bearer …", needs.name());
            refusal(StatusCode::UNAUTHORIZED, problem).into_response()
        }
    }
}

/// In whose name a request comes.
#[derive(Clone)]
struct By(String);

type Answer = Result<Response, Problem>;

// ---- what a request waits for

impl Api {
    /// Waits for a rollout to end, for so long, and answers how it stands then.
    async fn answer(&self, rollout: u64, wait: Duration, more: Value) -> Answer {
        let until = Instant::now() + wait;
        let mut changes = self.desk.changes.clone();
        let ended = || {
            let view = self.desk.view.lock();
            view.rollouts.get(&rollout).is_some_and(Rollout::has_ended)
        };
        while !ended() && Instant::now() < until {
            // Nothing changes any more once the leader's task is gone.
            if let Ok(Err(_)) = tokio::time::timeout_at(until, changes.changed()).await {
                break;
            }
        }
        let view = self.desk.view.lock();
        let rollout = view.rollouts.get(&rollout).ok_or_else(|| no_rollout(rollout))?;
        let status = match rollout.phase {
            Phase::Done => StatusCode::OK,
            _ if rollout.has_ended() => StatusCode::CONFLICT,
            _ => StatusCode::ACCEPTED,
        };
        let mut outcome = view.outcome(rollout);
        if let (Some(outcome), Value::Object(more)) = (outcome.as_object_mut(), more) {
            outcome.extend(more);
        }
        Ok((status, Json(outcome)).into_response())
    }

    /// Answers a command that was carried out: whatever that made of the rollout, it is no failure of the request.
    async fn obeyed(&self, rollout: u64, wait: Duration) -> Answer {
        let mut answer = self.answer(rollout, wait, json!({ "success": true })).await?;
        *answer.status_mut() = StatusCode::OK;
        Ok(answer)
    }

    /// Returns what a command rests on that replaces what the fleet settles on, what that is for these nodes, and the groups that
    /// have their own.
    fn basis(&self, scope: &Scope) -> (Basis, Option<ReleaseId>, Vec<Group>) {
        let view = self.desk.view.lock();
        let desired = view.document.as_ref().map(|document| &document.desired);
        let groups = desired.map(Desired::settled_groups).unwrap_or_default();
        (Basis::settled(desired), desired.and_then(|desired| settled_of(desired, scope)), groups)
    }

    /// Returns why a rollout cannot be for these nodes.
    fn nobody(&self, scope: &Scope) -> Problem {
        let view = self.desk.view.lock();
        let known: Vec<String> =
            view.labels().iter().map(|(label, nodes)| format!("label:{label} ({} nodes)", nodes.len())).collect();
        let labels = if known.is_empty() { "no node has a label".to_owned() } else { known.join(", ") };
        let Scope::Group(label) = scope else { return AskError::NotDone(NotDone::Nobody).into() };
        let mut problem = Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("no node of the fleet has the label {label}: there are {labels}"),
        );
        problem.body["labels"] = view
            .labels()
            .iter()
            .map(|(label, nodes)| (label.to_string(), json!(nodes)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        problem
    }

    /// Waits while rules are rolled out that a release without rules of its own would take back again.
    async fn rules_rolled_out(&self, patience: Duration) -> Result<(), Problem> {
        let until = Instant::now() + patience;
        let mut changes = self.desk.changes.clone();
        let mut known = None;
        loop {
            let under_way = {
                let view = self.desk.view.lock();
                let desired = view.document.as_ref().map(|document| &document.desired);
                desired.filter(|it| !it.has_ended()).and_then(|it| Some((it.order.rollout, it.target, it.stable?)))
            };
            let Some((rollout, target, stable)) = under_way else { return Ok(()) };
            if known != Some(rollout) {
                let unavailable = |error: hotslot::BoxError| Problem::unavailable(error.to_string());
                let (new, _) = self.artifacts.release(target).await.map_err(unavailable)?;
                let (old, _) = self.artifacts.release(stable).await.map_err(unavailable)?;
                if new.module != old.module || new.rules == old.rules {
                    return Ok(());
                }
                known = Some(rollout);
            }
            let ended = tokio::time::timeout_at(until, changes.changed()).await;
            if !matches!(ended, Ok(Ok(()))) {
                return Err(Problem::conflict(format!(
                    "rollout {rollout} brings new rules, and a release now would take them back: wait until it has ended, \
                     abort it, or bring the rules in the field `rules`"
                )));
            }
        }
    }

    /// Returns a release with its description.
    async fn release(&self, id: ReleaseId) -> Result<(Description, Release), Problem> {
        self.artifacts.release(id).await.map_err(|error| Problem::unavailable(error.to_string()))
    }

    /// Writes down that somebody wanted what is not trusted. Returns the answer.
    async fn note_refusal(&self, problem: Problem, by: &str, release: &Release) -> Problem {
        if problem.body["stage"] == "trust" {
            let (reason, error) = (&problem.body["reason"], &problem.body["error"]);
            let module = release.module.digest().to_string();
            let what = json!({ "what": "not trusted", "reason": reason, "error": error, "module": module, "by": by });
            self.desk.audit(what).await;
        }
        problem
    }

    fn settled(&self) -> Option<ReleaseId> {
        self.desk.view.lock().document.as_ref().and_then(|document| Desired::settled(&document.desired))
    }

    /// Returns the rollout that the same request began before, if it asked for the same.
    fn begun_by(&self, asked: Option<&Asked>) -> Result<Option<u64>, Problem> {
        let view = self.desk.view.lock();
        let Some(asked) = asked else { return Ok(None) };
        match view.by_request(&asked.key) {
            None => Ok(None),
            Some((rollout, before)) if before == asked => Ok(Some(rollout)),
            Some((rollout, _)) => Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!(
                    "this Idempotency-Key is that of rollout {rollout}, which is of another request: draw a new one"
                ),
            )),
        }
    }
}

fn no_rollout(number: u64) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no rollout {number}, or it is forgotten"))
}

fn seconds(wait: Option<f64>) -> Result<Duration, Problem> {
    let wait = wait.unwrap_or(WAIT_SECONDS);
    match (0.0..=3600.0).contains(&wait) {
        true => Ok(Duration::from_secs_f64(wait)),
        false => Err(Problem::bad("`wait` is a number of seconds, up to 3600")),
    }
}

/// A version as people write it.
fn shown(version: Option<&str>, release: Option<ReleaseId>) -> String {
    match (version, release) {
        (Some(version), _) => format!("v{}", version.trim_start_matches('v')),
        (None, Some(release)) => release.to_string()[..8].to_owned(),
        (None, None) => "nothing".to_owned(),
    }
}

/// Reads whom something is for, as `target` says it.
fn scope_of(target: &str) -> Result<Scope, Problem> {
    let invalid = |why: Option<NotALabel>| {
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let shown: String = target.chars().take(MOST_LABEL).collect();
        let problem = format!(
            "the target is `all`, `canary` or `label:KEY=VALUE`, with a label that nodes have, and not {shown:?}{why}"
        );
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem)
    };
    match target.strip_prefix("label:") {
        Some(label) => label.parse::<Label>().map(Scope::Group).map_err(|why| invalid(Some(why))),
        None if target == "all" => Ok(Scope::Everybody),
        None => Err(invalid(None)),
    }
}

/// Refuses what expects another version than the one that all nodes serve that it is for.
fn expect_version(view: &View, scope: &Scope, expected: Option<&str>) -> Result<(), Problem> {
    let desired = view.document.as_ref().map(|document| &document.desired);
    let is_meant = |heard: &&Heard| match scope {
        Scope::Group(label) => label.is_of(&heard.telling.report.labels),
        _ => true,
    };
    let settled = |heard: &Heard| desired.and_then(|desired| desired.settled_for(&heard.telling.report.labels));
    // What nodes serve, by what they should: each group has its own.
    let mut serving: BTreeMap<(Option<ReleaseId>, ReleaseId), Vec<&Heard>> = BTreeMap::new();
    for (release, nodes) in view.serving() {
        for heard in nodes.into_iter().filter(is_meant) {
            serving.entry((settled(heard), release)).or_default().push(heard);
        }
    }
    let version = |release: &ReleaseId, nodes: &[&Heard]| {
        let told = nodes.first().and_then(|heard| heard.telling.version.as_deref());
        shown(told, Some(*release))
    };
    // While a rollout is under way nodes differ, and a newer one may supersede it.
    let is_settled = desired.is_none_or(Desired::has_ended);
    let mut groups: Vec<Option<ReleaseId>> = serving.keys().map(|(settled, _)| *settled).collect();
    let all = groups.len();
    groups.dedup();
    let is_mixed = is_settled && groups.len() < all;
    let other = serving.iter().find(|((settled, release), nodes)| match expected {
        // Versions may be the same where releases are not.
        Some(expected) if !is_mixed => {
            (is_settled || Some(*release) == *settled) && version(release, nodes) != shown(Some(expected), None)
        }
        _ => is_mixed && settled.is_some_and(|settled| settled != *release),
    });
    let Some(((settled, release), nodes)) = other else { return Ok(()) };
    let should = settled.map(|settled| {
        let told = serving.get(&(Some(settled), settled));
        told.map_or_else(|| shown(None, Some(settled)), |nodes| version(&settled, nodes))
    });
    let wanted = expected.map_or_else(|| should.unwrap_or_default(), |expected| shown(Some(expected), None));
    let mut got = version(release, nodes);
    if got == wanted {
        got = format!("{got} ({})", &release.to_string()[..8]);
    }
    let by_version: BTreeMap<String, Vec<&NodeId>> = serving
        .iter()
        .map(|((_, release), nodes)| {
            let names = nodes.iter().map(|heard| &heard.telling.report.node).collect();
            (format!("{} ({})", version(release, nodes), &release.to_string()[..8]), names)
        })
        .collect();
    let body = json!({
        "success": false,
        "error": format!("Version conflict: expected {wanted}, got {got}"),
        "serving": by_version,
        "resolve": "POST /api/v1/wasm/sync-versions",
    });
    Err(Problem { status: StatusCode::CONFLICT, body })
}

// ---- releases

/// What a request for a rollout brings.
#[derive(Default)]
struct Upload {
    module: Option<Bytes>,
    rules: Option<Bytes>,
    manifest: Option<Bytes>,
    signatures: Option<Bytes>,
    config: Settings,
    target: Option<String>,
    plan: Option<Plan>,
    wait: Option<f64>,
    reason: Option<String>,
    expected_version: Option<String>,
}

impl Upload {
    /// Returns the digest of what is asked for, as it was sent: what that comes to may be another thing elsewhere, or later. How
    /// long somebody waits, and why, is no part of it.
    fn digest(&self) -> String {
        let of = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| Digest::of(bytes).to_string());
        let parts = [&self.module, &self.rules, &self.manifest, &self.signatures].map(of);
        let asked = json!([parts, self.config, self.target, self.plan, self.expected_version]);
        Digest::of(asked.to_string().as_bytes()).to_string()
    }

    async fn read(request: Request) -> Result<Upload, Problem> {
        let form = Multipart::from_request(request, &()).await;
        let mut form = form.map_err(|_| {
            let problem = "send multipart/form-data with the field file, and what else there is to say";
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem)
        })?;
        let mut upload = Upload::default();
        let failed = |error: axum::extract::multipart::MultipartError| Problem::new(error.status(), error.body_text());
        while let Some(field) = form.next_field().await.map_err(failed)? {
            let name = field.name().unwrap_or_default().to_owned();
            let content = match name.as_str() {
                "file" => Some(&mut upload.module),
                "rules" => Some(&mut upload.rules),
                "manifest" => Some(&mut upload.manifest),
                "signatures" => Some(&mut upload.signatures),
                _ => None,
            };
            if let Some(content) = content {
                *content = Some(field.bytes().await.map_err(failed)?);
                continue;
            }
            let text = field.text().await.map_err(failed)?;
            match name.as_str() {
                // The source document's clients send it; there is one slot.
                "name" => {}
                "target" => upload.target = Some(text),
                "reason" => upload.reason = Some(text),
                "expected_version" => upload.expected_version = Some(text),
                "wait" => {
                    upload.wait = Some(text.parse().map_err(|_| Problem::bad("`wait` is a number of seconds"))?);
                }
                "plan" => upload.plan = Some(named_plan(&text)?),
                "config" => {
                    upload.config =
                        serde_json::from_str(&text).map_err(|error| Problem::bad(format!("config: {error}")))?;
                }
                other => return Err(Problem::bad(format!("there is no field {other:?}"))),
            }
        }
        Ok(upload)
    }
}

/// Returns an `Idempotency-Key`. Some are in the document, so none is long.
fn idempotency_key(value: &HeaderValue) -> Result<String, Problem> {
    const MOST: usize = 255;
    let key = value.to_str().ok().filter(|key| (1..=MOST).contains(&key.len()));
    let problem = || Problem::bad(format!("an Idempotency-Key has 1 to {MOST} printable characters of ASCII"));
    key.map(str::to_owned).ok_or_else(problem)
}

fn named_plan(text: &str) -> Result<Plan, Problem> {
    match text.trim() {
        "careful" => Ok(Plan::default()),
        "at_once" => Ok(Plan::at_once()),
        text => serde_json::from_str(text)
            .map_err(|error| Problem::bad(format!("`plan` is `careful`, `at_once`, or a plan in JSON: {error}"))),
    }
}

async fn reload_fleet(State(api): State<Api>, headers: HeaderMap, request: Request) -> Answer {
    let By(by) = request.extensions().get().cloned().expect("checked");
    let upload = match timeout(api.upload_timeout, Upload::read(request)).await {
        Ok(upload) => upload?,
        Err(_) => return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the upload takes too long")),
    };
    let wait = seconds(upload.wait)?;
    let key = headers.get("idempotency-key").map(idempotency_key).transpose()?;
    let digest = upload.digest();
    let (scope, plan) = match upload.target.as_deref().unwrap_or("all") {
        "canary" => {
            let plan = upload.plan.unwrap_or_else(|| Plan::clone(&api.plan));
            let canary = WavePlan { size: WaveSize::Nodes(1), bake: plan.waves.first().map_or(0, |wave| wave.bake) };
            let waves = [canary].into_iter().chain(plan.waves.into_iter().skip(1)).collect();
            (Scope::Everybody, Plan { waves, canary_only: true, ..plan })
        }
        target => (scope_of(target)?, upload.plan.unwrap_or_else(|| Plan::clone(&api.plan))),
    };
    upload.config.check().map_err(|problem| Problem::invalid("configuration", problem))?;
    let module = upload.module.filter(|module| !module.is_empty());
    let module = Module::new(module.ok_or_else(|| Problem::bad("the field `file` is missing or empty"))?);
    let signed = trust::of_form(upload.manifest.as_deref(), upload.signatures.as_deref()).map_err(Problem::bad)?;
    let module = module.with_manifest(signed);
    let wanted = Wanted {
        module,
        rules: upload.rules.map(|rules| RuleFile::new(rules.to_vec())),
        config: upload.config,
        scope,
        plan,
        expected_version: upload.expected_version,
        about: About {
            by,
            reason: upload.reason.unwrap_or_else(|| "a release".to_owned()),
            asked: key.map(|key| Asked { key, digest }),
            ..About::default()
        },
    };
    let rollout = wanted.begin(&api).await?;
    if !api.desk.view.lock().rollouts.contains_key(&rollout) {
        let problem = format!("rollout {rollout} has begun for this request, and this orchestrator has not seen it");
        return Err(Problem::conflict(problem));
    }
    api.answer(rollout, wait, json!({})).await
}

/// A release that somebody wants.
struct Wanted {
    module: Module,
    /// `None`: the fleet's.
    rules: Option<RuleFile>,
    config: Settings,
    scope: Scope,
    plan: Plan,
    expected_version: Option<String>,
    about: About,
}

impl Wanted {
    /// Begins its rollout, anew for as long as others come before. Returns the number, also of one that the same request has
    /// begun before.
    async fn begin(self, api: &Api) -> Result<u64, Problem> {
        /// How often it is begun anew.
        const ATTEMPTS: usize = 8;
        if let Some(rollout) = api.begun_by(self.about.asked.as_ref())? {
            return Ok(rollout);
        }
        if self.rules.is_none() {
            api.rules_rolled_out(RULES_PATIENCE).await?;
        }
        // Before anything is kept. Who has just begun to listen knows later.
        if let Scope::Group(label) = &self.scope {
            let is_known = {
                let view = api.desk.view.lock();
                view.nodes.is_empty() || view.labels().contains_key(label)
            };
            if !is_known {
                return Err(api.nobody(&self.scope));
            }
        }
        // The same request twice at once is one request.
        let _turn = api.starting.lock().await;
        for _ in 0..ATTEMPTS {
            match self.try_begin(api).await? {
                Some(rollout) => return Ok(rollout),
                None => tracing::info!("the fleet has changed while a release was examined: once more"),
            }
        }
        Err(AskError::Overtaken.into())
    }

    /// `None` if the fleet has changed meanwhile.
    async fn try_begin(&self, api: &Api) -> Result<Option<u64>, Problem> {
        if let Some(rollout) = api.begun_by(self.about.asked.as_ref())? {
            return Ok(Some(rollout));
        }
        if self.rules.is_none() {
            api.rules_rolled_out(RULES_PATIENCE).await?;
        }
        let (basis, settled, groups) = api.basis(&self.scope);
        let current = match settled {
            Some(settled) => Some(api.release(settled).await?.1),
            None => None,
        };
        let rules = match (&self.rules, &current) {
            (Some(rules), _) => rules.clone(),
            (None, Some(current)) => current.rules.clone(),
            (None, None) => RuleFile::new(NO_RULES),
        };
        let mut settled = current.map(|current| current.module);
        // What a group serves is nothing older than what others do, and may be rolled out to them.
        for group in groups {
            let theirs = api.release(group.release).await?.1.module;
            if theirs.digest() == self.module.digest() {
                settled = Some(theirs);
            }
        }
        let release = Release { module: self.module.clone(), rules };
        let target = Description::of(&release, self.config).id();
        expect_version(&api.desk.view.lock(), &self.scope, self.expected_version.as_deref())?;
        if let Some(settled) = settled.clone() {
            api.examiner.learn(settled).await;
        }
        let wanted = Use::New { settled: settled.clone() };
        let version = match api.examiner.examine(release.clone(), self.config, wanted).await {
            Ok(version) => version,
            Err(unfit) => {
                let mut refused = api.note_refusal(unfit.problem("examination"), &self.about.by, &release).await;
                let serving = api.settled().and_then(|settled| api.desk.view.lock().version_of(settled));
                refused.body["current_version"] = json!(serving);
                refused.body["status"] = json!(format!("still_serving_{}", shown(serving.as_deref(), api.settled())));
                return Err(refused);
            }
        };
        let published = api.artifacts.publish(&release, self.config).await;
        published.map_err(|error| Problem::unavailable(error.to_string()))?;
        let accepted = api.examiner.accept(release.module.clone(), settled).await;
        accepted.map_err(|unfit| unfit.problem("examination"))?;
        let about = About { version, ..self.about.clone() };
        let command = Command::Start(Kind::Release, self.scope.clone(), target, self.plan.clone());
        match start_rollout(&api.desk, command, about, basis).await {
            Ok(rollout) => Ok(Some(rollout)),
            Err(AskError::NotDone(NotDone::Nobody)) => Err(api.nobody(&self.scope)),
            Err(AskError::Overtaken) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wish {
    wait: Option<f64>,
    reason: Option<String>,
    /// Of a rollback: a version, or the digest of a release.
    to: Option<String>,
    /// Of a rollback: `all` or `label:KEY=VALUE`.
    target: Option<String>,
}

fn wish(headers: &HeaderMap, body: &Bytes) -> Result<Wish, Problem> {
    if body.is_empty() { Ok(Wish::default()) } else { Ok(read_json(headers, body)?) }
}

async fn sync_versions(State(api): State<Api>, request: Request) -> Answer {
    let (By(by), headers, body) = parts(request).await?;
    let wish = wish(&headers, &body)?;
    bring_together(&api, by, &wish, "sync-versions", Ok).await
}

/// Has a group no release of its own any longer: its nodes get what those outside of groups have.
async fn dissolve_group(State(api): State<Api>, Path(label): Path<String>, request: Request) -> Answer {
    let (By(by), headers, body) = parts(request).await?;
    let wish = wish(&headers, &body)?;
    let others = |groups: Vec<Group>| {
        let others: Vec<Group> = groups.iter().filter(|group| group.label.to_string() != label).cloned().collect();
        let known = || groups.iter().map(|group| group.label.to_string()).collect::<Vec<_>>();
        match others.len() < groups.len() {
            true => Ok(others),
            false => {
                let problem = format!("no group of the fleet has the label {label}");
                let mut problem = Problem::new(StatusCode::NOT_FOUND, problem);
                problem.body["groups"] = json!(known());
                Err(problem)
            }
        }
    };
    bring_together(&api, by, &wish, "the group is dissolved", others).await
}

/// Starts a rollout to what the fleet has settled on, with those of its groups that `keep` lets be.
async fn bring_together(
    api: &Api,
    by: String,
    wish: &Wish,
    reason: &str,
    keep: impl FnOnce(Vec<Group>) -> Result<Vec<Group>, Problem>,
) -> Answer {
    let wait = seconds(wish.wait)?;
    let (basis, settled, groups) = api.basis(&Scope::Everybody);
    let settled = settled.ok_or_else(|| Problem::conflict("the fleet has no release yet"))?;
    let groups = keep(groups)?;
    restore(api, settled, &by).await?;
    for group in &groups {
        restore(api, group.release, &by).await?;
    }
    let scope = if groups.is_empty() { Scope::Everybody } else { Scope::Each(groups) };
    let version = api.desk.view.lock().version_of(settled);
    let reason = wish.reason.clone().unwrap_or_else(|| reason.to_owned());
    let about = About { by, reason, version, ..About::default() };
    let command = Command::Start(Kind::Sync, scope, settled, Plan::at_once());
    let rollout = start_rollout(&api.desk, command, about, basis).await?;
    api.answer(rollout, wait, json!({})).await
}

/// Sees to it that the nodes may serve a release that is not new, and can fetch it.
async fn restore(api: &Api, release: ReleaseId, by: &str) -> Result<(), Problem> {
    if api.examiner.trust().is_some() {
        if let Some(settled) = api.settled() {
            api.examiner.learn(api.release(settled).await?.1.module).await;
        }
        let (description, wanted) = api.release(release).await?;
        if let Err(unfit) = api.examiner.may_return(wanted.clone(), description.config).await {
            return Err(api.note_refusal(unfit.problem("examination"), by, &wanted).await);
        }
    }
    api.artifacts.restore(release).await.map_err(|error| Problem::unavailable(error.to_string()))
}

async fn parts(request: Request) -> Result<(By, HeaderMap, Bytes), Problem> {
    let by = request.extensions().get().cloned().expect("checked");
    let headers = request.headers().clone();
    let body = Bytes::from_request(request, &()).await;
    Ok((by, headers, body.map_err(|error| Problem::new(error.status(), error.body_text()))?))
}

async fn command_fleet(State(api): State<Api>, Path(command): Path<String>, request: Request) -> Answer {
    let (By(by), headers, body) = parts(request).await?;
    let wish = wish(&headers, &body)?;
    let wait = seconds(wish.wait)?;
    let what = json!({ "what": format!("fleet/{command}"), "by": by, "reason": wish.reason, "to": wish.to, "target": wish.target });
    api.desk.audit(what).await;
    match command.as_str() {
        "rollback" => roll_back(&api, by, wish, wait).await,
        "stop" => {
            let rollout = start_rollout(&api.desk, Command::Stop, About::default(), Basis::Nothing).await?;
            api.obeyed(rollout, wait).await
        }
        "resume" => {
            let rollout = start_rollout(&api.desk, Command::Resume, About::default(), Basis::Nothing).await?;
            api.obeyed(rollout, Duration::ZERO).await
        }
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "a fleet takes rollback, stop and resume")),
    }
}

async fn roll_back(api: &Api, by: String, wish: Wish, wait: Duration) -> Answer {
    let scope = wish.target.as_deref().map(scope_of).transpose()?;
    let (target, basis, scope) = {
        let view = api.desk.view.lock();
        let Some(document) = &view.document else { return Err(Problem::conflict("the fleet has no release yet")) };
        let groups = document.desired.settled_groups();
        let concerns_groups = !groups.is_empty() || matches!(document.desired.scope, Scope::Group(_));
        // Whoever has one group in mind must not take all others along.
        let scope = match scope {
            Some(scope) => scope,
            None if !concerns_groups => Scope::Everybody,
            None => return Err(whom(&document.desired)),
        };
        let found = match &wish.to {
            Some(to) => view.named(&document.desired, &scope, to),
            None => view.way_back(&document.desired, &scope),
        };
        let found = found.ok_or_else(|| {
            Problem::conflict("there is nothing to go back to: name a version that served, or a release's digest")
        })?;
        (found, Basis::settled(Some(&document.desired)), scope)
    };
    restore(api, target, &by).await?;
    let version = api.desk.view.lock().version_of(target);
    let reason = wish.reason.unwrap_or_else(|| "rollback".to_owned());
    let about = About { by, reason, version, ..About::default() };
    let command = Command::Start(Kind::Rollback, scope.clone(), target, Plan::at_once());
    let rollout = match start_rollout(&api.desk, command, about, basis).await {
        Err(AskError::NotDone(NotDone::Nobody)) => return Err(api.nobody(&scope)),
        started => started?,
    };
    api.answer(rollout, wait, json!({})).await
}

/// Asks whom a rollback is for.
fn whom(desired: &Desired) -> Problem {
    let mut labels: Vec<String> =
        desired.settled_groups().iter().map(|group| format!("label:{}", group.label)).collect();
    if let Scope::Group(label) = &desired.scope
        && !labels.contains(&format!("label:{label}"))
    {
        labels.push(format!("label:{label}"));
    }
    let mut problem = Problem::conflict(format!(
        "groups have releases of their own: say whom the rollback is for, as `target`: `all`, which ends the groups, or {}",
        labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ")
    ));
    problem.body["targets"] = [vec!["all".to_owned()], labels].concat().into();
    problem
}

async fn command_rollout(
    State(api): State<Api>,
    Path((number, command)): Path<(u64, String)>,
    request: Request,
) -> Answer {
    let (By(by), headers, body) = parts(request).await?;
    let wish = wish(&headers, &body)?;
    let current = api.desk.view.lock().document.as_ref().map(|document| document.desired.clone());
    let Some(current) = current.as_ref().filter(|current| current.order.rollout == number) else {
        let current = current.map_or("none".to_owned(), |current| current.order.rollout.to_string());
        return Err(Problem::conflict(format!("rollout {number} is not the current one: that is {current}")));
    };
    let command = match command.as_str() {
        "abort" => Command::Abort,
        "promote" => Command::Promote,
        "pause" => Command::Pause,
        "resume" => Command::Resume,
        _ => return Err(Problem::new(StatusCode::NOT_FOUND, "a rollout takes abort, promote, pause and resume")),
    };
    let what =
        json!({ "what": format!("{command:?}").to_lowercase(), "rollout": number, "by": by, "reason": wish.reason });
    api.desk.audit(what).await;
    // Who promotes has seen one wave do well, and not the next.
    let basis = if command == Command::Promote { Basis::wave(current) } else { Basis::Rollout(number) };
    start_rollout(&api.desk, command, About::default(), basis).await?;
    api.obeyed(number, seconds(Some(wish.wait.unwrap_or(0.0)))?).await
}

// ---- rules

#[derive(Deserialize)]
struct Waits {
    wait: Option<f64>,
}

async fn add_rule(State(api): State<Api>, Query(Waits { wait }): Query<Waits>, request: Request) -> Answer {
    let (By(by), headers, body) = parts(request).await?;
    let rule: Value = read_json(&headers, &body)?;
    change_rules(&api, Change::Add(rule), by, wait).await
}

async fn replace_rules(State(api): State<Api>, Query(Waits { wait }): Query<Waits>, request: Request) -> Answer {
    let (By(by), headers, body) = parts(request).await?;
    read_json::<Value>(&headers, &body)?;
    let text = String::from_utf8(body.to_vec()).map_err(|_| Problem::bad("a rule file is text in UTF-8"))?;
    change_rules(&api, Change::Replace(text), by, wait).await
}

async fn change_rules(api: &Api, change: Change, by: String, wait: Option<f64>) -> Answer {
    let wait = seconds(wait)?;
    let began = Instant::now();
    let settled = api.settled().ok_or_else(|| {
        Problem::conflict("the fleet has no release yet that could have rules: POST /api/v1/wasm/reload-fleet")
    })?;
    let (description, release) = api.release(settled).await?;
    let rules = change.apply(&release.rules).map_err(|problem| Problem::invalid("rules", problem))?;
    // The module is the one that serves: its counter may stay as it is.
    let wanted = Use::New { settled: Some(release.module.clone()) };
    let release = Release { module: release.module, rules };
    if let Err(unfit) = api.examiner.examine(release.clone(), description.config, wanted).await {
        return Err(api.note_refusal(unfit.problem("rules"), &by, &release).await);
    }
    let validated_ms = began.elapsed().as_secs_f64() * 1e3;
    tracing::info!(by, validated_ms, "a rule from outside is valid");
    // What is queued stays there, whoever waits for it.
    let begun = api.queue.push(change, by).await?;
    let Ok(rollout) = timeout(wait.max(Duration::from_millis(1)), begun).await else {
        let queued = json!({ "success": false, "state": "queued", "times": { "validated_ms": validated_ms } });
        return Ok((StatusCode::ACCEPTED, Json(queued)).into_response());
    };
    let times = json!({ "validated_ms": validated_ms, "began_after_ms": began.elapsed().as_secs_f64() * 1e3 });
    let left = wait.saturating_sub(began.elapsed());
    api.answer(rollout?, left, json!({ "times": times })).await
}

async fn rules(State(api): State<Api>) -> Answer {
    let settled = api.settled().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the fleet has no release yet"))?;
    let (_, release) = api.artifacts.release(settled).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let rules: Value = serde_json::from_slice(release.rules.bytes()).unwrap_or(Value::Null);
    Ok(Json(json!({ "release": settled, "digest": release.rules.digest().to_string(), "rules": rules }))
        .into_response())
}

// ---- what is to be had

/// What the fleet has settled on: what it is made of, and who says so.
async fn settled_release(State(api): State<Api>) -> Answer {
    let settled = api.settled().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the fleet has no release yet"))?;
    let (description, release) = api.release(settled).await?;
    let size = release.module.bytes().len();
    Ok(Json(json!({
        "release": settled, "module": description.module, "size_bytes": size, "rules": description.rules,
        "config": description.config, "signed": description.signed,
    }))
    .into_response())
}

/// A module, a rule file or a description, by its digest.
async fn artifact(State(api): State<Api>, Path(digest): Path<String>) -> Answer {
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_digest {
        return Err(Problem::bad("an artifact is named by the 64 hexadecimal digits of its digest, in lower case"));
    }
    let bytes = api.artifacts.get(&digest).await;
    let bytes = bytes.map_err(|error| Problem::new(StatusCode::NOT_FOUND, error.to_string()))?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

async fn metrics(State(api): State<Api>) -> Answer {
    let mut registry = Registry::default();
    if let Some(trust) = api.examiner.trust() {
        let about = "Releases that were refused because of their signatures or counters";
        registry.register("waf_trust_refusals", about, trust.refusals().clone());
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|error| Problem::unavailable(error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

// ---- what is to be seen

async fn fleet(State(api): State<Api>) -> Json<Value> {
    let view = api.desk.view.lock();
    let desired = view.document.as_ref().map(|document| &document.desired);
    let nodes: Vec<Value> = view.nodes.values().map(|heard| node(heard, desired)).collect();
    let settled = desired.and_then(Desired::settled);
    let rollout = desired.and_then(|desired| view.rollouts.get(&desired.order.rollout));
    let standing = &view.standing;
    let should = |labels: &Labels| desired.and_then(|desired| desired.settled_for(labels));
    let groups = desired.map(Desired::settled_groups).unwrap_or_default();
    let groups = groups.iter().map(|group| {
        // A node that is in several groups is of the last one.
        let nodes: Vec<&NodeId> = view
            .nodes
            .iter()
            .filter(|(_, heard)| group_of(desired, &heard.telling.report.labels).as_ref() == Some(&group.label))
            .map(|(node, _)| node)
            .collect();
        json!({ "label": group.label, "release": group.release, "version": view.version_of(group.release), "nodes": nodes })
    });
    let is_mixed = match view.document.as_ref().map(|it| it.desired.settled_groups().is_empty()) {
        Some(false) => view
            .serving()
            .iter()
            .any(|(release, nodes)| nodes.iter().any(|heard| should(&heard.telling.report.labels) != Some(*release))),
        _ => view.serving().len() > 1,
    };
    Json(json!({
        "orchestrator": view.me,
        "leads": view.term.is_some(),
        "leader": view.leader,
        "term": view.term,
        "version": settled.and_then(|settled| view.version_of(settled)),
        "release": settled,
        "groups": groups.collect::<Vec<_>>(),
        "labels": view.labels().iter().map(|(label, nodes)| (label.to_string(), json!(nodes))).collect::<serde_json::Map<_, _>>(),
        "mixed": is_mixed,
        "stopped": desired.is_some_and(|desired| desired.frozen),
        "rollout": rollout.map(|rollout| view.outcome(rollout)),
        "standing": {
            "known": standing.known, "present": standing.present, "staged": standing.staged,
            "reached": standing.reached, "serving": standing.serving, "silent": standing.silent,
            "failed": standing.failed,
        },
        "nodes": nodes,
    }))
}

/// Returns the group whose release a node with these labels has.
fn group_of(desired: Option<&Desired>, labels: &Labels) -> Option<Label> {
    Group::of(&desired?.settled_groups(), labels).map(|group| group.label.clone())
}

fn node(heard: &Heard, desired: Option<&Desired>) -> Value {
    let telling = &heard.telling;
    let report = &telling.report;
    let state = match () {
        () if !heard.is_present() => "missing",
        () if report.pinned => "drifted",
        () if report.held => "held",
        () if report.condemned => "condemned",
        () if report.refused => "refused",
        () if report.staged
            && desired.is_some_and(|it| !it.has_ended() && report.serving != it.target_for(&report.labels)) =>
        {
            "staged"
        }
        () => "serving",
    };
    json!({
        "node": report.node,
        "state": state,
        "present": heard.is_present(),
        "heard_ms_ago": heard.at.elapsed().as_millis() as u64,
        "version": telling.version,
        "serving": report.serving,
        "module": telling.module,
        "rules": telling.rules,
        "generation": telling.generation,
        "rollout": report.order.rollout,
        "step": report.order.step,
        "pinned": report.pinned,
        "held": report.held,
        "labels": report.labels,
        "group": group_of(desired, &report.labels),
        "of_rollout": desired.is_some_and(|desired| desired.target_for(&report.labels).is_some()),
        "calls": report.traffic.calls,
        "errors": report.traffic.errors,
        "blocked": report.traffic.blocked,
        "p99_us": report.traffic.p99_us,
        "problem": telling.problem,
        "change": telling.change,
    })
}

async fn forget(State(api): State<Api>, Path(node): Path<String>, request: Request) -> Answer {
    let By(by) = request.extensions().get().cloned().expect("checked");
    let node = NodeId::new(node);
    if !api.desk.view.lock().nodes.contains_key(&node) {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("no node {node} is known")));
    }
    api.desk.forget(node.clone()).await?;
    api.desk.audit(json!({ "what": "forget", "node": node, "by": by })).await;
    Ok(Json(json!({ "success": true })).into_response())
}

async fn rollouts(State(api): State<Api>) -> Json<Value> {
    let view = api.desk.view.lock();
    let rollouts: Vec<Value> = view.rollouts.values().rev().map(|rollout| view.outcome(rollout)).collect();
    Json(json!({ "rollouts": rollouts }))
}

async fn rollout(State(api): State<Api>, Path(number): Path<u64>) -> Answer {
    let view = api.desk.view.lock();
    let rollout = view.rollouts.get(&number).ok_or_else(|| no_rollout(number))?;
    Ok(Json(view.outcome(rollout)).into_response())
}

/// What happens in a rollout, as it happens, until it has ended.
async fn events(State(api): State<Api>, Path(number): Path<u64>, headers: HeaderMap) -> Answer {
    if !api.desk.view.lock().rollouts.contains_key(&number) {
        return Err(no_rollout(number));
    }
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    // Events are numbered by the process that saw them: of another one, everything is new.
    let mine = api.desk.view.lock().me.clone();
    let last = last.rsplit_once('-').filter(|(of, _)| *of == mine).and_then(|(_, id)| id.parse().ok()).unwrap_or(0);
    let follower = Follower { api, number, last, mine };
    let events = futures_util::stream::unfold((follower, Vec::new().into_iter()), |(mut follower, mut ready)| async {
        loop {
            if let Some(event) = ready.next() {
                return Some((Ok::<sse::Event, Infallible>(event), (follower, ready)));
            }
            ready = follower.next().await?.into_iter();
        }
    });
    let alive = sse::KeepAlive::new().interval(Duration::from_secs(10));
    Ok(Sse::new(events).keep_alive(alive).into_response())
}

struct Follower {
    api: Api,
    number: u64,
    last: u64,
    mine: String,
}

impl Follower {
    /// Waits for more events; `None` after the last one.
    async fn next(&mut self) -> Option<Vec<sse::Event>> {
        let mut changes = self.api.desk.changes.clone();
        let mut stop = self.api.stop.clone();
        loop {
            let (events, ended) = {
                let view = self.api.desk.view.lock();
                let ended = view.rollouts.get(&self.number).is_none_or(Rollout::has_ended);
                (view.events_after(self.number, self.last), ended)
            };
            if let Some(last) = events.last() {
                self.last = last.id;
                let event = |event: super::view::Event| {
                    let id = format!("{}-{}", self.mine, event.id);
                    sse::Event::default().id(id).event(event.kind).data(event.data.to_string())
                };
                return Some(events.into_iter().map(event).collect());
            }
            if ended {
                return None;
            }
            tokio::select! {
                changed = changes.changed() => changed.ok()?,
                _ = stop.wait_for(|stop| *stop) => return None,
            }
        }
    }
}

/// The last lines of the audit, and whether their chain is whole.
async fn read_audit(State(api): State<Api>) -> Answer {
    // The file is read as a whole: not by many at once.
    let _turn = api.checking.lock().await;
    let path = Audit::path(&api.data);
    let checked = tokio::task::spawn_blocking(move || audit::check(&path).map_err(|error| error.to_string())).await;
    let checked =
        checked.map_err(|error| error.to_string()).and_then(|checked| checked).map_err(Problem::unavailable)?;
    Ok(Json(json!({
        "whole": checked.broken_at.is_none(),
        "broken_at": checked.broken_at,
        "lines": checked.lines,
    }))
    .into_response())
}
