//! The admin API of a node that a fleet manages: changes by hand are refused, unless somebody breaks the glass.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use waf_rollout::{Desired, Report};

use crate::admin::{Admin, refusal};

/// The header by which somebody changes a managed node by hand; its value is the reason.
const BREAK_GLASS: &str = "break-glass";
/// What changes what serves, with everything below it.
const CHANGES: [&str; 3] = ["/api/v1/wasm/reload", "/api/v1/wasm/rollback", "/api/v1/rules"];

/// A handle on a node's part in its fleet.
#[derive(Clone)]
pub struct Managed {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) state: Arc<Mutex<ManagedState>>,
    /// Held by whoever changes or unpins the node by hand: what one finds pinned must not be what the other has not ended.
    pub(super) by_hand: Arc<tokio::sync::Mutex<()>>,
}

/// Pin the node, or unpin it. Answered with whether it was pinned before, once that is on the disk.
pub(super) struct Order {
    pub pin: bool,
    pub done: oneshot::Sender<bool>,
}

/// How a node stands in its fleet, for its own admin API.
#[derive(Default, Serialize)]
pub(super) struct ManagedState {
    pub connected: bool,
    pub report: Option<Report>,
    pub document: Option<Desired>,
    /// Why it was pinned last.
    pub pinned_because: Option<String>,
}

impl Managed {
    async fn order(&self, pin: bool) -> Option<bool> {
        let (done, answer) = oneshot::channel();
        self.orders.send(Order { pin, done }).await.ok()?;
        answer.await.ok()
    }
}

/// Lets a change on only if it says that it breaks the glass, and pins the node with it: from then on the node follows no
/// document, and the fleet shows it as drifted.
pub async fn protect(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let Some(fleet) = &admin.fleet else { return next.run(request).await };
    let path = request.uri().path();
    let is_change = CHANGES
        .iter()
        .any(|change| path.strip_prefix(change).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    if request.method().is_safe() || !is_change {
        return next.run(request).await;
    }
    let reason =
        request.headers().get(BREAK_GLASS).map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
    let Some(reason) = reason.filter(|reason| !reason.trim().is_empty()) else {
        let how = "this node is managed by a fleet: ask the orchestrator. In an emergency, repeat the request with the header \
                   `Break-Glass: REASON`; then this node is pinned, and follows the fleet again after POST /api/v1/fleet/unpin";
        return refusal(StatusCode::CONFLICT, how).into_response();
    };
    let _turn = fleet.by_hand.lock().await;
    // Before the change: nothing of the fleet's may come in between.
    let Some(was_pinned) = fleet.order(true).await else { return gone() };
    tracing::warn!(reason, "the glass is broken: this node is pinned");
    fleet.state.lock().pinned_because = Some(reason);
    let answer = next.run(request).await;
    if answer.status().is_success() {
        // Tells what serves now.
        fleet.order(true).await;
    } else if !was_pinned {
        fleet.order(false).await;
    }
    answer
}

/// Has a node follow its fleet again.
pub async fn unpin(State(admin): State<Admin>) -> Response {
    let Some(fleet) = &admin.fleet else { return no_fleet() };
    let _turn = fleet.by_hand.lock().await;
    match fleet.order(false).await {
        Some(was_pinned) => Json(serde_json::json!({ "success": true, "was_pinned": was_pinned })).into_response(),
        None => gone(),
    }
}

/// How the node stands in its fleet.
pub async fn state(State(admin): State<Admin>) -> Response {
    match &admin.fleet {
        Some(fleet) => Json(serde_json::json!(*fleet.state.lock())).into_response(),
        None => no_fleet(),
    }
}

fn no_fleet() -> Response {
    refusal(StatusCode::NOT_FOUND, "this node is in no fleet: start it with `waf node --fleet`").into_response()
}

fn gone() -> Response {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "the node stops").into_response()
}
