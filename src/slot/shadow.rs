//! A staged generation that gets copies of calls, so that its answers can be compared with those of the current one.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hotslot_plugin::{Argument, CallError, CallWatcher, Interest, Interface, NotWatched};

use super::HotSlot;
use super::deadline::after;
use super::lease::Lease;
use super::probation::CallStats;
use super::share;
use super::staged::Staged;
use crate::host::{Contract, RecordedAnswer, RecordedCall};
use crate::lock::{Monitor, Mutex};
use crate::process_id::ProcessId;
use crate::text::panic_text;
use crate::{Error, ErrorKind, PluginScope, Report, detached};

/// A staged plugin that is called beside the serving one, for a share of the calls, and whose answers nobody gets.
///
/// The callers hand in what they called the serving plugin with, and what it answered; a thread of the shadow's own calls the
/// staged one with the same, and compares. Callers wait for nothing: what does not fit into the queue is dropped, and counted.
/// A call that fails, or takes long, or never ends, concerns only this shadow.
///
/// What the calls leave in the staged plugin's state is there when it is promoted, unless the
/// [hand-over](crate::Builder::hand_over) replaces it. If that matters, drop the shadow, and reload the same bytes.
///
/// Dropped instead of promoted, it is recorded as [`Discarded`](crate::Outcome::Discarded).
///
/// ```
/// # use hotslot::{Admission, Artifact, Backend, BoxError, HotSlot, LoadContext, Loaded, Manifest, Payload};
/// # struct Text;
/// # impl Backend<String> for Text {
/// #     fn admit(&self, _: &Payload) -> Result<Admission, BoxError> { Ok(Manifest::new("text").into()) }
/// #     fn load(&self, artifact: &Artifact, _: &LoadContext) -> Result<Loaded<String>, BoxError> {
/// #         Ok(Loaded::new(String::from_utf8(artifact.bytes().to_vec())?))
/// #     }
/// # }
/// use std::time::Duration;
///
/// let slot = HotSlot::builder(Text).open(b"banana")?;
/// let staged = slot.stage(b"bandana")?;
/// let shadow = slot.shadow(staged, 1.0).start(
///     |text: &String, letter: &char| text.find(*letter),
///     |letter, serving, staged| (serving != staged).then(|| format!("the first {letter} is elsewhere")),
/// )?;
///
/// for letter in ['b', 'n', 'd'] {
///     let answer = slot.load().find(letter);
///     shadow.offer(letter, answer);
/// }
/// assert!(shadow.settle(Duration::from_secs(10)));
/// let report = shadow.report();
/// assert_eq!((report.compared, report.differed), (3, 1));
/// assert_eq!(report.differences[0].what, "the first d is elsewhere");
/// assert_eq!(*slot.load(), "banana");
/// # Ok::<(), hotslot::Error>(())
/// ```
#[must_use = "a shadow that is dropped ends"]
pub struct Shadow<T: ?Sized + Send + Sync + 'static, I, A> {
    staged: Staged<T>,
    shared: EndOnDrop<I, A>,
}

/// Starts a [`Shadow`]: see [`HotSlot::shadow`].
#[must_use = "nothing is called until the shadow is started"]
pub struct ShadowBuilder<'a, T: ?Sized + Send + Sync + 'static> {
    slot: &'a HotSlot<T>,
    staged: Staged<T>,
    share: f64,
    queue: usize,
    samples: usize,
}

/// What came of a [`Shadow`] so far.
#[derive(Debug)]
#[non_exhaustive]
pub struct ShadowReport<I> {
    /// Calls that were offered.
    pub offered: u64,
    /// Those that were not among the share.
    pub skipped: u64,
    /// Those that were dropped, because the queue was full.
    pub dropped: u64,
    /// Those whose answers were compared, or that failed on the staged plugin.
    pub compared: u64,
    /// Those among them whose answers differ, or that failed.
    pub differed: u64,
    /// The kinds of difference, the first one seen first.
    pub differences: Vec<Difference<I>>,
    /// Those that differed and are of none of these kinds, because there are more than are kept.
    pub others: u64,
}

/// A kind of difference between two plugins' answers.
#[derive(Debug)]
#[non_exhaustive]
pub struct Difference<I> {
    /// What the comparison said, or how the call failed.
    pub what: String,
    /// How often.
    pub count: u64,
    /// The first input that showed it.
    pub sample: Arc<I>,
}

impl<I> Clone for Difference<I> {
    fn clone(&self) -> Difference<I> {
        Difference { what: self.what.clone(), count: self.count, sample: Arc::clone(&self.sample) }
    }
}

/// What callers and the shadow's thread share.
struct Shared<I, A> {
    /// From 0 to 1.
    share: f64,
    room: usize,
    samples: usize,
    /// How many calls were offered: which are among the share follows from it.
    offered: AtomicU64,
    skipped: AtomicU64,
    dropped: AtomicU64,
    work: Monitor<Work<I, A>>,
    found: Mutex<Found<I>>,
    stats: CallStats,
    /// Written under the lock of `work`; calls that are watched only look.
    is_over: AtomicBool,
}

/// Calls that wait.
struct Work<I, A> {
    waiting: VecDeque<(I, A)>,
    is_busy: bool,
}

struct Found<I> {
    compared: u64,
    differed: u64,
    others: u64,
    differences: Vec<Difference<I>>,
}

struct EndOnDrop<I, A>(Arc<Shared<I, A>>);

impl<I, A> Drop for EndOnDrop<I, A> {
    fn drop(&mut self) {
        let waiting = {
            let mut work = self.0.work.lock();
            self.0.is_over.store(true, Relaxed);
            std::mem::take(&mut work.waiting)
        };
        self.0.work.notify_all();
        drop(waiting);
        // Whoever watches calls for it is let go of by the next call; what was copied of them goes now.
        self.0.found.lock().differences.clear();
    }
}

impl<T: ?Sized + Send + Sync + 'static> HotSlot<T> {
    /// Begins a [`Shadow`]: calls a staged plugin beside the serving one, for a share of the calls that are offered, from 0 to
    /// 1.
    pub fn shadow(&self, staged: Staged<T>, share: f64) -> ShadowBuilder<'_, T> {
        ShadowBuilder { slot: self, staged, share, queue: 256, samples: 32 }
    }
}

impl<T: ?Sized + Send + Sync + 'static> ShadowBuilder<'_, T> {
    /// Lets so many calls wait for the shadow. 256 if not set.
    pub fn queue(mut self, calls: usize) -> Self {
        self.queue = calls;
        self
    }

    /// Keeps so many kinds of difference, each with a sample. 32 if not set.
    pub fn samples(mut self, kinds: usize) -> Self {
        self.samples = kinds;
        self
    }

    /// Starts it. `call` calls the plugin with an input, `compare` gets an input with the answers of the serving plugin and of
    /// the staged one, and says how they differ, if they do: equal texts are counted as one kind.
    ///
    /// Both run on the shadow's thread. A panic in one of them is a difference, too.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) if the share is no share, the queue has no room, or the plugin was staged in another slot;
    /// [`AlreadyServing`](ErrorKind::AlreadyServing) if there is nothing to compare; [`NoThread`](ErrorKind::NoThread). In all
    /// of them the staged plugin is dropped.
    pub fn start<I: Send + Sync + 'static, A: Send + 'static>(
        self,
        call: impl Fn(&T, &I) -> A + Send + 'static,
        compare: impl Fn(&I, &A, &A) -> Option<String> + Send + 'static,
    ) -> Result<Shadow<T, I, A>, Error> {
        match self.check() {
            Ok(lease) => {
                let ShadowBuilder { slot, staged, share, queue, samples } = self;
                let work = Work { waiting: VecDeque::new(), is_busy: false };
                let found = Found { compared: 0, differed: 0, others: 0, differences: Vec::new() };
                let shared = Arc::new(Shared {
                    share,
                    room: queue,
                    samples,
                    offered: AtomicU64::new(0),
                    skipped: AtomicU64::new(0),
                    dropped: AtomicU64::new(0),
                    work: Monitor::new(work),
                    found: Mutex::new(found),
                    stats: CallStats::new(),
                    is_over: AtomicBool::new(false),
                });
                let (theirs, scope) = (Arc::clone(&shared), slot.core.scope.clone());
                let body = move || theirs.serve(&lease, &scope, call, compare);
                match detached::spawn("hotslot-shadow", body) {
                    Ok(()) => Ok(Shadow { staged, shared: EndOnDrop(shared) }),
                    Err(error) => Err(staged.into_pending().refuse(ErrorKind::NoThread(error))),
                }
            }
            Err(kind) => Err(self.staged.into_pending().refuse(kind)),
        }
    }

    fn check(&self) -> Result<Lease<T>, ErrorKind> {
        let misuse = |what: &str| Err(ErrorKind::Misuse(what.to_owned()));
        share::check(self.share)?;
        if self.queue == 0 {
            return misuse("a queue without room drops every call: give it some");
        }
        if !self.staged.pending().is_of(&self.slot.core) {
            return misuse("it was staged in another slot than the one that it is to shadow");
        }
        self.staged.pending().lease()
    }
}

impl<T: ?Sized + Interface> ShadowBuilder<'_, T> {
    /// Starts it for a [declared interface](crate::interface): nobody has to offer anything, because each call of a method that
    /// is marked `#[repeatable]` on the plugin that serves at this moment is copied as it goes over. `compare` is as in
    /// [`start`](ShadowBuilder::start); [`RecordedAnswer::difference`] is one that wants equal answers.
    ///
    /// Calls on plugins that become current later are not copied, nor are those that the slot's own plugins make through the host. A
    /// call that is copied allocates, and takes two locks for an instant.
    ///
    /// # Errors
    /// As [`start`](ShadowBuilder::start); [`Misuse`](ErrorKind::Misuse) also if the serving plugin is no proxy of a declared
    /// interface, or if another shadow gets its calls.
    pub fn start_on_calls(
        self,
        compare: impl Fn(&RecordedCall, &RecordedAnswer, &RecordedAnswer) -> Option<String> + Send + 'static,
    ) -> Result<Shadow<T, RecordedCall, RecordedAnswer>, Error> {
        let slot = self.slot;
        let shadow = self.start(|plugin: &T, call: &RecordedCall| call.repeat(plugin.link()), compare)?;
        let methods = Contract::of::<T>().methods.into_iter().map(|method| Arc::from(method.name)).collect();
        let watcher = Watcher {
            methods,
            shared: Arc::clone(&shadow.shared.0),
            scope: slot.core.scope.clone(),
            process: ProcessId::current(),
        };
        let watch = slot.load().link().map_or(Err(NotWatched::Unsupported), |link| link.watch(Arc::new(watcher)));
        let misuse = match watch {
            Ok(()) => return Ok(shadow),
            Err(NotWatched::Unsupported) => {
                "the serving plugin is no proxy of an interface, so its calls cannot be copied: offer them"
            }
            Err(NotWatched::Taken) => {
                "the calls of the serving plugin are copied for another shadow: end that one first"
            }
        };
        Err(shadow.into_staged().into_pending().refuse(ErrorKind::Misuse(misuse.to_owned())))
    }
}

/// Copies calls of a declared interface.
struct Watcher {
    /// The names of its methods.
    methods: Vec<Arc<str>>,
    shared: Arc<Shared<RecordedCall, RecordedAnswer>>,
    /// A call from inside of the slot may be the shadow's own doing.
    scope: PluginScope,
    process: ProcessId,
}

impl CallWatcher for Watcher {
    fn interest(&self) -> Interest {
        if self.shared.is_over.load(Relaxed) || !self.process.is_current() {
            return Interest::Over;
        }
        if !self.scope.is_entered() && self.shared.take_turn() { Interest::Wanted } else { Interest::Skipped }
    }

    fn saw(&self, method: u32, arguments: &[Argument<'_>], answer: Result<(&[u64], &[u8]), &CallError>, words: usize) {
        let Some(name) = self.methods.get(method as usize) else { return };
        let call = RecordedCall::new(method, Arc::clone(name), arguments, words);
        self.shared.enqueue(call, RecordedAnswer::new(answer));
    }
}

impl<T: ?Sized + Send + Sync + 'static, I: Send + Sync + 'static, A: Send + 'static> Shadow<T, I, A> {
    /// Hands in a call: what the serving plugin was called with, and what it answered. It waits for no call and no comparison.
    /// Returns whether it will be compared.
    pub fn offer(&self, input: I, answer: A) -> bool {
        self.offer_with(|| (input, answer))
    }

    /// Hands in a call, whose parts are made only if it is among the share: for those that have to be copied.
    pub fn offer_with(&self, call: impl FnOnce() -> (I, A)) -> bool {
        let shared = &self.shared.0;
        if !shared.take_turn() {
            return false;
        }
        let (input, answer) = call();
        shared.enqueue(input, answer)
    }

    /// Returns what came of it so far.
    pub fn report(&self) -> ShadowReport<I> {
        let shared = &self.shared.0;
        let found = shared.found.lock();
        ShadowReport {
            offered: shared.offered.load(Relaxed),
            skipped: shared.skipped.load(Relaxed),
            dropped: shared.dropped.load(Relaxed),
            compared: found.compared,
            differed: found.differed,
            differences: found.differences.clone(),
            others: found.others,
        }
    }

    /// Returns the time that the staged plugin's calls took, and how many failed.
    pub fn calls(&self) -> &CallStats {
        &self.shared.0.stats
    }

    /// Waits until nothing that was handed in is left to compare, but not longer than `timeout`. Returns whether that is so.
    pub fn settle(&self, timeout: Duration) -> bool {
        let work = &self.shared.0.work;
        let is_left = |work: &mut Work<I, A>| work.is_busy || !work.waiting.is_empty();
        let mut now = work.wait_while_until(work.lock(), after(timeout), is_left);
        !is_left(&mut now)
    }

    /// Returns the number of its generation.
    pub fn generation_number(&self) -> u64 {
        self.staged.generation_number().expect("what serves already has no shadow")
    }

    /// Ends it, and keeps the plugin staged: to [serve a share](Staged::serve_share) next, for instance.
    pub fn into_staged(self) -> Staged<T> {
        self.staged
    }

    /// Ends it, and makes the plugin the current one: see [`Staged::commit`]. A call of the shadow's that is under way is not
    /// waited for.
    ///
    /// # Errors
    /// As [`Staged::commit`].
    pub fn promote(self) -> Result<Report, Error> {
        self.into_staged().commit()
    }
}

impl<I, A> Shared<I, A> {
    /// Counts a call, and says whether it is among the share: every second one with a half.
    fn take_turn(&self) -> bool {
        let before = self.offered.fetch_add(1, Relaxed) as f64;
        let is_chosen = ((before + 1.0) * self.share).floor() > (before * self.share).floor();
        if !is_chosen {
            self.skipped.fetch_add(1, Relaxed);
        }
        is_chosen
    }

    fn enqueue(&self, input: I, answer: A) -> bool {
        let mut work = self.work.lock();
        if work.waiting.len() >= self.room || self.is_over.load(Relaxed) {
            drop(work);
            self.dropped.fetch_add(1, Relaxed);
            return false;
        }
        work.waiting.push_back((input, answer));
        drop(work);
        self.work.notify_all();
        true
    }

    /// Calls and compares, until it is over. No other thread does.
    fn serve<T: ?Sized + Send + Sync + 'static>(
        &self,
        lease: &Lease<T>,
        scope: &PluginScope,
        call: impl Fn(&T, &I) -> A,
        compare: impl Fn(&I, &A, &A) -> Option<String>,
    ) {
        while let Some((input, serving)) = self.next() {
            // Also what is dropped in it is the user's.
            let round = || self.compare(lease, scope, &call, &compare, (input, serving));
            let _told = catch_unwind(AssertUnwindSafe(round)).map_err(panic_text);
        }
    }

    fn compare<T: ?Sized + Send + Sync + 'static>(
        &self,
        lease: &Lease<T>,
        scope: &PluginScope,
        call: &impl Fn(&T, &I) -> A,
        compare: &impl Fn(&I, &A, &A) -> Option<String>,
        (input, serving): (I, A),
    ) {
        let began = Instant::now();
        let made = || catch_unwind(AssertUnwindSafe(|| call(lease, &input)));
        let (staged, failure) = scope.enter(|| Lease::hold_failures(lease, made));
        self.stats.count_shadowed(began.elapsed(), failure.is_some() || staged.is_err());
        let what = match staged {
            Ok(staged) => {
                let compared = || catch_unwind(AssertUnwindSafe(|| compare(&input, &serving, &staged)));
                let what = scope.enter(compared);
                what.unwrap_or_else(|panic| Some(format!("a panic: {}", panic_text(panic))))
            }
            Err(panic) => Some(format!("the call failed: {}", failure_text(panic))),
        };
        self.note(input, what);
    }

    fn next(&self) -> Option<(I, A)> {
        let mut work = self.work.lock();
        work.is_busy = false;
        self.work.notify_all();
        work = self.work.wait_while(work, |work| work.waiting.is_empty() && !self.is_over.load(Relaxed));
        if self.is_over.load(Relaxed) {
            return None;
        }
        work.is_busy = true;
        work.waiting.pop_front()
    }

    fn note(&self, input: I, what: Option<String>) {
        let mut found = self.found.lock();
        found.compared += 1;
        let Some(what) = what else { return };
        found.differed += 1;
        if let Some(known) = found.differences.iter_mut().find(|known| known.what == what) {
            known.count += 1;
        } else if found.differences.len() < self.samples {
            found.differences.push(Difference { what, count: 1, sample: Arc::new(input) });
        } else {
            found.others += 1;
        }
    }
}

/// The text of what a call unwound with: a panic, or the error of a method that has none of its own.
fn failure_text(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<CallError>() {
        Ok(error) => error.to_string(),
        Err(panic) => panic_text(panic),
    }
}

impl<T: ?Sized + Send + Sync + 'static, I, A> fmt::Debug for Shadow<T, I, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").field("staged", &self.staged).finish_non_exhaustive()
    }
}
