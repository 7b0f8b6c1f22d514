//! Requests, and the rules that are asked about them.

use hotslot_plugin::{HarnessPlugin, harness};
use seclang_waf::Rules;
use waf_interface::{Decision, Request, Waf};

/// The rules that are committed as an example.
pub(crate) const EXAMPLE: &str = include_str!("../../example.conf");

/// A request as a host writes it.
pub(crate) struct Sent<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    pub(crate) body: &'a [u8],
}

impl<'a> Sent<'a> {
    /// A request for a target, with the headers that every client has.
    pub(crate) fn get(target: &'a str) -> Sent<'a> {
        let headers =
            vec![("Host", "shop.example"), ("User-Agent", "Firefox"), ("Accept", "*/*"), (":client", "192.0.2.7")];
        Sent { method: "GET", target, headers, body: b"" }
    }

    pub(crate) fn post(kind: &'a str, body: &'a [u8]) -> Sent<'a> {
        Sent { method: "POST", body, ..Sent::get("/form") }.header("Content-Type", kind)
    }

    pub(crate) fn header(mut self, name: &'a str, value: &'a str) -> Sent<'a> {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Sent<'a> {
        self.headers.retain(|(own, _)| *own != name);
        self
    }

    pub(crate) fn written(&self) -> Vec<u8> {
        let mut written = Vec::new();
        let headers = self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        waf_interface::encode(&mut written, self.method.as_bytes(), self.target.as_bytes(), headers, self.body)
            .unwrap();
        written
    }

    /// What rules say of it.
    pub(crate) fn asked(&self, rules: &Rules) -> Decision {
        rules.inspect(&Request::decode(&self.written()).unwrap()).unwrap()
    }
}

/// Rules of a text.
pub(crate) fn rules(text: &str) -> Rules {
    Rules::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// The plugin, as a host starts it with a configuration.
pub(crate) fn started(text: &str) -> Result<HarnessPlugin<dyn Waf>, String> {
    harness!(Rules as Waf).config(text).start().map_err(|error| error.to_string())
}
