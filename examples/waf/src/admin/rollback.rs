//! The ways back: for the module, and for the rules.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;

use super::answers::{RolledBack, refusal};
use super::{Admin, json};
use crate::deploy::{Rules, Target};

/// Where a module is to go. To the one before if nothing is said.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ModuleWish {
    generation: Option<u64>,
    /// The digest of the module.
    digest: Option<String>,
    /// What becomes of the rules.
    rules: RulesWish,
    reason: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RulesWish {
    #[default]
    Keep,
    Restore,
}

/// Where the rules are to go. To those before if nothing is said.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleFileWish {
    digest: Option<String>,
    reason: Option<String>,
}

pub async fn module(State(admin): State<Admin>, headers: HeaderMap, body: Bytes) -> Result<Json<RolledBack>, Response> {
    let wish: ModuleWish = wish(&headers, &body).map_err(|refused| *refused)?;
    let rules = match wish.rules {
        RulesWish::Keep => Rules::Keep,
        RulesWish::Restore => Rules::Restore,
    };
    let target = match (wish.generation, wish.digest) {
        (None, None) => Target::Module(rules),
        (Some(generation), None) => Target::Generation(generation, rules),
        (None, Some(digest)) => Target::ModuleOf(digest, rules),
        (Some(_), Some(_)) => {
            let both = "a rollback goes to a generation or to a digest, not to both";
            return Err(refusal(StatusCode::BAD_REQUEST, both).into_response());
        }
    };
    roll_back(&admin, target, wish.reason).await
}

pub async fn rules(State(admin): State<Admin>, headers: HeaderMap, body: Bytes) -> Result<Json<RolledBack>, Response> {
    let wish: RuleFileWish = wish(&headers, &body).map_err(|refused| *refused)?;
    roll_back(&admin, wish.digest.map_or(Target::Rules, Target::RulesOf), wish.reason).await
}

async fn roll_back(admin: &Admin, target: Target, reason: Option<String>) -> Result<Json<RolledBack>, Response> {
    let reason = reason.unwrap_or_else(|| "requested".to_owned());
    let done = admin.change(move |deployments| deployments.roll_back(target, reason)).await?;
    Ok(Json(RolledBack::new(done)))
}

/// What a body asks for. None asks for the usual.
fn wish<T: Default + for<'de> Deserialize<'de>>(headers: &HeaderMap, body: &[u8]) -> Result<T, Box<Response>> {
    if body.is_empty() {
        Ok(T::default())
    } else {
        json(headers, body).map_err(|refused| Box::new(refused.into_response()))
    }
}
