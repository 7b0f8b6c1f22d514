//! The rules as a plugin.

use hotslot_plugin::{CallError, Error, Host, Level, Plugin};
use waf_interface::{Decision, Request, Waf};

use crate::Rules;

impl Plugin for Rules {
    /// The configuration is a bundle of rule files.
    fn create(host: Host) -> Result<Rules, Error> {
        let rules = Rules::parse(host.config()).map_err(|error| error.to_string())?;
        for weakness in rules.weaknesses() {
            host.log(Level::Warn, &weakness.to_string());
        }
        Ok(rules)
    }
}

impl Waf for Rules {
    fn inspect_request(&self, request: &[u8]) -> Result<Decision, CallError> {
        let request = Request::decode(request).map_err(CallError::failed)?;
        self.inspect(&request).map_err(CallError::failed)
    }
}

hotslot_plugin::export!(Rules as Waf);
