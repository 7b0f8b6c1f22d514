//! Versions that are tried on traffic: what there is to see of a trial, and who decides about it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde::{Deserialize, Serialize};

use super::answers::{Reloaded, refusal};
use super::chosen::Chosen;
use super::{Admin, change, given, json, listed, reloaded};
use crate::chain::Named;
use crate::deploy::{Begun, Deployments, Trigger};
use crate::release::{Module, Release};
use crate::rule_file::RuleFile;
use crate::trial::{Mode, Plan, Trial, View, read_share};
use crate::version::shown;

/// The latest trial of each module.
#[derive(Serialize)]
pub struct Trials {
    trials: Vec<View>,
}

/// A trial that has begun, or was changed.
#[derive(Serialize)]
pub struct Changed {
    success: bool,
    message: String,
    trial: View,
}

/// What is asked of a trial.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wish {
    module: Option<String>,
    reason: Option<String>,
    share: Option<ShareWish>,
}

/// A share as a number, or as people write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum ShareWish {
    Number(f64),
    Text(String),
}

/// A request about a trial.
pub struct Asked {
    /// The module that it names, or the only one with a trial.
    module: Arc<Deployments>,
    wish: Wish,
}

impl FromRequest<Admin> for Asked {
    type Rejection = Response;

    async fn from_request(request: Request, admin: &Admin) -> Result<Asked, Response> {
        let (mut parts, body) = request.into_parts();
        let chosen = Chosen::from_request_parts(&mut parts, admin).await?;
        let headers = parts.headers.clone();
        let body = Bytes::from_request(Request::from_parts(parts, body), admin).await;
        let body = body.map_err(IntoResponse::into_response)?;
        let wish = match body.is_empty() {
            true => Wish::default(),
            false => json::<Wish>(&headers, &body).map_err(IntoResponse::into_response)?,
        };
        let module = chosen.and(wish.module.clone())?.of_trial(admin)?;
        Ok(Asked { module, wish })
    }
}

/// The latest trial of the module, or of all of them.
pub async fn show(State(admin): State<Admin>, chosen: Chosen) -> Result<Json<Trials>, Response> {
    let modules = listed(&admin, &chosen)?;
    let trials = modules.iter().filter_map(|module| module.trial());
    Ok(Json(Trials { trials: trials.map(|trial| trial.view()).collect() }))
}

/// Begins to try what a request brings.
pub async fn begin(
    admin: &Admin,
    module: &Arc<Deployments>,
    signed: Module,
    rules: Option<Bytes>,
    plan: Plan,
) -> Result<Response, Response> {
    if admin.fleet.is_some() {
        let problem = "a node of a fleet serves what its fleet rolls out, which goes by nodes: try a version on a node of its own";
        return Err(refusal(StatusCode::CONFLICT, problem).into_response());
    }
    let theirs = Arc::clone(module);
    let begun = change(module, move |_| {
        let trigger = if rules.is_some() { Trigger::Release } else { Trigger::Upload };
        let release = match rules {
            Some(rules) => Release { module: signed, rules: RuleFile::new(&rules[..]) },
            None => Release { module: signed, rules: theirs.serving_rules() },
        };
        theirs.begin_trial(release, plan, trigger)
    });
    match begun.await? {
        Begun::Unchanged(record) => Ok(reloaded(module, *record).into_response()),
        Begun::Trial(trial) => {
            let about = trial.about();
            let name =
                about.version.as_deref().map_or_else(|| about.release.module.digest().short().to_string(), shown);
            let message = match trial.plan().mode {
                Mode::Shadow => {
                    format!("{name} is being tried as a shadow: clients are told what the serving version says")
                }
                Mode::Canary => {
                    let percent = trial.plan().first_share() * 100.0;
                    format!("{name} is being tried as a canary: it judges the requests of {percent} % of the clients")
                }
            };
            Ok((StatusCode::ACCEPTED, changed(&trial, message)).into_response())
        }
    }
}

pub async fn promote(Asked { module, wish }: Asked) -> Result<Json<Reloaded>, Response> {
    let why = reason(wish.reason, "promoted");
    let record = change(&module, move |deployments| deployments.promote_trial(&why)).await?;
    Ok(reloaded(&module, record))
}

pub async fn abort(Asked { module, wish }: Asked) -> Result<Json<Changed>, Response> {
    let why = reason(wish.reason, "aborted");
    let trial = change(&module, move |deployments| deployments.abort_trial(&why)).await?;
    Ok(changed(&trial, format!("{} serves on as before the trial", module.name())))
}

pub async fn pause(Asked { module, .. }: Asked) -> Result<Json<Changed>, Response> {
    let trial = change(&module, |deployments| deployments.pause_trial(true)).await?;
    Ok(changed(&trial, "the trial stays where it is until it is resumed".to_owned()))
}

pub async fn resume(Asked { module, .. }: Asked) -> Result<Json<Changed>, Response> {
    let trial = change(&module, |deployments| deployments.pause_trial(false)).await?;
    let message = match trial.plan().auto {
        true => "the trial goes on: its step begins anew",
        false => "the trial goes on, at its share until somebody decides",
    };
    Ok(changed(&trial, message.to_owned()))
}

pub async fn share(Asked { module, wish }: Asked) -> Result<Json<Changed>, Response> {
    let share = match wish.share {
        Some(ShareWish::Number(number)) => read_share(&number.to_string()),
        Some(ShareWish::Text(text)) => read_share(&text),
        None => Err("say which `share`: 0.05, or \"5%\"".to_owned()),
    };
    let share = share.map_err(|problem| refusal(StatusCode::BAD_REQUEST, problem).into_response())?;
    let trial = change(&module, move |deployments| deployments.set_trial_share(share)).await?;
    let message = match trial.plan().auto {
        true => "the trial has this share, and keeps it until it is resumed",
        false => "the trial has this share",
    };
    Ok(changed(&trial, message.to_owned()))
}

fn changed(trial: &Trial, message: String) -> Json<Changed> {
    tracing::info!(module = &*trial.about().module, "{message}");
    Json(Changed { success: true, message, trial: trial.view() })
}

fn reason(reason: Option<String>, what: &str) -> String {
    given(reason).unwrap_or_else(|| format!("{what} over the API"))
}
