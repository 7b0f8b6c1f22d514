//! The machine code of one generation, which can be replaced by better code while it serves.

use std::sync::Arc;

use arc_swap::ArcSwap;
use wasmtime::{InstancePre, Linker, Module};

use super::engine::Family;
use super::exports::Exports;
use super::host::Host;
use crate::{Artifact, BoxError};

/// A module that is compiled and linked: all that is left to do is to make instances.
pub(super) struct Code {
    pub(super) linked: InstancePre<Host>,
    pub(super) exports: Exports,
    pub(super) is_optimised: bool,
}

impl Code {
    pub(super) fn link(linker: &Linker<Host>, module: &Module, is_optimised: bool) -> wasmtime::Result<Arc<Code>> {
        // Now, rather than in the first call.
        module.initialize_copy_on_write_image()?;
        Ok(Arc::new(Code { linked: linker.instantiate_pre(module)?, exports: Exports::of(module), is_optimised }))
    }
}

/// A linker for each of the family's compilers.
pub(super) struct Linkers {
    pub(super) optimised: Linker<Host>,
    pub(super) baseline: Option<Linker<Host>>,
}

impl Linkers {
    pub(super) fn new(family: &Family) -> Linkers {
        Linkers { optimised: Linker::new(family.engine()), baseline: family.baseline().map(Linker::new) }
    }

    pub(super) fn each(
        &mut self,
        mut link: impl FnMut(&mut Linker<Host>) -> wasmtime::Result<()>,
    ) -> wasmtime::Result<()> {
        link(&mut self.optimised)?;
        self.baseline.as_mut().map_or(Ok(()), link)
    }

    /// The code to begin with: the optimised code, unless it is not there yet and something else can be had sooner.
    pub(super) fn code(&self, family: &Family, artifact: &Artifact) -> Result<Arc<Code>, BoxError> {
        let (compiler, engine) = (&family.compiler, family.engine());
        if let Some(linker) = &self.baseline {
            if let Some(module) = compiler.find(engine, artifact.digest()) {
                return Ok(Code::link(&self.optimised, &module, true)?);
            }
            match compiler.compile_baseline(linker.engine(), artifact) {
                Ok(module) => return Ok(Code::link(linker, &module, false)?),
                // It does not know all that the other one knows.
                Err(error) => tracing::debug!("not for the baseline compiler: {error:#}"),
            }
        }
        let module = compiler.module(engine, artifact)?;
        Ok(Code::link(&self.optimised, &module, true)?)
    }

    /// Compiles the optimised code on a thread of its own, and puts it in place when it is ready: for instances that
    /// are made from then on.
    pub(super) fn optimise(&self, family: &Arc<Family>, artifact: &Artifact, code: &Arc<ArcSwap<Code>>) {
        let (family, artifact) = (Arc::clone(family), artifact.clone());
        let (linker, code) = (self.optimised.clone(), Arc::downgrade(code));
        let work = move || {
            let module = family.compiler.module(family.engine(), &artifact);
            let better = module.and_then(|module| Ok(Code::link(&linker, &module, true)?));
            match (better, code.upgrade()) {
                (Ok(better), Some(code)) => code.store(better),
                // The generation is gone.
                (Ok(_), None) => {}
                (Err(error), _) => tracing::warn!("baseline code serves on, there is none that is optimised: {error}"),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("hotslot-wasm-tier".to_owned()).spawn(work) {
            tracing::warn!("baseline code serves on, there is no thread to optimise it: {error}");
        }
    }
}
