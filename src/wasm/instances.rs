//! Chooses the instance for a call: a fresh one, one that has been used before, or the only one.

use std::any::Any;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use wasmtime::{Store, WasmParams, WasmResults};

use super::account::Account;
use super::binder::{Binder, Call, Func};
use super::code::Code;
use super::engine::{Engine, Holder, OverBudget, Reclaim};
use super::error::WasmCallError;
use super::exports::INITIALIZE;
use super::host::{StoreData, enforce};
use super::limits::{Bounds, CallLimits, CallOptions, Denied};
use super::permits::{Permit, Permits};
use crate::host::{PluginHost, PluginInfo, record_wait};
use crate::nesting::{Nested, Refusal, Watch, is_nested, refuse};
use crate::{PluginScope, State, StopSignal};

/// Which instance of a plugin a call gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstancePolicy {
    /// A new instance for every call: a call sees nothing of earlier ones.
    #[default]
    Fresh,
    /// An instance that earlier calls have used, if one is idle. That is faster, but later calls can find what an earlier
    /// one left in memory.
    Reuse {
        /// Calls after which an instance is dropped.
        max_uses: NonZeroU32,
    },
    /// A single instance, which keeps its state from call to call; calls take turns. For plugins whose state is
    /// [handed over](crate::transfer_state). If a call traps, the next one starts from the state that was handed over.
    ///
    /// The instance of a warm generation gives its place up if the engine has none left. If the plugin has a
    /// [state](super#state), it is saved before, and restored if the generation serves again; without one, it starts anew.
    Single,
}

impl InstancePolicy {
    /// Returns how many calls an instance may serve.
    fn max_uses(self) -> u32 {
        match self {
            InstancePolicy::Fresh => 1,
            InstancePolicy::Reuse { max_uses } => max_uses.get(),
            InstancePolicy::Single => u32::MAX,
        }
    }
}

/// Makes a user's struct of functions from an instance.
pub(super) type Bind<C> = Arc<dyn Fn(&mut Binder<'_>) -> Result<C, WasmCallError> + Send + Sync>;

/// Makes a user's state for an instance.
pub(super) type MakeState = Arc<dyn Fn(&PluginInfo) -> Box<dyn Any + Send> + Send + Sync>;

/// One instance with all that belongs to it. Fields are dropped in this order, so that the memory is back with the engine
/// before the permit is.
pub(super) struct Instance<C> {
    calls: C,
    store: Store<StoreData>,
    wasm: wasmtime::Instance,
    code: Arc<Code>,
    uses: u32,
    /// It trapped, and its memory may be in any state.
    broken: bool,
    _alive: Alive,
    _permit: Permit,
}

/// The instances of one generation: what they share, and those that are idle.
pub(super) struct Instances<C> {
    pub(super) code: Arc<ArcSwap<Code>>,
    pub(super) bind: Bind<C>,
    pub(super) policy: InstancePolicy,
    pub(super) limits: CallLimits,
    pub(super) host: Arc<PluginHost>,
    pub(super) scope: PluginScope,
    pub(super) stop: StopSignal,
    pub(super) calls: Arc<Permits>,
    pub(super) max_wait: Duration,
    pub(super) engine: Engine,
    pub(super) instance_state: Option<MakeState>,
    pub(super) idle: Arc<Idle<C>>,
}

impl<C: Send + 'static> Instances<C> {
    /// Runs `work` with the functions of an instance.
    pub(super) fn call<R>(
        &self,
        options: &CallOptions,
        work: impl FnOnce(&C, &mut Call<'_>) -> Result<R, WasmCallError>,
    ) -> Result<R, WasmCallError> {
        self.with(options, |Instance { calls, store, broken, .. }| {
            let mut call = Call::new(store);
            let result = work(calls, &mut call);
            *broken |= call.is_broken();
            result
        })
    }

    /// Runs `work` with an instance. Whatever happens in it, no instance of another call is affected.
    pub(super) fn with<R>(
        &self,
        options: &CallOptions,
        work: impl FnOnce(&mut Instance<C>) -> Result<R, WasmCallError>,
    ) -> Result<R, WasmCallError> {
        let asked = Instant::now();
        let acquired = self.acquire(options);
        record_wait(asked.elapsed());
        acquired.and_then(|(_permit, mut instance)| {
            let result = work(&mut instance);
            instance.store.data_mut().end();
            self.give_back(instance);
            result
        })
    }

    /// Acquires a permit for a call, and an instance that is ready for it.
    fn acquire(&self, options: &CallOptions) -> Result<(Permit, Instance<C>), WasmCallError> {
        let permit = self.call_permit()?;
        let began = Instant::now();
        let Some(mut instance) = self.idle.take() else { return Ok((permit, self.make(began, options)?)) };
        match instance.begin(began, &self.limits, options) {
            Ok(()) => Ok((permit, instance)),
            Err(ended) => {
                // The call was over before it began, and the instance is as it was.
                self.idle.put(instance);
                Err(ended)
            }
        }
    }

    /// Takes a permit for one more call of this generation.
    pub(super) fn call_permit(&self) -> Result<Permit, WasmCallError> {
        if self.stop.is_overdue() {
            return Err(WasmCallError::Retired);
        }
        // A call that this thread makes inside of one of the same plugin would wait for itself.
        let single = self.policy == InstancePolicy::Single && is_nested() && self.scope.is_entered();
        let wait = if single { Duration::ZERO } else { self.max_wait };
        self.calls.take(wait).ok_or_else(|| {
            note_nested();
            WasmCallError::Saturated {
                what: "calls of this generation",
                limit: self.calls.total(),
                holders: String::new(),
            }
        })
    }

    /// Makes an instance and restores the state into it. `start`, the binder and the restore are under the deadline of the
    /// call.
    pub(super) fn make(&self, began: Instant, options: &CallOptions) -> Result<Instance<C>, WasmCallError> {
        let mut instance = self.make_blank(began, options)?;
        if let Some(state) = &*self.idle.state.load() {
            instance.restore(state)?;
        }
        Ok(instance)
    }

    /// Makes an instance with its initial state.
    pub(super) fn make_blank(&self, began: Instant, options: &CallOptions) -> Result<Instance<C>, WasmCallError> {
        let permit = self.engine.instance_permit(self.max_wait).inspect_err(|_| note_nested())?;
        let account = Account::new(&self.engine, &self.idle.memory);
        let bounds = Bounds::new(&self.limits, self.stop.clone(), account);
        let _nested = Nested::enter(self.engine.call_stack())?;
        let mut host = StoreData::new(&self.engine, Arc::clone(&self.host), self.scope.clone(), bounds);
        host.instance_state = self.instance_state.as_ref().map(|make| make(self.host.plugin()));
        let code = self.code.load_full();
        let mut store = Store::new(code.engine(), host);
        enforce(&mut store);
        store.data_mut().begin(began, &self.limits, options)?;
        store.data_mut().memory_name.clone_from(&code.exports.memory);
        // What `start` calls in the host is called by the plugin.
        let watch = Watch::begin();
        let wasm = self.scope.enter(|| code.instantiate(&mut store)).map_err(|error| {
            match WasmCallError::from_call(&error, store.data().bounds.clues(), watch) {
                // Neither a trap nor an interruption: there was not enough for what it has from the start.
                WasmCallError::Host(failure) if !failure.is_misuse => match &store.data().bounds.clues().denied {
                    Some(Denied::Budget(OverBudget { limit, holders })) => {
                        WasmCallError::OverBudget { limit: *limit, holders: holders.clone() }
                    }
                    _ => WasmCallError::NoInstance(failure.text),
                },
                other => other,
            }
        })?;
        let memory = code.exports.memory.as_deref().and_then(|name| code.exports.get(name));
        let memory = memory.and_then(|export| wasm.get_module_export(&mut store, export));
        if let Some(memory) = memory.and_then(wasmtime::Extern::into_memory) {
            store.data_mut().memory = Some(memory);
        }
        let mut binder = Binder { store: &mut store, instance: wasm, exports: &code.exports };
        // Once, and before anything else of the plugin runs.
        if let Some(initialize) = binder.optional::<(), ()>(INITIALIZE)? {
            Call::new(binder.store).run(&initialize, ())?;
        }
        let calls = (self.bind)(&mut binder)?;
        Ok(Instance {
            calls,
            store,
            code,
            wasm,
            uses: 0,
            broken: false,
            _alive: Alive::new(&self.idle.alive),
            _permit: permit,
        })
    }

    /// Keeps an instance for the next call, if it is sound and the policy allows it.
    pub(super) fn give_back(&self, mut instance: Instance<C>) {
        instance.uses += 1;
        // A generation that is no longer current frees its memory instead of keeping idle instances, and instances of
        // baseline code are replaced by those of optimised code.
        let is_up_to_date = !self.stop.is_raised() && Arc::ptr_eq(&instance.code, &self.code.load());
        let is_wanted = self.policy == InstancePolicy::Single || is_up_to_date;
        if !instance.broken && is_wanted && instance.uses < self.policy.max_uses() {
            self.idle.put(instance);
        }
    }
}

impl<C> Instance<C> {
    fn begin(&mut self, began: Instant, limits: &CallLimits, options: &CallOptions) -> Result<(), WasmCallError> {
        self.store.data_mut().begin(began, limits, options)
    }

    /// Looks up a function that is hotslot's own.
    pub(super) fn func<P: WasmParams, R: WasmResults>(&mut self, name: &str) -> Result<Func<P, R>, WasmCallError> {
        Binder { store: &mut self.store, instance: self.wasm, exports: &self.code.exports }.func(name)
    }

    /// Runs `work` without the user's functions.
    pub(super) fn work<R>(
        &mut self,
        work: impl FnOnce(&mut Call<'_>) -> Result<R, WasmCallError>,
    ) -> Result<R, WasmCallError> {
        let mut call = Call::new(&mut self.store);
        let result = work(&mut call);
        self.broken |= call.is_broken();
        result
    }
}

/// Notes that there was nothing for a nested call: a plugin that cannot go on without its answer is not to blame.
fn note_nested() {
    if is_nested() {
        refuse(Refusal::Saturated);
    }
}

/// Idle instances.
///
/// The lock is held for a push or a pop, never while an instance is made, used or dropped.
pub(super) struct Idle<C> {
    instances: Mutex<Vec<Instance<C>>>,
    /// How many instances of the generation there are, those in a call included.
    alive: Arc<AtomicUsize>,
    /// Bytes that they have.
    memory: Arc<AtomicU64>,
    policy: InstancePolicy,
    limits: CallLimits,
    stop: StopSignal,
    calls: Arc<Permits>,
    host: Arc<PluginHost>,
    /// The name of the plugin's state, if it has one.
    schema: Option<String>,
    /// Restored into every new instance.
    state: ArcSwapOption<State>,
}

/// Counts an instance for as long as it exists.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Alive {
        count.fetch_add(1, Ordering::Relaxed);
        Alive(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C: Send + 'static> Idle<C> {
    /// Makes an empty list, which the engine can clear when other generations need instances.
    pub(super) fn of_engine(
        engine: &Engine,
        policy: InstancePolicy,
        limits: &CallLimits,
        stop: &StopSignal,
        calls: &Arc<Permits>,
        host: &Arc<PluginHost>,
        schema: Option<&str>,
    ) -> Arc<Idle<C>> {
        let idle = Arc::new(Idle {
            instances: Mutex::default(),
            alive: Arc::default(),
            memory: Arc::default(),
            policy,
            limits: limits.clone(),
            stop: stop.clone(),
            calls: Arc::clone(calls),
            host: Arc::clone(host),
            schema: schema.map(str::to_owned),
            state: ArcSwapOption::empty(),
        });
        let weak: Weak<Idle<C>> = Arc::downgrade(&idle);
        engine.register_idle(weak);
        idle
    }

    /// Takes the one that was used last, whose memory is likely cached.
    fn take(&self) -> Option<Instance<C>> {
        self.instances.lock().pop()
    }

    /// Replaces the state that new instances start from.
    pub(super) fn set_state(&self, state: State) {
        self.state.store(Some(Arc::new(state)));
        self.clear();
    }

    pub(super) fn put(&self, instance: Instance<C>) {
        self.instances.lock().push(instance);
    }

    pub(super) fn clear(&self) {
        let idle = std::mem::take(&mut *self.instances.lock());
        drop(idle);
    }

    /// Saves the state of an instance that is given up, for the one that takes its place.
    fn keep_state(&self, instance: &mut Instance<C>) -> Result<(), WasmCallError> {
        let Some(schema) = self.schema.clone() else { return Ok(()) };
        // The generation has been told to stop, and may be overdue: that is no reason to lose its state.
        let data = instance.store.data_mut();
        data.bounds.outlive_stop();
        data.bounds.begin(Instant::now(), &self.limits, &CallOptions::new())?;
        let bytes = instance.save()?;
        self.state.store(Some(Arc::new(State { schema, bytes })));
        Ok(())
    }
}

impl<C: Send> Reclaim for Idle<C>
where
    C: 'static,
{
    fn reclaim(&self) {
        // Dropping a single instance would lose its state.
        if self.policy != InstancePolicy::Single {
            self.clear();
        }
    }

    fn reclaim_retired(&self) {
        if !self.stop.is_raised() {
            return;
        }
        if self.policy != InstancePolicy::Single {
            return self.clear();
        }
        // As a call that takes its turn: nobody makes another instance meanwhile.
        let Some(_turn) = self.calls.take(Duration::ZERO) else { return };
        let Some(mut instance) = self.take() else { return };
        let plugin = self.host.plugin();
        match self.keep_state(&mut instance) {
            Ok(()) => {
                tracing::debug!(slot = %plugin.slot, generation = plugin.generation, "a warm instance gave its place up");
            }
            Err(error) => {
                let (slot, generation) = (&plugin.slot, plugin.generation);
                tracing::warn!(%slot, generation, "a warm instance keeps its place, its state cannot be saved: {error}");
                if !instance.broken {
                    self.put(instance);
                }
            }
        }
    }

    fn holder(&self) -> Holder {
        let plugin = self.host.plugin();
        Holder {
            slot: Arc::clone(&plugin.slot),
            generation: plugin.generation,
            is_retired: self.stop.is_raised(),
            instances: self.alive.load(Ordering::Relaxed),
            memory: self.memory.load(Ordering::Relaxed),
        }
    }
}
