//! Slots that change as one.
//!
//! A group is a line of its own, whose generations are snapshots: one lease on each member's generation. A change of the group
//! changes the members first, while none of them can swap otherwise, and then stores the snapshot: the one store that decides
//! what [`SlotGroup::load`] gives. So whoever loads finds the old ones or the new ones, and waits for nobody.
//!
//! The locks of several members' swaps are taken in the order of their addresses: a group that was dropped may still be looked
//! at while its slots are in another one.

use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::HotSlot;
use super::attempt::Asked;
use super::core::Core as SlotCore;
use super::current::Hold;
use super::lease::Lease;
use super::lineage::{self, Lineage, Target};
use super::member::{Member, ReadyMember, StagedMember};
use super::reaper::{self, Next, Tended};
use crate::artifact::Request;
use crate::lock::Mutex;
use crate::{Candidate, Cause, Error, ErrorKind, Report, Stage};

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
/// - Leases that are taken through the group are not among those that the members' reports count.
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
    members: M,
    core: Arc<Core<M::Leases>>,
}

/// The members of a [`SlotGroup`]: tuples of two to six `Arc<HotSlot<_>>`.
#[expect(private_interfaces, reason = "nobody else can implement it")]
pub trait Members: Send + Sync + 'static {
    /// A lease for each of them, as a tuple.
    type Leases: Send + Sync + 'static;
    /// What is to be loaded into each of them, in their order; nothing for those that stay as they are.
    type Candidates: IntoIterator<Item = Option<Candidate>>;

    #[doc(hidden)]
    fn slots(&self) -> Box<dyn Slots<Self::Leases>>;
}

/// What a group needs of its members: not the slots themselves, which close when their owners drop them.
trait Slots<L>: Send + Sync {
    fn members(&self) -> Vec<&dyn Member>;
    /// The leases on all that is current; `None` if a member is closed.
    fn take_leases(&self) -> Option<(L, Vec<Pin>)>;
}

/// A lease of a snapshot's, which is not to be taken for a caller's.
struct Pin {
    generation: u64,
    count: Arc<AtomicUsize>,
}

macro_rules! members {
    ($count:literal: $($ty:ident $at:tt),+) => {
        #[expect(private_interfaces, reason = "nobody else can implement it")]
        impl<$($ty: ?Sized + Send + Sync + 'static),+> Members for ($(Arc<HotSlot<$ty>>,)+) {
            type Leases = ($(Lease<$ty>,)+);
            type Candidates = [Option<Candidate>; $count];

            fn slots(&self) -> Box<dyn Slots<Self::Leases>> {
                Box::new(($(Arc::clone(&self.$at.core),)+))
            }
        }

        impl<$($ty: ?Sized + Send + Sync + 'static),+> Slots<($(Lease<$ty>,)+)> for ($(Arc<SlotCore<$ty>>,)+) {
            fn members(&self) -> Vec<&dyn Member> {
                vec![$(&self.$at),+]
            }

            fn take_leases(&self) -> Option<(($(Lease<$ty>,)+), Vec<Pin>)> {
                let leases = ($(lease(&self.$at)?,)+);
                let pins = vec![$(pin(&leases.$at)),+];
                Some((leases, pins))
            }
        }
    };
}

members!(2: A 0, B 1);
members!(3: A 0, B 1, C 2);
members!(4: A 0, B 1, C 2, D 3);
members!(5: A 0, B 1, C 2, D 3, E 4);
members!(6: A 0, B 1, C 2, D 3, E 4, F 5);

fn lease<T: ?Sized + Send + Sync + 'static>(slot: &SlotCore<T>) -> Option<Lease<T>> {
    let (hold, ()) = slot.lineage.hold_serving(|_| ())?;
    Some(Lease::new(hold, Location::caller()))
}

fn pin<T: ?Sized + Send + Sync + 'static>(lease: &Lease<T>) -> Pin {
    let count = Arc::clone(Lease::pin_count(lease));
    count.fetch_add(1, Ordering::Relaxed);
    Pin { generation: Lease::generation(lease), count }
}

/// The plugins of all members as of one moment: dereferences to a tuple of [leases](Lease).
pub struct GroupLease<L: Send + Sync + 'static> {
    // Fields are dropped in this order: the reaper is woken when the hold has gone.
    hold: Hold<Snapshot<L>>,
    notify: NotifyOnDrop<L>,
}

/// Plugins that are loaded and proven in all members that are to change, one [`commit`](StagedGroup::commit) away from serving.
///
/// Dropped instead of committed, they are destroyed, and recorded as [`Discarded`](crate::Outcome::Discarded).
#[must_use = "a staged group that is dropped changes nothing: commit() makes it serve"]
pub struct StagedGroup<M: Members> {
    core: Arc<Core<M::Leases>>,
    /// The snapshot that it is to replace.
    base: u64,
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

struct Core<L: Send + Sync + 'static> {
    name: String,
    slots: Box<dyn Slots<L>>,
    line: Lineage<Snapshot<L>>,
    next_snapshot: AtomicU64,
    /// Held while the members change.
    changing: Mutex<()>,
    /// Whether the group itself changes them, and need not follow.
    is_changing: AtomicBool,
    woken: AtomicBool,
}

/// What all members had at one moment.
struct Snapshot<L: Send + Sync + 'static> {
    number: u64,
    // Fields are dropped in this order: a lease that is no longer pinned passes for a caller's.
    leases: L,
    pins: Pins,
    home: Weak<Core<L>>,
    retired: AtomicBool,
}

impl<L: Send + Sync + 'static> Snapshot<L> {
    fn generations(&self) -> impl Iterator<Item = u64> {
        self.pins.by_member.iter().map(|pin| pin.generation)
    }
}

/// What tells a snapshot's leases from callers'.
struct Pins {
    /// By the place of the member.
    by_member: Vec<Pin>,
    /// Not any more once only callers keep the snapshot.
    hold: AtomicBool,
}

impl Pins {
    fn release(&self) {
        if self.hold.swap(false, Ordering::Relaxed) {
            for pin in &self.by_member {
                // Pairs with the acquire in `Generation::pins`: who sees it sees that the lease has gone.
                pin.count.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.release();
    }
}

impl<L: Send + Sync + 'static> lineage::Member for Snapshot<L> {
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

struct NotifyOnDrop<L: Send + Sync + 'static>(Option<Weak<Core<L>>>);

impl<L: Send + Sync + 'static> Drop for NotifyOnDrop<L> {
    fn drop(&mut self) {
        if let Some(core) = self.0.as_ref().and_then(Weak::upgrade) {
            core.wake();
            reaper::let_go(core);
        }
    }
}

impl<L: Send + Sync + 'static> Drop for GroupLease<L> {
    fn drop(&mut self) {
        if self.hold.retired.load(Ordering::Relaxed) {
            self.notify.0 = Some(Weak::clone(&self.hold.home));
        }
    }
}

impl<L: Send + Sync + 'static> Deref for GroupLease<L> {
    type Target = L;

    #[inline]
    fn deref(&self) -> &L {
        &self.hold.leases
    }
}

impl<L: Send + Sync + 'static> GroupLease<L> {
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
    /// It does not own the slots: a member is closed when its owners have dropped it.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) if a slot is in a group already, or holds calls during a hand-over;
    /// [`Closed`](ErrorKind::Closed).
    pub fn new(name: impl Into<String>, members: M) -> Result<SlotGroup<M>, GroupError> {
        let slots = members.slots();
        let keep = slots.members().iter().map(|slot| slot.keep_previous()).min().unwrap_or(0);
        let core = Arc::new(Core {
            name: name.into(),
            slots,
            line: Lineage::new(keep),
            next_snapshot: AtomicU64::new(1),
            changing: Mutex::default(),
            is_changing: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        });
        let joining = core.slots.members();
        for (at, slot) in joining.iter().enumerate() {
            let group = Arc::downgrade(&core);
            let follow = move || {
                if let Some(group) = group.upgrade() {
                    group.follow();
                    reaper::let_go(group);
                }
            };
            if let Err(source) = slot.join(Arc::new(follow)) {
                joining[..at].iter().for_each(|slot| slot.leave());
                return Err(GroupError { slot: slot.name().to_owned(), source });
            }
        }
        drop(joining);
        // From here on, dropping the group leaves them.
        let group = SlotGroup { members, core };
        {
            let _changing = group.core.changing.lock();
            let _frozen = group.core.freeze();
            group.core.take_snapshot().map_err(|kind| group.core.error(kind))?;
        }
        Ok(group)
    }

    /// Takes a lease on the plugins of all members. Wait-free, and never a mix of two snapshots.
    #[inline]
    pub fn load(&self) -> GroupLease<M::Leases> {
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
        let base = self.core.line.base().map_or(0, |base| base.generation);
        let slots = self.core.slots.members();
        let mut staged: Vec<(usize, Box<dyn StagedMember>)> = Vec::new();
        for (at, candidate) in candidates.into_iter().enumerate() {
            let Some(candidate) = candidate else { continue };
            match slots[at].stage(Asked::new(candidate), keeps_turn) {
                Ok(one) => staged.push((at, one)),
                Err(error) => {
                    let why = refused_with(slots[at].name(), error.reason());
                    staged.into_iter().for_each(|(_, other)| drop(other.refuse(why())));
                    self.core.settle();
                    return Err(GroupError { slot: slots[at].name().to_owned(), source: error });
                }
            }
        }
        Ok(StagedGroup { core: Arc::clone(&self.core), base, staged })
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
        &self.members
    }

    /// Returns what is current, and what can be rolled back to; nothing of it in a forked process.
    pub fn status(&self) -> GroupStatus {
        let slots = self.core.slots.members();
        let names = slots.iter().map(|slot| slot.name().to_owned());
        if self.core.is_forked() {
            // A lock may have been held by a thread that the fork left behind.
            let members = names.map(|name| (name, 0)).collect();
            return GroupStatus { group: self.core.name.clone(), snapshot: 0, members, warm: Vec::new() };
        }
        let (serving, retired) = self.core.line.all(
            |view| (view.generation.number, view.generation.generations().collect::<Vec<_>>()),
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
fn refused_with(slot: &str, reason: String) -> impl Fn() -> ErrorKind + use<> {
    let slot = slot.to_owned();
    move || ErrorKind::GroupRefused { slot: slot.clone(), reason: reason.clone() }
}

impl<M: Members> Drop for SlotGroup<M> {
    fn drop(&mut self) {
        if self.core.is_forked() {
            return;
        }
        self.core.slots.members().into_iter().for_each(Member::leave);
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
    /// As [`SlotGroup::reload`]; [`BaseChanged`](ErrorKind::BaseChanged) also if a member changed that was to stay as it was when
    /// the others were staged; [`Misuse`](ErrorKind::Misuse) if the group was dropped.
    pub fn commit(self) -> Result<GroupReport, GroupError> {
        let StagedGroup { core, base, staged } = self;
        let slots = core.slots.members();
        if let Err(error) = core.check_caller() {
            let why = refused_with(&error.slot, error.source.reason());
            staged.into_iter().for_each(|(_, one)| drop(one.refuse(why())));
            core.settle();
            return Err(error);
        }
        let mut ready: Vec<(usize, Box<dyn ReadyMember>)> = Vec::new();
        let mut waiting = staged.into_iter();
        while let Some((at, one)) = waiting.next() {
            match one.make_ready() {
                Ok(one) => ready.push((at, one)),
                Err(error) => {
                    let why = refused_with(slots[at].name(), error.reason());
                    ready.into_iter().for_each(|(_, other)| drop(other.refuse(why())));
                    waiting.for_each(|(_, other)| drop(other.refuse(why())));
                    core.settle();
                    return Err(GroupError { slot: slots[at].name().to_owned(), source: error });
                }
            }
        }
        let result = core.swap_all(base, ready);
        core.settle();
        result
    }
}

/// What stands against a change, of a member or of the group as a whole.
struct Objection {
    member: Option<usize>,
    kind: ErrorKind,
}

impl<L: Send + Sync + 'static> Core<L> {
    /// Swaps in every member, or in none.
    fn swap_all(
        self: &Arc<Self>,
        base: u64,
        ready: Vec<(usize, Box<dyn ReadyMember>)>,
    ) -> Result<GroupReport, GroupError> {
        let slots = self.slots.members();
        let changing = self.changing.lock();
        let frozen = self.freeze();
        if let Some(objection) = self.objection(base, &ready) {
            drop((frozen, changing));
            return Err(self.refuse(objection, ready));
        }
        self.is_changing.store(true, Ordering::Relaxed);
        let swapped: Vec<_> = ready.into_iter().map(|(at, one)| (at, one.swap())).collect();
        self.is_changing.store(false, Ordering::Relaxed);
        let taken = self.take_snapshot();
        drop((frozen, changing));
        self.tidy_up();
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

    /// What stands against a change of members, all of which are frozen, in the place of a snapshot.
    fn objection(&self, base: u64, ready: &[(usize, Box<dyn ReadyMember>)]) -> Option<Objection> {
        if self.line.is_closed() {
            let gone = "the group was dropped, and what was staged in it cannot be committed any more";
            return Some(Objection { member: None, kind: ErrorKind::Misuse(gone.to_owned()) });
        }
        if let Some((at, kind)) = ready.iter().find_map(|(at, one)| Some((*at, one.objection()?))) {
            return Some(Objection { member: Some(at), kind });
        }
        // Those that stay have to be what they were when the others were tried.
        let current = self.line.base()?.generation;
        let is_as_before = current == base && self.current() == self.in_snapshot();
        let changed = ErrorKind::BaseChanged { base: Some(base), current };
        (!is_as_before).then_some(Objection { member: None, kind: changed })
    }

    fn refuse(&self, objection: Objection, ready: Vec<(usize, Box<dyn ReadyMember>)>) -> GroupError {
        let slots = self.slots.members();
        let Objection { member, kind } = objection;
        let why = refused_with(member.map_or(&self.name, |at| slots[at].name()), kind.to_string());
        let (mut kind, mut found) = (Some(kind), None);
        for (at, one) in ready {
            let its_own = if member == Some(at) { kind.take() } else { None };
            let is_its_own = its_own.is_some();
            let source = one.refuse(its_own.unwrap_or_else(&why));
            if is_its_own {
                found = Some(GroupError { slot: slots[at].name().to_owned(), source });
            }
        }
        found.unwrap_or_else(|| self.error(kind.take().unwrap_or(ErrorKind::Closed)))
    }

    fn roll_back(self: &Arc<Self>, target: Target) -> Result<GroupReport, GroupError> {
        self.check_caller()?;
        let result = {
            let _changing = self.changing.lock();
            let _frozen = self.freeze();
            self.roll_back_frozen(target, &Cause::Rollback)
        };
        self.tidy_up();
        self.settle();
        result
    }

    /// Has the reaper look, and the log lines written, as after every change. Nothing is frozen, and nobody's turn is held.
    fn settle(&self) {
        if !self.is_forked() {
            self.slots.members().iter().for_each(|slot| slot.settle());
        }
    }

    /// Whether a change may be asked for from here: see the slot's own.
    fn check_caller(&self) -> Result<(), GroupError> {
        self.slots.members().iter().try_for_each(|slot| {
            slot.check_caller().map_err(|source| GroupError { slot: slot.name().to_owned(), source })
        })
    }

    /// Rolls the members back to a snapshot, all of which are frozen.
    fn roll_back_frozen(self: &Arc<Self>, target: Target, cause: &Cause) -> Result<GroupReport, GroupError> {
        let slots = self.slots.members();
        let look = |snapshot: &Snapshot<L>| (snapshot.number, snapshot.generations().collect::<Vec<_>>());
        let (snapshot, wanted) =
            self.line.look_back(target, look).map_err(|reason| self.error(ErrorKind::from(reason)))?;
        let is_changed = |(slot, wanted): &(&&dyn Member, &u64)| slot.generation() != Some(**wanted);
        let changes: Vec<_> = slots.iter().zip(&wanted).filter(is_changed).collect();
        for (slot, wanted) in &changes {
            slot.check_warm(**wanted).map_err(|kind| {
                let slot = slot.name().to_owned();
                GroupError { source: Error::new(Stage::Commit, kind, None), slot }
            })?;
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
        self.line
            .rollback(Target::Generation(snapshot), |_| ())
            .map_err(|reason| self.error(ErrorKind::from(reason)))?;
        self.forget_unreachable();
        Ok(GroupReport { snapshot, members })
    }

    /// Holds up the swaps of all members, in an order that is the same for all groups.
    fn freeze(&self) -> Vec<MutexGuard<'_, ()>> {
        let mut members = self.slots.members();
        members.sort_unstable_by_key(|slot| slot.key());
        members.into_iter().map(Member::freeze).collect()
    }

    /// The generations of the members at this moment.
    fn current(&self) -> Option<Vec<u64>> {
        self.slots.members().iter().map(|slot| slot.generation()).collect()
    }

    /// Those of the current snapshot.
    fn in_snapshot(&self) -> Option<Vec<u64>> {
        self.line.serving(|view| view.generation.generations().collect())
    }

    /// Makes what the members have the current snapshot, unless it is. They are frozen.
    fn take_snapshot(self: &Arc<Self>) -> Result<u64, ErrorKind> {
        if let (Some(base), true) = (self.line.base(), self.current() == self.in_snapshot()) {
            return Ok(base.generation);
        }
        let (leases, pins) = self.slots.take_leases().ok_or(ErrorKind::Closed)?;
        let number = self.next_snapshot.fetch_add(1, Ordering::Relaxed);
        let snapshot = Snapshot {
            number,
            leases,
            pins: Pins { by_member: pins, hold: AtomicBool::new(true) },
            home: Arc::downgrade(self),
            retired: AtomicBool::new(false),
        };
        self.line.commit(&super::sync::Arc::new(snapshot), self.line.base(), None)?;
        self.forget_unreachable();
        Ok(number)
    }

    /// Lets go of snapshots with a generation to which its member cannot go back any more. They are frozen.
    fn forget_unreachable(&self) {
        let slots = self.slots.members();
        let is_there =
            |(slot, wanted): (&&dyn Member, u64)| slot.generation() == Some(wanted) || slot.check_warm(wanted).is_ok();
        self.line.cool(|snapshot| slots.iter().zip(snapshot.generations()).all(is_there));
    }

    fn error(&self, kind: ErrorKind) -> GroupError {
        GroupError { slot: self.name.clone(), source: Error::new(Stage::Commit, kind, None) }
    }

    /// Drops the snapshots that nobody has, so that what they held can go, and has the reaper look after the others.
    fn tidy_up(self: &Arc<Self>) {
        self.let_go();
        self.wake();
    }

    /// Drops the snapshots that nobody has: that frees nothing by itself. Returns since when the others are retired that are not
    /// kept.
    fn let_go(&self) -> Vec<Instant> {
        // Who still has one is a caller.
        drop(self.line.collect(|held| held.pins.release()));
        self.line.retired(|view| (!view.warm).then_some(view.since)).into_iter().flatten().collect()
    }

    /// A member has changed.
    fn follow(self: &Arc<Self>) {
        if !self.is_changing.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Makes the group what its members are, if one of them changed past it.
    fn catch_up(self: &Arc<Self>) {
        if self.line.is_closed() {
            return;
        }
        let slots = self.slots.members();
        {
            let _changing = self.changing.lock();
            let _frozen = self.freeze();
            let (Some(now), Some(before)) = (self.current(), self.in_snapshot()) else { return };
            let changed: Vec<_> = (0..now.len()).filter(|at| now[*at] != before[*at]).collect();
            let Some(first) = changed.first() else { return };
            let is_of_then =
                |snapshot: &Snapshot<L>| changed.iter().all(|at| snapshot.pins.by_member[*at].generation == now[*at]);
            let reason = format!("the group `{}` follows its member `{}`", self.name, slots[*first].name());
            let cause = Cause::Automatic { reason };
            let then = self.line.find_warm(is_of_then);
            let is_back = then.is_some_and(|then| self.roll_back_frozen(Target::Generation(then), &cause).is_ok());
            if !is_back {
                // A group that was dropped meanwhile has nothing to follow.
                let _closed = self.take_snapshot();
            }
        }
        slots.iter().for_each(|slot| slot.settle_elsewhere());
    }

    fn close(self: &Arc<Self>) {
        {
            let _changing = self.changing.lock();
            self.line.close();
        }
        self.wake();
    }

    fn is_forked(&self) -> bool {
        self.slots.members().iter().any(|slot| slot.is_forked())
    }

    /// Has the reaper look at the group. In a forked process there is none.
    fn wake(self: &Arc<Self>) {
        if !self.is_forked() && !self.woken.swap(true, Ordering::AcqRel) {
            reaper::wake(Arc::clone(self) as Arc<dyn Tended>);
        }
    }
}

impl<L: Send + Sync + 'static> Tended for Core<L> {
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn tend(self: Arc<Self>) -> Next {
        /// The shortest and the longest time to the next look at a snapshot that somebody holds.
        const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(10));
        self.woken.store(false, Ordering::Release);
        self.catch_up();
        let (shortest, longest) = LOOK_AGAIN;
        let wait = self.let_go().into_iter().map(|since| (since.elapsed() / 2).clamp(shortest, longest)).min();
        wait.map_or(Next::Forget, |wait| Next::LookAt(Instant::now() + wait))
    }

    fn leave(self: Arc<Self>) {
        reaper::let_go(self);
    }
}

impl<M: Members> fmt::Debug for SlotGroup<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotGroup").field("name", &self.core.name).finish_non_exhaustive()
    }
}

impl<L: Send + Sync + 'static> fmt::Debug for GroupLease<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupLease").field("snapshot", &GroupLease::snapshot(self)).finish_non_exhaustive()
    }
}

impl<M: Members> fmt::Debug for StagedGroup<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.core.slots.members();
        let names: Vec<_> = self.staged.iter().map(|(at, _)| slots[*at].name().to_owned()).collect();
        f.debug_struct("StagedGroup").field("members", &names).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(hotslot_loom)))]
mod tests {
    use super::*;

    /// Notes whether a lease is pinned when it is dropped.
    struct Probe(Arc<AtomicUsize>, Arc<AtomicBool>);

    impl Drop for Probe {
        fn drop(&mut self) {
            self.1.store(self.0.load(Ordering::Relaxed) > 0, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_lease_of_a_snapshot_is_pinned_until_it_has_gone() {
        let (count, was_pinned) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicBool::new(false)));
        let by_member = vec![Pin { generation: 1, count: Arc::clone(&count) }];
        drop(Snapshot {
            number: 1,
            leases: Probe(Arc::clone(&count), Arc::clone(&was_pinned)),
            pins: Pins { by_member, hold: AtomicBool::new(true) },
            home: Weak::new(),
            retired: AtomicBool::new(false),
        });
        assert!(was_pinned.load(Ordering::Relaxed));
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }
}
