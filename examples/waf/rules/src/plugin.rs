//! The rules as a plugin: one source for the module and for the library.

use hotslot_plugin::{CallError, Error, Host, Plugin};
use waf_interface::{Decision, Request, Waf};

use crate::{Config, Rules};

impl Plugin for Rules {
    /// The configuration is the rule file.
    fn create(host: Host) -> Result<Rules, Error> {
        let rules = Config::parse(host.config()).and_then(|config| Rules::new(&config));
        rules.map_err(|error| format!("the rule file: {error}").into())
    }
}

impl Waf for Rules {
    fn inspect_request(&self, request: &[u8]) -> Result<Decision, CallError> {
        let decision = self.inspect(&Request::decode(request).map_err(CallError::failed)?);
        Ok(Decision { verdict: decision.verdict, reason: decision.reason })
    }
}

hotslot_plugin::export!(Rules as Waf);
