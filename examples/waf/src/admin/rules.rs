//! The rules over the API: listed, added, changed, deleted and compared. Each change is a reload.
//!
//! Whoever reads the rules gets their digest as `ETag`; whoever sends it back as `If-Match` changes those rules and no others.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{ETAG, HeaderMap, HeaderValue, IF_MATCH};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::{Value, json as object};

use super::answers::{Reloaded, refusal};
use super::{Admin, json, reloaded};
use crate::deploy::{Change, Refusal, Trigger};
use crate::rule_file::{Edit, RuleFile};

/// All rules that serve.
pub async fn list(State(admin): State<Admin>) -> Result<Response, Response> {
    let rules = admin.deployments.serving_rules();
    let file = admin.readable(rules.value()).map_err(|refused| *refused)?;
    let dynamic = admin.readable(rules.rules()).map_err(|refused| *refused)?;
    Ok(tagged(&rules, object!({ "rules_digest": rules.digest().to_string(), "rules": dynamic, "file": file })))
}

/// One of them.
pub async fn one(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Response, Response> {
    let rules = admin.deployments.serving_rules();
    let rule = admin
        .readable(rules.rules())
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

pub async fn put(State(admin): State<Admin>, headers: HeaderMap, body: Bytes) -> Result<Json<Reloaded>, Response> {
    let rule = read(&headers, &body).map_err(|refused| *refused)?;
    change(&admin, &headers, Edit::Put(rule)).await
}

pub async fn add(State(admin): State<Admin>, headers: HeaderMap, body: Bytes) -> Result<Json<Reloaded>, Response> {
    let rule = read(&headers, &body).map_err(|refused| *refused)?;
    change(&admin, &headers, Edit::Add(rule)).await
}

pub async fn put_named(
    State(admin): State<Admin>,
    Path(id): Path<String>,
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
    change(&admin, &headers, Edit::Put(rule)).await
}

pub async fn remove(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Reloaded>, Response> {
    change(&admin, &headers, Edit::Remove(id)).await
}

/// Replaces the whole file.
pub async fn replace(State(admin): State<Admin>, headers: HeaderMap, body: Bytes) -> Result<Json<Reloaded>, Response> {
    let file = read(&headers, &body).map_err(|refused| *refused)?;
    change(&admin, &headers, Edit::Replace(file)).await
}

async fn change(admin: &Admin, headers: &HeaderMap, edit: Edit) -> Result<Json<Reloaded>, Response> {
    let of = headers.get(IF_MATCH).map(|tag| tag.to_str().unwrap_or_default().trim_matches('"').to_owned());
    let of = of.filter(|tag| tag != "*");
    let change = Change::Edit { edit, of };
    let record = admin.change(|deployments| deployments.reload(change, Trigger::RuleRequest)).await?;
    Ok(reloaded(admin, record))
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

pub async fn diff(State(admin): State<Admin>, Query(between): Query<Between>) -> Result<Response, Response> {
    let compared = admin.change(move |deployments| {
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
