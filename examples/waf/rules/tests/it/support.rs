//! Short ways to ask the rules about a request.

use universal_waf::catalogue::Family;
use universal_waf::{Decision, Rules, Verdict};
use waf_interface::Request;

/// A request with these parts.
pub(crate) struct Sent<'a> {
    pub(crate) target: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

impl Sent<'_> {
    /// The request as the rules get it.
    pub(crate) fn written(&self) -> Vec<u8> {
        let mut written = Vec::new();
        let headers = self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        waf_interface::encode(&mut written, b"POST", self.target.as_bytes(), headers, self.body).unwrap();
        written
    }
}

/// What the rules say of it.
pub(crate) fn inspect(waf: &Rules, sent: &Sent<'_>) -> Decision {
    waf.inspect(&Request::decode(&sent.written()).unwrap())
}

/// What the rules say of a target alone.
pub(crate) fn get(waf: &Rules, target: &str) -> Decision {
    inspect(waf, &Sent { target, headers: &[], body: b"" })
}

/// What the rules say of a value, sent as a parameter and percent-encoded as a browser would.
pub(crate) fn value(waf: &Rules, value: &str) -> Decision {
    let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
    get(waf, &format!("/search?q={encoded}"))
}

/// The verdict of one family.
pub(crate) fn of(decision: &Decision, family: Family) -> Verdict {
    decision.families.iter().find(|(known, _)| *known == family).map_or(Verdict::Allow, |(_, verdict)| *verdict)
}
