//! The plugin that the benchmarks load: one function, and ballast to make it half a megabyte.

use hotslot_plugin::{Error, Host, Plugin};

/// Brings the release build of this library to about 0.5 MB.
#[used]
static BALLAST: [u8; 128 * 1024] = [7; 128 * 1024];

struct Pricer;

impl Plugin for Pricer {
    const INTERFACE: &'static str = "bench/1";

    fn create(_: Host) -> Result<Self, Error> {
        Ok(Pricer)
    }

    fn call(&self, _method: u32, input: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(input.to_vec())
    }
}

impl Pricer {
    fn quote(&self, quantity: i64) -> i64 {
        quantity * 100 + 31
    }
}

hotslot_plugin::export! {
    Pricer;
    fn quote(quantity: i64) -> i64;
}

/// The same function without a shim: the minimum cost of a call.
#[unsafe(no_mangle)]
pub extern "C" fn raw_quote(quantity: i64) -> i64 {
    Pricer.quote(quantity)
}
