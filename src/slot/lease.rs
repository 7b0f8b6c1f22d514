//! A caller's hold on the generation that was current when it asked.

use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use semver::Version;

use super::current::Hold;
use super::generation::{Generation, GenerationRef, Home};
use super::lineage::SecondOpinion;
use super::probation::{Consultation, Counted, Verdict};
use crate::call_cost::{CallCost, measure};
use crate::{ArtifactId, Digest, Manifest, StopSignal};

/// A hold on one generation: it dereferences to the plugin, which lives at least as long as the lease.
///
/// Taking one is wait-free: see [`HotSlot::load`](crate::HotSlot::load). A lease is `Send` and `Sync`, and may be held
/// across an await; but a lease that is never dropped keeps its generation in memory, and [`Status`](crate::Status) says
/// so. A long computation can ask [`is_retired`](Lease::is_retired) now and then and take a new lease.
///
/// What a lease knows besides is in associated functions, as with `Rc`, so that it hides no method of the plugin:
/// `Lease::generation(&lease)`.
pub struct Lease<T: ?Sized + Send + Sync + 'static> {
    // Fields are dropped in this order: the reaper is woken when the hold has gone.
    hold: Hold<Generation<T>>,
    notify: NotifyOnDrop<T>,
    /// The cell in the generation's lease sites, if they are tracked and one was free.
    site: Option<usize>,
}

/// Wakes the reaper when it is dropped, if it was told to.
struct NotifyOnDrop<T: ?Sized + Send + Sync + 'static>(Option<Weak<dyn Home<T>>>);

impl<T: ?Sized + Send + Sync + 'static> Drop for NotifyOnDrop<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(home) = self.0.as_ref().and_then(Weak::upgrade) {
            home.wake_reaper();
        }
    }
}

impl<T: ?Sized + Send + Sync + 'static> Lease<T> {
    #[inline]
    pub(super) fn new(hold: Hold<Generation<T>>, location: &'static Location<'static>) -> Lease<T> {
        let site = hold.lease_sites.as_ref().and_then(|sites| sites.note(location));
        Lease { hold, notify: NotifyOnDrop(None), site }
    }

    /// Returns the number of the generation.
    pub fn generation(lease: &Self) -> u64 {
        lease.hold.number
    }

    /// Returns the plugin's version, if it has one.
    pub fn version(lease: &Self) -> Option<&Version> {
        lease.hold.manifest.version.as_ref()
    }

    /// Returns the digest of the plugin's bytes.
    pub fn digest(lease: &Self) -> Digest {
        lease.hold.id.digest
    }

    /// Returns what makes the plugin the same as another one: its bytes, and the configuration that it came with.
    pub fn id(lease: &Self) -> ArtifactId {
        lease.hold.id
    }

    /// Returns what the plugin says of itself.
    pub fn manifest(lease: &Self) -> &Manifest {
        &lease.hold.manifest
    }

    /// Returns whether another generation is current by now. Costs one relaxed load.
    pub fn is_retired(lease: &Self) -> bool {
        lease.hold.is_retired()
    }

    /// Returns the generation's stop signal.
    pub fn stop_signal(lease: &Self) -> &StopSignal {
        &lease.hold.stop
    }

    /// Counts a failed call against this generation; too many of them during its
    /// [probation](crate::Builder::probation) roll it back. Backends report panics and traps on their own.
    pub fn report_failure(lease: &Self, what: impl fmt::Display) {
        lease.hold.failures.report_failure(what);
    }

    /// Calls the plugin, and measures what that takes and how long it waits.
    ///
    /// The call counts as one, with its time, for the generation's [probation](crate::ProbationPolicy). It counts as
    /// failed if the backend reported a failure in it, on this thread, once however often; a failure that only you can
    /// see, [report](Lease::report_failure).
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
    /// use hotslot::Lease;
    ///
    /// let slot = HotSlot::builder(Text).open(b"hello")?;
    /// let lease = slot.load();
    /// let (length, cost) = Lease::measure(&lease, |text| text.len());
    /// assert_eq!(length, 5);
    /// assert!(cost.waited <= cost.took && !cost.failed);
    /// # Ok::<(), hotslot::Error>(())
    /// ```
    pub fn measure<R>(lease: &Self, call: impl FnOnce(&T) -> R) -> (R, CallCost) {
        let ((answer, mut cost), held) = lease.hold.failures.hold(|| measure(|| call(lease)));
        cost.failed = held.is_some();
        lease.count(&cost, held.map_or(Counted::Succeeded, Counted::Failed));
        (answer, cost)
    }

    /// Calls the plugin as [`measure`](Lease::measure) does, and asks for a second opinion if that fails: while the
    /// generation is on probation, the same call is put to the warm predecessor, or to the serving generation if this one is a
    /// [canary](crate::Canary), and if it fails there, too, it counts against neither. So callers cannot condemn a version with requests that the one before could not bear either.
    ///
    /// `failure` says what was wrong with an answer, if something was; a failure that the backend reported counts without
    /// it. The answer is always that of this lease's generation.
    ///
    /// The call must bear to be repeated. At most as many calls as the [policy](crate::Probation::second_opinions) allows
    /// are put to the predecessor at once, on the threads of their callers; those that fail meanwhile are not judged.
    /// Where no predecessor is warm, or the policy asks for no second opinions, a failed call counts.
    pub fn measure_repeatable<R>(
        lease: &Self,
        failure: impl Fn(&R) -> Option<String>,
        call: impl Fn(&T) -> R,
    ) -> (R, CallCost) {
        let ((answer, mut cost), held) = lease.hold.failures.hold(|| measure(|| call(lease)));
        cost.failed = held.is_some();
        let counted = match held.or_else(|| failure(&answer)) {
            None => Counted::Succeeded,
            Some(what) => match lease.hold.trial.consult() {
                Consultation::NotWanted => Counted::Failed(what),
                Consultation::TooMany => Counted::Unjudged,
                Consultation::Allowed(_under_way) => match lease.second_opinion() {
                    Ok(Some(other)) if other.fails(&failure, &call) => Counted::Excused,
                    Ok(_) => Counted::Failed(what),
                    Err(NotNow) => Counted::Unjudged,
                },
            },
        };
        lease.count(&cost, counted);
        (answer, cost)
    }

    /// Makes a call whose failures do not count; returns the text of the last one.
    pub(super) fn hold_failures<R>(lease: &Self, call: impl FnOnce() -> R) -> (R, Option<String>) {
        lease.hold.failures.hold(call)
    }

    fn count(&self, cost: &CallCost, counted: Counted) {
        self.hold.count_call(cost.took, counted);
    }

    fn second_opinion(&self) -> Result<Option<Consulted<T>>, NotNow> {
        let Some(home) = self.hold.home.upgrade() else { return Ok(None) };
        let generation = match home.second_opinion(self.hold.number) {
            SecondOpinion::Of(generation) => generation,
            SecondOpinion::Nobody => return Ok(None),
            SecondOpinion::NotNow => return Err(NotNow),
        };
        let end = EndConsultation(generation.consultations());
        Ok(Some(Consulted { generation, _end: end, _notify: NotifyOnDrop(Some(self.hold.home.clone())) }))
    }

    /// The count of those that hold the generation without using it.
    pub(super) fn pin_count(lease: &Self) -> &Arc<AtomicUsize> {
        lease.hold.pin_count()
    }
}

impl<T: ?Sized + Send + Sync + 'static> Generation<T> {
    fn count_call(&self, took: Duration, counted: Counted) {
        if let Counted::Failed(what) = &counted {
            self.failures.count_held(what);
        }
        let verdict = self.trial.count_call(took, counted);
        if !matches!(verdict, Verdict::Stays)
            && let Some(home) = self.home.upgrade()
        {
            home.heed(self.number, verdict);
        }
    }
}

/// Whoever could be asked is handing its state over.
struct NotNow;

/// The generation that a failed call is put to.
struct Consulted<T: ?Sized + Send + Sync + 'static> {
    // Fields are dropped in this order: a hold that is no longer a consultation would pass for a lease, and the reaper,
    // which may be waiting for this one by now, is woken when the hold has gone.
    generation: GenerationRef<T>,
    _end: EndConsultation,
    _notify: NotifyOnDrop<T>,
}

/// Counts a consultation down when it is dropped.
struct EndConsultation(Arc<AtomicUsize>);

impl Drop for EndConsultation {
    fn drop(&mut self) {
        // Pairs with the acquire in `Generation::consultations`: who sees it sees that the hold has gone.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl<T: ?Sized + Send + Sync + 'static> Consulted<T> {
    /// Whether it fails, too. What it reports of that does not count.
    fn fails<R>(&self, failure: impl Fn(&R) -> Option<String>, call: impl Fn(&T) -> R) -> bool {
        let (answer, held) = self.generation.failures.hold(|| call(&self.generation.loaded.plugin));
        held.is_some() || failure(&answer).is_some()
    }
}

impl<T: ?Sized + Send + Sync + 'static> Deref for Lease<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.hold.loaded.plugin
    }
}

/// A second lease on the same generation, whether or not it is still current.
impl<T: ?Sized + Send + Sync + 'static> Clone for Lease<T> {
    #[track_caller]
    fn clone(&self) -> Lease<T> {
        Lease::new(self.hold.clone(), Location::caller())
    }
}

impl<T: ?Sized + Send + Sync + 'static> Drop for Lease<T> {
    #[inline]
    fn drop(&mut self) {
        if let (Some(cell), Some(sites)) = (self.site, &self.hold.lease_sites) {
            sites.forget(cell);
        }
        // A retirement that begins after this look is not missed: the reaper looks again while anything drains.
        if self.hold.is_retired() {
            self.notify.0 = Some(Weak::clone(&self.hold.home));
        }
    }
}

impl<T: ?Sized + Send + Sync + 'static> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("generation", &Lease::generation(self))
            .field("version", &Lease::version(self).map(ToString::to_string))
            .field("id", &Lease::id(self))
            .field("is_retired", &Lease::is_retired(self))
            .finish()
    }
}

#[cfg(all(test, not(hotslot_loom)))]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::failures::FailureCounter;
    use crate::lock::Mutex;
    use crate::slot::generation::Parts;
    use crate::slot::lineage::Lineage;
    use crate::slot::probation::{Probation, Trial};
    use crate::{Artifact, Loaded, Payload};

    /// Notes how many leases are out when it is told to wake the reaper, and which generations there are.
    #[derive(Default)]
    struct Spy {
        line: OnceLock<Lineage<Generation<u32>>>,
        woken: Mutex<Vec<usize>>,
        lives: Mutex<Vec<Weak<()>>>,
    }

    impl Spy {
        fn line(&self) -> &Lineage<Generation<u32>> {
            self.line.get_or_init(|| Lineage::new(0))
        }

        fn commit(self: &Arc<Self>, number: u64) {
            let home: Arc<dyn Home<u32>> = Arc::<Spy>::clone(self);
            let life = Arc::new(());
            self.lives.lock().push(Arc::downgrade(&life));
            let artifact = Artifact::new(Payload::new(*b"bytes"), Manifest::new("test").into());
            let parts = Parts {
                number,
                stop: StopSignal::new(),
                // Ends with the generation.
                failures: FailureCounter::new(move |_| _ = &life),
                trial: Arc::new(Trial::new(Arc::new(Probation::default()), artifact.id())),
                home: Arc::downgrade(&home),
                track_leases: false,
            };
            let generation = GenerationRef::new(Generation::new(&artifact, Loaded::new(0), parts));
            self.line().commit(&generation, self.line().base(), None).expect("nothing else commits");
        }

        fn lease(&self) -> Lease<u32> {
            Lease::new(self.line().load().expect("it is open"), Location::caller())
        }
    }

    impl Home<u32> for Spy {
        fn wake_reaper(self: Arc<Self>) {
            let leases = self.line().retired(|view| view.leases).into_iter().sum();
            self.woken.lock().push(leases);
        }

        fn heed(self: Arc<Self>, _: u64, _: Verdict) {}

        fn second_opinion(self: Arc<Self>, _: u64) -> SecondOpinion<Generation<u32>> {
            SecondOpinion::Nobody
        }
    }

    /// Woken earlier, the reaper would find the lease, and not come back for a while.
    #[test]
    fn the_reaper_is_woken_when_the_lease_has_gone() {
        let spy = Arc::new(Spy::default());
        spy.commit(1);
        let (lease, clone) = (spy.lease(), spy.lease().clone());
        drop(spy.lease());
        assert!(spy.woken.lock().is_empty(), "nothing drains");
        spy.commit(2);
        drop(lease);
        drop(clone);
        assert_eq!(*spy.woken.lock(), [1_usize, 0]);
    }

    /// In a forked child, for instance, where nobody collects.
    #[test]
    fn a_lease_outlives_its_line() {
        // Whether somebody has a generation cannot always be told: then it stays, too.
        loop {
            let spy = Arc::new(Spy::default());
            spy.commit(1);
            spy.commit(2);
            let (lease, lives) = (spy.lease(), std::mem::take(&mut *spy.lives.lock()));
            drop(spy);
            let [first, second] = [0, 1].map(|at: usize| lives[at].strong_count());
            assert_eq!((second, *lease), (1, 0), "it is held");
            if first == 0 {
                return;
            }
        }
    }
}
