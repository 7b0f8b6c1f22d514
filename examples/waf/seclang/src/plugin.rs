//! The rules as a plugin.

use hotslot_plugin::{CallError, Error, Host, Level, Plugin};
use waf_interface::{Decision, Request, Waf, encode};

use crate::Rules;

impl Plugin for Rules {
    /// The configuration is a bundle of rule files.
    fn create(host: Host) -> Result<Rules, Error> {
        let rules = Rules::parse(host.config()).map_err(|error| error.to_string())?;
        for weakness in rules.weaknesses() {
            host.log(Level::Warn, &weakness.to_string());
        }
        warm_up(&rules)?;
        Ok(rules)
    }
}

/// Puts a request of a browser to the rules: the engine sets up much of what it needs when a request first needs it, and
/// instances that start from a snapshot of this one have that.
fn warm_up(rules: &Rules) -> Result<(), Error> {
    let headers = [
        ("host", "www.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("referer", "https://www.example.com/shop/?page=2&sort=price"),
        ("cookie", "session=0a1b2c3d4e5f60718293a4b5c6d7e8f9; theme=light"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-length", "58"),
    ];
    let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let body = b"name=J.+O%27Neill&street=12+Main+St.&note=Ring+twice%2C+OK";
    let mut written = Vec::new();
    encode(&mut written, b"POST", b"/shop/order?item=1042&size=m&next=%2Fshop%2Fthanks", headers, body)?;
    rules.inspect(&Request::decode(&written)?)?;
    Ok(())
}

impl Waf for Rules {
    fn inspect_request(&self, request: &[u8]) -> Result<Decision, CallError> {
        let request = Request::decode(request).map_err(CallError::failed)?;
        self.inspect(&request).map_err(CallError::failed)
    }
}

hotslot_plugin::export!(Rules as Waf);
