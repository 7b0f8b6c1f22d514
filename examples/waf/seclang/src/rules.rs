//! The rules, and how a request is put to the engine.

use std::borrow::Cow;
use std::collections::BTreeMap;

use waf_interface::{CLIENT, Decision, IF_UNREAD, Reason, Request, Verdict};
use zentinel_modsec::engine::phase::Phase;
use zentinel_modsec::{ModSecurity, Transaction};

use crate::config::{ConfigError, Unsupported};
use crate::decide::decide;
use crate::limits;
use crate::load::{About, Loaded, load};

/// The id of the rule that tells whether the engine could read the body; no rule of a configuration has one so large.
const UNREAD: &str = "18446744073709551614";
/// The same for a body in parts without a boundary, which the engine leaves alone.
const NO_PARTS: &str = "18446744073709551615";

/// What goes before the rules of a configuration. They neither log nor decide.
fn own_rules() -> String {
    format!(
        "SecRule REQBODY_ERROR \"!@eq 0\" \"id:{UNREAD},phase:2,pass,nolog\"\n\
         SecRule REQUEST_HEADERS:Content-Type \"@rx (?i)^\\s*multipart/\" \"id:{NO_PARTS},phase:2,pass,nolog,chain\"\n\
         SecRule &REQBODY_PROCESSOR \"@eq 0\" \"t:none\"\n"
    )
}

/// What the engine cannot do in the time that it may take.
const TOO_MUCH: &str = "limits-exceeded";
/// What the engine could not read.
const UNREADABLE: &str = "limits-unread";

/// Rules in SecLang.
pub struct Rules {
    engine: ModSecurity,
    about: BTreeMap<String, About>,
    takes_bodies: bool,
    weaknesses: Vec<Unsupported>,
}

/// The engine had no answer.
#[derive(Debug, thiserror::Error)]
#[error("the engine gave up: {0}")]
pub struct EngineError(String);

impl Rules {
    /// Reads a bundle of rule files, and has every pattern of it compiled.
    ///
    /// # Errors
    /// [`ConfigError`] names file and line of what is wrong, and of what the engine cannot do.
    pub fn parse(config: &[u8]) -> Result<Rules, ConfigError> {
        let Loaded { ruleset, about, takes_bodies, weaknesses } = load(config, &own_rules())?;
        // The engine compiles a pattern when a request first meets it, which would be late for that one.
        for rule in
            [Phase::RequestHeaders, Phase::RequestBody].into_iter().flat_map(|phase| ruleset.rules_for_phase(phase))
        {
            rule.operator.execute("");
        }
        Ok(Rules { engine: ModSecurity::new(ruleset), about, takes_bodies, weaknesses })
    }

    /// Returns where the engine does less than a rule asks for, and yet something.
    pub fn weaknesses(&self) -> &[Unsupported] {
        &self.weaknesses
    }

    /// Returns how many rules there are.
    pub fn count(&self) -> usize {
        self.about.len()
    }

    /// What is to happen to a request.
    ///
    /// # Errors
    /// The engine has no answer, as a macro made an operator of a rule one that it cannot compile.
    pub fn inspect(&self, request: &Request<'_>) -> Result<Decision, EngineError> {
        let seen = Seen::of(request);
        let body = if self.takes_bodies { request.body } else { &[] };
        if !limits::are_kept(request, body, &seen.kind) {
            return Ok(unread(seen.if_unread, TOO_MUCH, "limits"));
        }
        let mut engine = self.engine.new_transaction();
        ask(&mut engine, request, &seen, body).map_err(|error| EngineError(error.to_string()))?;
        let decision = decide(&engine, &self.about);
        let is_unread = seen.kinds > 1 && !body.is_empty()
            || [UNREAD, NO_PARTS].iter().any(|rule| engine_matched(&engine, rule)) && !body.is_empty();
        if is_unread && decision.verdict < seen.if_unread {
            return Ok(unread(seen.if_unread, UNREADABLE, "body"));
        }
        Ok(decision)
    }
}

/// What of a request is not for the engine, or has to be known before it is asked.
struct Seen<'a> {
    client: Cow<'a, str>,
    if_unread: Verdict,
    /// The content type, in lower case.
    kind: Vec<u8>,
    kinds: usize,
    has_host: bool,
    has_length: bool,
}

impl<'a> Seen<'a> {
    fn of(request: &Request<'a>) -> Seen<'a> {
        let mut seen = Seen {
            client: Cow::Borrowed(""),
            if_unread: Verdict::Block,
            kind: Vec::new(),
            kinds: 0,
            has_host: false,
            has_length: false,
        };
        for (name, value) in request.headers() {
            if name == CLIENT.as_bytes() {
                seen.client = text(value);
            } else if name == IF_UNREAD.as_bytes() {
                let known = Verdict::ALL.into_iter().find(|verdict| verdict.name().as_bytes() == value);
                seen.if_unread = known.unwrap_or(Verdict::Block);
            } else if name.eq_ignore_ascii_case(b"content-type") {
                seen.kinds += 1;
                if seen.kinds == 1 {
                    seen.kind = value.trim_ascii().to_ascii_lowercase();
                }
            } else if name.eq_ignore_ascii_case(b"host") {
                seen.has_host = true;
            } else if name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding") {
                seen.has_length = true;
            }
        }
        seen
    }
}

fn ask(engine: &mut Transaction, request: &Request<'_>, seen: &Seen<'_>, body: &[u8]) -> zentinel_modsec::Result<()> {
    engine.set_client_addr(&seen.client, 0);
    engine.process_uri(&text(request.target), &text(request.method), "HTTP/1.1")?;
    for (name, value) in request.headers().filter(|(name, _)| !name.starts_with(b":")) {
        engine.add_request_header(&text(name), &text(value))?;
    }
    if !seen.has_length && !request.body.is_empty() {
        // It came over HTTP/2, or in pieces.
        engine.add_request_header("content-length", &request.body.len().to_string())?;
    }
    if !seen.has_host {
        // A later piece of a body: its headers have been looked at, and are no part of it.
        for (name, value) in [("host", "localhost"), ("user-agent", "piece"), ("accept", "*/*")] {
            engine.add_request_header(name, value)?;
        }
    }
    engine.process_request_headers()?;
    if !engine.has_intervention() {
        engine.append_request_body(body)?;
        engine.process_request_body()?;
    }
    Ok(())
}

/// Text as the engine takes it. What is no UTF-8 shows as such.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn engine_matched(engine: &Transaction, rule: &str) -> bool {
    let matched = engine.matched_data();
    let mut at = matched.iter().position(|data| data.rule_id.as_deref() == Some(rule));
    if rule == NO_PARTS {
        // Its chain is complete.
        at = at.filter(|at| {
            matched.get(at + 1).is_some_and(|next| next.rule_id.is_none() && next.variable.starts_with('&'))
        });
    }
    at.is_some()
}

fn unread(verdict: Verdict, rule: &str, part: &str) -> Decision {
    let reason = Reason { rule: rule.to_owned(), part: part.to_owned(), matched: String::new(), score: 0 };
    Decision { verdict, reason: Some(reason) }
}
