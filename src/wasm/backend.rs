//! The backend of one slot: what its modules have to be like, and what their calls may take.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use wasmtime::{Linker, Store};

use super::admitted::Admitted;
use super::binder::Binder;
use super::call_frame::{self, Guest, WasmLink};
use super::code::Linkers;
use super::engine::Family;
use super::error::{CallError, EngineError};
use super::host::{self, Host, Offers, PluginInfo};
use super::instances::{Bind, Idle, InstancePolicy, Instances};
use super::limits::{Bounds, CallLimits, CallOptions};
use super::permits::Permits;
use super::plugin::WasmPlugin;
use super::signature::Signature;
use super::validate::{ModuleLimits, Offered, Wanted, check};
use crate::host::{Config, Contract, Interface};
use crate::{Admission, Artifact, Backend, BoxError, LoadContext, Loaded, Manifest, Payload, StopSignal};

/// A [`Backend`] for WebAssembly modules: as `T`, which is the trait object of a
/// [declared interface](super::Wasm::interface), or a [`WasmPlugin`] whose functions you [bind](super::Wasm::plugins).
pub struct WasmBackend<T: Served + ?Sized> {
    family: Arc<Family>,
    linkers: Linkers,
    bind: Bind<T::Calls>,
    exports: Vec<(String, Signature)>,
    interface: Option<String>,
    module_limits: ModuleLimits,
    limits: CallLimits,
    policy: InstancePolicy,
    concurrency: NonZeroUsize,
    max_wait: Option<Duration>,
    admitted: Admitted,
    offers: Offers,
    /// The interface that a module's contract has to fit, if it is declared.
    contract: Option<Contract>,
}

/// What a backend can make of a module: a [`WasmPlugin`], or the trait object of a declared interface.
pub trait Served: Send + Sync + 'static {
    /// What is looked up once for every instance.
    #[doc(hidden)]
    type Calls: Send + 'static;
}

impl<C: Send + 'static> Served for WasmPlugin<C> {
    type Calls = C;
}

impl<I: Interface + ?Sized> Served for I {
    type Calls = Guest;
}

impl<T: Served + ?Sized> WasmBackend<T> {
    pub(super) fn new(
        family: Arc<Family>,
        bind: impl Fn(&mut Binder<'_>) -> Result<T::Calls, CallError> + Send + Sync + 'static,
    ) -> WasmBackend<T> {
        let mut linkers = Linkers::new(&family);
        linkers.each(host::link).expect("the names in an empty linker are free");
        WasmBackend {
            linkers,
            bind: Arc::new(bind),
            exports: Vec::new(),
            interface: None,
            module_limits: ModuleLimits::default(),
            limits: CallLimits::default(),
            policy: InstancePolicy::default(),
            concurrency: NonZeroUsize::new(family.places().total() / 3).unwrap_or(NonZeroUsize::MIN),
            max_wait: None,
            admitted: Admitted::default(),
            offers: Offers::default(),
            contract: None,
            family,
        }
    }

    /// Functions without which a module is refused at admission: a name, and a signature as in `"(i32, i32) -> i64"`.
    pub fn require(mut self, name: impl Into<String>, signature: &str) -> Self {
        self.exports.push((name.into(), Signature::spelled(signature)));
        self.admitted = Admitted::default();
        self
    }

    /// The interface that a module's manifest has to name; any, or none, if this is not set.
    pub fn interface(mut self, interface: impl Into<String>) -> Self {
        self.interface = Some(interface.into());
        self.admitted = Admitted::default();
        self
    }

    /// Bytes for each instance's `create`, for modules of a declared interface; what they mean is up to it.
    pub fn config(mut self, config: impl Into<Vec<u8>>) -> Self {
        self.offers.config = Config::Fixed(config.into().into());
        self
    }

    /// The same, asked for at each load, for all instances of that plugin: for a configuration that changes along with
    /// it.
    pub fn config_with(mut self, config: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.offers.config = Config::Asked(Arc::new(config));
        self
    }

    /// Takes what plugins send, on the threads that they send it from. Without it, messages are dropped.
    ///
    /// Text in a message is the plugin's: pass it through [`escape_untrusted`](crate::escape_untrusted) before showing it.
    pub fn on_message(mut self, take: impl Fn(&PluginInfo, &[u8]) + Send + Sync + 'static) -> Self {
        self.offers.on_message = Some(Arc::new(take));
        self
    }

    /// Offers an interface that the host implements: plugins get it with
    /// [`Host::service`](hotslot_plugin::Host::service), and call it on their callers' threads.
    pub fn service<S: Interface + ?Sized>(mut self, service: Arc<S>) -> Self {
        self.offers.services.offer(service);
        self
    }

    /// Offers functions of yours to the plugins, beside [those that every plugin can import](super#imports). What is
    /// not offered cannot be imported.
    ///
    /// A function of the host that waits holds the call up, and no deadline ends it. `link` is called once for every
    /// compiler that the engine has.
    ///
    /// # Errors
    /// As the linker's: a name is taken, for instance.
    pub fn link(mut self, link: impl Fn(&mut Linker<Host>) -> wasmtime::Result<()>) -> Result<Self, EngineError> {
        self.linkers.each(link).map_err(|error| EngineError::Engine(format!("{error:#}")))?;
        Ok(self)
    }

    /// How much of everything a module may have.
    pub fn module_limits(mut self, limits: ModuleLimits) -> Self {
        self.module_limits = limits;
        self.admitted = Admitted::default();
        self
    }

    /// What one call may take.
    pub fn call_limits(mut self, limits: CallLimits) -> Self {
        self.limits = limits;
        self.admitted = Admitted::default();
        self
    }

    /// Which instance a call gets. A [fresh](InstancePolicy::Fresh) one if this is not set.
    pub fn instances(mut self, policy: InstancePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How many calls a generation may have under way. A third of the [engine's](super::WasmBuilder::instances)
    /// instances if this is not set: that leaves room for one that drains and for one that is being staged.
    pub fn concurrency(mut self, calls: NonZeroUsize) -> Self {
        self.concurrency = calls;
        self
    }

    /// How long a call may wait for its turn before it is refused as [saturated](CallError::Saturated). Not at all if
    /// this is not set; with a single instance, as long as a call may take.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }

    fn offered(&self) -> Offered {
        let plugin = PluginInfo { slot: "".into(), generation: 0, name: String::new(), version: None };
        let bounds = Bounds::new(&self.limits, StopSignal::new());
        let host = Host::new(Arc::new(plugin), Offers::default(), bounds);
        host::offered(&self.linkers.optimised, &mut Store::new(self.family.engine(), host))
    }

    fn admitted(&self, bytes: &[u8]) -> Result<Manifest, BoxError> {
        self.admitted.or_check(bytes, || {
            let wanted = Wanted {
                limits: &self.module_limits,
                memory: self.limits.memory,
                table_elements: self.limits.table_elements,
                exports: &self.exports,
                imports: &self.offered(),
                interface: self.interface.as_deref(),
            };
            let manifest = check(bytes, &wanted)?;
            if let Some(host) = &self.contract {
                host.methods_in_manifest(&manifest)?;
            }
            Ok(manifest)
        })
    }

    fn loaded(&self, artifact: &Artifact, context: &LoadContext) -> Result<WasmPlugin<T::Calls>, BoxError> {
        let manifest = artifact.manifest().clone();
        let code = self.linkers.code(&self.family, artifact)?;
        let is_optimised = code.is_optimised;
        let single = self.policy == InstancePolicy::Single;
        let default_wait = if single { self.limits.deadline } else { Duration::ZERO };
        let instances = Instances {
            code: Arc::new(ArcSwap::new(code)),
            bind: Arc::clone(&self.bind),
            policy: self.policy,
            limits: self.limits.clone(),
            plugin: Arc::new(PluginInfo {
                slot: Arc::clone(&context.slot),
                generation: context.generation,
                name: manifest.name.clone(),
                version: manifest.version.clone(),
            }),
            offers: Offers { config: Config::Fixed(self.offers.config.of(artifact)), ..self.offers.clone() },
            stop: context.stop.clone(),
            calls: Permits::new(if single { 1 } else { self.concurrency.get() }),
            max_wait: self.max_wait.unwrap_or(default_wait),
            idle: Idle::in_family(&self.family, self.policy),
            family: Arc::clone(&self.family),
            state: ArcSwapOption::empty(),
        };
        // A module whose `start` traps, or that the binder cannot bind, is not let in.
        let first = instances.make(Instant::now(), &CallOptions::new())?;
        instances.give_back(first);
        if !is_optimised {
            self.linkers.optimise(&self.family, artifact, &instances.code);
        }
        Ok(WasmPlugin { instances, manifest, failures: context.failures.clone() })
    }
}

impl<C: Send + 'static> Backend<WasmPlugin<C>> for WasmBackend<WasmPlugin<C>> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        Ok(self.admitted(payload.bytes())?.into())
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<WasmPlugin<C>>, BoxError> {
        Ok(Loaded::new(self.loaded(artifact, context)?))
    }
}

impl<I: Interface + ?Sized> WasmBackend<I> {
    /// For the interface that `I` declares.
    pub(super) fn of_interface(family: Arc<Family>) -> WasmBackend<I> {
        let mut backend = WasmBackend::new(family, Guest::bind);
        for (name, signature) in call_frame::EXPORTS {
            backend = backend.require(name, signature);
        }
        backend.contract = Some(Contract::of::<I>());
        backend
    }
}

impl<I: Interface + ?Sized> Backend<I> for WasmBackend<I> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        Ok(self.admitted(payload.bytes())?.into())
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<I>, BoxError> {
        let numbers = Contract::of::<I>().methods_in_manifest(artifact.manifest())?;
        let plugin = self.loaded(artifact, context)?;
        Ok(Loaded::boxed(I::proxy(WasmLink::new(plugin, numbers))))
    }
}

impl<T: Served + ?Sized> std::fmt::Debug for WasmBackend<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmBackend")
            .field("interface", &self.interface)
            .field("module_limits", &self.module_limits)
            .field("limits", &self.limits)
            .field("policy", &self.policy)
            .field("concurrency", &self.concurrency)
            .field("max_wait", &self.max_wait)
            .finish_non_exhaustive()
    }
}
