//! Labelled requests, and what the rules say of one.

use std::path::Path;

use serde::Deserialize;
use universal_waf::catalogue::Family;
use universal_waf::{Decision, Rules, Verdict};
use waf_interface::Request;

#[derive(Deserialize)]
pub(crate) struct Sample {
    id: String,
    pub(crate) family: Option<String>,
    method: String,
    uri: String,
    headers: serde_json::Map<String, serde_json::Value>,
    body: Option<String>,
    /// Whether a rule of the family must match; where no built-in rules are of the family, any rule.
    pub(crate) attack: bool,
}

/// What the rules said of a sample.
pub(crate) struct Outcome {
    decision: Decision,
    /// The family (any family, if the sample has none, or one that the rules do not know) spoke up.
    pub(crate) flagged: bool,
    /// It asked to refuse or to challenge the request, not only to log it.
    pub(crate) stopped: bool,
    /// Any family spoke up.
    pub(crate) any: bool,
}

impl Sample {
    pub(crate) fn read(path: &Path) -> Result<Vec<Sample>, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        text.lines()
            .enumerate()
            .filter(|(_, line)| !line.is_empty())
            .map(|(number, line)| {
                serde_json::from_str(line).map_err(|error| format!("{}, line {}: {error}", path.display(), number + 1))
            })
            .collect()
    }

    /// Writes it down as a host does.
    pub(crate) fn written(&self) -> Result<Vec<u8>, String> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let headers: Vec<(&str, String)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
        let body = self.body.as_deref().unwrap_or_default();
        let mut written = Vec::new();
        let pairs = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        waf_interface::encode(&mut written, self.method.as_bytes(), self.uri.as_bytes(), pairs, body.as_bytes())
            .map_err(|error| format!("{}: {error}", self.id))?;
        Ok(written)
    }

    /// Returns the family's name, or what stands for none.
    pub(crate) fn family(&self) -> &str {
        self.family.as_deref().unwrap_or("harmless")
    }

    pub(crate) fn judge(&self, waf: &Rules) -> Result<Outcome, String> {
        let written = self.written()?;
        let request = Request::decode(&written).map_err(|error| format!("{}: {error}", self.id))?;
        let decision = waf.inspect(&request);
        let known =
            self.family.as_deref().and_then(|name| Family::ALL.into_iter().find(|family| family.name() == name));
        let verdict = match known {
            Some(family) => decision.families.iter().find(|(known, _)| *known == family).map(|(_, verdict)| *verdict),
            None => Some(decision.verdict),
        };
        let verdict = verdict.unwrap_or(Verdict::Allow);
        Ok(Outcome {
            flagged: verdict != Verdict::Allow,
            stopped: matches!(verdict, Verdict::Block | Verdict::Challenge),
            any: decision.verdict != Verdict::Allow,
            decision,
        })
    }

    /// One line that says what went wrong with this sample.
    pub(crate) fn describe(&self, outcome: &Outcome) -> String {
        let kind = if self.attack { "missed" } else { "false positive" };
        let family = self.family.as_deref().unwrap_or("-");
        let mut line = format!("{kind} {family} {} {} {}", self.id, self.method, shorten(&self.uri));
        if let Some(body) = &self.body {
            line.push_str(&format!(" body={}", shorten(body)));
        }
        for (name, value) in &self.headers {
            let dull = ["accept", "host", "connection", "keep-alive"]
                .iter()
                .any(|dull| name.to_ascii_lowercase().starts_with(dull));
            if !dull {
                line.push_str(&format!(" {name}={}", shorten(value.as_str().unwrap_or_default())));
            }
        }
        if let Some(reason) = &outcome.decision.reason {
            line.push_str(&format!(" <- {} in {}: {:?}", reason.rule, reason.part, reason.matched));
        }
        line
    }
}

fn shorten(text: &str) -> String {
    let short: String = text.chars().take(240).collect();
    format!("{short:?}")
}
