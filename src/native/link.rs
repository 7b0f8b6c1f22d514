//! A library's plugin behind the trait of a declared interface.

use hotslot_plugin::abi::Invoke;
use hotslot_plugin::{Answered, Argument, Link, Malformed, Stop, Transport};

use super::plugin::NativePlugin;
use crate::host::{CallError, Numbers};
use crate::{BoxError, State, Stateful};

/// The way to one plugin.
pub(super) struct NativeLink {
    plugin: NativePlugin,
    /// Resolved once; it goes with the plugin, which keeps its code mapped.
    enter: Option<Invoke>,
    /// The plugin's numbers of the host's methods.
    numbers: Numbers,
}

impl NativeLink {
    pub(super) fn new(plugin: NativePlugin, numbers: Numbers) -> NativeLink {
        // SAFETY: a plugin that carries a contract has one function, an `Invoke`; this link drops it with the plugin.
        let enter = unsafe { plugin.function(0) };
        NativeLink { plugin, enter, numbers }
    }
}

impl Transport for NativeLink {
    #[inline]
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Answered<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        let (Some(&Some(number)), Some(enter)) = (self.numbers.get(method as usize), self.enter) else {
            return Err(CallError::unsupported());
        };
        self.plugin.invoke(enter, number, arguments, words, read)
    }
}

impl Link for NativeLink {
    fn save(&self) -> Result<Option<(String, Vec<u8>)>, BoxError> {
        Ok(self.plugin.save()?.map(|State { schema, bytes }| (schema, bytes)))
    }

    fn restore(&self, schema: &str, state: &[u8]) -> Result<(), BoxError> {
        self.plugin.restore(&State { schema: schema.to_owned(), bytes: state.to_vec() })
    }

    fn run(&self, stop: &Stop) -> Result<(), BoxError> {
        Ok(self.plugin.run_until(stop)?)
    }
}
