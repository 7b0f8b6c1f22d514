//! Which generation is current, which are kept for a rollback, which have to go: the swap itself.
//!
//! Writers take one short lock; readers never do. Nothing here runs a plugin's code or frees one: [`collect`] hands
//! over what can be freed, and the reaper does it.
//!
//! [`collect`]: Lineage::collect
//!
//! # Why a generation that is collected has no reader
//! `collect` takes a generation only if (a) it is on the retired list, so it is not in the cell, and (b) an exact
//! [`Survey`], made under the lock, finds no reference to it but the list's own. By the second property of
//! [`current`](super::current) nobody holds it then; a new hold could only come from the cell, into which only
//! [`rollback`](Lineage::rollback) could put it back, or from [`second_opinion`](Lineage::second_opinion), and both take the
//! same lock. The same holds for the cell of the canary: that is not on the retired list, and gets there
//! only after it has left the cell. The survey and `Arc::try_unwrap` synchronise with the end of every hold, so what readers did happens before
//! the freeing.
//!
//! # Why a hand-over under a pause loses nothing
//! [`pause`](Lineage::pause) empties the cell, so that no hold comes from it, and [`holds_on_serving`](Lineage::holds_on_serving)
//! is an exact survey made after that (a call that is put to it for a second opinion counts, a pin does not): if it finds none but
//! the caller's, every call on the generation has ended, and what it
//! did happens before the survey. Until the pause ends, a hold only comes from [`load_slowly`](Lineage::load_slowly), which
//! makes everyone wait but those that would wait for themselves. A pause ends in one way only, under the lock: by a swap, or
//! by the old generation's return to the cell, after which a [`commit`](Lineage::commit) under that pause is refused.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Instant;

use super::current::{Current, Hold, Survey};
use super::sync::{Arc, Mutex};

/// What a generation must do to stand in the line.
pub(super) trait Member {
    /// Its number.
    fn number(&self) -> u64;
    /// Called before it becomes current, with whether there is one that it takes the place of.
    fn install(&self, has_predecessor: bool);
    /// Called before it is served to a share of the callers.
    fn try_out(&self) {}
    /// How many of the holds on it are no leases, but calls that are put to it: see [`second_opinion`](Lineage::second_opinion).
    /// Counted down with a release when the hold has gone.
    fn consultations(&self) -> usize;
    /// How many of the holds on it are neither leases nor calls, but keep it for later. Counted down as consultations are.
    fn pins(&self) -> usize {
        0
    }
    /// Called when it no longer is.
    fn retire(&self);
}

pub(super) struct Lineage<G> {
    current: Current<G>,
    /// What a share of the callers gets instead: a staged generation. Empty without one, and during a pause.
    canary: Current<G>,
    line: Mutex<Line<G>>,
}

/// The writers' view.
struct Line<G> {
    /// How many times the current generation changed; the first one opened epoch 1.
    epoch: u64,
    /// The current generation. Nothing before the first commit, and nothing once closed.
    serving: Option<Standing<G>>,
    since: Instant,
    closed: bool,
    /// Set while there is a serving generation and the cell is empty all the same.
    pause: Option<Pause>,
    /// The staged generation that is served to a share of the callers: no longer than until the next swap.
    canary: Option<Arc<G>>,
    /// Those that were, and are neither current nor discarded yet: somebody may still have a hold on them.
    former_canaries: Vec<Arc<G>>,
    retired: Vec<Retired<G>>,
    /// How many retired generations stay warm.
    keep: usize,
}

/// A generation with its place in the line.
struct Standing<G> {
    generation: Arc<G>,
    /// The generation that it replaced when it was committed: where a rollback goes.
    replaced: Option<u64>,
}

/// A generation that is not current.
struct Retired<G> {
    standing: Standing<G>,
    /// The epoch that its retirement opened.
    epoch: u64,
    since: Instant,
    /// Kept for a rollback. Once it is not, it never is again.
    warm: bool,
    stuck: bool,
}

/// What an outsider may know of a retired generation.
pub(super) struct RetiredView<'a, G> {
    pub(super) generation: &'a G,
    pub(super) epoch: u64,
    pub(super) since: Instant,
    /// Kept for a rollback.
    pub(super) warm: bool,
    /// Had leases out for longer than the drain timeout.
    pub(super) stuck: bool,
    pub(super) leases: usize,
}

/// A generation that can be destroyed, and when it was retired.
pub(super) struct Collected<G> {
    pub(super) generation: G,
    pub(super) epoch: u64,
    pub(super) since: Instant,
}

/// What an outsider may know of the current generation.
pub(super) struct ServingView<'a, G> {
    pub(super) generation: &'a G,
    pub(super) epoch: u64,
    pub(super) since: Instant,
}

/// A generation as it was current for a while: the same one that comes back after a rollback is another base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) generation: u64,
    /// The epoch that began when it became current.
    pub(super) epoch: u64,
}

/// While it lasts, nobody gets a hold on the current generation who can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    base: Base,
    /// When it ends by itself, if somebody waits.
    until: Instant,
}

/// What there is for a reader who finds nothing in the cell.
pub(super) enum Slow<G> {
    /// A hold on the current generation.
    Hold(Hold<G>),
    /// The same, in spite of a pause: waiting for its end would be waiting for oneself.
    Exempt(Hold<G>),
    /// Nothing before the end of the pause, which is no later than this.
    Wait(Instant),
    /// Nothing before the first commit, or ever again.
    Nothing,
}

/// Who can be asked about a call that failed.
pub(super) enum SecondOpinion<G> {
    /// This one: see [`Lineage::second_opinion`].
    Of(Arc<G>),
    /// It would lose what it learned.
    NotNow,
    Nobody,
}

/// A change of the current generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) epoch: u64,
    /// `None` if this was the first.
    pub(super) from: Option<u64>,
    pub(super) to: u64,
}

/// Why a commit was not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotCommitted {
    /// Another generation than the expected one is current.
    BaseChanged { base: Option<u64>, current: u64 },
    /// Nothing is current any more.
    Closed,
    /// The pause under which it was to be done is over, and calls went on.
    PauseEnded,
    /// Another generation is the canary.
    CanaryUnderWay(u64),
}

/// Why there was no rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotRolledBack {
    /// The wanted generation is not kept; these are.
    NotWarm { wanted: Option<u64>, warm: Vec<u64> },
    /// Another generation than the expected one is current.
    BaseChanged { base: u64, current: u64 },
    /// The wanted generation is current already.
    AlreadyServing(u64),
    /// Nothing is current any more.
    Closed,
}

/// How many of the holds on a generation are no leases: its consultations and pins. Looked at under the lock, where neither
/// begins on what is retired, and before the [`Survey`]: they are counted down after the hold has gone, so one that ends in
/// between is not taken for a lease.
#[derive(Clone, Copy)]
struct Exempt(usize);

impl Exempt {
    fn of(generation: &impl Member) -> Exempt {
        Exempt(generation.consultations() + generation.pins())
    }
}

/// Where a rollback goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To what the current generation replaced.
    Previous,
    /// To what it replaced, if nothing changed since this.
    PreviousOf(Base),
    /// To this one.
    Generation(u64),
}

impl<G: Member> Lineage<G> {
    /// A line with nothing in it; the first commit has no base. `keep` retired generations stay warm.
    pub(super) fn new(keep: usize) -> Lineage<G> {
        Lineage {
            current: Current::new(),
            canary: Current::new(),
            line: Mutex::new(Line {
                epoch: 0,
                serving: None,
                since: Instant::now(),
                closed: false,
                pause: None,
                canary: None,
                former_canaries: Vec::new(),
                retired: Vec::new(),
                keep,
            }),
        }
    }

    /// A hold on the current generation, wait-free; `None` before the first commit and after
    /// [`close`](Lineage::close).
    #[inline]
    pub(super) fn load(&self) -> Option<Hold<G>> {
        self.current.load()
    }

    /// A hold on the canary, wait-free; `None` if there is none, and during a pause.
    #[inline]
    pub(super) fn load_canary(&self) -> Option<Hold<G>> {
        self.canary.load()
    }

    /// A hold on the current generation where the cell has none, or a reason to wait. `is_exempt` is for those that must
    /// not wait: the generation's own code.
    pub(super) fn load_slowly(&self, is_exempt: bool) -> Slow<G> {
        let mut line = self.line.lock();
        let Some(serving) = &line.serving else { return Slow::Nothing };
        let serving = Arc::clone(&serving.generation);
        match line.pause {
            None => Slow::Hold(Hold::of(&serving)),
            Some(_) if is_exempt || Hold::is_here(&serving) => Slow::Exempt(Hold::of(&serving)),
            Some(pause) if Instant::now() < pause.until => Slow::Wait(pause.until),
            Some(_) => {
                self.end_pause(&mut line);
                Slow::Hold(Hold::of(&serving))
            }
        }
    }

    /// A hold on the current generation, also during a pause, and what `look` makes of it.
    pub(super) fn hold_serving<R>(&self, look: impl FnOnce(ServingView<'_, G>) -> R) -> Option<(Hold<G>, R)> {
        let line = self.line.lock();
        let hold = Hold::of(&line.serving.as_ref()?.generation);
        Some((hold, look(line.current()?)))
    }

    /// Begins a pause, which lasts until `until` or a swap; `None` if another generation than `base` is current by now.
    pub(super) fn pause(&self, base: Base, until: Instant) -> Option<Pause> {
        let mut line = self.line.lock();
        if line.base() != Some(base) {
            return None;
        }
        // SAFETY: nothing is put there.
        unsafe {
            self.current.set(None);
            self.canary.set(None);
        }
        let pause = Pause { base, until };
        line.pause = Some(pause);
        Some(pause)
    }

    /// Ends a pause, if it lasts: the generation that was current can be loaded again.
    pub(super) fn resume(&self, pause: Pause) {
        let mut line = self.line.lock();
        if line.pause == Some(pause) {
            self.end_pause(&mut line);
        }
    }

    fn end_pause(&self, line: &mut Line<G>) {
        line.pause = None;
        // First, so that nobody whom it is served to gets the other one.
        // SAFETY: see `begin_canary`.
        unsafe { self.canary.set(line.canary.as_ref()) };
        if let Some(serving) = &line.serving {
            // SAFETY: the line keeps it: see `swap`.
            unsafe { self.current.set(Some(&serving.generation)) };
        }
    }

    /// Makes a staged generation the canary beside `base`, until the next swap or [`end_canary`](Lineage::end_canary). The line
    /// keeps it from then on, until it is committed or [discarded](Lineage::discard).
    pub(super) fn begin_canary(&self, staged: &Arc<G>, base: Option<Base>) -> Result<(), NotCommitted> {
        let mut line = self.line.lock();
        line.check_base(base)?;
        if let Some(other) = &line.canary {
            return Err(NotCommitted::CanaryUnderWay(other.number()));
        }
        staged.try_out();
        line.forget_former(staged.number());
        line.canary = Some(Arc::clone(staged));
        if line.pause.is_none() {
            // SAFETY: the line keeps it, as the canary or a former one, until it is there as the serving one or on the retired
            // list, and then as in `swap`.
            unsafe { self.canary.set(Some(staged)) };
        }
        Ok(())
    }

    /// Ends that for a generation, and does `then` in the same step, which takes no lock that is held during a call of this;
    /// `false` if it is not the canary any more.
    pub(super) fn end_canary(&self, generation: u64, then: impl FnOnce()) -> bool {
        let mut line = self.line.lock();
        let is_canary = line.is_canary(generation);
        if is_canary {
            self.clear_canary(&mut line);
            then();
        }
        is_canary
    }

    /// Does `then`, which takes no lock that is held during a call of this, while a generation is the canary; `false` if it is
    /// not any more.
    pub(super) fn while_canary(&self, generation: u64, then: impl FnOnce()) -> bool {
        let line = self.line.lock();
        let is_canary = line.is_canary(generation);
        if is_canary {
            then();
        }
        is_canary
    }

    /// The number of the canary.
    pub(super) fn canary(&self) -> Option<u64> {
        self.line.lock().canary.as_ref().map(|canary| canary.number())
    }

    /// Whether a commit in the place of `base` would be refused at this moment.
    pub(super) fn check_base(&self, base: Option<Base>) -> Result<(), NotCommitted> {
        self.line.lock().check_base(base)
    }

    fn clear_canary(&self, line: &mut Line<G>) {
        // SAFETY: nothing is put there.
        unsafe { self.canary.set(None) };
        let serving = line.serving.as_ref().map(|serving| serving.generation.number());
        if let Some(canary) = line.canary.take()
            && Some(canary.number()) != serving
        {
            canary.retire();
            line.former_canaries.push(canary);
        }
    }

    /// How many holds there are on a staged generation that is the canary, or was, besides the line's own and that of whoever
    /// staged it, if that can be told exactly at the moment. New ones may appear at once, unless it is during a pause.
    pub(super) fn calls_on_canary(&self, generation: u64) -> Option<usize> {
        let line = self.line.lock();
        match line.canary.iter().chain(&line.former_canaries).find(|canary| canary.number() == generation) {
            Some(canary) => Some(Survey::exact()?.holds(canary).saturating_sub(1)),
            None => Some(0),
        }
    }

    /// How many holds there are on the current generation, without pins, if that can be told exactly at the moment. New ones may appear
    /// at once, unless it is during a pause.
    pub(super) fn holds_on_serving(&self) -> Option<usize> {
        let line = self.line.lock();
        let serving = &line.serving.as_ref()?.generation;
        // Before the survey, as in `Exempt`.
        let pins = serving.pins();
        Some(Survey::exact()?.holds(serving).saturating_sub(pins))
    }

    /// The same as of about now.
    pub(super) fn about_holds_on_serving(&self) -> usize {
        let line = self.line.lock();
        let Some(serving) = &line.serving else { return 0 };
        let pins = serving.generation.pins();
        Survey::glance().holds(&serving.generation).saturating_sub(pins)
    }

    /// Makes `new` current in the place of `base`; if it is to be under a pause, only while that lasts.
    pub(super) fn commit(
        &self,
        new: &Arc<G>,
        base: Option<Base>,
        pause: Option<Pause>,
    ) -> Result<Change, NotCommitted> {
        let mut line = self.line.lock();
        line.check_base(base)?;
        if pause.is_some() && line.pause != pause {
            return Err(NotCommitted::PauseEnded);
        }
        let replaced = base.map(|base| base.generation);
        Ok(self.swap(&mut line, Standing { generation: Arc::clone(new), replaced }))
    }

    /// Makes a warm generation current again, one pointer store, and looks at it.
    pub(super) fn rollback<R>(&self, target: Target, look: impl FnOnce(&G) -> R) -> Result<(Change, R), NotRolledBack> {
        let mut line = self.line.lock();
        let at = line.locate(target)?;
        let standing = line.retired.remove(at).standing;
        let seen = look(&standing.generation);
        Ok((self.swap(&mut line, standing), seen))
    }

    /// Looks at the warm generation that a rollback would make current.
    pub(super) fn look_back<R>(&self, target: Target, look: impl FnOnce(&G) -> R) -> Result<R, NotRolledBack> {
        let line = self.line.lock();
        let at = line.locate(target)?;
        Ok(look(&line.retired[at].standing.generation))
    }

    /// The one place where the current generation changes.
    fn swap(&self, line: &mut Line<G>, new: Standing<G>) -> Change {
        // Before the store, so that no reader sees a current generation that says it is retired.
        new.generation.install(new.replaced.is_some());
        let to = new.generation.number();
        // SAFETY: the line keeps it, as the serving one and then on the retired list, until `collect` or `drop` finds that
        // nobody holds it.
        unsafe { self.current.set(Some(&new.generation)) };
        line.pause = None;
        let old = line.serving.replace(new);
        // After the store, so that whoever was served the canary is not served the old one in between.
        self.clear_canary(line);
        line.forget_former(to);
        let from = old.as_ref().map(|old| old.generation.number());
        line.epoch += 1;
        line.since = Instant::now();
        if let Some(old) = old {
            line.retire(old, true);
        }
        line.choose_warm();
        Change { epoch: line.epoch, from, to }
    }

    /// A hold on the generation that a call on `generation` can be put to: the current one if that is the canary, and the warm one
    /// that a rollback would go to if it is current. While it is out, it has to be among the generation's
    /// [consultations](Member::consultations), which are not leases; it must not be the last to go, and is not, because
    /// the line has one, too.
    pub(super) fn second_opinion(&self, generation: u64, enter: impl FnOnce(&G)) -> SecondOpinion<G> {
        let line = self.line.lock();
        let Some(serving) = &line.serving else { return SecondOpinion::Nobody };
        let other = if line.is_canary(generation) {
            if line.pause.is_some() {
                return SecondOpinion::NotNow;
            }
            Some(&serving.generation)
        } else if serving.generation.number() == generation {
            let is_wanted = |retired: &&Retired<G>| Some(retired.number()) == serving.replaced;
            line.warm().find(is_wanted).map(|retired| &retired.standing.generation)
        } else {
            None
        };
        let Some(other) = other else { return SecondOpinion::Nobody };
        enter(other);
        SecondOpinion::Of(Arc::clone(other))
    }

    /// Takes a generation that never became current, to be collected.
    pub(super) fn discard(&self, generation: Arc<G>) {
        let mut line = self.line.lock();
        if line.is_canary(generation.number()) {
            self.clear_canary(&mut line);
        }
        line.forget_former(generation.number());
        line.retire(Standing { generation, replaced: None }, false);
    }

    /// Retires everything: from here on there is nothing to load. A second call does nothing.
    pub(super) fn close(&self) {
        let mut line = self.line.lock();
        // SAFETY: nothing is put there.
        unsafe { self.current.set(None) };
        self.clear_canary(&mut line);
        line.closed = true;
        line.pause = None;
        line.keep = 0;
        if let Some(last) = line.serving.take() {
            line.epoch += 1;
            line.retire(last, true);
        }
        line.choose_warm();
    }

    /// The current generation, and its epoch.
    pub(super) fn base(&self) -> Option<Base> {
        self.line.lock().base()
    }

    /// The number of the last retired of the warm generations that are wanted.
    pub(super) fn find_warm(&self, is_wanted: impl Fn(&G) -> bool) -> Option<u64> {
        let line = self.line.lock();
        let wanted = line.warm().filter(|retired| is_wanted(&retired.standing.generation));
        wanted.max_by_key(|retired| retired.epoch).map(Retired::number)
    }

    /// Lets only those of the warm ones stay so that may.
    pub(super) fn cool(&self, may_stay: impl Fn(&G) -> bool) {
        for retired in &mut self.line.lock().retired {
            retired.warm &= may_stay(&retired.standing.generation);
        }
    }

    /// Whether [`close`](Lineage::close) was called.
    pub(super) fn is_closed(&self) -> bool {
        self.line.lock().closed
    }

    /// The retired generations that are neither warm nor held by anybody: they are the caller's to destroy. `still_held` gets
    /// those that are held; none if that cannot be told at the moment.
    pub(super) fn collect(&self, mut still_held: impl FnMut(&G)) -> Vec<Collected<G>> {
        let mut line = self.line.lock();
        let mut free = Vec::new();
        if line.retired.iter().all(|retired| retired.warm) {
            return free;
        }
        let Some(survey) = Survey::exact() else { return free };
        let mut at = 0;
        while at < line.retired.len() {
            if line.retired[at].warm {
                at += 1;
                continue;
            }
            if line.retired[at].holds(&survey) > 0 {
                still_held(&line.retired[at].standing.generation);
                at += 1;
                continue;
            }
            let mut retired = line.retired.swap_remove(at);
            match Arc::try_unwrap(retired.standing.generation) {
                Ok(generation) => {
                    free.push(Collected { generation, epoch: retired.epoch, since: retired.since });
                }
                Err(held) => {
                    retired.standing.generation = held;
                    line.retired.push(retired);
                    at += 1;
                }
            }
        }
        free
    }

    /// Looks at the current generation.
    pub(super) fn serving<R>(&self, look: impl FnOnce(ServingView<'_, G>) -> R) -> Option<R> {
        self.line.lock().current().map(look)
    }

    /// Looks at every retired generation, the longest retired first.
    pub(super) fn retired<R>(&self, look: impl FnMut(RetiredView<'_, G>) -> R) -> Vec<R> {
        self.line.lock().ended().map(look).collect()
    }

    /// Looks at all of them at one moment: [`serving`](Lineage::serving) and [`retired`](Lineage::retired).
    pub(super) fn all<S, R>(
        &self,
        serving: impl FnOnce(ServingView<'_, G>) -> S,
        retired: impl FnMut(RetiredView<'_, G>) -> R,
    ) -> (Option<S>, Vec<R>) {
        let mut line = self.line.lock();
        (line.current().map(serving), line.ended().map(retired).collect())
    }

    /// Marks as stuck, once, what has leases out and is `due`; gives what `look` makes of each.
    pub(super) fn mark_stuck<R>(
        &self,
        due: impl Fn(&RetiredView<'_, G>) -> bool,
        mut look: impl FnMut(RetiredView<'_, G>) -> R,
    ) -> Vec<R> {
        let mut line = self.line.lock();
        let mut found = Vec::new();
        if line.retired.is_empty() {
            return found;
        }
        let exempt = line.exempt();
        let survey = Survey::glance();
        for (retired, exempt) in line.retired.iter_mut().zip(exempt) {
            let view = retired.view(&survey, exempt);
            if !view.stuck && view.leases > 0 && due(&view) {
                found.push(look(RetiredView { stuck: true, ..view }));
                retired.stuck = true;
            }
        }
        found
    }
}

impl<G: Member> Line<G> {
    fn base(&self) -> Option<Base> {
        let serving = self.serving.as_ref()?;
        Some(Base { generation: serving.generation.number(), epoch: self.epoch })
    }

    fn check_base(&self, base: Option<Base>) -> Result<(), NotCommitted> {
        if self.closed {
            return Err(NotCommitted::Closed);
        }
        match self.base() {
            Some(current) if base != Some(current) => {
                let base = base.map(|base| base.generation);
                Err(NotCommitted::BaseChanged { base, current: current.generation })
            }
            _ => Ok(()),
        }
    }

    /// Where in the retired list the target of a rollback is.
    fn locate(&self, target: Target) -> Result<usize, NotRolledBack> {
        let serving = self.serving.as_ref().ok_or(NotRolledBack::Closed)?;
        let current = serving.generation.number();
        let wanted = match target {
            Target::PreviousOf(base) if Some(base) != self.base() => {
                return Err(NotRolledBack::BaseChanged { base: base.generation, current });
            }
            Target::Generation(wanted) if wanted == current => return Err(NotRolledBack::AlreadyServing(current)),
            Target::Generation(wanted) => Some(wanted),
            Target::Previous | Target::PreviousOf(_) => serving.replaced,
        };
        let at = self.retired.iter().position(|retired| retired.warm && Some(retired.number()) == wanted);
        at.ok_or_else(|| NotRolledBack::NotWarm { wanted, warm: self.warm().map(Retired::number).collect() })
    }

    /// Lets go of a generation that was a canary: it is kept otherwise.
    fn forget_former(&mut self, generation: u64) {
        self.former_canaries.retain(|former| former.number() != generation);
    }

    fn is_canary(&self, generation: u64) -> bool {
        self.canary.as_ref().is_some_and(|canary| canary.number() == generation)
    }

    fn retire(&mut self, standing: Standing<G>, was_current: bool) {
        standing.generation.retire();
        let since = Instant::now();
        self.retired.push(Retired { standing, epoch: self.epoch, since, warm: was_current, stuck: false });
    }

    /// Lets only `keep` of the warm ones stay so: first those that rollbacks from here would go to, one after the
    /// other, then the latest retired.
    fn choose_warm(&mut self) {
        let replaced: BTreeMap<_, _> = self.warm().map(|r| (r.number(), r.standing.replaced)).collect();
        if replaced.len() <= self.keep {
            return;
        }
        // By number, how many rollbacks away.
        let mut away = BTreeMap::new();
        let mut next = self.serving.as_ref().and_then(|standing| standing.replaced);
        while let Some((number, replaced)) = next.and_then(|number| replaced.get_key_value(&number)) {
            away.insert(*number, away.len());
            next = *replaced;
        }
        let mut warm: Vec<_> = self.retired.iter_mut().filter(|retired| retired.warm).collect();
        warm.sort_unstable_by_key(|retired| {
            let number = retired.number();
            (away.get(&number).copied().unwrap_or(usize::MAX), Reverse((retired.epoch, number)))
        });
        for retired in warm.into_iter().skip(self.keep) {
            retired.warm = false;
        }
    }

    fn current(&self) -> Option<ServingView<'_, G>> {
        let standing = self.serving.as_ref()?;
        let generation = &standing.generation;
        Some(ServingView { generation, epoch: self.epoch, since: self.since })
    }

    /// The longest retired first.
    fn ended(&mut self) -> impl Iterator<Item = RetiredView<'_, G>> {
        self.retired.sort_by_key(|retired| retired.epoch);
        let exempt = self.exempt();
        let survey = if self.retired.is_empty() { None } else { Some(Survey::glance()) };
        self.retired
            .iter()
            .zip(exempt)
            .map(move |(retired, exempt)| retired.view(survey.as_ref().expect("something is retired"), exempt))
    }

    /// Those of each retired generation, in the order of the list.
    fn exempt(&self) -> Vec<Exempt> {
        self.retired.iter().map(|retired| Exempt::of(&*retired.standing.generation)).collect()
    }

    fn warm(&self) -> impl Iterator<Item = &Retired<G>> {
        self.retired.iter().filter(|retired| retired.warm)
    }
}

impl<G: Member> Retired<G> {
    fn number(&self) -> u64 {
        self.standing.generation.number()
    }

    /// Every reference but the list's own.
    fn holds(&self, survey: &Survey) -> usize {
        survey.holds(&self.standing.generation)
    }

    fn view(&self, survey: &Survey, exempt: Exempt) -> RetiredView<'_, G> {
        RetiredView {
            generation: &self.standing.generation,
            epoch: self.epoch,
            since: self.since,
            warm: self.warm,
            stuck: self.stuck,
            leases: self.holds(survey).saturating_sub(exempt.0),
        }
    }
}

/// A line that goes before its leases, in a forked child for instance, where nobody collects: what is held stays.
impl<G> Drop for Lineage<G> {
    fn drop(&mut self) {
        // SAFETY: nothing is put there.
        unsafe {
            self.current.set(None);
            self.canary.set(None);
        }
        let line = self.line.get_mut();
        let survey = Survey::exact();
        let standings = line.retired.drain(..).map(|retired| retired.standing).chain(line.serving.take());
        let canaries = line.canary.take().into_iter().chain(line.former_canaries.drain(..));
        for generation in standings.map(|standing| standing.generation).chain(canaries) {
            if survey.as_ref().is_none_or(|survey| survey.holds(&generation) > 0) {
                std::mem::forget(generation);
            }
        }
    }
}

#[cfg(all(test, not(hotslot_loom)))]
mod tests {
    use super::*;

    struct Numbered(u64);

    impl Member for Numbered {
        fn number(&self) -> u64 {
            self.0
        }
        fn install(&self, _: bool) {}
        fn consultations(&self) -> usize {
            0
        }
        fn retire(&self) {}
    }

    fn commit(lineage: &Lineage<Numbered>, number: u64) {
        lineage.commit(&Arc::new(Numbered(number)), lineage.base(), None).expect("nothing else commits");
    }

    /// What was decided about a generation is not done to the same one when it has come back since.
    #[test]
    fn a_rollback_from_a_base_finds_that_it_has_changed() {
        let lineage = Lineage::new(4);
        commit(&lineage, 1);
        commit(&lineage, 2);
        let condemned = lineage.base().unwrap();
        commit(&lineage, 3);
        let from = |base| lineage.rollback(Target::PreviousOf(base), |_| ()).map(|(change, ())| change.to);
        assert_eq!(from(condemned), Err(NotRolledBack::BaseChanged { base: 2, current: 3 }));
        lineage.rollback(Target::Previous, |_| ()).unwrap();
        assert_eq!(from(condemned), Err(NotRolledBack::BaseChanged { base: 2, current: 2 }), "it was brought back");
        assert_eq!(from(lineage.base().unwrap()), Ok(1));
    }

    /// Whoever waited too long goes on to the old generation, and what would lose its calls is not committed.
    #[test]
    fn a_pause_that_is_over_commits_nothing() {
        let lineage = Lineage::new(4);
        commit(&lineage, 1);
        let base = lineage.base();
        let later = Instant::now() + std::time::Duration::from_secs(60);
        let new = Arc::new(Numbered(2));
        let pause = lineage.pause(base.unwrap(), later).unwrap();
        assert!(lineage.load().is_none());
        assert!(matches!(lineage.load_slowly(false), Slow::Wait(until) if until == later));
        assert!(matches!(lineage.load_slowly(true), Slow::Exempt(hold) if hold.0 == 1));
        lineage.resume(pause);
        assert_eq!(lineage.load().unwrap().0, 1);
        assert_eq!(lineage.commit(&new, base, Some(pause)), Err(NotCommitted::PauseEnded));
        // One that nobody ends, whoever waits ends.
        let pause = lineage.pause(base.unwrap(), Instant::now()).unwrap();
        assert!(matches!(lineage.load_slowly(false), Slow::Hold(hold) if hold.0 == 1));
        assert_eq!(lineage.commit(&new, base, Some(pause)), Err(NotCommitted::PauseEnded));
        // A swap ends it, too.
        let pause = lineage.pause(base.unwrap(), later).unwrap();
        lineage.commit(&new, base, Some(pause)).unwrap();
        assert_eq!(lineage.load().unwrap().0, 2);
        assert_eq!(lineage.pause(base.unwrap(), later), None, "the base has changed");
    }

    #[test]
    fn the_time_since_a_swap_is_that_of_the_swap() {
        let lineage = Lineage::new(4);
        commit(&lineage, 1);
        let since = || lineage.serving(|view| view.since).unwrap();
        let first = since();
        while first.elapsed().is_zero() {}
        commit(&lineage, 2);
        assert!(since() > first);
    }

    #[test]
    fn only_what_may_stay_stays_warm_and_nothing_becomes_it_again() {
        let lineage = Lineage::new(4);
        (1..=4).for_each(|number| commit(&lineage, number));
        let warm = || lineage.retired(|view| view.warm.then_some(view.generation.0)).into_iter().flatten().collect();
        let warm_after = |may_stay: fn(&Numbered) -> bool| -> Vec<u64> {
            lineage.cool(may_stay);
            warm()
        };
        assert_eq!(warm_after(|_| true), [1, 2, 3]);
        assert_eq!(warm_after(|generation| generation.0 != 2), [1, 3]);
        assert_eq!(warm_after(|_| true), [1, 3]);
        assert_eq!(lineage.find_warm(|_| true), Some(3));
        assert_eq!(warm_after(|_| false), [0; 0]);
    }

    #[test]
    fn the_end_of_a_line_is_an_epoch_too() {
        let lineage = Lineage::new(4);
        commit(&lineage, 1);
        commit(&lineage, 2);
        let last = lineage.base().unwrap().epoch;
        (0..2).for_each(|_| lineage.close());
        let mut epochs = lineage.retired(|view| (view.generation.0, view.epoch));
        epochs.sort_unstable();
        assert_eq!(epochs, [(1, last), (2, last + 1)]);
    }

    #[test]
    fn calls_on_a_canary_are_those_on_this_one() {
        let lineage = Lineage::new(4);
        commit(&lineage, 1);
        let staged = Arc::new(Numbered(2));
        lineage.begin_canary(&staged, lineage.base()).unwrap();
        let call = lineage.load_canary();
        assert_eq!(eventually(|| lineage.calls_on_canary(2), Option::is_some), Some(1));
        assert_eq!(lineage.calls_on_canary(3), Some(0), "another one that is staged has no calls");
        drop(call);
        assert_eq!(eventually(|| lineage.calls_on_canary(2), Option::is_some), Some(0));
        assert!(lineage.end_canary(2, || {}));
        lineage.discard(staged);
    }

    /// While a reader cannot be seen through, all that is known is that something may be held.
    #[cfg(unix)]
    #[test]
    fn what_cannot_be_told_to_be_held_is_not_said_to_be() {
        use std::sync::mpsc;

        use crate::slot::readers;
        use crate::slot::sync::AtomicPtr;

        let lineage = Lineage::new(0);
        commit(&lineage, 1);
        let hold = lineage.load();
        commit(&lineage, 2);
        let collect = || {
            let mut held = Vec::new();
            let free = lineage.collect(|generation| held.push(generation.0));
            (free.into_iter().map(|free| free.generation.0).collect::<Vec<_>>(), held)
        };
        assert_eq!(eventually(collect, |(_, held)| !held.is_empty()), (vec![], vec![1]));
        drop(hold);
        std::thread::scope(|scope| {
            let ((begun, has_begun), (end, ends)) = (mpsc::channel(), mpsc::channel::<()>());
            scope.spawn({
                let lineage = &lineage;
                move || {
                    // With these, no hazard is left, and the next hold has to be counted.
                    let _used_up: Vec<_> = (0..64).map(|_| lineage.load()).collect();
                    let mut value = 0;
                    let count = |_| {
                        begun.send(()).unwrap();
                        _ = ends.recv();
                    };
                    readers::record().hold(&AtomicPtr::new(&raw mut value), count);
                }
            });
            has_begun.recv().unwrap();
            assert_eq!(collect(), (vec![], vec![]));
            drop(end);
        });
        assert_eq!(eventually(collect, |(free, _)| !free.is_empty()), (vec![1], vec![]));
    }

    /// Other tests' threads read, too.
    fn eventually<R>(mut look: impl FnMut() -> R, is_it: impl Fn(&R) -> bool) -> R {
        loop {
            let seen = look();
            if is_it(&seen) {
                return seen;
            }
            std::thread::yield_now();
        }
    }
}
