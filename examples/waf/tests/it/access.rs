//! FAULTS 46: who may do what on the admin listener.

use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::node::Folder;
use crate::support::wait::until;
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

#[tokio::test]
async fn tokens_have_roles_and_change_without_a_restart() {
    let tokens = |ci: &str| {
        let hash = hotslot::Digest::of(b"a-token-for-looking-only");
        format!(
            "[waf.admin]\nopen_reads = false\n[[waf.admin.tokens]]\nname = \"ci\"\nrole = \"deploy\"\ntoken = \"{ci}\"\n\
             [[waf.admin.tokens]]\nname = \"ml\"\nrole = \"rules\"\ntoken = \"a-token-for-rules-only\"\n\
             [[waf.admin.tokens]]\nname = \"grafana\"\nrole = \"view\"\nhash = \"{hash}\""
        )
    };
    let mut node = Node::configured(&Module::new("1.0.0"), &tokens("the-first-token-of-ci"));
    let status = async |node: &Node, token: &str, method: Method, target: &str| {
        let wish = request(node.admin, method, target).token(token).json(&serde_json::json!({"id": "a"}));
        wish.send().await.status.as_u16()
    };
    let (get, post) = (Method::GET, Method::POST);
    for (token, expected) in [
        ("no-token-at-all-here", [401, 401, 401, 401]),
        ("a-token-for-looking-only", [200, 403, 403, 403]),
        ("a-token-for-rules-only", [200, 200, 403, 403]),
        ("the-first-token-of-ci", [200, 200, 400, 403]),
        (TOKEN, [200, 200, 400, 200]),
    ] {
        let seen = [
            status(&node, token, get.clone(), "/api/v1/wasm/version").await,
            status(&node, token, Method::PUT, "/api/v1/rules").await,
            status(&node, token, post.clone(), "/api/v1/wasm/rollback").await,
            status(&node, token, post.clone(), "/api/v1/config/reload").await,
        ];
        assert_eq!(seen, expected, "{token}");
    }
    assert_eq!(status(&node, "", get.clone(), "/").await, 200, "the page asks for itself");
    assert_eq!(status(&node, "", get.clone(), "/readyz").await, 200);

    // A new token is in force at once, and the old one is not.
    node.folder.configure(&tokens("the-second-token-of-ci"));
    drop(node.folder.command());
    assert_eq!(status(&node, TOKEN, post.clone(), "/api/v1/config/reload").await, 200);
    assert_eq!(status(&node, "the-first-token-of-ci", get.clone(), "/api/v1/wasm/version").await, 401);
    assert_eq!(status(&node, "the-second-token-of-ci", get, "/api/v1/wasm/version").await, 200);

    // Who did what, from where, and what came of it; nobody's token is in it.
    let file = |name: &str| std::fs::read_to_string(node.folder.path(name)).unwrap();
    let (made, refused) = (file("data/audit.jsonl"), file("data/audit-refused.jsonl"));
    assert!(!made.contains("401") && !made.contains("403") && !refused.contains("\"status\":200"), "{made}\n{refused}");
    let audit = made + &refused;
    let lines: Vec<serde_json::Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |who: Option<&str>, path: &str, status: u16| {
        lines.iter().any(|line| {
            line["who"].as_str() == who
                && line["path"] == path
                && line["status"] == status
                && line["from"].as_str().unwrap().starts_with("127.0.0.1:")
        })
    };
    assert!(has(Some("ml"), "/api/v1/rules", 200) && has(Some("token"), "/api/v1/config/reload", 200), "{audit}");
    assert!(has(Some("ml"), "/api/v1/wasm/rollback", 403) && has(None, "/api/v1/rules", 401), "{audit}");
    assert!(!audit.contains("a-token") && !audit.contains("-token-of-ci"), "{audit}");
    assert!(lines.iter().all(|line| line["method"] != "GET"), "{audit}");
}

/// A token that a page of another site has got hold of.
#[tokio::test]
async fn what_another_site_wants_with_a_token_is_in_the_audit_log() {
    let node = Node::start(&Module::new("1.0.0"));
    let wish = |method: Method, token: &str, path: &str| {
        let wish = request(node.admin, method, path).header("origin", "http://attacker.example");
        if token.is_empty() { wish } else { wish.token(token) }
    };
    for (method, token, path) in [
        (Method::POST, TOKEN, "/api/v1/wasm/rollback"),
        (Method::POST, "", "/api/v1/wasm/rollback/nobody"),
        (Method::GET, TOKEN, "/api/v1/wasm/version"),
    ] {
        assert_eq!(wish(method, token, path).send().await.status, StatusCode::FORBIDDEN, "{path}");
    }
    let refused = std::fs::read_to_string(node.folder.path("data/audit-refused.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = refused.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{refused}");
    assert_eq!((&lines[0]["who"], &lines[0]["status"]), (&"token".into(), &403.into()), "{refused}");
}

#[tokio::test]
async fn whoever_hangs_up_is_in_the_audit_log() {
    let patient = "[waf.wasm.reload]\ntimeout_seconds = 5\n[waf.wasm.limits]\ndeadline_milliseconds = 3600000";
    let node = Node::configured(&Module::new("1.0.0"), patient);
    let module = Module::new("1.1.0").hangs_in("start").bytes();
    let mut body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n".to_vec();
    body.extend(module);
    body.extend(b"\r\n--b--\r\n");
    let head = format!(
        "POST /api/v1/wasm/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(node.admin).await.unwrap();
    stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    let node = &node;
    // Earlier, there may have been nothing to write down: what is closed at once is not carried out at all.
    until("the change to be under way", || async move { (node.metric("wasm_instances{").await == 2.0).then_some(()) })
        .await;
    drop(stream);
    until("it is in the log", || async move {
        let audit = node.admin("/api/v1/audit").await;
        let mut entries = audit.as_array().unwrap().iter();
        entries.any(|entry| entry["path"] == "/api/v1/wasm/reload" && entry["who"] == "token").then_some(())
    })
    .await;
}
