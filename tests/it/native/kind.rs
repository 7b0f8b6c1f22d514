//! Dynamic libraries among the other kinds of plugins.

use hotslot::Backend;
use hotslot::native::NativePlugin;

use super::{add, answer, answering, native};
use crate::conformance::Kind;

/// The Rust plugin of these tests.
pub(crate) struct Libraries;

impl Kind for Libraries {
    type Plugin = NativePlugin;

    fn backend() -> impl Backend<NativePlugin> {
        native()
    }

    fn artifact(version: &str, number: u64) -> Vec<u8> {
        let number = number.try_into().expect("the fixture's answers are short");
        answering(number).version(version).into_bytes()
    }

    fn answer(plugin: &NativePlugin) -> u64 {
        answer(plugin).into()
    }

    fn add(plugin: &NativePlugin, more: u64) -> u64 {
        add(plugin, more)
    }
}
