//! Saves and restores state through the exports that the module's documentation lists.

use std::time::Instant;

use super::binder::Func;
use super::error::WasmCallError;
use super::instances::{Instance, Instances, Turn};
use super::limits::{Began, CallOptions};
use crate::State;
use crate::host::plugin_text;

/// The longest error text that is taken from a plugin, in bytes.
const ERROR_LIMIT: usize = 8 * 1024;

impl<C> Instance<C> {
    /// Returns the state.
    pub(super) fn save(&mut self) -> Result<Vec<u8>, WasmCallError> {
        let save: Func<(), u64> = self.func("hotslot_save")?;
        self.work(|call| {
            let answer = call.run(&save, ())?;
            Ok(call.read_packed(answer)?.to_vec())
        })
    }

    /// Restores a state.
    pub(super) fn restore(&mut self, state: &State) -> Result<(), WasmCallError> {
        let alloc: Func<u32, u32> = self.func("hotslot_alloc")?;
        let restore: Func<(u32, u32, u32), u64> = self.func("hotslot_restore")?;
        let schema = state.schema.as_bytes();
        let too_large = || WasmCallError::failed("the state is too large for a plugin's address space");
        let len = u32::try_from(schema.len() + state.bytes.len()).map_err(|_| too_large())?;
        let (schema_len, state_len) = (schema.len() as u32, state.bytes.len() as u32);
        self.work(|call| {
            let ptr = call.run(&alloc, len)?;
            if ptr == 0 && len > 0 {
                return Err(WasmCallError::failed(format!("the plugin has no room for a state of {len} bytes")));
            }
            call.write_at(ptr, schema)?;
            call.write_at(ptr.saturating_add(schema_len), &state.bytes)?;
            match call.run(&restore, (ptr, schema_len, state_len))? {
                0 => Ok(()),
                error => {
                    let text = plugin_text(call.read_packed(error)?, ERROR_LIMIT);
                    Err(WasmCallError::NotCreated(format!("the plugin does not take the state: {text}")))
                }
            }
        })
    }
}

impl<C: Send + 'static> Instances<C> {
    /// Returns the state of an instance such as the next call gets.
    pub(super) fn save(&self) -> Result<Vec<u8>, WasmCallError> {
        self.with(Began::Now, &CallOptions::new(), Instance::save)
    }

    /// Restores a state into one instance, and then into every new one.
    pub(super) fn restore(&self, state: &State) -> Result<(), WasmCallError> {
        // One that comes with the permit has another state. It goes where it can be taken from, and is what serves if this
        // fails.
        let Turn { permit: _permit, instance } = self.turn()?;
        if let Some(instance) = instance {
            self.idle.put(instance);
        }
        let mut instance = self.make_blank(Instant::now(), &CallOptions::new())?;
        instance.restore(state)?;
        self.idle.set_state(state.clone());
        self.keep_restored(instance);
        Ok(())
    }
}
