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
use crate::trust;

/// The longest name, in bytes.
const NAME_LIMIT: usize = 64;
/// What a form may have.
const FIELDS: &str = "there are the fields name, file, manifest with signatures and, if they are to change with it, rules: each of them \
                      once";

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
    pub module: Bytes,
    /// The rule file that belongs to it, if it is not to serve with the rules that do.
    pub rules: Option<Bytes>,
    /// Who says what it is.
    pub signed: Option<Arc<Signed>>,
}

/// The module that a request brings for the slot called `slot`.
pub async fn receive(request: Request, slot: &str, terms: &Terms) -> Result<Upload, Rejected> {
    let too_large = || {
        let cap = terms.max_bytes;
        Rejected(StatusCode::PAYLOAD_TOO_LARGE, format!("an upload has at most {cap} bytes: see max_upload_bytes"))
    };
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > terms.max_bytes as u64) {
        return Err(too_large());
    }
    match timeout(terms.deadline, read(request, slot)).await {
        Ok(Err(Rejected(StatusCode::PAYLOAD_TOO_LARGE, _))) => Err(too_large()),
        Ok(result) => result,
        Err(_) => {
            let seconds = terms.deadline.as_secs_f64();
            let problem = format!("the upload took longer than {seconds} s: see upload_timeout_seconds");
            Err(Rejected(StatusCode::REQUEST_TIMEOUT, problem))
        }
    }
}

async fn read(request: Request, slot: &str) -> Result<Upload, Rejected> {
    let bad = |problem: &str| Rejected(StatusCode::BAD_REQUEST, problem.to_owned());
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| {
        Rejected(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send multipart/form-data with the fields name and file".to_owned(),
        )
    })?;
    let (mut name, mut file, mut rules, mut manifest, mut signatures) = (None, None, None, None, None);
    while let Some(field) = form.next_field().await? {
        match field.name() {
            Some("name") if name.is_none() => name = Some(read_name(field).await?),
            Some(kind @ ("file" | "rules" | "manifest" | "signatures")) => {
                let content = match kind {
                    "file" => &mut file,
                    "rules" => &mut rules,
                    "manifest" => &mut manifest,
                    _ => &mut signatures,
                };
                if content.is_some() {
                    return Err(bad(FIELDS));
                }
                if !field.file_name().is_none_or(is_no_path) {
                    return Err(bad("the file's name is a path, or longer than a file's name"));
                }
                *content = Some(field.bytes().await?);
            }
            _ => return Err(bad(FIELDS)),
        }
    }
    // There is one: who names none means it.
    if let Some(name) = name.filter(|name| name != slot) {
        let problem = format!("there is no module {name} here: this node serves {slot}");
        return Err(Rejected(StatusCode::NOT_FOUND, problem));
    }
    let module = file.filter(|file| !file.is_empty()).ok_or_else(|| bad("the field `file` is missing or empty"))?;
    let signed = trust::of_form(manifest.as_deref(), signatures.as_deref()).map_err(bad)?;
    Ok(Upload { module, rules, signed })
}

async fn read_name(field: Field<'_>) -> Result<String, Rejected> {
    let bytes = field.bytes().await?;
    let name = std::str::from_utf8(&bytes).ok().filter(|name| is_plain(name));
    name.map(str::to_owned).ok_or_else(|| {
        let problem = format!("a name has 1 to {NAME_LIMIT} letters, digits, `-`, `_` or `.`, and begins with no dot");
        Rejected(StatusCode::BAD_REQUEST, problem)
    })
}

/// Whether a name can mean nothing but itself, in a path, a log or a label.
fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= NAME_LIMIT && !name.starts_with('.') && name.bytes().all(is_plain)
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
