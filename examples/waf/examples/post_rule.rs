//! Posts a rule to an orchestrator and shows its whole way: `cargo run -p waf --example post_rule -- ID PATTERN`.
//!
//! `API` in the environment is the orchestrator's address (http://127.0.0.1:8080 if not set), `TOKEN` the token of the role
//! `deploy`. A job that learns rules would do the same: one request, whose answer says where the rule serves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

fn main() -> ExitCode {
    match post() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("post_rule: {error}");
            ExitCode::FAILURE
        }
    }
}

fn post() -> Result<bool, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(id), Some(pattern)) = (arguments.next(), arguments.next()) else {
        return Err("say which rule: post_rule ID PATTERN".into());
    };
    let api = std::env::var("API").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let address = api.strip_prefix("http://").ok_or("API is http://HOST:PORT")?.trim_end_matches('/').to_owned();
    let token = std::env::var("TOKEN").map_err(|_| "TOKEN is not set: it is the token of the role deploy")?;

    let rule = json!({ "id": id, "where": ["target"], "kind": "contains", "pattern": pattern, "action": "block" });
    let body = rule.to_string();
    let began = Instant::now();
    let line = |at: f64, what: &str| println!("{at:>9.1} ms  {what}");
    line(0.0, &format!("posted: {body}"));
    let mut stream = TcpStream::connect(&address)?;
    write!(
        stream,
        "POST /api/v1/rules?wait=300 HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the orchestrator broke off")?;
    let status = head.lines().next().unwrap_or_default();
    let answer: Value = serde_json::from_str(body)?;
    let Some(rollout) = answer["rollout"].as_u64() else {
        line(took, &format!("refused: {status}: {}", answer["error"].as_str().unwrap_or(body)));
        return Ok(false);
    };

    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let start = number(&answer["times"]["began_after_ms"]);
    line(number(&answer["times"]["validated_ms"]), "valid: the fleet's module takes it, and the golden requests pass");
    // What happened in the rollout, counted from when it began.
    let mut events: Vec<(f64, String)> = vec![(0.0, format!("rollout {rollout} begins"))];
    for step in answer["steps"].as_array().into_iter().flatten() {
        events.push((number(&step["after_ms"]), step["state"].as_str().unwrap_or_default().to_owned()));
    }
    for (node, served) in answer["served"].as_object().into_iter().flatten() {
        let hint =
            served["after_hint_ms"].as_f64().map_or(String::new(), |hint| format!(", {hint:.1} ms after it heard"));
        events.push((number(&served["after_ms"]), format!("{node} serves it{hint}")));
    }
    events.sort_by(|one, other| one.0.total_cmp(&other.0));
    for (at, what) in events {
        line(start + at, &what);
    }
    for alarm in answer["alarms"].as_array().into_iter().flatten() {
        line(took, alarm.as_str().unwrap_or_default());
    }
    let serving = answer["served"].as_object().map_or(0, serde_json::Map::len);
    let state = answer["state"].as_str().unwrap_or_default();
    line(took, &format!("answered: {state}; {serving} nodes have served it; {status}"));
    Ok(answer["success"] == true)
}
