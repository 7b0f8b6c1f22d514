//! The backend of one slot: what its modules have to be like, and what their calls may take.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{Linker, Mutability, Store, Val};

use super::account::Account;
use super::admission::{Admitter, Evidence};
use super::binder::Binder;
use super::call_frame::Guest;
use super::code::{Linkers, Newest};
use super::engine::Engine;
use super::error::{EngineError, WasmCallError};
use super::exports::INTERFACE_EXPORTS;
use super::host::StoreData;
use super::imports;
use super::instances::{Bind, Idle, InstancePolicy, Instances, MakeState};
use super::limits::{Began, Bounds, CallLimits, CallOptions};
use super::module_limits::ModuleLimits;
use super::offered::{HostItem, Number};
use super::permits::Permits;
use super::plugin::WasmPlugin;
use super::signature::{HostImports, Signature};
use super::snapshot::{Readable, Snapshot, SnapshotStatus};
use crate::failures::FailureCounter;
use crate::host::{ConfigUnsupported, Contract, Interface, InterfaceLink, Offers, PluginInfo, offer_methods};
use crate::{Admission, Artifact, Backend, BoxError, LoadContext, Loaded, Manifest, Payload, PluginScope, StopSignal};

/// How often an instance is made until one is there in the time of a call.
const TRIES: usize = 5;

/// A [`Backend`] for WebAssembly modules: as `T`, which is the trait object of a
/// [declared interface](Engine::interface), or a [`WasmPlugin`] whose functions you [bind](Engine::bind).
pub struct WasmBackend<T: PluginType + ?Sized> {
    engine: Engine,
    linkers: Linkers,
    /// Whether there are functions of the user's, which may take any time.
    has_linked: bool,
    bind: Bind<T::Functions>,
    /// It does not only look functions up, but creates the plugin.
    bind_creates: bool,
    admitter: Admitter,
    limits: CallLimits,
    load_deadline: Option<Duration>,
    policy: InstancePolicy,
    concurrency: NonZeroUsize,
    max_wait: Option<Duration>,
    preinitialize: bool,
    instance_state: Option<MakeState>,
    offers: Offers,
}

/// What a backend can make of a module: a [`WasmPlugin`], or the trait object of a declared interface.
pub trait PluginType: Send + Sync + 'static {
    /// What is looked up once for every instance.
    #[doc(hidden)]
    type Functions: Send + 'static;
}

impl<C: Send + 'static> PluginType for WasmPlugin<C> {
    type Functions = C;
}

impl<I: Interface + ?Sized> PluginType for I {
    type Functions = Guest;
}

impl Engine {
    /// Returns a backend for modules of the interface that the trait `I` declares: `engine.interface::<dyn Trait>()`.
    ///
    /// With [fresh](InstancePolicy::Fresh) instances, the default, a plugin is created anew for every call. One whose
    /// `create` takes time, or which keeps something from call to call, needs another
    /// [policy](WasmBackend::instance_policy).
    pub fn interface<I: Interface + ?Sized>(&self) -> WasmBackend<I> {
        let mut backend = WasmBackend::new(self.clone(), Guest::bind);
        for (name, signature) in INTERFACE_EXPORTS {
            backend = backend.require_export(name, signature);
        }
        backend.bind_creates = true;
        backend.admitter.require_contract(Contract::of::<I>());
        backend
    }

    /// Returns a backend whose plugins are what `bind` makes of an instance: a struct of the functions that you call.
    ///
    /// `bind` runs once for every instance, so it should only look functions up.
    pub fn bind<C: Send + 'static>(
        &self,
        bind: impl Fn(&mut Binder<'_>) -> Result<C, WasmCallError> + Send + Sync + 'static,
    ) -> WasmBackend<WasmPlugin<C>> {
        WasmBackend::new(self.clone(), bind)
    }
}

impl<T: PluginType + ?Sized> WasmBackend<T> {
    fn new(
        engine: Engine,
        bind: impl Fn(&mut Binder<'_>) -> Result<T::Functions, WasmCallError> + Send + Sync + 'static,
    ) -> WasmBackend<T> {
        let mut linkers = Linkers::new(&engine);
        linkers.each(imports::link).expect("the names in an empty linker are free");
        let concurrency = NonZeroUsize::new(engine.max_instances() / 3).unwrap_or(NonZeroUsize::MIN);
        let backend = WasmBackend {
            engine,
            linkers,
            has_linked: false,
            bind: Arc::new(bind),
            admitter: Admitter::default(),
            limits: CallLimits::default(),
            load_deadline: None,
            policy: InstancePolicy::default(),
            concurrency,
            max_wait: None,
            bind_creates: false,
            preinitialize: false,
            instance_state: None,
            offers: Offers::default(),
        };
        backend.call_limits(CallLimits::default())
    }

    /// Requires an exported function: a name, and a signature as in `"(i32, i32) -> i32"`. A module without it is refused
    /// at admission.
    pub fn require_export(mut self, name: impl Into<String>, signature: &str) -> Self {
        self.admitter.require(|required| required.exports.push((name.into(), Signature::parse(signature))));
        self
    }

    /// Requires that a module's manifest names this interface. By default any is admitted, and none.
    pub fn require_interface(mut self, interface: impl Into<String>) -> Self {
        self.admitter.require(|required| required.interface = Some(interface.into()));
        self
    }

    offer_methods!();

    /// Adds functions of the host that plugins can import, besides [those that every plugin can](super#imports). Nothing
    /// else can be imported.
    ///
    /// `link` is called once for each compiler that the engine has. No deadline ends a function of the host: one that
    /// waits holds up the call. The functions belong to all instances and calls; what they keep for
    /// [one instance](WasmBackend::instance_state) or [one call](CallOptions::state), they find in the [`StoreData`].
    ///
    /// # Errors
    /// The linker's: a name is taken, for instance.
    pub fn link(mut self, link: impl Fn(&mut Linker<StoreData>) -> wasmtime::Result<()>) -> Result<Self, EngineError> {
        self.linkers.each(link).map_err(|error| EngineError::Engine(format!("{error:#}")))?;
        self.check_names()?;
        self.has_linked = true;
        Ok(self)
    }

    /// Makes a state for each instance, for the functions that are [linked](WasmBackend::link): they find it as
    /// [`StoreData::instance_state`], and a call as [`Call::instance_state`](super::Call::instance_state). It lives as long as
    /// the instance: with [fresh](InstancePolicy::Fresh) ones, for one call.
    ///
    /// ```
    /// # fn backend(engine: &hotslot::wasm::Engine) -> Result<(), hotslot::wasm::EngineError> {
    /// use hotslot::wasm::wasmtime::Caller;
    /// use hotslot::wasm::{Binder, Func, StoreData};
    ///
    /// let backend = engine
    ///     .bind(|plugin: &mut Binder<'_>| plugin.func::<(), ()>("inspect"))
    ///     .instance_state(|_| Vec::<u32>::new())
    ///     .link(|linker| {
    ///         let found = |mut caller: Caller<'_, StoreData>, rule: u32| {
    ///             caller.data_mut().instance_state_mut::<Vec<u32>>().expect("every instance has one").push(rule);
    ///         };
    ///         linker.func_wrap("rules", "found", found).map(drop)
    ///     })?;
    /// // slot.load().call(|inspect, call| {
    /// //     call.run(inspect, ())?;
    /// //     Ok(std::mem::take(call.instance_state::<Vec<u32>>().expect("every instance has one")))
    /// // })
    /// # let _ = backend;
    /// # Ok(())
    /// # }
    /// ```
    pub fn instance_state<S: Send + 'static>(
        mut self,
        make: impl Fn(&PluginInfo) -> S + Send + Sync + 'static,
    ) -> Self {
        self.instance_state = Some(Arc::new(move |plugin| Box::new(make(plugin))));
        self
    }

    /// Offers a memory that plugins can import, of so many pages of 64 KiB. Each instance gets its own, full of zeros, under
    /// its [limits](CallLimits::memory); for the host it is the plugin's memory, if the plugin exports no other.
    ///
    /// An instance of a module that imports a memory, a table or a global is linked anew, and its memory is not the pool's,
    /// which takes some microseconds more.
    ///
    /// # Errors
    /// The name is taken, or the maximum is below the minimum.
    pub fn offer_memory(
        self,
        module: impl Into<String>,
        name: impl Into<String>,
        pages: u32,
        maximum: Option<u32>,
    ) -> Result<Self, EngineError> {
        if maximum.is_some_and(|maximum| maximum < pages) || pages.max(maximum.unwrap_or_default()) > 1 << 16 {
            return Err(EngineError::Misuse(
                "a memory has at most 65,536 pages, and its maximum is not below its minimum",
            ));
        }
        self.offer(module.into(), name.into(), HostItem::Memory { minimum: pages, maximum })
    }

    /// Offers a table of references to functions that plugins can import. Each instance gets its own, full of nulls, under
    /// its [limits](CallLimits::table_elements). See [`offer_memory`](WasmBackend::offer_memory).
    ///
    /// # Errors
    /// The name is taken, or the maximum is below the minimum.
    pub fn offer_table(
        self,
        module: impl Into<String>,
        name: impl Into<String>,
        elements: u32,
        maximum: Option<u32>,
    ) -> Result<Self, EngineError> {
        if maximum.is_some_and(|maximum| maximum < elements) {
            return Err(EngineError::Misuse("the maximum of a table is not below its minimum"));
        }
        self.offer(module.into(), name.into(), HostItem::Table { minimum: elements, maximum })
    }

    /// Offers a global that plugins can import, a number. Each instance gets its own, with this value.
    /// See [`offer_memory`](WasmBackend::offer_memory).
    ///
    /// # Errors
    /// The name is taken, or the value is a reference.
    pub fn offer_global(
        self,
        module: impl Into<String>,
        name: impl Into<String>,
        mutability: Mutability,
        value: impl Into<Val>,
    ) -> Result<Self, EngineError> {
        let value = Number::of(value.into()).ok_or(EngineError::Misuse("a global that is offered is a number"))?;
        let is_mutable = mutability == Mutability::Var;
        self.offer(module.into(), name.into(), HostItem::Global { value, is_mutable })
    }

    fn offer(mut self, module: String, name: String, item: HostItem) -> Result<Self, EngineError> {
        let name = (module, name);
        if self.linkers.items.names().any(|known| *known == name) {
            return Err(taken(&name));
        }
        Arc::make_mut(&mut self.linkers.items).insert(name.0, name.1, item);
        self.check_names()?;
        Ok(self)
    }

    /// Checks that nothing is offered under the name of a function.
    fn check_names(&self) -> Result<(), EngineError> {
        if self.linkers.items.names().next().is_none() {
            return Ok(());
        }
        let functions = self.functions(&Artifact::new(Payload::new(Vec::new()), Manifest::default().into()));
        self.linkers.items.names().find(|name| functions.contains_key(*name)).map_or(Ok(()), |name| Err(taken(name)))
    }

    /// Sets how much of everything a module may have.
    pub fn module_limits(mut self, limits: ModuleLimits) -> Self {
        self.admitter.require(|required| required.limits = limits);
        self
    }

    /// Sets what one call may take.
    pub fn call_limits(mut self, limits: CallLimits) -> Self {
        self.admitter.require(|required| {
            required.memory = limits.memory;
            required.table_elements = limits.table_elements;
        });
        self.limits = limits;
        self
    }

    /// Sets what making the first instance may take, when a generation is loaded: `start`, `_initialize`, `bind`, and `create`
    /// of a declared interface. The [deadline of a call](CallLimits::deadline) by default. Where that is short, for the sake of
    /// callers, a module need not be refused because the machine was busy at that moment.
    ///
    /// An instance that is made for a call is under the deadline of that call. So unless the plugin has a
    /// [single instance](InstancePolicy::Single), a module whose first instance took longer than a call may is tried again,
    /// up to five times, and refused if no instance can be made in the time of a call.
    pub fn load_deadline(mut self, deadline: Duration) -> Self {
        self.load_deadline = Some(deadline);
        self
    }

    /// Sets which instance a call gets. A [fresh](InstancePolicy::Fresh) one by default.
    pub fn instance_policy(mut self, policy: InstancePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets a plugin up once, when a generation is loaded, and has its instances start from there. Not by default.
    ///
    /// `start`, `_initialize` and, of a declared interface, `create` run in one instance. A snapshot is taken of it: a module with that
    /// instance's memory and globals as its initial ones, compiled as any other, whose pages are copied when an instance writes
    /// to them. So with [fresh](InstancePolicy::Fresh) instances, a plugin whose `create` reads rules or builds tables is created
    /// once, and not for every call. With a [single](InstancePolicy::Single) instance it has no effect.
    ///
    /// # What instances have in common
    /// All that `create` left in the plugin's memory: a random number, a time, an identifier that it drew is the same in all
    /// instances. What has to differ belongs in the call, or in `resume` of `hotslot_plugin::Plugin`, in other languages the
    /// export [`hotslot_resume`](super#a-declared-interface-in-another-language), which runs first in each instance. Services of the
    /// host that `create` asked for are those of all instances. The [state](WasmBackend::instance_state) of an instance is made
    /// for each: it does not have what functions of the host noted there while the plugin was created.
    ///
    /// # What it costs
    /// A load compiles twice: a copy of the module, from which memory and globals can be read, and the snapshot. The
    /// [cache of functions](super::EngineBuilder::function_cache_limit) finds most of the second in the first. On
    /// an engine that serves baseline code first, the load waits for the optimised code.
    /// A module that is known is still created once more, and its snapshot is found if it comes out the same.
    ///
    /// # When there is none
    /// No snapshot is taken of a module that imports a memory, a table or a global, writes to tables, drops segments, or
    /// exports a name that begins with `__wizer_`; nor of a memory with more than 8 Mi runs of bytes that are not zero, because
    /// it takes the host 24 bytes for each while it is made. Then every instance is set up as without this setting, and
    /// [`Engine::snapshots`] says why. An error of `create` refuses the load in either case.
    pub fn preinitialize(mut self) -> Self {
        self.preinitialize = true;
        self
    }

    /// Sets how many calls of a generation can be in flight. A third of the engine's
    /// [instances](super::EngineBuilder::max_instances) by default, which leaves room for a generation that drains and
    /// one that is staged.
    pub fn concurrency(mut self, calls: NonZeroUsize) -> Self {
        self.concurrency = calls;
        self
    }

    /// Sets how long a call may wait for an instance before it is refused as [saturated](WasmCallError::Saturated).
    ///
    /// By default it does not wait; with a single instance, it waits as long as a call may take.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }

    /// Lists what the host offers.
    fn import_signatures(&self, artifact: &Artifact) -> HostImports {
        let mut offered = self.functions(artifact);
        offered.extend(self.linkers.items.offered());
        offered
    }

    /// Lists the functions that the host offers. A linker lists its functions only for a store, and a store has data: here that of a
    /// plugin that is never made.
    fn functions(&self, artifact: &Artifact) -> HostImports {
        let stop = StopSignal::new();
        let ticks = Arc::clone(self.engine.ticks());
        let bounds = Bounds::new(&self.limits, stop.clone(), ticks, Account::new(&self.engine, &Arc::default()));
        let context = LoadContext {
            generation: 0,
            slot: "".into(),
            stop,
            failures: FailureCounter::new(|_| {}),
            scope: PluginScope::new(),
        };
        let host = Arc::new(Offers::new().host_for(artifact, &context));
        let data = StoreData::new(&self.engine, host, context.scope, bounds);
        imports::signatures(&self.linkers.optimised, &mut Store::new(self.engine.optimising(), data))
    }

    fn admit_payload(&self, payload: &Payload) -> Result<Admission, BoxError> {
        let imports = || self.import_signatures(&Artifact::new(payload.clone(), Manifest::default().into()));
        let admitted = self.admitter.admit(payload.bytes(), payload.digest(), imports);
        admitted.map(|(manifest, evidence)| Admission::new(manifest).with_evidence(evidence))
    }

    fn evidence(&self, artifact: &Artifact) -> Result<Evidence, BoxError> {
        match artifact.evidence::<Evidence>().filter(|evidence| evidence.digest == artifact.digest()) {
            Some(evidence) => Ok(evidence.clone()),
            // A backend around this one put the artifact together anew. What was admitted is known.
            None => {
                let imports = || self.import_signatures(artifact);
                Ok(self.admitter.admit(artifact.bytes(), artifact.digest(), imports)?.1)
            }
        }
    }

    fn load_plugin(&self, artifact: &Artifact, context: &LoadContext) -> Result<WasmPlugin<T::Functions>, BoxError> {
        let is_abandoned = || context.stop.is_raised();
        let code = || self.linkers.code(&self.engine, artifact, &context.scope, &is_abandoned);
        let optimised = |bytes: &Payload, resumed| {
            let artifact = Artifact::new(bytes.clone(), artifact.manifest().clone().into());
            self.linkers.optimised_code(&self.engine, &artifact, &context.scope, &is_abandoned, resumed)
        };
        let single = self.policy == InstancePolicy::Single;
        let readable = (self.preinitialize && !single).then(|| Readable::of(artifact.bytes()));
        let first_code = match &readable {
            Some(Ok(readable)) => optimised(&readable.copy, None)?,
            _ => code()?,
        };
        let default_wait = if single { self.limits.deadline } else { Duration::ZERO };
        let host = Arc::new(self.offers.host_for(artifact, context));
        let calls = Permits::new(if single { 1 } else { self.concurrency.get() });
        let schema = artifact.manifest().schema.as_deref();
        let idle = Idle::of_engine(&self.engine, self.policy, &self.limits, &context.stop, &calls, &host, schema);
        let instances = Instances {
            code: Arc::new(Newest::new(first_code)),
            bind: Arc::clone(&self.bind),
            bind_creates: self.bind_creates,
            policy: self.policy,
            limits: self.limits.clone(),
            begin: if self.has_linked { Began::Now } else { Began::ThisTick },
            host,
            scope: context.scope.clone(),
            stop: context.stop.clone(),
            calls,
            max_wait: self.max_wait.unwrap_or(default_wait),
            idle,
            engine: self.engine.clone(),
            instance_state: self.instance_state.clone(),
        };
        let options = CallOptions::new().deadline(self.load_deadline.unwrap_or(self.limits.deadline));
        let snapshot = match &readable {
            None => None,
            Some(Err(reason)) => Some(Err(reason.clone())),
            Some(Ok(readable)) => {
                let taken = instances.snapshot(readable, &options)?;
                let resumed = taken.and_then(|(snapshot, given)| {
                    let code = optimised(&snapshot, Some(given)).map_err(|error| error.to_string())?;
                    Ok((code, Snapshot { digest: snapshot.digest(), size: snapshot.bytes().len() }))
                });
                Some(match resumed {
                    Ok((code, snapshot)) => {
                        instances.code.store(code);
                        Ok(snapshot)
                    }
                    // What serves is the module itself, and not its copy.
                    Err(reason) => {
                        instances.code.store(code()?);
                        Err(reason)
                    }
                })
            }
        };
        if let Some(snapshot) = snapshot {
            instances.idle.set_snapshot(snapshot_status(context, artifact, snapshot));
        }
        let is_optimised = instances.code.load().is_optimised;
        // A module whose `start` traps, or that cannot be bound, is refused here.
        let began = Instant::now();
        let mut first = instances.make(began, &options)?;
        if !single && began.elapsed() > self.limits.deadline {
            // Its place in the engine may be the last one.
            drop(first);
            let in_time = || instances.make(Instant::now(), &CallOptions::new());
            first = (1..TRIES).map(|_| in_time()).find(Result::is_ok).unwrap_or_else(in_time)?;
        }
        instances.keep(first);
        if !is_optimised {
            self.linkers.optimise(&self.engine, artifact, &instances.code);
        }
        Ok(WasmPlugin { instances, manifest: artifact.manifest().clone(), failures: context.failures.clone() })
    }
}

/// Says what became of a generation's snapshot, to the log, too.
fn snapshot_status(context: &LoadContext, artifact: &Artifact, snapshot: Result<Snapshot, String>) -> SnapshotStatus {
    let (slot, generation, module) = (&context.slot, context.generation, artifact.digest());
    match &snapshot {
        Ok(Snapshot { digest, size }) => {
            tracing::info!(%slot, generation, %module, snapshot = %digest, size, "instances start from a snapshot");
        }
        Err(reason) => {
            tracing::warn!(%slot, generation, %module, "every instance is set up anew, no snapshot can be taken: {reason}");
        }
    }
    SnapshotStatus { slot: Arc::clone(slot), generation, module, snapshot }
}

fn taken((module, name): &(String, String)) -> EngineError {
    EngineError::Engine(format!("something is offered as `{module}` `{name}` already"))
}

impl<C: Send + 'static> Backend<WasmPlugin<C>> for WasmBackend<WasmPlugin<C>> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        ConfigUnsupported::check(payload)?;
        self.admit_payload(payload)
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<WasmPlugin<C>>, BoxError> {
        self.evidence(artifact)?;
        Ok(Loaded::new(self.load_plugin(artifact, context)?))
    }

    /// A module's code is contained: it leaves nothing in a thread.
    fn taints_threads(&self) -> bool {
        false
    }
}

impl<I: Interface + ?Sized> Backend<I> for WasmBackend<I> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        self.admit_payload(payload)
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<I>, BoxError> {
        let methods = self.evidence(artifact)?.methods;
        let plugin = self.load_plugin(artifact, context)?;
        Ok(Loaded::boxed(I::proxy(InterfaceLink::new(plugin, methods, context))))
    }

    /// A module's code is contained: it leaves nothing in a thread.
    fn taints_threads(&self) -> bool {
        false
    }
}

impl<T: PluginType + ?Sized> std::fmt::Debug for WasmBackend<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmBackend")
            .field("requirements", self.admitter.requirements())
            .field("limits", &self.limits)
            .field("load_deadline", &self.load_deadline)
            .field("policy", &self.policy)
            .field("concurrency", &self.concurrency)
            .field("max_wait", &self.max_wait)
            .field("preinitialize", &self.preinitialize)
            .finish_non_exhaustive()
    }
}
