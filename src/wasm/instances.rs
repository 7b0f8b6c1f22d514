//! Chooses the instance for a call: a fresh one, one that has been used before, or the only one.

use std::any::Any;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use wasmtime::{Store, WasmParams, WasmResults};

use super::account::Account;
use super::binder::{Binder, Call, Func};
use super::call_frame::reason;
use super::code::{Code, Newest};
use super::engine::{Engine, Holder, OverBudget, Reclaim};
use super::error::WasmCallError;
use super::exports::{INITIALIZE, RESUME};
use super::host::{Given, StoreData, enforce};
use super::limits::{Began, Bounds, CallLimits, CallOptions, Denied};
use super::parked::Parked;
use super::permits::{Permit, Permits};
use super::snapshot::{Readable, SnapshotStatus};
use crate::host::{PluginHost, PluginInfo, record_wait};
use crate::lock::Mutex;
use crate::nesting::{Nested, Refusal, Watch, is_nested, refuse, unwatched};
use crate::{Payload, PluginScope, State, StopSignal};

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
    /// [state](super#state), it is saved before, and restored if the generation serves again; without one, it starts anew. It is
    /// saved by the call that needs the place, on its thread, under the limits of the plugin whose state it is, and the other
    /// plugin's deadline is put off by as much. A plugin that cannot say its state keeps its place, and is asked once more when it
    /// has served again; if it traps or takes too long, the state is lost, and it begins with the one that was handed over.
    Single,
}

impl InstancePolicy {
    /// Returns whether an instance may serve another call after so many.
    fn allows_more(self, uses: u32) -> bool {
        match self {
            InstancePolicy::Fresh => false,
            InstancePolicy::Reuse { max_uses } => uses < max_uses.get(),
            InstancePolicy::Single => true,
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
    /// The state that it started from: see `Idle::state_version`.
    state_version: u64,
    /// It trapped, and its memory may be in any state.
    broken: bool,
    /// Its state could not be saved since its last call.
    unsaved: bool,
    _alive: Alive,
    _permit: Permit,
}

/// An instance that nothing is bound to yet.
struct Started {
    store: Store<StoreData>,
    wasm: wasmtime::Instance,
    code: Arc<Code>,
    alive: Alive,
    permit: Permit,
}

impl Started {
    fn binder(&mut self) -> Binder<'_> {
        let Started { store, wasm, code, .. } = self;
        Binder { store, instance: *wasm, exports: &code.exports, is_resumed: code.resumed.is_some() }
    }
}

/// An instance with the permit of the call that uses it.
struct Ready<C> {
    instance: Instance<C>,
    permit: Permit,
}

/// The permit of a call, and an instance that comes with it.
pub(super) struct Turn<C> {
    pub(super) permit: Permit,
    pub(super) instance: Option<Instance<C>>,
}

/// The instances of one generation: what they share, and those that are idle.
pub(super) struct Instances<C> {
    pub(super) code: Arc<Newest>,
    pub(super) bind: Bind<C>,
    /// `bind` creates the plugin, which belongs into a snapshot, and does not only look functions up.
    pub(super) bind_creates: bool,
    pub(super) policy: InstancePolicy,
    pub(super) limits: CallLimits,
    /// When calls through a declared interface begin.
    pub(super) begin: Began,
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
    #[inline]
    pub(super) fn call<R>(
        &self,
        began: Began,
        options: &CallOptions,
        work: impl FnOnce(&C, &mut Call<'_>) -> Result<R, WasmCallError>,
    ) -> Result<R, WasmCallError> {
        self.with(began, options, |Instance { calls, store, broken, .. }| {
            let mut call = Call::new(store);
            let result = work(calls, &mut call);
            *broken |= call.is_broken();
            result
        })
    }

    /// Runs `work` with an instance. Whatever happens in it, no instance of another call is affected.
    #[inline]
    pub(super) fn with<R>(
        &self,
        began: Began,
        options: &CallOptions,
        work: impl FnOnce(&mut Instance<C>) -> Result<R, WasmCallError>,
    ) -> Result<R, WasmCallError> {
        let mut ready = match self.idle.parked.take().filter(|ready| self.is_current(&ready.instance)) {
            Some(ready) => self.begin(ready, began, options)?,
            None => self.acquire(began, options)?,
        };
        let result = work(&mut ready.instance);
        ready.instance.store.data_mut().end();
        self.give_back(ready);
        result
    }

    /// Acquires a permit for a call, and an instance that is ready for it.
    #[inline(never)]
    fn acquire(&self, began: Began, options: &CallOptions) -> Result<Box<Ready<C>>, WasmCallError> {
        let asked = Instant::now();
        let acquired = self.turn().and_then(|Turn { permit, instance }| {
            let got = Instant::now();
            match instance.or_else(|| self.idle.take()).filter(|instance| self.is_current(instance)) {
                Some(instance) => self.begin(Box::new(Ready { instance, permit }), began, options),
                None => Ok(Box::new(Ready { instance: self.make(got, options)?, permit })),
            }
        });
        record_wait(asked.elapsed());
        acquired
    }

    /// Returns whether an instance started from the state that new ones start from. One that was in a call when another state was
    /// restored did not. A single one has a state of its own.
    #[inline]
    fn is_current(&self, instance: &Instance<C>) -> bool {
        self.policy == InstancePolicy::Single || instance.state_version == self.idle.state_version()
    }

    /// Begins a call with an instance that is idle.
    #[inline]
    fn begin(
        &self,
        mut ready: Box<Ready<C>>,
        began: Began,
        options: &CallOptions,
    ) -> Result<Box<Ready<C>>, WasmCallError> {
        match ready.instance.begin(began, &self.limits, options) {
            Ok(()) => Ok(ready),
            Err(ended) => {
                // The call was over before it began, and the instance is as it was.
                self.idle.release(*ready);
                Err(ended)
            }
        }
    }

    /// Takes a permit for one more call of this generation.
    pub(super) fn turn(&self) -> Result<Turn<C>, WasmCallError> {
        if self.stop.is_overdue() {
            return Err(WasmCallError::Retired);
        }
        // A call that this thread makes inside of one of the same plugin would wait for itself.
        let single = self.policy == InstancePolicy::Single && is_nested() && self.scope.is_entered();
        let wait = if single { Duration::ZERO } else { self.max_wait };
        if let Some(permit) = self.calls.take(Duration::ZERO) {
            return Ok(Turn { permit, instance: None });
        }
        // In this order: see `give_back`.
        let _waiting = self.calls.announce();
        if let Some(ready) = self.idle.parked.take() {
            let Ready { instance, permit } = *ready;
            return Ok(Turn { permit, instance: Some(instance) });
        }
        let permit = self.calls.take(wait).ok_or_else(|| {
            note_nested();
            WasmCallError::Saturated {
                what: "calls of this generation",
                limit: self.calls.total(),
                holders: String::new(),
            }
        })?;
        Ok(Turn { permit, instance: None })
    }

    /// Makes an instance and restores the state into it. `start`, the binder and the restore are under the deadline of the
    /// call.
    pub(super) fn make(&self, began: Instant, options: &CallOptions) -> Result<Instance<C>, WasmCallError> {
        // Asked before: one that starts from an older state is not taken for one of the newer.
        let state_version = self.idle.state_version();
        let mut instance = self.make_blank(began, options)?;
        instance.state_version = state_version;
        let state = self.idle.state.lock().clone();
        if let Some(state) = state {
            instance.restore(&state)?;
        }
        Ok(instance)
    }

    /// Makes an instance with its initial state.
    pub(super) fn make_blank(&self, began: Instant, options: &CallOptions) -> Result<Instance<C>, WasmCallError> {
        let mut started = self.start(began, options)?;
        let calls = (self.bind)(&mut started.binder())?;
        let Started { store, wasm, code, alive, permit } = started;
        Ok(Instance {
            calls,
            store,
            code,
            wasm,
            uses: 0,
            state_version: 0,
            broken: false,
            unsaved: false,
            _alive: alive,
            _permit: permit,
        })
    }

    /// Sets an instance of a readable copy up, and takes a snapshot of it. The inner error is why none can be taken.
    pub(super) fn snapshot(
        &self,
        module: &Readable<'_>,
        options: &CallOptions,
    ) -> Result<Result<(Payload, Given), String>, WasmCallError> {
        let mut started = self.start(Instant::now(), options)?;
        if self.bind_creates {
            drop((self.bind)(&mut started.binder())?);
        }
        let snapshot = module.snapshot(&mut started.store, started.wasm);
        Ok(snapshot.map(|snapshot| (snapshot, started.store.data().given.clone())))
    }

    /// Makes an instance, and runs what comes before all else in it: `start` and `_initialize`, or what is to know that it
    /// continues from a snapshot.
    fn start(&self, began: Instant, options: &CallOptions) -> Result<Started, WasmCallError> {
        let asked = Instant::now();
        let permit = self.engine.instance_permit(self.max_wait).inspect_err(|_| note_nested())?;
        // That others have the engine's instances is not the plugin's fault.
        let began = began + asked.elapsed();
        let account = Account::new(&self.engine, &self.idle.memory);
        let bounds = Bounds::new(&self.limits, self.stop.clone(), Arc::clone(self.engine.ticks()), account);
        let _nested = Nested::enter(self.engine.call_stack())?;
        let mut host = StoreData::new(&self.engine, Arc::clone(&self.host), self.scope.clone(), bounds);
        host.instance_state = self.instance_state.as_ref().map(|make| make(self.host.plugin()));
        let code = self.code.load();
        let mut store = Store::new(code.engine(), host);
        enforce(&mut store);
        store.data_mut().begin(Began::At(began), &self.limits, options)?;
        store.data_mut().memory_name.clone_from(&code.exports.memory);
        if let Some(given) = &code.resumed {
            store.data_mut().given = given.clone();
        }
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
        let mut started = Started { store, wasm, code, alive: Alive::new(&self.idle.alive), permit };
        let mut binder = started.binder();
        // Once, and before anything else of the plugin runs.
        if binder.is_resumed {
            if let Some(resume) = binder.optional::<(), u64>(RESUME.0)? {
                let mut call = Call::new(binder.store);
                let answer = call.run(&resume, ())?;
                reason(&call, answer)
                    .map_err(|why| WasmCallError::NotCreated(format!("the plugin cannot be resumed: {why}")))?;
            }
        } else if let Some(initialize) = binder.optional::<(), ()>(INITIALIZE)? {
            Call::new(binder.store).run(&initialize, ())?;
        }
        Ok(started)
    }

    /// Keeps an instance for the next call, with the permit of the one that it comes from.
    #[inline]
    fn give_back(&self, mut ready: Box<Ready<C>>) {
        if !self.is_kept(&mut ready.instance) {
            return;
        }
        match self.idle.parked.put(ready) {
            // Somebody may have looked there, and waits for a permit. All four steps are sequentially consistent: either we
            // see that it waits, or it has seen what we left.
            Ok(()) => {
                if self.calls.is_waited_for()
                    && let Some(ready) = self.idle.parked.take()
                {
                    self.idle.release(*ready);
                }
            }
            Err(ready) => self.idle.release(*ready),
        }
        // Somebody may wait for an instance of whatever generation, and has looked before this one was idle.
        if self.policy != InstancePolicy::Single && self.engine.is_waited_for() {
            self.idle.clear();
        }
    }

    /// Keeps an instance into which a state was restored that is now that of every new one.
    pub(super) fn keep_restored(&self, mut instance: Instance<C>) {
        instance.state_version = self.idle.state_version();
        self.keep(instance);
    }

    /// Keeps an instance that no call has used.
    pub(super) fn keep(&self, mut instance: Instance<C>) {
        if self.is_kept(&mut instance) {
            self.idle.put(instance);
        }
    }

    /// Returns whether an instance that was used once more is sound, and the policy allows to keep it.
    #[inline]
    fn is_kept(&self, instance: &mut Instance<C>) -> bool {
        instance.uses = instance.uses.saturating_add(1);
        // A generation that is no longer current frees its memory instead of keeping idle instances, and instances of
        // baseline code are replaced by those of optimised code, which nothing replaces.
        let is_newest = || instance.code.is_optimised || Arc::ptr_eq(&instance.code, &self.code.load());
        let is_wanted = self.policy == InstancePolicy::Single || !self.stop.is_raised() && is_newest();
        !instance.broken && is_wanted && self.policy.allows_more(instance.uses)
    }
}

impl<C> Instance<C> {
    #[inline]
    fn begin(&mut self, began: Began, limits: &CallLimits, options: &CallOptions) -> Result<(), WasmCallError> {
        self.unsaved = false;
        self.store.data_mut().begin(began, limits, options)
    }

    /// Looks up a function that is hotslot's own.
    pub(super) fn func<P: WasmParams, R: WasmResults>(&mut self, name: &str) -> Result<Func<P, R>, WasmCallError> {
        let Instance { store, wasm, code, .. } = self;
        let is_resumed = code.resumed.is_some();
        Binder { store, instance: *wasm, exports: &code.exports, is_resumed }.func(name)
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
    /// The one that was used last, with its permit: one call after the other finds its instance here, without a lock.
    parked: Parked<Ready<C>>,
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
    state: Mutex<Option<Arc<State>>>,
    /// How often another state was restored.
    state_version: AtomicU64,
    /// What became of the snapshot that instances start from, if one was asked for.
    snapshot: OnceLock<SnapshotStatus>,
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
            parked: Parked::new(),
            instances: Mutex::default(),
            alive: Arc::default(),
            memory: Arc::default(),
            policy,
            limits: limits.clone(),
            stop: stop.clone(),
            calls: Arc::clone(calls),
            host: Arc::clone(host),
            schema: schema.map(str::to_owned),
            state: Mutex::default(),
            state_version: AtomicU64::new(0),
            snapshot: OnceLock::new(),
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
        *self.state.lock() = Some(Arc::new(state));
        // Behind it: whoever sees the new number starts from the new state.
        self.state_version.fetch_add(1, Ordering::Release);
        self.clear();
    }

    /// Returns which state new instances start from.
    #[inline]
    fn state_version(&self) -> u64 {
        self.state_version.load(Ordering::Acquire)
    }

    /// Records what became of the generation's snapshot.
    pub(super) fn set_snapshot(&self, status: SnapshotStatus) {
        self.snapshot.set(status).expect("a generation is loaded once");
    }

    pub(super) fn put(&self, instance: Instance<C>) {
        self.instances.lock().push(instance);
    }

    /// Puts one that was parked, or in a call, where others look for it, and then its permit.
    fn release(&self, Ready { instance, permit }: Ready<C>) {
        self.put(instance);
        drop(permit);
    }

    pub(super) fn clear(&self) {
        drop(self.parked.take());
        let idle = std::mem::take(&mut *self.instances.lock());
        drop(idle);
    }

    /// Saves the state of an instance that is given up, for the one that takes its place.
    fn keep_state(&self, instance: &mut Instance<C>) -> Result<(), WasmCallError> {
        let Some(schema) = self.schema.clone() else { return Ok(()) };
        // The generation has been told to stop, and may be overdue: that is no reason to lose its state.
        let bounds = &mut instance.store.data_mut().bounds;
        let stop = bounds.replace_stop(StopSignal::new());
        let begun = bounds.begin(Began::Now, &self.limits, &CallOptions::new());
        let saved = begun.and_then(|()| unwatched(|| instance.save()));
        // It may be kept, and serve again.
        instance.store.data_mut().bounds.replace_stop(stop);
        let bytes = saved?;
        *self.state.lock() = Some(Arc::new(State { schema, bytes }));
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

    fn reclaim_retired(&self) -> Duration {
        if !self.stop.is_raised() {
            return Duration::ZERO;
        }
        if self.policy != InstancePolicy::Single {
            self.clear();
            return Duration::ZERO;
        }
        // As a call that takes its turn: nobody makes another instance meanwhile.
        let found = match self.parked.take() {
            Some(ready) => {
                let Ready { instance, permit } = *ready;
                Some((instance, permit))
            }
            None => self.calls.take(Duration::ZERO).and_then(|turn| Some((self.take()?, turn))),
        };
        let Some((mut instance, _turn)) = found else { return Duration::ZERO };
        if instance.unsaved {
            self.put(instance);
            return Duration::ZERO;
        }
        let plugin = self.host.plugin();
        let (slot, generation, began) = (&plugin.slot, plugin.generation, Instant::now());
        let kept = self.keep_state(&mut instance);
        let took = began.elapsed();
        match kept {
            Ok(()) => tracing::debug!(%slot, generation, "a warm instance gave its place up"),
            Err(error) if instance.broken => {
                tracing::warn!(%slot, generation, "a warm instance has failed as its state was saved, which is lost: {error}");
            }
            Err(error) => {
                tracing::warn!(%slot, generation, "a warm instance keeps its place, its state cannot be saved: {error}");
                // That the caller was too deep says nothing of the next one.
                instance.unsaved = !matches!(error, WasmCallError::NestedTooDeep(_));
                self.put(instance);
            }
        }
        took
    }

    fn snapshot(&self) -> Option<SnapshotStatus> {
        self.snapshot.get().cloned()
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
