//! A fleet's orchestrator: what is pushed there is rolled out, and what is pulled is what the fleet has settled on.

use hotslot::escape_untrusted;
use hotslot_trust::Signed;
use serde_json::Value;

use super::http::{Answer, Http, request, with};
use super::{Bundle, MOST_PLUGIN, Rollout};
use crate::Failure;

/// An answer of the API is small, but for artifacts.
const MOST_JSON: u64 = 4 << 20;
const BOUNDARY: &str = "hotslot-7d1f2b9c4e";

pub(super) fn push(http: &Http, url: &str, token: &str, bundle: &Bundle, rollout: &Rollout) -> Result<String, Failure> {
    let wait = rollout.wait.to_string();
    let mut fields = vec![("target", rollout.target.as_bytes()), ("wait", wait.as_bytes())];
    fields.extend(rollout.plan.as_ref().map(|plan| ("plan", plan.as_bytes())));
    fields.extend(rollout.reason.as_ref().map(|reason| ("reason", reason.as_bytes())));
    fields.push(("manifest", &bundle.manifest));
    fields.push(("signatures", bundle.signatures.as_bytes()));
    fields.push(("file", &bundle.plugin));
    let mut body = Vec::with_capacity(bundle.plugin.len() + (64 << 10));
    for (name, content) in fields {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    let post = request("POST", &format!("{url}/api/v1/wasm/reload-fleet"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"));
    let answer = http.send(with(post, body)?, MOST_JSON)?;
    let told = json(&answer, "the rollout")?;
    let names = |field: &str| {
        let nodes = told[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        nodes.map(|node| escape_untrusted(node).into_owned()).collect::<Vec<_>>().join(", ")
    };
    let (number, state) = (&told["rollout"], told["state"].as_str().unwrap_or("unknown"));
    let text = format!("rollout {number}: {}", escape_untrusted(state));
    match answer.status.as_u16() {
        200 => Ok(format!("{text}, on {}\n", names("deployed_to"))),
        202 => Ok(format!("{text}: GET {url}/api/v1/rollouts/{number} says how it stands\n")),
        _ if told["rollout"].is_u64() => {
            let alarms = told["alarms"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let alarms = alarms.map(|alarm| escape_untrusted(alarm).into_owned()).collect::<Vec<_>>().join("; ");
            let failures = escape_untrusted(&told["failures"].to_string()).into_owned();
            Err(Failure::Refused(format!("{text}: {alarms}: {failures}")))
        }
        _ => Err(answer.refusal("the orchestrator")),
    }
}

pub(super) fn pull(http: &Http, url: &str, token: &str) -> Result<Bundle, Failure> {
    let get = |path: &str, most: u64| {
        let get = request("GET", &format!("{url}{path}")).header("authorization", format!("Bearer {token}"));
        let answer = http.send(with(get, Vec::new())?, most)?;
        if answer.status.is_success() { Ok(answer) } else { Err(answer.refusal("the orchestrator")) }
    };
    let release = json(&get("/api/v1/release", MOST_JSON)?, "the release")?;
    let signed: Option<Signed> = serde_json::from_value(release["signed"].clone()).ok().flatten();
    let signed = signed.ok_or_else(|| {
        Failure::Refused("what the fleet serves came without a manifest: there is nothing to verify it by".to_owned())
    })?;
    let digest = release["module"].as_str().unwrap_or_default();
    let plugin = get(&format!("/api/v1/artifacts/{digest}"), MOST_PLUGIN)?.body;
    Ok(Bundle { plugin, manifest: signed.manifest, signatures: signed.signatures.concat() })
}

fn json(answer: &Answer, what: &str) -> Result<Value, Failure> {
    serde_json::from_slice(&answer.body).map_err(|_| answer.refusal(what))
}
