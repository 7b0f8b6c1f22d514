//! The ways back: for the module, and for the rules.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;

use super::answers::{RolledBack, refusal};
use super::chosen::Chosen;
use super::{Admin, change, given, if_match, json};
use crate::chain::Named;
use crate::deploy::{Deployments, Rules, Target};

/// Where a module is to go. To the one before if nothing is said.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ModuleWish {
    /// The name of the module.
    module: Option<String>,
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
    /// The name of the module, if it is not the one that takes rules.
    module: Option<String>,
    digest: Option<String>,
    reason: Option<String>,
}

pub async fn module(
    State(admin): State<Admin>,
    chosen: Chosen,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<RolledBack>, Response> {
    let wish: ModuleWish = wish(&headers, &body).map_err(|refused| *refused)?;
    let module = chosen.and(wish.module)?.of(&admin)?;
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
    roll_back(&module, target, None, wish.reason).await
}

pub async fn rules(
    State(admin): State<Admin>,
    chosen: Chosen,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<RolledBack>, Response> {
    let wish: RuleFileWish = wish(&headers, &body).map_err(|refused| *refused)?;
    let module = chosen.and(wish.module)?.of_rules(&admin)?;
    let target = wish.digest.map_or(Target::Rules, Target::RulesOf);
    roll_back(&module, target, if_match(&headers), wish.reason).await
}

async fn roll_back(
    module: &Arc<Deployments>,
    target: Target,
    of: Option<String>,
    reason: Option<String>,
) -> Result<Json<RolledBack>, Response> {
    let reason = given(reason).unwrap_or_else(|| "requested".to_owned());
    let done = change(module, move |deployments| deployments.roll_back(target, of, reason)).await?;
    Ok(Json(RolledBack::new(module.name(), done)))
}

/// What a body asks for. None asks for the usual.
fn wish<T: Default + for<'de> Deserialize<'de>>(headers: &HeaderMap, body: &[u8]) -> Result<T, Box<Response>> {
    if body.is_empty() {
        Ok(T::default())
    } else {
        json(headers, body).map_err(|refused| Box::new(refused.into_response()))
    }
}
