//! The page: one file, which fetches nothing but this API.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::{Html, IntoResponse, Response};

const PAGE: &str = include_str!("page.html");

pub async fn page() -> Response {
    serve(PAGE)
}

/// Answers with a page whose own styles and script may run, and nothing else.
pub fn serve(page: &str) -> Response {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).expect("hexadecimal digits");
    ([(CONTENT_SECURITY_POLICY, policy)], Html(page.replace("{nonce}", &nonce))).into_response()
}
