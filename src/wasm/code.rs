//! The compiled code of one generation, which can be replaced by optimised code while it serves.

use std::sync::Arc;

use wasmtime::{Instance, InstancePre, Linker, Module, Store};

use super::engine::Engine;
use super::exports::ExportIndex;
use super::host::{Given, StoreData};
use super::offered::{HostItems, LinkedEach};
use crate::lock::Mutex;
use crate::workers::{self, Afterwards};
use crate::{Artifact, BoxError, PluginScope};

/// The code that new instances of a generation are made of. It is behind a lock that any thread can wait for at any time: the first
/// look at an arc-swap gives a thread a thread-local with a destructor, for which it would wait while a library's constructors run.
pub(super) struct Newest(Mutex<Arc<Code>>);

impl Newest {
    pub(super) fn new(code: Arc<Code>) -> Newest {
        Newest(Mutex::new(code))
    }

    pub(super) fn load(&self) -> Arc<Code> {
        Arc::clone(&self.0.lock())
    }

    pub(super) fn store(&self, code: Arc<Code>) {
        let before = std::mem::replace(&mut *self.0.lock(), code);
        // Without the lock.
        drop(before);
    }
}

/// A module that is compiled and linked, and only needs instances.
pub(super) struct Code {
    linked: Linked,
    pub(super) exports: ExportIndex,
    pub(super) is_optimised: bool,
    /// For the code of a snapshot: what its instances have been given when they are made.
    pub(super) resumed: Option<Given>,
}

enum Linked {
    Once(InstancePre<StoreData>),
    Each(LinkedEach),
}

impl Code {
    fn link(
        linker: &Linker<StoreData>,
        items: &Arc<HostItems>,
        module: &Module,
        is_optimised: bool,
        resumed: Option<Given>,
    ) -> wasmtime::Result<Arc<Code>> {
        // Now, rather than in the first call.
        module.initialize_copy_on_write_image()?;
        let linked = match LinkedEach::of(module, linker, items) {
            Some(each) => Linked::Each(each),
            None => Linked::Once(linker.instantiate_pre(module)?),
        };
        Ok(Arc::new(Code { linked, exports: ExportIndex::of(module), is_optimised, resumed }))
    }

    pub(super) fn engine(&self) -> &wasmtime::Engine {
        match &self.linked {
            Linked::Once(linked) => linked.module().engine(),
            Linked::Each(each) => each.module().engine(),
        }
    }

    pub(super) fn instantiate(&self, store: &mut Store<StoreData>) -> wasmtime::Result<Instance> {
        match &self.linked {
            Linked::Once(linked) => linked.instantiate(store),
            Linked::Each(each) => each.instantiate(store),
        }
    }
}

/// A linker for each of the engine's compilers.
pub(super) struct Linkers {
    pub(super) optimised: Linker<StoreData>,
    pub(super) baseline: Option<Linker<StoreData>>,
    pub(super) items: Arc<HostItems>,
}

impl Linkers {
    pub(super) fn new(engine: &Engine) -> Linkers {
        Linkers {
            optimised: Linker::new(engine.optimising()),
            baseline: engine.baseline().map(Linker::new),
            items: Arc::default(),
        }
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
                return Ok(Code::link(&self.optimised, &self.items, &module, true, None)?);
            }
            match compiler.compile_baseline(linker.engine(), artifact, slot, is_abandoned) {
                Ok(module) => return Ok(Code::link(linker, &self.items, &module, false, None)?),
                // It does not support all that the optimising compiler does.
                Err(error) => tracing::debug!("the baseline compiler does not take the module: {error:#}"),
            }
        }
        self.optimised_code(engine, artifact, slot, is_abandoned, None)
    }

    /// Returns optimised code; `resumed` says that it is a snapshot's.
    pub(super) fn optimised_code(
        &self,
        engine: &Engine,
        artifact: &Artifact,
        slot: &PluginScope,
        is_abandoned: &dyn Fn() -> bool,
        resumed: Option<Given>,
    ) -> Result<Arc<Code>, BoxError> {
        let module = engine.compiler().module(engine.optimising(), artifact, Some(slot), is_abandoned)?;
        Ok(Code::link(&self.optimised, &self.items, &module, true, resumed)?)
    }

    /// Compiles the optimised code on another thread, for the instances that are made once it is ready.
    pub(super) fn optimise(&self, engine: &Engine, artifact: &Artifact, code: &Arc<Newest>) {
        let (engine, artifact) = (engine.clone(), artifact.clone());
        let (linker, items, code) = (self.optimised.clone(), Arc::clone(&self.items), Arc::downgrade(code));
        let work = move || {
            let is_abandoned = || code.strong_count() == 0;
            let module = engine.compiler().module(engine.optimising(), &artifact, None, &is_abandoned);
            let optimised = module.and_then(|module| Ok(Code::link(&linker, &items, &module, true, None)?));
            match (optimised, code.upgrade()) {
                (Ok(optimised), Some(code)) => code.store(optimised),
                // The generation is gone.
                (Ok(_), None) => {}
                (Err(error), _) => tracing::warn!("baseline code keeps serving, optimising failed: {error}"),
            }
        };
        if let Err(error) = workers::run(Afterwards::Stay, work) {
            tracing::warn!("baseline code keeps serving, no thread is left to optimise it: {error}");
        }
    }
}
