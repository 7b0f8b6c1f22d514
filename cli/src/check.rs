//! `cargo hotslot check`: asks the library's own admission whether a host would accept a plugin.

use std::path::PathBuf;

use clap::Args;
use hotslot::host::ContractError;
use hotslot::native::{Native, Trust};
use hotslot::wasm::{CallLimits, Engine, ModuleLimits, WasmBackend, WasmCallError, WasmPlugin};
use hotslot::{Backend, BoxError, Digest, Format, Manifest, Payload, escape_untrusted};

use crate::files::{contract, read, refused};
use crate::{Failure, Outcome};

#[derive(Args)]
pub(crate) struct Check {
    /// The plugin: a library for this machine, or a WebAssembly module
    file: PathBuf,
    /// The host's contract: a contract file, or another plugin whose contract is used
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// A limit the host sets for modules, for instance `functions=500`: one of size, functions, body, nesting, locals,
    /// loop-locals, types, arity, imports, exports, globals, data-segments, element-segments, tables, loops, total-loops, blocks,
    /// total-blocks, live-values, total-live-values, passed-values, total-passed-values, elements, placed-elements,
    /// constant-operators, memory
    #[arg(long = "limit", value_name = "NAME=NUMBER", value_parser = limit)]
    limits: Vec<(String, u64)>,
    /// Accept libraries that abort on panic, as a host can be configured to
    #[arg(long)]
    allow_panic_abort: bool,
}

impl Check {
    pub(crate) fn run(&self) -> Outcome {
        let host = self.against.as_deref().map(contract).transpose()?;
        let bytes = read(&self.file)?;
        let manifest = self.admit(&bytes)?;
        let name = match &manifest.version {
            Some(version) => format!("{} {version}", manifest.name),
            None => manifest.name.clone(),
        };
        let mut text =
            format!("ok: {} ({}) can be loaded here", escape_untrusted(name.trim()), Digest::of(&bytes).short());
        if let Some(host) = host {
            let missing = || ContractError::Missing { host: host.name.clone() };
            let fits = manifest.contract.as_deref().ok_or_else(missing).and_then(|plugin| host.admits(plugin));
            fits.map_err(|error| refused(&self.file, &error.into()))?;
            let (major, minor) = host.version;
            text += &format!(", and fits a host of `{}` {major}.{minor}", host.name);
        }
        Ok(text + "\n")
    }

    fn admit(&self, bytes: &[u8]) -> Result<Manifest, Failure> {
        let payload = Payload::new(bytes);
        let admitted = if Format::of(bytes).is_wasm() {
            let (module, call) = self.module_limits()?;
            let engine = Engine::builder().on_demand().max_instances(1).compile_threads(1).build();
            let engine = engine.map_err(|error| Failure::Misuse(error.to_string()))?;
            let backend: WasmBackend<WasmPlugin<()>> = engine.bind(|_| Ok::<_, WasmCallError>(()));
            backend.module_limits(module).call_limits(call).admit(&payload)
        } else {
            // SAFETY: the backend only admits here, and loads nothing.
            let backend = Native::any_interface(unsafe { Trust::assume() });
            let backend = if self.allow_panic_abort { backend.dangerous().allow_panic_abort() } else { backend };
            Backend::<hotslot::native::NativePlugin>::admit(&backend, &payload)
        };
        let admission = admitted.map_err(|error: BoxError| refused(&self.file, &error))?;
        Ok(admission.manifest().clone())
    }

    fn module_limits(&self) -> Result<(ModuleLimits, CallLimits), Failure> {
        let (mut module, mut call) = (ModuleLimits::default(), CallLimits::default());
        for (name, number) in &self.limits {
            let small = u32::try_from(*number).unwrap_or(u32::MAX);
            let size = usize::try_from(*number).unwrap_or(usize::MAX);
            match name.as_str() {
                "size" => module.size = size,
                "functions" => module.functions = small,
                "body" => module.body = size,
                "nesting" => module.nesting = small,
                "locals" => module.locals = small,
                "loop-locals" => module.loop_locals = *number,
                "types" => module.types = small,
                "arity" => module.arity = size,
                "imports" => module.imports = small,
                "exports" => module.exports = small,
                "globals" => module.globals = small,
                "data-segments" => module.data_segments = small,
                "element-segments" => module.element_segments = small,
                "tables" => module.tables = small,
                "loops" => module.loops = *number,
                "total-loops" => module.total_loops = *number,
                "blocks" => module.blocks = *number,
                "total-blocks" => module.total_blocks = *number,
                "live-values" => module.live_values = *number,
                "total-live-values" => module.total_live_values = *number,
                "passed-values" => module.passed_values = *number,
                "total-passed-values" => module.total_passed_values = *number,
                "elements" => module.elements = *number,
                "placed-elements" => module.placed_elements = *number,
                "constant-operators" => module.constant_operators = *number,
                "memory" => call.memory = size,
                _ => {
                    return Err(Failure::Misuse(format!("unknown limit `{}`: see --help", escape_untrusted(name))));
                }
            }
        }
        Ok((module, call))
    }
}

fn limit(text: &str) -> Result<(String, u64), String> {
    let (name, number) = text.split_once('=').ok_or("expected NAME=NUMBER")?;
    let number = number.parse().map_err(|error| format!("{number:?} is not a number: {error}"))?;
    Ok((name.to_owned(), number))
}
