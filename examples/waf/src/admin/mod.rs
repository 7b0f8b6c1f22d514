//! The admin listener: the JSON API, the metrics and the page.

pub mod access;
mod answers;
mod audit;
pub mod page;
mod rollback;
mod rules;
mod upload;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post, put};
use hotslot::escape_untrusted;
use parking_lot::RwLock;
use serde::Deserialize;
use tokio::sync::watch;

use self::answers::{Archived, Errors, History, Live, Reloaded, Version, refused};
use crate::deploy::{Change, Deployments, Record, Refusal, Trigger};
use crate::fleet::managed::{self, Managed};
use crate::json::unix;
use crate::life::Settings;
use crate::proxy::Proxy;
use crate::release::{Module, Release};
use crate::rule_file::{EditError, RuleFile};
use crate::rules::Engine;

/// A rule, or the wish to roll back, is a small thing.
const JSON_LIMIT: usize = 64 << 10;

/// What the routes work on.
#[derive(Clone)]
pub struct Admin {
    pub name: Arc<str>,
    pub deployments: Arc<Deployments>,
    pub engine: Engine,
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
        .route("/api/v1/wasm/reload", post(reload).layer(upload))
        .route("/api/v1/wasm/version", get(version))
        .route("/api/v1/wasm/rollback", post(rollback::module))
        .route("/api/v1/wasm/history", get(history))
        .route("/api/v1/wasm/errors", get(errors))
        .route("/api/v1/wasm/archive", get(archived))
        .route("/api/v1/rules", get(rules::list).put(rules::put).post(rules::add))
        .route("/api/v1/rules/diff", get(rules::diff))
        .route("/api/v1/rules/file", put(rules::replace))
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

impl Admin {
    /// Changes what serves, off the runtime's workers.
    async fn change<R: Send + 'static>(
        &self,
        change: impl FnOnce(&Deployments) -> Result<R, Refusal> + Send + 'static,
    ) -> Result<R, Response> {
        let deployments = Arc::clone(&self.deployments);
        let changed = tokio::task::spawn_blocking(move || change(&deployments)).await;
        match changed {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(refused(&error, self.deployments.guard())),
            Err(panic) => {
                tracing::error!(%panic, "reload");
                Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, "the reload panicked").into_response())
            }
        }
    }
}

impl Admin {
    /// What was read from the rules that serve, which a module may understand though they are no JSON.
    fn readable<R>(&self, read: Result<R, EditError>) -> Result<R, Box<Response>> {
        read.map_err(|error| Box::new(refused(&Refusal::Rules(error), self.deployments.guard())))
    }
}

async fn reload(State(admin): State<Admin>, request: Request) -> Result<Json<Reloaded>, Response> {
    let upload = upload::receive(request, &admin.name, &admin.terms).await.map_err(IntoResponse::into_response)?;
    if upload.signed.is_some() && admin.deployments.trust().is_none() {
        let problem = "this node has no root to verify a manifest by: set root in [waf.trust], or send none";
        return Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, problem).into_response());
    }
    let module = Module::new(upload.module).with_manifest(upload.signed);
    let (change, trigger) = match upload.rules {
        None => (Change::Module(module), Trigger::Upload),
        Some(rules) => (Change::Release(Release { module, rules: RuleFile::new(&rules[..]) }), Trigger::Release),
    };
    let record = admin.change(move |deployments| deployments.reload(change, trigger)).await?;
    Ok(reloaded(&admin, record))
}

fn reloaded(admin: &Admin, record: Record) -> Json<Reloaded> {
    let name = &admin.name;
    let message = if record.unchanged {
        format!("{name} serves this already: nothing was done")
    } else {
        format!("Reloaded {name} ({:.0}ms downtime)", record.downtime_ms.unwrap_or_default())
    };
    tracing::info!("{message}");
    Json(Reloaded::new(record, message))
}

/// A body that says that it is JSON, and is. A form of another site cannot say so.
pub fn json<T: for<'de> Deserialize<'de>>(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<T, (StatusCode, Json<serde_json::Value>)> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send JSON, with Content-Type: application/json"));
    }
    serde_json::from_slice(body).map_err(|error| refusal(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn version(State(admin): State<Admin>) -> Result<Json<Version>, Response> {
    Version::of(&admin.name, &admin.deployments)
        .map(Json)
        .ok_or_else(|| refusal(StatusCode::SERVICE_UNAVAILABLE, "nothing serves").into_response())
}

async fn history(State(admin): State<Admin>) -> Json<History> {
    Json(History::of(&admin.deployments))
}

/// Reads the configuration again, as SIGHUP does.
async fn reload_config(settings: Arc<Settings>) -> Result<Json<serde_json::Value>, Response> {
    match tokio::task::spawn_blocking(move || settings.reload().map_err(|error| error.to_string())).await {
        Ok(Ok(changed)) => Ok(Json(
            serde_json::json!({ "success": true, "changed": changed.changed, "needs_restart": changed.needs_restart }),
        )),
        Ok(Err(error)) => {
            Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, escape_untrusted(&error).into_owned()).into_response())
        }
        Err(panic) => Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, panic.to_string()).into_response()),
    }
}

async fn archived(State(admin): State<Admin>) -> Result<Json<Archived>, Response> {
    admin.change(Archived::of).await.map(Json)
}

async fn errors(State(admin): State<Admin>) -> Json<Errors> {
    Json(Errors::of(admin.deployments.guard()))
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since: f64,
}

async fn live(State(admin): State<Admin>, Query(Since { since }): Query<Since>) -> Json<Live> {
    Json(Live::of(admin.deployments.guard(), since, unix(SystemTime::now())))
}

async fn metrics(State(admin): State<Admin>, proxy: Arc<Proxy>) -> Response {
    let guard = admin.deployments.guard();
    let status = guard.slot().status();
    let generation = status.serving.map_or(0, |serving| serving.generation);
    guard.metrics().upstreams(&proxy.upstreams());
    match guard.metrics().text(generation, status.retired.len(), admin.engine.instances()) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
        }
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match *admin.draining.borrow() {
        false => (StatusCode::OK, "ready\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}
