//! The two modules of the example together, as they are committed.

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::support::node::{Folder, replace};
use crate::support::wait::until;
use crate::support::{Module, Node, get, request};

const OK: StatusCode = StatusCode::OK;
const NO: StatusCode = StatusCode::FORBIDDEN;
const INJECTION: &str = "id=1%27%20UNION%20SELECT%20pw%20FROM%20t--";

/// A node that asks for bad bots first, with this configuration of theirs, and then the rules.
fn node(bots: &str, changes: &str) -> Node {
    let mut folder = Folder::new(&Module::new("1.0.0"), changes);
    std::fs::copy("rules/universal-waf.wasm", folder.module()).unwrap();
    let config = folder.path("bad-bots.json");
    replace(&config, bots.as_bytes());
    folder.forget("waf.wasm", "module");
    folder.configure(&format!(
        "[waf.wasm.limits]\ndeadline_milliseconds = 5000\n\
         [[waf.wasm.modules]]\nfile = {:?}\nconfig = {config:?}\n\
         [[waf.wasm.modules]]\nfile = {:?}\nrules = true",
        std::fs::canonicalize("bad-bots/bad-bot-blocker.wasm").unwrap(),
        folder.module()
    ));
    folder.start_logged()
}

async fn status(node: &Node, target: &str, agent: &str) -> StatusCode {
    request(node.data, Method::GET, target).header("user-agent", agent).send().await.status
}

#[tokio::test]
async fn bad_bots_are_turned_away_and_attacks_of_others_are_found() {
    let node = node("{}", "");
    assert_eq!(status(&node, "/", "Mozilla/5.0 Firefox/140.0").await, OK);
    assert_eq!(status(&node, "/", "AhrefsBot/7.0").await, NO);
    assert_eq!(status(&node, &format!("/?{INJECTION}"), "Mozilla/5.0 Firefox/140.0").await, NO);
    for (module, blocked) in [("bad-bot-blocker", 1.0), ("universal-waf", 1.0)] {
        let line = format!("waf_module_verdicts_total{{module={module:?},verdict=\"block\"}}");
        assert_eq!(node.metric(&line).await, blocked, "{module}");
    }
    let inside = &node;
    until("the decision", || async move {
        let log = inside.folder.log();
        let line = log.lines().find(|line| line.contains("waf::decision") && line.contains("AhrefsBot"))?;
        (line.contains("module=\"bad-bot-blocker\"") && line.contains("bot-scraper")).then_some(())
    })
    .await;
    // What it is set up with is changed in its file, and refused if it makes no sense, dynamic rules included.
    let config = node.folder.path("bad-bots.json");
    replace(&config, br#"{"block": ["acme"], "rules": {"bot-scraper": {"enabled": false}}}"#);
    until("the names", || async move { (status(inside, "/", "acme/1").await == NO).then_some(()) }).await;
    assert_eq!(status(&node, "/", "AhrefsBot/7.0").await, OK);
    let wish = request(node.admin, Method::PUT, "/api/v1/rules?module=bad-bot-blocker").token(crate::support::TOKEN);
    let answer = wish.json(&json!({"id": "a", "pattern": "b"})).send().await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text());
    assert!(answer.text().contains("list names under `block`"), "{}", answer.text());
    assert_eq!(status(&node, "/", "acme/1").await, NO);
}

/// An exception from a rule of one module holds there, and neither another rule of it nor another module hides behind it.
#[tokio::test]
async fn an_exception_from_a_rule_of_one_module_hides_nothing_of_the_others() {
    let changes = "[[waf.exceptions]]\nrule = \"bot-scraper\"\npath = \"/feed\"\n\
        [[waf.exceptions]]\nrule = \"lfi-system-file\"\npath = \"/search\"\nparameter = \"q\"\n\
        [[waf.detect]]\nrule = \"no-such-rule\"";
    let node = node(r#"{"rules": {"bot-empty": {"enabled": true}}}"#, changes);
    let bot = "AhrefsBot/7.0";
    assert_eq!(status(&node, "/", bot).await, NO);
    assert_eq!(status(&node, "/feed", bot).await, OK, "without its header it is no client without a name");
    assert_eq!(status(&node, "/feed", "sqlmap, AhrefsBot/7.0").await, NO, "another rule of the same module");
    assert_eq!(status(&node, &format!("/feed?{INJECTION}"), bot).await, NO, "another module");
    assert_eq!(node.get("/feed").await.status, NO, "no name at all");
    // Pieces of a body come without the header.
    // The sender pauses, so that what has come is looked at.
    let chunked = "POST /size HTTP/1.1\r\nhost: x\r\nuser-agent: Firefox\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut stream = tokio::net::TcpStream::connect(node.data).await.unwrap();
    use tokio::io::AsyncWriteExt;
    for piece in [chunked, "3\r\nabc\r\n", "3\r\ndef\r\n", "0\r\n\r\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let answer = crate::support::http::read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains('6'), "{answer}");
    // Each rule is known to one module: only what none knows is told.
    let inside = &node;
    until("the warning", || async move { inside.folder.log().contains("no-such-rule").then_some(()) }).await;
    let log = node.folder.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("there is no such rule")).collect();
    assert!(told.len() == 1 && told[0].contains("no-such-rule"), "{told:?}");
    assert_eq!(get(node.admin, "/readyz").await.status, OK);
}
