//! Slots that change as one.
//!
//! A group is a line of its own, whose generations are snapshots: one lease on each member's generation. A change of the group
//! changes the members first, while none of them can swap otherwise, and then stores the snapshot: the one store that decides
//! what [`SlotGroup::load`] gives. So whoever loads finds the old ones or the new ones, and waits for nobody.

use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::HotSlot;
use super::attempt::Asked;
use super::current::Hold;
use super::lease::Lease;
use super::lineage::{self, Lineage, Target};
use super::member::{Member, ReadyMember, StagedMember};
use super::reaper::{self, Next, Tended};
use crate::artifact::Request;
use crate::lock::Mutex;
use crate::{Candidate, Cause, Error, ErrorKind, Report};

/// Slots whose plugins change together: all of them, or none.
///
/// A rule engine and the rules for it, a protocol's two ends, a set of models: what must never be seen in a mix. Members may
/// have different plugins and backends, but a slot that
/// [holds calls](crate::Builder::hold_calls_during_hand_over) during a hand-over cannot be one.
///
/// - [`load`](SlotGroup::load) gives leases on the plugins of all members as of one moment: no change of the group is ever seen in
///   half. It is wait-free, as [`HotSlot::load`] is. A load from a *member*, past the group, gives that one's current plugin,
///   which changes some microseconds before the group does.
/// - [`reload`](SlotGroup::reload) and [`rollback`](SlotGroup::rollback) change all members, or none: if one is refused, at
///   whatever stage, all serve on as before. Each member has the change in its own history.
/// - If a member changes past the group, by an automatic rollback for instance, the group follows, on a thread of its own and some
///   microseconds later: it rolls the others back to what they were when that plugin served, if the group still
///   keeps that, and takes the member as it is otherwise.
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
/// use hotslot::SlotGroup;
/// use std::sync::Arc;
///
/// let engine = Arc::new(HotSlot::builder(Text).name("engine").open(b"engine 1")?);
/// let rules = Arc::new(HotSlot::builder(Text).name("rules").open(b"rules 1")?);
/// let group = SlotGroup::new("waf", (engine, rules))?;
///
/// group.reload([Some(b"engine 2".into()), Some(b"rules 2".into())])?;
/// let (engine, rules) = &*group.load();
/// assert_eq!((engine.as_str(), rules.as_str()), ("engine 2", "rules 2"));
///
/// group.reload([None, Some(b"rules 3".into())])?; // the engine stays
/// group.rollback()?;
/// assert_eq!(group.load().1.as_str(), "rules 2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SlotGroup<M: Members> {
    core: Arc<Core<M>>,
}

/// The members of a [`SlotGroup`]: tuples of two to six `Arc<HotSlot<_>>`.
pub trait Members: Slots {
    /// A lease for each of them, as a tuple.
    type Leases: Send + Sync + 'static;
    /// What is to be loaded into each of them, in their order; nothing for those that stay as they are.
    type Candidates: IntoIterator<Item = Option<Candidate>>;
    /// The leases on all that is current, and the numbers of the generations; `None` if a member is closed.
    #[doc(hidden)]
    fn take_leases(&self) -> Option<(Self::Leases, Vec<u64>)>;
}

/// What a group asks its members.
#[expect(private_interfaces, reason = "nobody else can name the trait")]
pub trait Slots: Send + Sync + 'static {
    #[doc(hidden)]
    fn slots(&self) -> Vec<&dyn Member>;
}

macro_rules! members {
    ($count:literal: $($ty:ident $at:tt),+) => {
        impl<$($ty: ?Sized + Send + Sync + 'static),+> Members for ($(Arc<HotSlot<$ty>>,)+) {
            type Leases = ($(Lease<$ty>,)+);
            type Candidates = [Option<Candidate>; $count];

            fn take_leases(&self) -> Option<(Self::Leases, Vec<u64>)> {
                let leases = ($(lease(&self.$at)?,)+);
                let numbers = vec![$(Lease::generation(&leases.$at)),+];
                Some((leases, numbers))
            }
        }

        #[expect(private_interfaces, reason = "nobody else can name the trait")]
        impl<$($ty: ?Sized + Send + Sync + 'static),+> Slots for ($(Arc<HotSlot<$ty>>,)+) {
            fn slots(&self) -> Vec<&dyn Member> {
                vec![$(&*self.$at),+]
            }
        }
    };
}

members!(2: A 0, B 1);
members!(3: A 0, B 1, C 2);
members!(4: A 0, B 1, C 2, D 3);
members!(5: A 0, B 1, C 2, D 3, E 4);
members!(6: A 0, B 1, C 2, D 3, E 4, F 5);

fn lease<T: ?Sized + Send + Sync + 'static>(slot: &HotSlot<T>) -> Option<Lease<T>> {
    let (hold, ()) = slot.core.lineage.hold_serving(|_| ())?;
    Some(Lease::new(hold, Location::caller()))
}

/// The plugins of all members as of one moment: dereferences to a tuple of [leases](Lease).
pub struct GroupLease<M: Members> {
    // Fields are dropped in this order: the reaper is woken when the hold has gone.
    hold: Hold<Snapshot<M>>,
    notify: NotifyOnDrop<M>,
}

/// Plugins that are loaded and proven in all members that are to change, one [`commit`](StagedGroup::commit) away from serving.
///
/// Dropped instead of committed, they are destroyed, and recorded as [`Discarded`](crate::Outcome::Discarded).
#[must_use = "a staged group that is dropped changes nothing: commit() makes it serve"]
pub struct StagedGroup<M: Members> {
    core: Arc<Core<M>>,
    /// By the place of the member.
    staged: Vec<(usize, Box<dyn StagedMember>)>,
}

/// What a change of a [`SlotGroup`] came to.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GroupReport {
    /// The number of the snapshot that is current.
    pub snapshot: u64,
    /// What was done in each member that was to change: its name, and its report.
    pub members: Vec<(String, Report)>,
}

/// A change of a [`SlotGroup`] that did not happen: all members serve on as before.
#[derive(Debug, thiserror::Error)]
#[error("the group serves on as before: `{slot}`: {source}")]
pub struct GroupError {
    slot: String,
    source: Error,
}

impl GroupError {
    /// Returns the name of the member that refused, or of the group if it was not about one of them.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// Returns why.
    pub fn error(&self) -> &Error {
        &self.source
    }
}

/// A [`SlotGroup`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GroupStatus {
    /// The name of the group.
    pub group: String,
    /// The number of the snapshot that is current.
    pub snapshot: u64,
    /// The name of each member, and the number of its generation in the snapshot.
    pub members: Vec<(String, u64)>,
    /// The snapshots that can be rolled back to, the latest first.
    pub warm: Vec<u64>,
}

struct Core<M: Members> {
    name: String,
    members: M,
    line: Lineage<Snapshot<M>>,
    next_snapshot: AtomicU64,
    /// Held while the members change.
    changing: Mutex<()>,
    /// Whether the group itself changes them, and need not follow.
    is_changing: AtomicBool,
    woken: AtomicBool,
}

/// What all members had at one moment.
struct Snapshot<M: Members> {
    number: u64,
    generations: Vec<u64>,
    leases: M::Leases,
    home: Weak<Core<M>>,
    retired: AtomicBool,
}

impl<M: Members> lineage::Member for Snapshot<M> {
    fn number(&self) -> u64 {
        self.number
    }

    fn install(&self, _: bool) {
        self.retired.store(false, Ordering::Relaxed);
    }

    fn consultations(&self) -> usize {
        0
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }
}

struct NotifyOnDrop<M: Members>(Option<Weak<Core<M>>>);

impl<M: Members> Drop for NotifyOnDrop<M> {
    fn drop(&mut self) {
        if let Some(core) = self.0.as_ref().and_then(Weak::upgrade) {
            core.wake();
        }
    }
}

impl<M: Members> Drop for GroupLease<M> {
    fn drop(&mut self) {
        if self.hold.retired.load(Ordering::Relaxed) {
            self.notify.0 = Some(Weak::clone(&self.hold.home));
        }
    }
}

impl<M: Members> Deref for GroupLease<M> {
    type Target = M::Leases;

    #[inline]
    fn deref(&self) -> &M::Leases {
        &self.hold.leases
    }
}

impl<M: Members> GroupLease<M> {
    /// Returns the number of the snapshot.
    pub fn snapshot(lease: &Self) -> u64 {
        lease.hold.number
    }

    /// Returns whether another snapshot is current by now.
    pub fn is_retired(lease: &Self) -> bool {
        lease.hold.retired.load(Ordering::Relaxed)
    }
}

impl<M: Members> SlotGroup<M> {
    /// Makes a group of these slots. It can go back as far as each of them can: as many
    /// [snapshots](crate::Builder::keep_previous) are kept as the member keeps generations that keeps the fewest.
    ///
    /// It holds a lease on each generation of a snapshot that it keeps.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) if a slot is in a group already, or holds calls during a hand-over;
    /// [`Closed`](ErrorKind::Closed).
    pub fn new(name: impl Into<String>, members: M) -> Result<SlotGroup<M>, GroupError> {
        let keep = members.slots().iter().map(|slot| slot.keep_previous()).min().unwrap_or(0);
        let core = Arc::new(Core {
            name: name.into(),
            members,
            line: Lineage::new(keep),
            next_snapshot: AtomicU64::new(1),
            changing: Mutex::default(),
            is_changing: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        });
        let slots = core.members.slots();
        for (at, slot) in slots.iter().enumerate() {
            let group = Arc::downgrade(&core);
            let follow = move || {
                if let Some(group) = group.upgrade() {
                    group.follow();
                }
            };
            if let Err(source) = slot.join(Arc::new(follow)) {
                slots[..at].iter().for_each(|slot| slot.leave());
                return Err(GroupError { slot: slot.name().to_owned(), source });
            }
        }
        drop(slots);
        // From here on, dropping the group leaves them.
        let group = SlotGroup { core };
        {
            let _changing = group.core.changing.lock();
            let _frozen = group.core.freeze();
            group.core.take_snapshot().map_err(|kind| group.core.error(kind))?;
        }
        Ok(group)
    }

    /// Takes a lease on the plugins of all members. Wait-free, and never a mix of two snapshots.
    #[inline]
    pub fn load(&self) -> GroupLease<M> {
        let hold = self.core.line.load().expect("a group has a snapshot from the beginning");
        GroupLease { hold, notify: NotifyOnDrop(None) }
    }

    /// Replaces the plugins of the members that are given something new, all at once:
    /// [`stage`](SlotGroup::stage) and [`commit`](StagedGroup::commit) in one turn.
    ///
    /// # Errors
    /// The first member that refused, and why. All of them serve on as before; the others' attempts end as
    /// [`GroupRefused`](ErrorKind::GroupRefused).
    pub fn reload(&self, candidates: M::Candidates) -> Result<GroupReport, GroupError> {
        self.stage_in(candidates, true)?.commit()
    }

    /// Loads and proves new plugins beside the serving ones, one member after the other.
    ///
    /// # Errors
    /// As [`reload`](SlotGroup::reload).
    pub fn stage(&self, candidates: M::Candidates) -> Result<StagedGroup<M>, GroupError> {
        self.stage_in(candidates, false)
    }

    fn stage_in(&self, candidates: M::Candidates, keeps_turn: bool) -> Result<StagedGroup<M>, GroupError> {
        let slots = self.core.members.slots();
        let mut staged: Vec<(usize, Box<dyn StagedMember>)> = Vec::new();
        for (at, candidate) in candidates.into_iter().enumerate() {
            let Some(candidate) = candidate else { continue };
            match slots[at].stage(Asked::new(candidate), keeps_turn) {
                Ok(one) => staged.push((at, one)),
                Err(error) => {
                    let why = refused_with(slots[at].name(), error.reason());
                    staged.into_iter().for_each(|(_, other)| drop(other.refuse(why())));
                    return Err(GroupError { slot: slots[at].name().to_owned(), source: error });
                }
            }
        }
        Ok(StagedGroup { core: Arc::clone(&self.core), staged })
    }

    /// Goes back to the snapshot that the current one replaced, in all members.
    ///
    /// # Errors
    /// [`NotWarm`](ErrorKind::NotWarm) if there is none any more, or if a member no longer keeps its generation.
    pub fn rollback(&self) -> Result<GroupReport, GroupError> {
        self.core.roll_back(Target::Previous)
    }

    /// Goes back to a snapshot that is still kept, by its number: [`GroupStatus::warm`] lists them.
    ///
    /// # Errors
    /// As [`rollback`](SlotGroup::rollback); [`AlreadyServing`](ErrorKind::AlreadyServing).
    pub fn rollback_to(&self, snapshot: u64) -> Result<GroupReport, GroupError> {
        self.core.roll_back(Target::Generation(snapshot))
    }

    /// Returns the members.
    pub fn members(&self) -> &M {
        &self.core.members
    }

    /// Returns what is current, and what can be rolled back to.
    pub fn status(&self) -> GroupStatus {
        let names = self.core.members.slots().into_iter().map(|slot| slot.name().to_owned());
        let (serving, retired) = self.core.line.all(
            |view| (view.generation.number, view.generation.generations.clone()),
            |view| view.warm.then_some((view.epoch, view.generation.number)),
        );
        let (snapshot, generations) = serving.expect("a group has a snapshot from the beginning");
        let mut warm: Vec<_> = retired.into_iter().flatten().collect();
        warm.sort_unstable_by(|one, other| other.cmp(one));
        GroupStatus {
            group: self.core.name.clone(),
            snapshot,
            members: names.zip(generations).collect(),
            warm: warm.into_iter().map(|(_, number)| number).collect(),
        }
    }
}

/// Makes the reasons of those that are refused because another one was.
fn refused_with(slot: &str, reason: String) -> impl Fn() -> ErrorKind {
    let slot = slot.to_owned();
    move || ErrorKind::GroupRefused { slot: slot.clone(), reason: reason.clone() }
}

impl<M: Members> Drop for SlotGroup<M> {
    fn drop(&mut self) {
        self.core.members.slots().into_iter().for_each(Member::leave);
        self.core.close();
    }
}

impl<M: Members> StagedGroup<M> {
    /// Makes all of them serve: the hand-over hooks, one after the other, then one store for each member while none of them can
    /// change otherwise, and one for the group.
    ///
    /// A state that was handed over before another member refused is dropped with the plugin that had got it.
    ///
    /// # Errors
    /// As [`SlotGroup::reload`].
    pub fn commit(self) -> Result<GroupReport, GroupError> {
        let StagedGroup { core, staged } = self;
        let slots = core.members.slots();
        slots.iter().try_for_each(|slot| {
            slot.check_caller().map_err(|source| GroupError { slot: slot.name().to_owned(), source })
        })?;
        let mut ready: Vec<(usize, Box<dyn ReadyMember>)> = Vec::new();
        let mut waiting = staged.into_iter();
        while let Some((at, one)) = waiting.next() {
            match one.make_ready() {
                Ok(one) => ready.push((at, one)),
                Err(error) => {
                    let why = refused_with(slots[at].name(), error.reason());
                    ready.into_iter().for_each(|(_, other)| drop(other.refuse(why())));
                    waiting.for_each(|(_, other)| drop(other.refuse(why())));
                    slots.iter().for_each(|slot| slot.settle());
                    return Err(GroupError { slot: slots[at].name().to_owned(), source: error });
                }
            }
        }
        let result = core.swap_all(ready);
        slots.iter().for_each(|slot| slot.settle());
        result
    }
}

impl<M: Members> Core<M> {
    /// Swaps in every member, or in none.
    fn swap_all(self: &Arc<Self>, ready: Vec<(usize, Box<dyn ReadyMember>)>) -> Result<GroupReport, GroupError> {
        let slots = self.members.slots();
        let changing = self.changing.lock();
        let frozen = self.freeze();
        let objection = ready.iter().find_map(|(at, one)| Some((*at, one.objection()?)));
        if let Some((at, kind)) = objection {
            drop((frozen, changing));
            let mut found = None;
            let why = refused_with(slots[at].name(), kind.to_string());
            let mut kind = Some(kind);
            for (own, one) in ready {
                let error = one.refuse(if own == at { kind.take().expect("it is of one member") } else { why() });
                if own == at {
                    found = Some(GroupError { slot: slots[at].name().to_owned(), source: error });
                }
            }
            return Err(found.expect("the one that objected is among them"));
        }
        self.is_changing.store(true, Ordering::Relaxed);
        let swapped: Vec<_> = ready.into_iter().map(|(at, one)| (at, one.swap())).collect();
        self.is_changing.store(false, Ordering::Relaxed);
        let taken = self.take_snapshot();
        drop((frozen, changing));
        self.wake();
        let mut members = Vec::new();
        for (at, result) in swapped {
            let slot = slots[at].name().to_owned();
            match result {
                Ok(report) => members.push((slot, report)),
                Err(refused) => return Err(GroupError { slot, source: refused.refuse() }),
            }
        }
        let snapshot = taken.map_err(|kind| self.error(kind))?;
        Ok(GroupReport { snapshot, members })
    }

    fn roll_back(self: &Arc<Self>, target: Target) -> Result<GroupReport, GroupError> {
        let slots = self.members.slots();
        slots.iter().try_for_each(|slot| {
            slot.check_caller().map_err(|source| GroupError { slot: slot.name().to_owned(), source })
        })?;
        let result = {
            let _changing = self.changing.lock();
            let _frozen = self.freeze();
            self.roll_back_frozen(target, &Cause::Rollback)
        };
        self.wake();
        slots.iter().for_each(|slot| slot.settle());
        result
    }

    /// Rolls the members back to a snapshot, all of which are frozen.
    fn roll_back_frozen(self: &Arc<Self>, target: Target, cause: &Cause) -> Result<GroupReport, GroupError> {
        let slots = self.members.slots();
        let wanted = self.line.look_back(target, |snapshot| (snapshot.number, snapshot.generations.clone()));
        let (snapshot, wanted) = wanted.map_err(|reason| self.error(reason.into()))?;
        let changes: Vec<_> =
            slots.iter().zip(&wanted).filter(|(slot, wanted)| slot.generation() != Some(**wanted)).collect();
        for (slot, wanted) in &changes {
            if !slot.is_warm(**wanted) {
                let kind = ErrorKind::NotWarm { wanted: Some(**wanted), warm: Vec::new() };
                return Err(GroupError { slot: slot.name().to_owned(), source: slot.not_begun(kind) });
            }
        }
        let mut members = Vec::new();
        self.is_changing.store(true, Ordering::Relaxed);
        for (slot, wanted) in changes {
            // It was warm an instant ago, and is frozen.
            if let Ok(report) = slot.roll_back(*wanted, cause.clone(), Request::default()) {
                members.push((slot.name().to_owned(), report));
            }
        }
        self.is_changing.store(false, Ordering::Relaxed);
        self.line.rollback(Target::Generation(snapshot), |_| ()).map_err(|reason| self.error(reason.into()))?;
        Ok(GroupReport { snapshot, members })
    }

    /// Holds up the swaps of all members. Slots are in one group at most, so that nobody else waits for several.
    fn freeze(&self) -> Vec<std::sync::MutexGuard<'_, ()>> {
        self.members.slots().into_iter().map(Member::freeze).collect()
    }

    /// Makes what the members have the current snapshot. They are frozen.
    fn take_snapshot(self: &Arc<Self>) -> Result<u64, ErrorKind> {
        let (leases, generations) = self.members.take_leases().ok_or(ErrorKind::Closed)?;
        let number = self.next_snapshot.fetch_add(1, Ordering::Relaxed);
        let snapshot =
            Snapshot { number, generations, leases, home: Arc::downgrade(self), retired: AtomicBool::new(false) };
        self.line.commit(&super::sync::Arc::new(snapshot), self.line.base(), None)?;
        Ok(number)
    }

    fn error(&self, kind: ErrorKind) -> GroupError {
        let source = Error::new(crate::Stage::Commit, kind, None);
        GroupError { slot: self.name.clone(), source }
    }

    /// A member has changed.
    fn follow(self: &Arc<Self>) {
        if !self.is_changing.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Makes the group what its members are, if one of them changed past it.
    fn catch_up(self: &Arc<Self>) {
        let slots = self.members.slots();
        {
            let _changing = self.changing.lock();
            let _frozen = self.freeze();
            let Some(now) = slots.iter().map(|slot| slot.generation()).collect::<Option<Vec<_>>>() else { return };
            let Some(before) = self.line.serving(|view| view.generation.generations.clone()) else { return };
            let changed: Vec<_> = (0..now.len()).filter(|at| now[*at] != before[*at]).collect();
            let Some(first) = changed.first() else { return };
            let is_of_then = |snapshot: &Snapshot<M>| changed.iter().all(|at| snapshot.generations[*at] == now[*at]);
            let reason = format!("the group `{}` follows its member `{}`", self.name, slots[*first].name());
            let cause = Cause::Automatic { reason };
            let then = self.line.find_warm(is_of_then);
            let is_back = then.is_some_and(|then| self.roll_back_frozen(Target::Generation(then), &cause).is_ok());
            if !is_back {
                // A slot that is closed has nothing to follow.
                let _closed = self.take_snapshot();
            }
        }
        slots.iter().for_each(|slot| slot.settle_elsewhere());
    }

    fn close(self: &Arc<Self>) {
        self.line.close();
        self.wake();
    }

    /// Has the reaper look at the group. In a forked process there is none.
    fn wake(self: &Arc<Self>) {
        let is_forked = self.members.slots().iter().any(|slot| slot.is_forked());
        if !is_forked && !self.woken.swap(true, Ordering::AcqRel) {
            reaper::wake(Arc::clone(self) as Arc<dyn Tended>);
        }
    }
}

impl<M: Members> Tended for Core<M> {
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn tend(self: Arc<Self>) -> Next {
        /// The shortest and the longest time to the next look at a snapshot that somebody holds.
        const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(10));
        self.woken.store(false, Ordering::Release);
        self.catch_up();
        // The leases in it go: that frees nothing, and wakes the members' reaper if need be.
        drop(self.line.collect());
        let (shortest, longest) = LOOK_AGAIN;
        let looks = self.line.retired(|view| {
            let again = (view.since.elapsed() / 2).clamp(shortest, longest);
            (!view.warm).then(|| Instant::now() + again)
        });
        looks.into_iter().flatten().min().map_or(Next::Forget, Next::LookAt)
    }
}

impl<M: Members> fmt::Debug for SlotGroup<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotGroup").field("name", &self.core.name).finish_non_exhaustive()
    }
}

impl<M: Members> fmt::Debug for GroupLease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupLease").field("snapshot", &GroupLease::snapshot(self)).finish_non_exhaustive()
    }
}

impl<M: Members> fmt::Debug for StagedGroup<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.core.members.slots();
        let names: Vec<_> = self.staged.iter().map(|(at, _)| slots[*at].name().to_owned()).collect();
        f.debug_struct("StagedGroup").field("members", &names).finish_non_exhaustive()
    }
}
