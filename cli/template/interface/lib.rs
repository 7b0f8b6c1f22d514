//! The interface that the host and its plugins share.

use hotslot_plugin::{Plain, interface};

/// The tone of a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Plain)]
pub enum Tone {
    Warm,
    Dry,
}

/// A plugin that greets.
///
/// Within a major version, only add methods, each marked `#[since("1.1")]` and with a default body for older plugins.
#[interface(version = "1.0")]
pub trait Greeter {
    fn greet(&self, name: &str, tone: Tone) -> String;
}
