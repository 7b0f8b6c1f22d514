//! FAULTS 46: who may do what on the admin listener.

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::support::node::Folder;
use crate::support::{Module, Node, TOKEN, request};

const CHANGES: [(Method, &str); 3] =
    [(Method::POST, "/api/v1/wasm/reload"), (Method::POST, "/api/v1/wasm/rollback"), (Method::PUT, "/api/v1/rules")];

#[tokio::test]
async fn what_changes_something_needs_the_token() {
    let node = Node::start(&Module::new("1.0.0"));
    for (method, route) in CHANGES {
        let longer = format!("{TOKEN}x");
        for token in [None, Some(""), Some("wrong"), Some(&TOKEN[1..]), Some(&longer)] {
            let wish = request(node.admin, method.clone(), route);
            let wish = token.into_iter().fold(wish, |wish, token| wish.token(token));
            let answer = wish.send().await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {route} with {token:?}");
            assert!(answer.headers.contains_key("www-authenticate"));
        }
        let answer = request(node.admin, method.clone(), route).token(TOKEN).send().await;
        assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{method} {route}");
    }
}

#[tokio::test]
async fn requests_of_other_sites_are_refused_even_with_the_token() {
    let node = Node::start(&Module::new("1.0.0"));
    let own = format!("http://{}", node.admin);
    for (header, value, passes) in [
        ("origin", own.as_str(), true),
        ("origin", "http://attacker.example", false),
        ("origin", "null", false),
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "cross-site", false),
        ("sec-fetch-site", "same-site", false),
        ("host", "localhost", true),
        ("host", "attacker.example", false),
    ] {
        for (method, route) in CHANGES.into_iter().chain([(Method::GET, "/api/v1/wasm/version"), (Method::GET, "/")]) {
            let answer = request(node.admin, method.clone(), route).token(TOKEN).header(header, value).send().await;
            assert_eq!(answer.status != StatusCode::FORBIDDEN, passes, "{method} {route} with {header}: {value}");
        }
    }
}

#[tokio::test]
async fn a_form_cannot_stand_in_for_json() {
    let node = Node::start(&Module::new("1.0.0"));
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        for (method, route) in [(Method::PUT, "/api/v1/rules"), (Method::POST, "/api/v1/wasm/rollback")] {
            let wish = request(node.admin, method, route).token(TOKEN).header("content-type", kind).body("{}");
            assert_eq!(wish.send().await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{route} as {kind}");
        }
    }
    let json = request(node.admin, Method::POST, "/api/v1/wasm/rollback").token(TOKEN).json(&json!({"surprise": 1}));
    assert_eq!(json.send().await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_token_is_made_at_the_first_start_and_kept() {
    let mut folder = Folder::new(&Module::new("1.0.0"), "");
    folder.forget("waf.admin", "token");
    let node = folder.start();
    let path = node.folder.path("data/token");
    let token = std::fs::read_to_string(&path).unwrap();
    assert!(token.len() == 64 && node.said.iter().any(|line| line.contains(&token)), "{:?}", node.said);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let node = node.kill().start();
    assert!(!node.said.iter().any(|line| line.contains(&token)), "printed once only");
    let answer = request(node.admin, Method::POST, "/api/v1/wasm/rollback").token(&token).send().await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn answers_tell_browsers_to_be_careful() {
    let node = Node::start(&Module::new("1.0.0"));
    let page = request(node.admin, Method::GET, "/").send().await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    assert_eq!(page.headers["x-frame-options"], "DENY");
    assert!(!page.text().contains("src=\"http") && !page.text().contains("href=\"http"), "fetched from elsewhere");
}
