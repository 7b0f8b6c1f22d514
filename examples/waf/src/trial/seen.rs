//! A request that was inspected, kept to be inspected again, and what was said of it.

use std::net::IpAddr;

use hyper::{HeaderMap, Method, Uri};
use waf_interface::{Decision, Verdict, Waf};

use super::Key;
use crate::rules::{Failure, Inspected, inspect};

/// A request.
pub struct Seen {
    pub host: String,
    pub method: Method,
    pub target: Uri,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    client: IpAddr,
    if_unread: Verdict,
}

/// What a version says of a request.
pub enum Said {
    /// A verdict, and the rule that gave it.
    Verdict(Verdict, String),
    /// Nothing, for a reason of this kind.
    Nothing(&'static str),
}

impl Seen {
    pub fn of(request: &Inspected<'_>) -> Seen {
        Seen {
            host: request.host.to_owned(),
            method: request.method.clone(),
            target: request.target.clone(),
            headers: request.headers.clone(),
            body: request.body.to_vec(),
            client: request.client,
            if_unread: request.if_unread,
        }
    }

    pub fn ask(&self, rules: &dyn Waf) -> Said {
        let request = Inspected {
            host: &self.host,
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
            body: &self.body,
            client: self.client,
            if_unread: self.if_unread,
            key: &Key::Client(self.client),
        };
        Said::of(&inspect(rules, &request))
    }
}

impl Said {
    pub fn of(result: &Result<Decision, Failure>) -> Said {
        match result {
            Ok(decision) => {
                let rule = decision.reason.as_ref().map(|reason| reason.rule.clone());
                Said::Verdict(decision.verdict, rule.unwrap_or_default())
            }
            Err(failure) => Said::Nothing(failure.kind()),
        }
    }

    /// A word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Said::Verdict(verdict, _) => verdict.name(),
            Said::Nothing(_) => "none",
        }
    }

    /// Returns the rule that it is by, or why there is no verdict.
    pub fn rule(&self) -> &str {
        match self {
            Said::Verdict(_, rule) => rule,
            Said::Nothing(kind) => kind,
        }
    }
}
