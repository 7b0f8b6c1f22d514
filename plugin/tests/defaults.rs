//! What a plugin does that defines nothing.

use hotslot_plugin::{harness, interface};

#[interface(version = "1.0")]
trait Bare {
    fn answer(&self) -> u32;
}

#[derive(Default)]
struct Plugin;

impl Bare for Plugin {
    fn answer(&self) -> u32 {
        42
    }
}

#[test]
fn a_plugin_that_defines_nothing_takes_no_state_and_has_none() {
    let plugin = harness!(Plugin as Bare).start().unwrap();
    assert!(plugin.save().unwrap().is_none(), "no schema, no state");
    for error in [plugin.restore("sums/1", b"state").unwrap_err(), plugin.run().unwrap_err()] {
        assert_eq!(error.to_string(), "the plugin does not support this");
    }
    assert_eq!(plugin.answer(), 42);
}
