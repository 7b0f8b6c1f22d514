//! What the host and its plugins share.

use hotslot_plugin::{Plain, interface};

/// How it should sound.
#[derive(Clone, Copy, Debug, PartialEq, Plain)]
pub enum Tone {
    Warm,
    Dry,
}

/// A plugin that greets.
///
/// Within a major version methods are only added, each marked `#[since("1.1")]` and with a body for older plugins.
#[interface(version = "1.0")]
pub trait Greeter {
    fn greet(&self, name: &str, tone: Tone) -> String;
}
