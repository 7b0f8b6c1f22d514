//! Receives a module: a multipart body with a name and a file, up to a cap and by a deadline.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use hotslot_trust::Signed;
use tokio::time::timeout;

use super::answers::refusal;
use crate::trial::{self, Wish};
use crate::trust;

/// What a form may have.
const FIELDS: &str = "there are the fields name (or module), file, manifest with signatures, if they are to change with it, rules (or \
                      config), and, for a trial, mode, share, steps, auto, min_calls and refusals: each of them once";
/// A longer name is none.
const NAME_FIELD_LIMIT: usize = 256;

#[derive(Clone, Copy)]
pub struct Terms {
    pub max_bytes: usize,
    pub deadline: Duration,
}

/// Why there is no module.
pub struct Rejected(StatusCode, String);

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        refusal(self.0, self.1).into_response()
    }
}

/// What a request brings.
pub struct Upload {
    /// Which module it is for, if it says so.
    pub name: Option<String>,
    pub module: Bytes,
    /// What it is to be set up with, if that is not what the serving version is set up with: its rule file.
    pub rules: Option<Bytes>,
    /// Who says what it is.
    pub signed: Option<Arc<Signed>>,
    /// Whether and how it is to be tried first.
    pub wish: Wish,
}

/// The module that a request brings.
pub async fn receive(request: Request, terms: &Terms) -> Result<Upload, Rejected> {
    let too_large = || {
        let cap = terms.max_bytes;
        Rejected(StatusCode::PAYLOAD_TOO_LARGE, format!("an upload has at most {cap} bytes: see max_upload_bytes"))
    };
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > terms.max_bytes as u64) {
        return Err(too_large());
    }
    match timeout(terms.deadline, read(request)).await {
        Ok(Err(Rejected(StatusCode::PAYLOAD_TOO_LARGE, _))) => Err(too_large()),
        Ok(result) => result,
        Err(_) => {
            let seconds = terms.deadline.as_secs_f64();
            let problem = format!("the upload took longer than {seconds} s: see upload_timeout_seconds");
            Err(Rejected(StatusCode::REQUEST_TIMEOUT, problem))
        }
    }
}

async fn read(request: Request) -> Result<Upload, Rejected> {
    let bad = |problem: &str| Rejected(StatusCode::BAD_REQUEST, problem.to_owned());
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| {
        Rejected(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send multipart/form-data with the fields name and file".to_owned(),
        )
    })?;
    let (mut name, mut file, mut rules, mut manifest, mut signatures) = (None, None, None, None, None);
    let mut wish = Wish::default();
    while let Some(field) = form.next_field().await? {
        match field.name() {
            Some("name" | "module") if name.is_none() => name = Some(read_name(field).await?),
            Some(kind @ ("file" | "rules" | "config" | "manifest" | "signatures")) => {
                let content = match kind {
                    "file" => &mut file,
                    "manifest" => &mut manifest,
                    "signatures" => &mut signatures,
                    _ => &mut rules,
                };
                if content.is_some() {
                    return Err(bad(FIELDS));
                }
                if !field.file_name().is_none_or(is_no_path) {
                    return Err(bad("the file's name is a path, or longer than a file's name"));
                }
                *content = Some(field.bytes().await?);
            }
            Some(kind) if trial::FIELDS.contains(&kind) => {
                let kind = kind.to_owned();
                wish.add(&kind, read_name(field).await?).map_err(|problem| bad(&problem))?;
            }
            _ => return Err(bad(FIELDS)),
        }
    }
    let module = file.filter(|file| !file.is_empty()).ok_or_else(|| bad("the field `file` is missing or empty"))?;
    let signed = trust::of_form(manifest.as_deref(), signatures.as_deref()).map_err(bad)?;
    Ok(Upload { name, module, rules, signed, wish })
}

/// A name, whatever it is.
async fn read_name(field: Field<'_>) -> Result<String, Rejected> {
    let bytes = field.bytes().await?;
    Ok(String::from_utf8_lossy(&bytes[..bytes.len().min(NAME_FIELD_LIMIT)]).into_owned())
}

/// Whether a file's name is one. It is not used for anything; but one that is not says something of the sender.
fn is_no_path(name: &str) -> bool {
    name.len() <= 255 && name != ".." && !name.contains(['/', '\\']) && !name.contains(char::is_control)
}

impl From<MultipartError> for Rejected {
    fn from(error: MultipartError) -> Rejected {
        Rejected(error.status(), error.body_text())
    }
}
