//! Which module a request is about.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use hotslot::escape_untrusted;
use serde::Deserialize;
use serde_json::json;

use super::answers::refused;
use super::audit::About;
use super::{Admin, refusal};
use crate::chain::{NAME_LIMIT, Named as _, UnknownModule, is_name};
use crate::deploy::{Deployments, Refusal};

/// The module that the path or the query of a request names, if one does.
pub struct Chosen {
    name: Option<String>,
    /// For the audit log, if what the request asks for is written down.
    about: Option<About>,
}

#[derive(Deserialize)]
struct Named {
    module: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Chosen {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Chosen, Response> {
        let path = RawPathParams::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        let path = path.iter().find(|(key, _)| *key == "module").map(|(_, name)| name.to_owned());
        let Query(Named { module }) =
            Query::from_request_parts(parts, state).await.map_err(|error| bad(error.body_text()))?;
        Chosen { name: None, about: parts.extensions.get().cloned() }.and(path)?.and(module).map_err(Response::from)
    }
}

impl Chosen {
    /// The same, with what another part of the request names.
    pub fn and(self, named: Option<String>) -> Result<Chosen, NotChosen> {
        let Chosen { name, about } = self;
        match (name, named) {
            (_, Some(name)) if !is_name(&name) => Err(bad(format!(
                "a name has 1 to {NAME_LIMIT} letters, digits, `-`, `_` or `.`, and begins with no dot"
            ))),
            (Some(one), Some(other)) if one != other => {
                Err(bad(format!("the request names two modules: {one} and {other}")))
            }
            (one, other) => Ok(Chosen { name: one.or(other), about }),
        }
    }

    pub fn is_said(&self) -> bool {
        self.name.is_some()
    }

    fn found(&self, module: &Arc<Deployments>) -> Arc<Deployments> {
        if let Some(about) = &self.about {
            about.is(module.name());
        }
        Arc::clone(module)
    }

    /// The module, the first one if none is named.
    pub fn of(&self, admin: &Admin) -> Result<Arc<Deployments>, NotChosen> {
        admin.modules.get(self.name.as_deref()).map(|module| self.found(module)).map_err(unknown)
    }

    /// The module, the only one with a trial under way if none is named.
    pub fn of_trial(&self, admin: &Admin) -> Result<Arc<Deployments>, NotChosen> {
        if self.is_said() {
            return self.of(admin);
        }
        let under_way: Vec<_> = admin.modules.iter().filter(|module| module.trial_under_way().is_ok()).collect();
        match under_way[..] {
            [] => Err(NotChosen::new(refused(&Refusal::NoTrial, admin.modules.first().guard()))),
            [module] => Ok(self.found(module)),
            [..] => {
                let names: Vec<_> = under_way.iter().map(|module| module.name()).collect();
                let problem = format!("several modules are tried: name one of {}", names.join(", "));
                Err(NotChosen::new(refusal(StatusCode::CONFLICT, problem)))
            }
        }
    }

    /// The module, the one that takes rules if none is named.
    pub fn of_rules(&self, admin: &Admin) -> Result<Arc<Deployments>, NotChosen> {
        if self.is_said() {
            return self.of(admin);
        }
        let found = admin.modules.iter().find(|module| module.takes_rules());
        found.map(|module| self.found(module)).ok_or_else(|| {
            let problem = "no module here takes rules: say `rules = true` of one in [[waf.wasm.modules]], or name the module \
                           whose configuration is meant";
            NotChosen::new(refusal(StatusCode::NOT_FOUND, problem))
        })
    }
}

/// The answer to a request that is about no module.
pub struct NotChosen(Box<Response>);

impl NotChosen {
    fn new(answer: impl IntoResponse) -> NotChosen {
        NotChosen(Box::new(answer.into_response()))
    }
}

impl From<NotChosen> for Response {
    fn from(NotChosen(answer): NotChosen) -> Response {
        *answer
    }
}

fn bad(problem: String) -> NotChosen {
    NotChosen::new(refusal(StatusCode::BAD_REQUEST, problem))
}

fn unknown(error: UnknownModule) -> NotChosen {
    let text = escape_untrusted(&error.to_string()).into_owned();
    let body = json!({ "success": false, "error": text, "modules": error.known });
    NotChosen::new((StatusCode::NOT_FOUND, Json(body)))
}
