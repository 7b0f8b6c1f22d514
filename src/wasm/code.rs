//! The compiled code of one generation, which can be replaced by optimised code while it serves.

use std::sync::Arc;

use arc_swap::ArcSwap;
use wasmtime::{InstancePre, Linker, Module};

use super::engine::Engine;
use super::exports::ExportIndex;
use super::host::StoreData;
use crate::{Artifact, BoxError, PluginScope};

/// A module that is compiled and linked, and only needs instances.
pub(super) struct Code {
    pub(super) linked: InstancePre<StoreData>,
    pub(super) exports: ExportIndex,
    pub(super) is_optimised: bool,
}

impl Code {
    pub(super) fn link(linker: &Linker<StoreData>, module: &Module, is_optimised: bool) -> wasmtime::Result<Arc<Code>> {
        // Now, rather than in the first call.
        module.initialize_copy_on_write_image()?;
        Ok(Arc::new(Code { linked: linker.instantiate_pre(module)?, exports: ExportIndex::of(module), is_optimised }))
    }
}

/// A linker for each of the engine's compilers.
pub(super) struct Linkers {
    pub(super) optimised: Linker<StoreData>,
    pub(super) baseline: Option<Linker<StoreData>>,
}

impl Linkers {
    pub(super) fn new(engine: &Engine) -> Linkers {
        Linkers { optimised: Linker::new(engine.optimising()), baseline: engine.baseline().map(Linker::new) }
    }

    pub(super) fn each(
        &mut self,
        mut link: impl FnMut(&mut Linker<StoreData>) -> wasmtime::Result<()>,
    ) -> wasmtime::Result<()> {
        link(&mut self.optimised)?;
        self.baseline.as_mut().map_or(Ok(()), link)
    }

    /// Returns the code to begin with: optimised, unless it is not cached and the baseline compiler can take the module.
    pub(super) fn code(
        &self,
        engine: &Engine,
        artifact: &Artifact,
        slot: &PluginScope,
        is_abandoned: &dyn Fn() -> bool,
    ) -> Result<Arc<Code>, BoxError> {
        let (compiler, optimising) = (engine.compiler(), engine.optimising());
        if let Some(linker) = &self.baseline {
            if let Some(module) = compiler.find(optimising, artifact.digest()) {
                return Ok(Code::link(&self.optimised, &module, true)?);
            }
            match compiler.compile_baseline(linker.engine(), artifact, slot, is_abandoned) {
                Ok(module) => return Ok(Code::link(linker, &module, false)?),
                // It does not support all that the optimising compiler does.
                Err(error) => tracing::debug!("the baseline compiler does not take the module: {error:#}"),
            }
        }
        let module = compiler.module(optimising, artifact, Some(slot), is_abandoned)?;
        Ok(Code::link(&self.optimised, &module, true)?)
    }

    /// Compiles the optimised code on a thread of its own, for the instances that are made once it is ready.
    pub(super) fn optimise(&self, engine: &Engine, artifact: &Artifact, code: &Arc<ArcSwap<Code>>) {
        let (engine, artifact) = (engine.clone(), artifact.clone());
        let (linker, code) = (self.optimised.clone(), Arc::downgrade(code));
        let work = move || {
            let is_abandoned = || code.strong_count() == 0;
            let module = engine.compiler().module(engine.optimising(), &artifact, None, &is_abandoned);
            let optimised = module.and_then(|module| Ok(Code::link(&linker, &module, true)?));
            match (optimised, code.upgrade()) {
                (Ok(optimised), Some(code)) => code.store(optimised),
                // The generation is gone.
                (Ok(_), None) => {}
                (Err(error), _) => tracing::warn!("baseline code keeps serving, optimising failed: {error}"),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("hotslot-wasm-tier".to_owned()).spawn(work) {
            tracing::warn!("baseline code keeps serving, could not spawn a thread to optimise it: {error}");
        }
    }
}
