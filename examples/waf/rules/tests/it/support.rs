//! Short ways to ask the rules about a request.

use universal_waf::catalogue::Family;
use universal_waf::{Decision, Verdict, Waf};
use waf_request::Request;

/// A request with these parts.
pub(crate) struct Sent<'a> {
    pub(crate) target: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

/// What the rules say of it.
pub(crate) fn inspect(waf: &Waf, sent: &Sent<'_>) -> Decision {
    let mut buffer = vec![0; 1 << 20];
    let headers = sent.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let length = waf_request::encode(&mut buffer, b"POST", sent.target.as_bytes(), headers, sent.body).unwrap();
    waf.inspect(&Request::decode(&buffer[..length]).unwrap())
}

/// What the rules say of a target alone.
pub(crate) fn get(waf: &Waf, target: &str) -> Decision {
    inspect(waf, &Sent { target, headers: &[], body: b"" })
}

/// What the rules say of a value, sent as a parameter and percent-encoded as a browser would.
pub(crate) fn value(waf: &Waf, value: &str) -> Decision {
    let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
    get(waf, &format!("/search?q={encoded}"))
}

/// The verdict of one family.
pub(crate) fn of(decision: &Decision, family: Family) -> Verdict {
    decision.families.iter().find(|(known, _)| *known == family).map_or(Verdict::Allow, |(_, verdict)| *verdict)
}
