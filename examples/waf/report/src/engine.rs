//! A plugin with its rules, loaded as a node loads it.

use std::path::Path;

use hotslot::native::{Native, Trust};
use hotslot::wasm::{self, CallLimits};
use hotslot::{Auto, Candidate, Format, HotSlot};
use waf_interface::{Decision, Waf};

/// A plugin that is asked about requests.
pub(crate) struct Engine {
    pub(crate) name: String,
    slot: HotSlot<dyn Waf>,
}

impl Engine {
    /// Loads a plugin, a module or a library, with its rules. An instance of a module may have so many bytes of memory.
    pub(crate) fn load(name: &str, plugin: &Path, rules: &Path, memory: usize) -> Result<Engine, String> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let (bytes, rules) = (read(plugin)?, read(rules)?);
        let said = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let wasm = wasm::Engine::builder().build().map_err(|error| said(&error))?;
        // Nobody waits here: what takes long is to be seen, and not cut off.
        let limits = CallLimits { deadline: std::time::Duration::from_secs(60), memory, ..CallLimits::default() };
        // A fresh instance for every request, which starts where `create` has read the rules.
        let modules = wasm.interface::<dyn Waf>().call_limits(limits).preinitialize();
        let backend =
            Auto::new().on(Format::WasmModule, modules).on(Format::LIBRARIES, Native::interface::<dyn Waf>(trusted()));
        let slot = HotSlot::builder(backend).name(name).max_artifact_size(1 << 30);
        let slot = slot.open(Candidate::new(&bytes[..]).config(&rules[..])).map_err(|error| said(&error))?;
        Ok(Engine { name: name.to_owned(), slot })
    }

    pub(crate) fn inspect(&self, written: &[u8]) -> Result<Decision, String> {
        self.slot.load().inspect_request(written).map_err(|error| format!("{}: {error}", self.name))
    }
}

/// Whoever names a library on the command line could run it as well.
#[expect(unsafe_code, reason = "the one place where this program takes libraries on trust")]
fn trusted() -> Trust {
    // SAFETY: who runs this command named the file, and vouches for it.
    unsafe { Trust::assume() }
}
