//! Whether a new generation does well enough to stay: what is counted of its calls, and who judges it.
//!
//! It is judged when a call has been counted, on the thread that counts it, so that the verdict depends on what was known
//! in the window and not on when somebody looked. A generation that is condemned stays so until it is current anew; the
//! reaper takes it from there.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::share::Share;
use crate::ArtifactId;
use crate::lock::Mutex;
use crate::text::panic_text;

/// Judges a generation while it is new.
///
/// [`Probation`] is the built-in policy. One of your own looks at the [calls](CallStats) and says what speaks against the
/// generation; then the slot rolls back, as [`Cause::Automatic`](crate::Cause::Automatic) with that reason.
///
/// ```
/// use hotslot::{CallStats, ProbationPolicy};
/// use std::time::Duration;
///
/// /// No failure at all in the first hundred calls.
/// struct Spotless;
///
/// impl ProbationPolicy for Spotless {
///     fn window(&self) -> Duration {
///         Duration::from_secs(60)
///     }
///
///     fn objection(&self, calls: &CallStats) -> Option<String> {
///         (calls.failures() > 0 && calls.calls() <= 100).then(|| "it failed among its first hundred calls".to_owned())
///     }
/// }
/// ```
pub trait ProbationPolicy: Send + Sync + 'static {
    /// Returns for how long a generation is on probation, from the moment at which it becomes current.
    fn window(&self) -> Duration;

    /// Returns what speaks against a generation, if something does.
    ///
    /// Called in the window after each failed call and after each [measured](crate::Lease::measure) one, on the thread of
    /// the caller, so it should be quick. A panic counts as no objection and raises an alarm.
    fn objection(&self, calls: &CallStats) -> Option<String>;

    /// Returns how many calls may be put to the predecessor at once: see
    /// [`Lease::measure_repeatable`](crate::Lease::measure_repeatable). None by default.
    fn second_opinions(&self) -> usize {
        0
    }
}

/// The built-in [policy](ProbationPolicy): limits for the number of failures, for their share, and for the latency.
///
/// ```
/// use hotslot::Probation;
/// use std::time::Duration;
///
/// let probation = Probation::new(Duration::from_secs(60))
///     .max_failed_share(0.05, 20)                             // of at least 20 measured calls
///     .max_latency(0.99, Duration::from_millis(50), 100)      // of at least 100
///     .second_opinions(4);                                    // four calls at once may be repeated on the predecessor
/// # let _ = probation;
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Probation {
    window: Duration,
    max_failures: Option<u64>,
    failed_share: Option<(f64, u64)>,
    latency: Option<(f64, Duration, u64)>,
    second_opinions: usize,
}

impl Probation {
    /// Begins a policy that watches for so long and objects to nothing yet.
    pub fn new(window: Duration) -> Probation {
        Probation { window, max_failures: None, failed_share: None, latency: None, second_opinions: 0 }
    }

    /// Objects to more than so many failures, whoever reported them.
    pub fn max_failures(mut self, failures: u64) -> Probation {
        self.max_failures = Some(failures);
        self
    }

    /// Objects if more than this share of the calls failed, from 0 to 1, once there were `min_calls`.
    ///
    /// Only [measured](crate::Lease::measure) calls are known in number, so only they are judged by it.
    pub fn max_failed_share(mut self, share: f64, min_calls: u64) -> Probation {
        self.failed_share = Some((share, min_calls));
        self
    }

    /// Objects if this quantile of the measured calls' time, from 0 to 1, is above `limit`, once there were `min_calls`.
    ///
    /// Times are counted in eight classes an octave, so a call may be taken for up to an eighth slower than it was.
    pub fn max_latency(mut self, quantile: f64, limit: Duration, min_calls: u64) -> Probation {
        self.latency = Some((quantile, limit, min_calls));
        self
    }

    /// Lets this many repeatable calls at once be put to the warm predecessor when they fail: see
    /// [`Lease::measure_repeatable`](crate::Lease::measure_repeatable). None if not set.
    pub fn second_opinions(mut self, at_once: usize) -> Probation {
        self.second_opinions = at_once;
        self
    }
}

/// Ten seconds in which there may be five failures.
impl Default for Probation {
    fn default() -> Probation {
        Probation::new(Duration::from_secs(10)).max_failures(5)
    }
}

impl ProbationPolicy for Probation {
    fn window(&self) -> Duration {
        self.window
    }

    fn objection(&self, calls: &CallStats) -> Option<String> {
        let (count, failures) = (calls.calls(), calls.failures());
        let last = || calls.last_failure().unwrap_or_default();
        if self.max_failures.is_some_and(|limit| failures > limit) {
            return Some(format!("{failures} failed calls within {:?}, the last one: {}", calls.age(), last()));
        }
        if let Some((limit, min_calls)) = self.failed_share
            && count >= min_calls.max(1)
        {
            let (failed, share) = (calls.failed_calls(), calls.failed_calls() as f64 / count as f64);
            if share > limit {
                let (percent, limit) = (share * 100.0, limit * 100.0);
                let last = last();
                return Some(format!(
                    "{failed} of {count} calls failed: {percent:.1} % with a limit of {limit:.1} %, the last one: {last}"
                ));
            }
        }
        if let Some((quantile, limit, min_calls)) = self.latency
            && count >= min_calls.max(1)
        {
            let (slow, allowed) = (calls.share_slower_than(limit), 1.0 - quantile);
            if slow > allowed {
                let (slow, allowed) = (slow * 100.0, allowed * 100.0);
                return Some(format!(
                    "{slow:.1} % of {count} calls took longer than {limit:?}, with a limit of {allowed:.1} %"
                ));
            }
        }
        None
    }

    fn second_opinions(&self) -> usize {
        self.second_opinions
    }
}

/// What was counted of a generation's calls since it became current, or since it is [tried](crate::guide::trials).
pub struct CallStats {
    calls: AtomicU64,
    failed_calls: AtomicU64,
    failures: AtomicU64,
    excused: AtomicU64,
    unjudged: AtomicU64,
    latencies: Latencies,
    last_failure: Mutex<Option<String>>,
    since: Mutex<Instant>,
}

impl CallStats {
    pub(super) fn new() -> CallStats {
        CallStats {
            calls: AtomicU64::new(0),
            failed_calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            excused: AtomicU64::new(0),
            unjudged: AtomicU64::new(0),
            latencies: Latencies::new(),
            last_failure: Mutex::default(),
            since: Mutex::new(Instant::now()),
        }
    }

    /// Returns how many calls were [measured](crate::Lease::measure) and judged.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Returns how many of the measured calls failed.
    pub fn failed_calls(&self) -> u64 {
        self.failed_calls.load(Relaxed)
    }

    /// Returns how many failures there were, of measured calls and of others.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Returns how many measured calls failed on the predecessor, too, and count against neither.
    pub fn excused(&self) -> u64 {
        self.excused.load(Relaxed)
    }

    /// Returns how many repeatable calls failed while as many second opinions as are allowed were under way; they count
    /// neither as calls nor as failures.
    pub fn unjudged(&self) -> u64 {
        self.unjudged.load(Relaxed)
    }

    /// Returns the share of the measured calls that took longer than `limit`, from 0 to 1; 0 if there were none.
    pub fn share_slower_than(&self, limit: Duration) -> f64 {
        let calls = self.calls();
        if calls == 0 { 0.0 } else { self.latencies.above(limit) as f64 / calls as f64 }
    }

    /// Returns the time that this share of the measured calls, from 0 to 1, did not exceed; `None` without a call. It is
    /// at most an eighth too long.
    pub fn latency_quantile(&self, share: f64) -> Option<Duration> {
        self.latencies.quantile(share)
    }

    /// Returns what went wrong the last time.
    pub fn last_failure(&self) -> Option<String> {
        self.last_failure.lock().clone()
    }

    /// Returns for how long the generation has been current, or tried.
    pub fn age(&self) -> Duration {
        self.since.lock().elapsed()
    }

    /// Counts a call of a shadow's, which nobody judges.
    pub(super) fn count_shadowed(&self, took: Duration, has_failed: bool) {
        self.calls.fetch_add(1, Relaxed);
        self.latencies.count(took);
        if has_failed {
            self.failed_calls.fetch_add(1, Relaxed);
            self.failures.fetch_add(1, Relaxed);
        }
    }

    fn reset(&self) {
        for count in [&self.calls, &self.failed_calls, &self.failures, &self.excused, &self.unjudged] {
            count.store(0, Relaxed);
        }
        self.latencies.reset();
        *self.last_failure.lock() = None;
    }
}

impl fmt::Debug for CallStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallStats")
            .field("calls", &self.calls())
            .field("failed_calls", &self.failed_calls())
            .field("failures", &self.failures())
            .field("excused", &self.excused())
            .field("unjudged", &self.unjudged())
            .field("p50", &self.latency_quantile(0.5))
            .field("p99", &self.latency_quantile(0.99))
            .field("age", &self.age())
            .finish_non_exhaustive()
    }
}

/// A generation before its judge.
pub(super) struct Trial {
    policy: Arc<dyn ProbationPolicy>,
    window: Duration,
    pub(super) stats: CallStats,
    /// The callers that it is served to while it is staged.
    pub(super) share: Share,
    /// It is staged and served to a share: the window does not end before it is current.
    is_staged: AtomicBool,
    /// Whether there is something to go back to: otherwise nobody is judged.
    has_predecessor: AtomicBool,
    /// The window is over: no later call needs to look at the clock. Written under the lock of `stats.since`, so that a
    /// look at the time before does not end the next probation.
    over: AtomicBool,
    condemned: AtomicBool,
    objection: Mutex<Option<String>>,
    /// How often it began. Changes under the lock of `objection`.
    begun: AtomicU64,
    /// The rollback was tried and did not succeed: there will be no other, and one alarm is enough.
    given_up: AtomicBool,
    /// How many second opinions are under way.
    consulting: AtomicUsize,
}

/// A call as it is counted.
pub(super) enum Counted {
    Succeeded,
    Failed(String),
    /// It failed on the predecessor, too.
    Excused,
    /// It failed, and nobody was free to say whether it would have on the predecessor.
    Unjudged,
}

impl Trial {
    pub(super) fn new(policy: Arc<dyn ProbationPolicy>, id: ArtifactId) -> Trial {
        Trial {
            window: policy.window(),
            policy,
            stats: CallStats::new(),
            share: Share::new(id),
            is_staged: AtomicBool::new(false),
            has_predecessor: AtomicBool::new(false),
            over: AtomicBool::new(false),
            condemned: AtomicBool::new(false),
            objection: Mutex::default(),
            begun: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
            consulting: AtomicUsize::new(0),
        }
    }

    /// Begins while the generation is staged: it is going to be served to a share of the callers.
    pub(super) fn begin_staged(&self) {
        self.begin(true);
        self.is_staged.store(true, Relaxed);
    }

    /// Begins anew: the generation becomes current.
    pub(super) fn begin(&self, has_predecessor: bool) {
        self.is_staged.store(false, Relaxed);
        self.stats.reset();
        let mut objection = self.objection.lock();
        *objection = None;
        self.given_up.store(false, Relaxed);
        self.condemned.store(false, Relaxed);
        self.begun.fetch_add(1, Relaxed);
        drop(objection);
        self.has_predecessor.store(has_predecessor, Relaxed);
        let mut since = self.stats.since.lock();
        *since = Instant::now();
        self.over.store(false, Relaxed);
    }

    pub(super) fn is_on_probation(&self) -> bool {
        if !self.has_predecessor.load(Relaxed) || self.over.load(Relaxed) {
            return false;
        }
        if self.is_staged.load(Relaxed) {
            return true;
        }
        let since = self.stats.since.lock();
        let over = since.elapsed() >= self.window;
        self.over.store(over, Relaxed);
        !over
    }

    /// Counts a measured call. Whether the reaper has to be woken, and an alarm if the policy panicked.
    pub(super) fn count_call(&self, took: Duration, counted: Counted) -> Verdict {
        let stats = &self.stats;
        match counted {
            Counted::Unjudged => {
                stats.unjudged.fetch_add(1, Relaxed);
                return Verdict::Stays;
            }
            Counted::Excused => {
                stats.excused.fetch_add(1, Relaxed);
            }
            Counted::Succeeded => {
                stats.calls.fetch_add(1, Relaxed);
                stats.latencies.count(took);
            }
            Counted::Failed(what) => {
                stats.calls.fetch_add(1, Relaxed);
                stats.failed_calls.fetch_add(1, Relaxed);
                stats.latencies.count(took);
                return self.count_failure(what);
            }
        }
        self.judge()
    }

    /// Counts a failure.
    pub(super) fn count_failure(&self, what: String) -> Verdict {
        *self.stats.last_failure.lock() = Some(what);
        self.stats.failures.fetch_add(1, Relaxed);
        self.judge()
    }

    fn judge(&self) -> Verdict {
        if self.condemned.load(Relaxed) || !self.is_on_probation() {
            return Verdict::Stays;
        }
        let begun = self.begun.load(Relaxed);
        match catch_unwind(AssertUnwindSafe(|| self.policy.objection(&self.stats))) {
            Ok(None) => Verdict::Stays,
            Ok(Some(objection)) => {
                let mut known = self.objection.lock();
                // It may have made way and become current again meanwhile: that was judged of the time before.
                if self.begun.load(Relaxed) != begun {
                    return Verdict::Stays;
                }
                known.get_or_insert(objection);
                self.condemned.store(true, Relaxed);
                Verdict::Condemned
            }
            Err(panic) => Verdict::PolicyPanicked(panic_text(panic)),
        }
    }

    /// What speaks against the generation, if it was condemned while it was staged.
    pub(super) fn objection_to_canary(&self) -> Option<String> {
        if self.is_staged.load(Relaxed) { self.objection() } else { None }
    }

    /// What speaks against the generation, if it was condemned.
    pub(super) fn objection(&self) -> Option<String> {
        if self.condemned.load(Relaxed) { self.objection.lock().clone() } else { None }
    }

    /// The same, if no rollback has been tried because of it.
    pub(super) fn objection_to_act_on(&self) -> Option<String> {
        if self.given_up.load(Relaxed) { None } else { self.objection() }
    }

    pub(super) fn give_up(&self) {
        self.given_up.store(true, Relaxed);
    }

    /// Lets one more call be put to the predecessor, if the policy allows it at the moment.
    pub(super) fn consult(&self) -> Consultation<'_> {
        let limit = self.policy.second_opinions();
        if limit == 0 || !self.is_on_probation() {
            return Consultation::NotWanted;
        }
        let more = |under_way: usize| (under_way < limit).then_some(under_way + 1);
        match self.consulting.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Consultation::Allowed(Consulting(&self.consulting)),
            Err(_) => Consultation::TooMany,
        }
    }
}

/// What counting a call came to.
pub(super) enum Verdict {
    Stays,
    Condemned,
    PolicyPanicked(String),
}

/// Whether a call may be put to the predecessor.
pub(super) enum Consultation<'a> {
    NotWanted,
    Allowed(Consulting<'a>),
    TooMany,
}

/// A second opinion that is under way until this is dropped.
pub(super) struct Consulting<'a>(&'a AtomicUsize);

impl Drop for Consulting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Eight classes an octave, from nanoseconds to minutes.
const PER_OCTAVE: u32 = 8;
const CLASSES: usize = 38 * PER_OCTAVE as usize;

struct Latencies(Box<[AtomicU64]>);

impl Latencies {
    fn new() -> Latencies {
        Latencies((0..CLASSES).map(|_| AtomicU64::new(0)).collect())
    }

    fn count(&self, time: Duration) {
        self.0[class(time)].fetch_add(1, Relaxed);
    }

    fn reset(&self) {
        self.0.iter().for_each(|count| count.store(0, Relaxed));
    }

    fn sum(&self, from: usize) -> u64 {
        self.0[from..].iter().map(|count| count.load(Relaxed)).sum()
    }

    /// How many times were longer than `limit`; those in its own class were not.
    fn above(&self, limit: Duration) -> u64 {
        self.sum(class(limit) + 1)
    }

    /// The upper end of the class in which this share of the times ends.
    fn quantile(&self, share: f64) -> Option<Duration> {
        let all = self.sum(0);
        let rank = ((all as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let class = self.0.iter().position(|count| {
            seen += count.load(Relaxed);
            seen >= rank
        })?;
        Some(upper_end(class))
    }
}

fn class(time: Duration) -> usize {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(u64::from(PER_OCTAVE));
    let octave = nanos.ilog2() - PER_OCTAVE.ilog2();
    let step = (nanos >> octave) as u32 - PER_OCTAVE;
    ((octave * PER_OCTAVE + step) as usize).min(CLASSES - 1)
}

fn upper_end(class: usize) -> Duration {
    let (octave, step) = (class as u32 / PER_OCTAVE, class as u32 % PER_OCTAVE);
    Duration::from_nanos(u64::from(PER_OCTAVE + step + 1) << octave)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn trial(policy: Probation) -> Trial {
        Trial::new(Arc::new(policy), ArtifactId { digest: Digest::of(b"bytes"), config_digest: None })
    }

    #[test]
    fn a_quantile_is_at_most_an_eighth_too_long() {
        for nanos in [1, 8, 9, 1_000, 12_345, 10_000_000, 3_000_000_000] {
            let latencies = Latencies::new();
            latencies.count(Duration::from_nanos(nanos));
            let quantile = latencies.quantile(0.99).unwrap().as_nanos() as f64;
            let least = nanos.max(8) as f64;
            assert!(quantile > least && quantile <= least * 1.125 + 1.0, "{nanos} became {quantile}");
        }
    }

    #[test]
    fn quantiles_and_limits_split_the_times() {
        let latencies = Latencies::new();
        assert!(latencies.quantile(0.5).is_none() && latencies.above(Duration::ZERO) == 0);
        (0..99).for_each(|_| latencies.count(Duration::from_micros(10)));
        latencies.count(Duration::from_millis(10));
        assert!(latencies.quantile(0.99).unwrap() < Duration::from_micros(12));
        assert!(latencies.quantile(1.0).unwrap() >= Duration::from_millis(10));
        assert_eq!(latencies.above(Duration::from_micros(20)), 1);
        assert_eq!(latencies.above(Duration::from_millis(20)), 0);
        assert_eq!(latencies.above(Duration::from_micros(10)), 1, "as long as the limit is not longer");
        latencies.count(Duration::MAX);
        assert_eq!(latencies.above(Duration::from_secs(60)), 1);
        latencies.reset();
        assert!(latencies.quantile(0.5).is_none());
    }

    #[test]
    fn shares_are_judged_once_there_are_enough_calls() {
        let trial = trial(Probation::new(Duration::MAX).max_failed_share(0.5, 20));
        trial.begin(true);
        let fail = || trial.count_call(Duration::ZERO, Counted::Failed("oh".to_owned()));
        assert!((0..19).all(|_| matches!(fail(), Verdict::Stays)));
        assert!(matches!(fail(), Verdict::Condemned));
        let objection = trial.objection_to_act_on().unwrap();
        assert!(objection.contains("20 of 20 calls failed") && objection.ends_with("oh"), "{objection}");
        assert!(matches!(fail(), Verdict::Stays), "it is condemned once");
        trial.begin(true);
        assert!(trial.objection().is_none());
    }

    #[test]
    fn as_much_as_is_allowed_is_no_objection_and_a_little_more_is_told_in_percent() {
        let policy =
            Probation::new(Duration::MAX).max_failed_share(0.25, 1).max_latency(0.5, Duration::from_millis(1), 1);
        let stats = CallStats::new();
        let count = |failed: u64, slow: u64, calls: u64| {
            stats.reset();
            assert_eq!(stats.latency_quantile(0.5), None);
            for call in 0..calls {
                let took = Duration::from_millis(if call < slow { 10 } else { 0 });
                stats.count_shadowed(took, call < failed);
            }
            policy.objection(&stats)
        };
        assert_eq!(count(2, 4, 8), None);
        assert_eq!(count(3, 4, 8).unwrap(), "3 of 8 calls failed: 37.5 % with a limit of 25.0 %, the last one: ");
        assert_eq!(count(2, 5, 8).unwrap(), "62.5 % of 8 calls took longer than 1ms, with a limit of 50.0 %");
        assert!(stats.latency_quantile(0.5).is_some_and(|half| half >= Duration::from_millis(10)));
        let shown = format!("{stats:?}");
        assert!(shown.starts_with("CallStats { calls: 8, failed_calls: 2, failures: 2, excused: 0"), "{shown}");
    }

    #[test]
    fn nobody_is_asked_for_a_second_opinion_unless_the_policy_says_so() {
        struct Own;
        impl ProbationPolicy for Own {
            fn window(&self) -> Duration {
                Duration::ZERO
            }
            fn objection(&self, _: &CallStats) -> Option<String> {
                None
            }
        }
        let built_in = Probation::default();
        assert_eq!((Own.second_opinions(), ProbationPolicy::second_opinions(&built_in)), (0, 0));
        assert_eq!(ProbationPolicy::second_opinions(&built_in.second_opinions(3)), 3);
    }

    #[test]
    fn a_window_that_is_over_opens_again_with_the_next_probation() {
        let trial = trial(Probation::new(Duration::ZERO));
        trial.begin(true);
        assert!(!trial.is_on_probation());
        let trial = Trial { window: Duration::MAX, ..trial };
        assert!(!trial.is_on_probation(), "nobody looks at the clock again");
        trial.begin(true);
        assert!(trial.is_on_probation());
        trial.begin(false);
        assert!(!trial.is_on_probation(), "there is nothing to go back to");
    }

    #[test]
    fn a_slow_generation_is_condemned() {
        let policy = Probation::new(Duration::MAX).max_latency(0.99, Duration::from_millis(1), 100);
        let trial = trial(policy);
        trial.begin(true);
        let call = |millis| trial.count_call(Duration::from_millis(millis), Counted::Succeeded);
        assert!((0..200).all(|_| matches!(call(0), Verdict::Stays)));
        assert!(matches!(call(10), Verdict::Stays) && matches!(call(10), Verdict::Stays));
        assert!(matches!(call(10), Verdict::Condemned));
        assert!(trial.objection().unwrap().contains("took longer than 1ms"));
    }
}
