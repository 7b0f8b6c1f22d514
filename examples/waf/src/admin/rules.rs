//! The rules over the API: listed, added, changed, deleted and compared. Each change is a reload.
//!
//! They are those of the module that takes rules. `?module=NAME` means what another one is set up with, which may not have what a
//! rule file has: then that module refuses it.
//!
//! Whoever reads the rules gets their digest as `ETag`; whoever sends it back as `If-Match` changes those rules and no others.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{ETAG, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::{Value, json as object};

use super::answers::{Reloaded, refusal};
use super::chosen::Chosen;
use super::{Admin, change, if_match, is_sent_as, json, readable, reloaded};
use crate::deploy::{Change, Deployments, Refusal, Trigger};
use crate::rule_file::{Edit, RuleFile};

/// All rules that serve.
pub async fn list(State(admin): State<Admin>, chosen: Chosen) -> Result<Response, Response> {
    let module = chosen.of_rules(&admin)?;
    let rules = module.serving_rules();
    if let Some(text) = rules.text() {
        return Ok(tagged(&rules, object!({ "rules_digest": rules.digest().to_string(), "text": text })));
    }
    let file = readable(&module, rules.value()).map_err(|refused| *refused)?;
    let dynamic = readable(&module, rules.rules()).map_err(|refused| *refused)?;
    Ok(tagged(&rules, object!({ "rules_digest": rules.digest().to_string(), "rules": dynamic, "file": file })))
}

/// One of them.
pub async fn one(State(admin): State<Admin>, Path(id): Path<String>, chosen: Chosen) -> Result<Response, Response> {
    let module = chosen.of_rules(&admin)?;
    let rules = module.serving_rules();
    let rule = readable(&module, rules.rules())
        .map_err(|refused| *refused)?
        .into_iter()
        .find(|rule| rule.get("id") == Some(&Value::from(&*id)));
    match rule {
        Some(rule) => Ok(tagged(&rules, rule)),
        None => Err(refusal(StatusCode::NOT_FOUND, "there is no dynamic rule with this id").into_response()),
    }
}

fn tagged(rules: &RuleFile, value: Value) -> Response {
    let tag = HeaderValue::try_from(format!("\"{}\"", rules.digest())).expect("hexadecimal digits");
    ([(ETAG, tag)], Json(value)).into_response()
}

pub async fn put(
    State(admin): State<Admin>,
    chosen: Chosen,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Reloaded>, Response> {
    let rule = read(&headers, &body).map_err(|refused| *refused)?;
    edit(&chosen.of_rules(&admin)?, &headers, Edit::Put(rule)).await
}

pub async fn add(
    State(admin): State<Admin>,
    chosen: Chosen,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Reloaded>, Response> {
    let rule = read(&headers, &body).map_err(|refused| *refused)?;
    edit(&chosen.of_rules(&admin)?, &headers, Edit::Add(rule)).await
}

pub async fn put_named(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    chosen: Chosen,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Reloaded>, Response> {
    let mut rule = read(&headers, &body).map_err(|refused| *refused)?;
    if let Some(rule) = rule.as_object_mut() {
        let own = rule.entry("id").or_insert_with(|| Value::from(&*id));
        if own.as_str() != Some(&*id) {
            return Err(refusal(StatusCode::BAD_REQUEST, "the rule has another `id` than the path").into_response());
        }
    }
    edit(&chosen.of_rules(&admin)?, &headers, Edit::Put(rule)).await
}

pub async fn remove(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    chosen: Chosen,
    headers: HeaderMap,
) -> Result<Json<Reloaded>, Response> {
    edit(&chosen.of_rules(&admin)?, &headers, Edit::Remove(id)).await
}

/// Replaces the whole file: by JSON, or by a text of another engine.
pub async fn replace(
    State(admin): State<Admin>,
    chosen: Chosen,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Reloaded>, Response> {
    let wanted = if is_sent_as(&headers, "text/plain") {
        let text = String::from_utf8(body.into());
        let text = text.map_err(|_| refusal(StatusCode::BAD_REQUEST, "the rules are no UTF-8").into_response())?;
        Edit::ReplaceText(text)
    } else {
        Edit::Replace(read(&headers, &body).map_err(|refused| *refused)?)
    };
    edit(&chosen.of_rules(&admin)?, &headers, wanted).await
}

async fn edit(module: &Arc<Deployments>, headers: &HeaderMap, edit: Edit) -> Result<Json<Reloaded>, Response> {
    let wanted = Change::Edit { edit, of: if_match(headers) };
    let record = change(module, |deployments| deployments.reload(wanted, Trigger::RuleRequest)).await?;
    Ok(reloaded(module, record))
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Value, Box<Response>> {
    json(headers, body).map_err(|refused| Box::new(refused.into_response()))
}

/// Between which rule files: from those before to those that serve if nothing is said.
#[derive(Deserialize)]
pub struct Between {
    from: Option<String>,
    to: Option<String>,
}

pub async fn diff(
    State(admin): State<Admin>,
    chosen: Chosen,
    Query(between): Query<Between>,
) -> Result<Response, Response> {
    let module = chosen.of_rules(&admin)?;
    let compared = change(&module, move |deployments| {
        let from = match between.from {
            Some(digest) => deployments.archived_rules(&digest)?,
            None => deployments.previous_rules()?,
        };
        let to = match between.to {
            Some(digest) => deployments.archived_rules(&digest)?,
            None => deployments.serving_rules(),
        };
        let diff = from.diff(&to).map_err(Refusal::Rules)?;
        Ok(object!({ "from": from.digest().to_string(), "to": to.digest().to_string(), "diff": diff }))
    });
    compared.await.map(|value| Json(value).into_response())
}
