//! The admin listener: the JSON API, the metrics and the page.

pub mod access;
mod answers;
mod audit;
mod chosen;
pub mod page;
mod rollback;
mod rules;
mod trial;
mod upload;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MATCH};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodRouter, get, post, put};
use hotslot::escape_untrusted;
use parking_lot::RwLock;
use serde::Deserialize;
use tokio::sync::watch;

use self::answers::{Archived, Errors, History, Live, Modules, Reloaded, Version, refused};
use self::chosen::{Chosen, NotChosen};
use crate::chain::{Chain, Named};
use crate::deploy::{Change, Deployments, Record, Refusal, Trigger};
use crate::fleet::managed::{self, Managed};
use crate::guard::Guard;
use crate::json::unix;
use crate::life::{Changed, Settings};
use crate::proxy::Proxy;
use crate::release::{Module, Release};
use crate::rule_file::{EditError, RuleFile};
use crate::trial::Wish;

/// A rule, or the wish to roll back, is a small thing.
const JSON_LIMIT: usize = 64 << 10;

/// What the routes work on.
#[derive(Clone)]
pub struct Admin {
    pub modules: Chain<Deployments>,
    pub guard: Arc<Guard>,
    /// Who may do what.
    pub tokens: Arc<RwLock<Arc<Tokens>>>,
    pub audit: Audit,
    pub hosts: Arc<[String]>,
    pub terms: upload::Terms,
    /// Raised when the node is about to stop.
    pub draining: watch::Receiver<bool>,
    /// The node's part in a fleet, if it is in one.
    pub fleet: Option<Managed>,
}

pub use self::access::{Role, Tokens};
pub use self::answers::refusal;
pub use self::audit::Audit;
pub use self::upload::Terms as UploadTerms;

/// All routes, behind the access check.
pub fn router(admin: Admin, proxy: Arc<Proxy>, settings: Arc<Settings>) -> Router {
    let upstreams = Arc::clone(&proxy);
    let upload = DefaultBodyLimit::max(admin.terms.max_bytes);
    Router::new()
        .route("/api/v1/wasm/modules", get(modules))
        .merge(of_a_module("reload", &post(reload).layer(upload)))
        .merge(of_a_module("version", &get(version)))
        .merge(of_a_module("rollback", &post(rollback::module)))
        .merge(of_a_module("history", &get(history)))
        .merge(of_a_module("errors", &get(errors)))
        .merge(of_a_module("archive", &get(archived)))
        .merge(of_a_module("trial", &get(trial::show)))
        .merge(of_a_module("promote", &post(trial::promote)))
        .merge(of_a_module("abort", &post(trial::abort)))
        .merge(of_a_module("pause", &post(trial::pause)))
        .merge(of_a_module("resume", &post(trial::resume)))
        .merge(of_a_module("share", &post(trial::share)))
        .route("/api/v1/rules", get(rules::list).put(rules::put).post(rules::add))
        .route("/api/v1/rules/diff", get(rules::diff))
        .route("/api/v1/rules/file", put(rules::replace).layer(upload))
        .route("/api/v1/rules/rollback", post(rollback::rules))
        .route("/api/v1/rules/{id}", get(rules::one).put(rules::put_named).delete(rules::remove))
        .route("/api/v1/live", get(live))
        .route("/api/v1/fleet", get(managed::state))
        .route("/api/v1/fleet/unpin", post(managed::unpin))
        .route("/api/v1/config/reload", post(move || reload_config(settings)))
        .route("/api/v1/upstreams", get(|| async move { Json(upstreams.upstreams()) }))
        .route("/api/v1/audit", get(|State(admin): State<Admin>| async move { Json(admin.audit.recent()) }))
        .route("/metrics", get(move |state| metrics(state, proxy)))
        .route("/", get(page::page))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "there is no such route") })
        .method_not_allowed_fallback(|| async { refusal(StatusCode::METHOD_NOT_ALLOWED, "not with this method") })
        .layer(DefaultBodyLimit::max(JSON_LIMIT))
        .layer(from_fn_with_state(admin.clone(), managed::protect))
        .layer(from_fn_with_state(admin.clone(), access::check))
        // Asked by machines that know the node by other names, and answered without a secret.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .layer(from_fn(harden))
        .with_state(admin)
}

/// A route that is about a module: the one that it names, or the usual one.
fn of_a_module(what: &str, answers: &MethodRouter<Admin>) -> Router<Admin> {
    let path = format!("/api/v1/wasm/{what}");
    Router::new().route(&format!("{path}/{{module}}"), answers.clone()).route(&path, answers.clone())
}

/// Headers that keep a browser from making more of an answer than it is.
pub async fn harden(request: Request, next: axum::middleware::Next) -> Response {
    let mut answer = next.run(request).await;
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    answer
}

/// What somebody gave as a reason, fit for log and history; `None` if it was nothing.
fn given(reason: Option<String>) -> Option<String> {
    let reason = reason.filter(|reason| !reason.trim().is_empty())?;
    Some(escape_untrusted(&reason).chars().take(512).collect())
}

/// The digest of the rules that a request wants to change, and no others.
fn if_match(headers: &HeaderMap) -> Option<String> {
    let of = headers.get(IF_MATCH).map(|tag| tag.to_str().unwrap_or_default().trim_matches('"').to_owned());
    of.filter(|tag| tag != "*")
}

/// Changes what serves in a module, off the runtime's workers.
async fn change<R: Send + 'static>(
    module: &Arc<Deployments>,
    change: impl FnOnce(&Deployments) -> Result<R, Refusal> + Send + 'static,
) -> Result<R, Response> {
    let deployments = Arc::clone(module);
    let changed = tokio::task::spawn_blocking(move || change(&deployments)).await;
    match changed {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(refused(&error, module.guard())),
        Err(panic) => {
            tracing::error!(%panic, "reload");
            Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, "the reload panicked").into_response())
        }
    }
}

/// What was read from the rules that serve, which a module may understand though they are no JSON.
fn readable<R>(module: &Deployments, read: Result<R, EditError>) -> Result<R, Box<Response>> {
    read.map_err(|error| Box::new(refused(&Refusal::Rules(error), module.guard())))
}

async fn reload(State(admin): State<Admin>, chosen: Chosen, request: Request) -> Result<Response, Response> {
    let bad = |problem: String| refusal(StatusCode::BAD_REQUEST, problem).into_response();
    // A word that is not known may have been meant to keep the version from serving at once.
    let wish = Query::<Wish>::try_from_uri(request.uri()).map_err(|error| bad(error.body_text()))?.0;
    let upload = upload::receive(request, &admin.terms).await.map_err(IntoResponse::into_response)?;
    let chosen = chosen.and(upload.name)?;
    let module = chosen.of(&admin)?;
    if !chosen.is_said() && admin.modules.has_several() {
        is_for_the_first(&admin, &upload.module).await?;
    }
    if upload.signed.is_some() && module.trust().is_none() {
        let problem = "this node has no root to verify a manifest by: set root in [waf.trust], or send none";
        return Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, problem).into_response());
    }
    let signed = Module::new(upload.module).with_manifest(upload.signed);
    if let Some(plan) = upload.wish.and(wish).and_then(|wish| wish.plan(module.trial_terms())).map_err(bad)? {
        return trial::begin(&admin, &module, signed, upload.rules, plan).await;
    }
    let (wanted, trigger) = match upload.rules {
        None => (Change::Module(signed), Trigger::Upload),
        Some(rules) => {
            (Change::Release(Release { module: signed, rules: RuleFile::new(&rules[..]) }), Trigger::Release)
        }
    };
    let record = change(&module, move |deployments| deployments.reload(wanted, trigger)).await?;
    Ok(reloaded(&module, record).into_response())
}

/// Refuses a file that calls itself as another module than the first one, where nobody said which one is meant.
async fn is_for_the_first(admin: &Admin, file: &Bytes) -> Result<(), Response> {
    let file = file.clone();
    let read = tokio::task::spawn_blocking(move || hotslot::inspect(&file).ok()?.manifest);
    // What cannot be read is refused with the reason when it is to be loaded.
    let Ok(Some(manifest)) = read.await else { return Ok(()) };
    let (first, own) = (admin.modules.first().name(), manifest.name.as_str());
    if own == first || admin.modules.get(Some(own)).is_err() {
        return Ok(());
    }
    let problem =
        format!("this file is {own}, and without a name it would take the place of {first}: send it with name={own}");
    Err(refusal(StatusCode::CONFLICT, problem).into_response())
}

fn reloaded(module: &Deployments, record: Record) -> Json<Reloaded> {
    let name = module.name();
    let message = if record.unchanged {
        format!("{name} serves this already: nothing was done")
    } else {
        format!("Reloaded {name} ({:.0}ms downtime)", record.downtime_ms.unwrap_or_default())
    };
    tracing::info!("{message}");
    Json(Reloaded::new(name, record, message))
}

/// Whether a body says that it is of a media type.
fn is_sent_as(headers: &HeaderMap, kind: &str) -> bool {
    let sent = headers.get(CONTENT_TYPE).and_then(|sent| sent.to_str().ok()).unwrap_or_default();
    sent.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind)
}

/// A body that says that it is JSON, and is. A form of another site cannot say so.
pub fn json<T: for<'de> Deserialize<'de>>(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<T, (StatusCode, Json<serde_json::Value>)> {
    if !is_sent_as(headers, "application/json") {
        return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send JSON, with Content-Type: application/json"));
    }
    serde_json::from_slice(body).map_err(|error| refusal(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn version(State(admin): State<Admin>, chosen: Chosen) -> Result<Json<Version>, Response> {
    Version::of(&*chosen.of(&admin)?)
        .map(Json)
        .ok_or_else(|| refusal(StatusCode::SERVICE_UNAVAILABLE, "nothing serves").into_response())
}

/// What serves in each module, in the order in which requests meet them.
async fn modules(State(admin): State<Admin>) -> Json<Modules> {
    Json(Modules::of(&admin.modules))
}

/// Those that a list is about: all of them if none is named.
fn listed(admin: &Admin, chosen: &Chosen) -> Result<Chain<Deployments>, NotChosen> {
    match chosen.is_said() {
        true => Ok(Chain::new(vec![chosen.of(admin)?])),
        false => Ok(admin.modules.clone()),
    }
}

async fn history(State(admin): State<Admin>, chosen: Chosen) -> Result<Json<History>, Response> {
    Ok(Json(History::of(&listed(&admin, &chosen)?)))
}

/// Reads the configuration again, as SIGHUP does.
async fn reload_config(settings: Arc<Settings>) -> Result<Json<serde_json::Value>, Response> {
    match tokio::task::spawn_blocking(move || settings.reload().map_err(|error| error.to_string())).await {
        Ok(Ok(Changed { changed, needs_restart, why })) => Ok(Json(
            serde_json::json!({ "success": true, "changed": changed, "needs_restart": needs_restart, "why": why }),
        )),
        Ok(Err(error)) => {
            Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, escape_untrusted(&error).into_owned()).into_response())
        }
        Err(panic) => Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, panic.to_string()).into_response()),
    }
}

async fn archived(State(admin): State<Admin>, chosen: Chosen) -> Result<Json<Archived>, Response> {
    change(&chosen.of(&admin)?, Archived::of).await.map(Json)
}

async fn errors(State(admin): State<Admin>, chosen: Chosen) -> Result<Json<Errors>, Response> {
    Ok(Json(Errors::of(&listed(&admin, &chosen)?)))
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since: f64,
}

async fn live(State(admin): State<Admin>, Query(Since { since }): Query<Since>) -> Json<Live> {
    Json(Live::of(&admin.guard, since, unix(SystemTime::now())))
}

async fn metrics(State(admin): State<Admin>, proxy: Arc<Proxy>) -> Response {
    let metrics = admin.guard.metrics();
    let text = metrics.text(|| {
        admin.modules.iter().for_each(|module| module.note_state());
        metrics.upstreams(&proxy.upstreams());
    });
    match text {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
        }
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    if *admin.draining.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    match admin.guard.not_serving() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(module) => (StatusCode::SERVICE_UNAVAILABLE, format!("{} does not serve\n", module.name())),
    }
}
