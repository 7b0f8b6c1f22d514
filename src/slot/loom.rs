//! Models of the swap: loom runs each through every interleaving of its threads.
//!
//! Beside each model stands a variant with one deliberate mistake, which the model must catch: so it is known that it
//! looks at the right thing. Run with `ci/models`.

use std::time::{Duration, Instant};

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use super::current::Current;
use super::lineage::{Base, Lineage, Member, NotCommitted, Slow, Target};
use super::sync::Arc;

loom::thread_local! {
    /// Set on the thread that may destroy generations.
    static IS_REAPER: std::cell::Cell<bool> = std::cell::Cell::new(false);
}

/// A generation that notices when it is destroyed by the wrong thread, used after its end, or used while it says
/// that it is retired for good.
struct Generation {
    number: u64,
    alive: AtomicBool,
    retired: AtomicBool,
    /// What calls left in it, as in a plugin that counts.
    calls: AtomicUsize,
}

impl Generation {
    fn new(number: u64) -> Arc<Generation> {
        Arc::new(Generation {
            number,
            alive: AtomicBool::new(true),
            retired: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
        })
    }

    /// Counts in the plugin, not as one step: a hand-over must not come between.
    fn count(&self) {
        let before = self.calls.load(Ordering::Relaxed);
        thread::yield_now();
        self.calls.store(before + 1, Ordering::Relaxed);
    }

    fn call(&self) {
        assert!(self.alive.load(Ordering::Relaxed), "a call into generation {}, which is gone", self.number);
    }
}

impl Member for Generation {
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

impl Drop for Generation {
    fn drop(&mut self) {
        assert!(IS_REAPER.with(std::cell::Cell::get), "generation {} dies on a caller's thread", self.number);
        self.alive.store(false, Ordering::Relaxed);
    }
}

/// A line with generation 1 current.
fn opened(keep: usize) -> Arc<Lineage<Generation>> {
    let line = Arc::new(Lineage::new(keep));
    line.commit(&Generation::new(1), None, None).expect("the line is new");
    line
}

/// Generation `number`, in models in which each one is committed once, in order.
fn base(number: u64) -> Option<Base> {
    Some(Base { generation: number, epoch: number })
}

/// Retires and collects what is left, on a thread that may.
fn close(line: &Lineage<Generation>) {
    IS_REAPER.with(|is| is.set(true));
    line.close();
    line.collect(|_| {});
    assert_eq!(line.retired(|_| ()).len(), 0, "nothing is held any more, so all is collected");
}

fn set(cell: &Current<Generation>, generation: &Arc<Generation>) {
    // SAFETY: the reference implementation shares what it is given.
    unsafe { cell.set(Some(generation)) };
}

fn current(line: &Lineage<Generation>) -> u64 {
    line.load().expect("the line is open").number
}

/// A reader calls what it loaded, whatever a commit and a collection do meanwhile; it never sees the line go
/// backwards; and the last one to let go destroys nothing.
#[test]
fn commit_against_load() {
    loom::model(|| {
        let line = opened(0);
        let reader = thread::spawn({
            let line = line.clone();
            move || {
                let first = line.load().expect("the line is open");
                first.call();
                let second = current(&line);
                assert!(second >= first.number, "the line went backwards");
                first.call();
            }
        });
        line.commit(&Generation::new(2), base(1), None).expect("nothing else commits");
        assert_eq!(current(&line), 2, "what was committed is current");
        IS_REAPER.with(|is| is.set(true));
        line.collect(|_| {});
        reader.join().unwrap();
        close(&line);
    });
}

/// The mistake: the writer keeps no reference of its own, so whoever lets go last destroys the generation.
#[test]
#[should_panic(expected = "dies on a caller's thread")]
fn commit_against_load_without_a_retired_list() {
    loom::model(|| {
        let cell = Arc::new(Current::new());
        set(&cell, &Generation::new(1));
        let reader = thread::spawn({
            let cell = cell.clone();
            move || cell.load().expect("the cell is filled").call()
        });
        IS_REAPER.with(|is| is.set(true));
        set(&cell, &Generation::new(2));
        reader.join().unwrap();
    });
}

/// A call counts, and a hand-over takes the count from the old generation to the new one. `is_drained` says whether it waits
/// for the calls that are under way.
fn hand_over_against_call(is_drained: fn(&Lineage<Generation>) -> bool) {
    loom::model(move || {
        // Also where the model fails, and unwinds.
        IS_REAPER.with(|is| is.set(true));
        let line = opened(0);
        let caller = thread::spawn({
            let line = line.clone();
            move || {
                let hold = line.load().or_else(|| match line.load_slowly(false) {
                    Slow::Hold(hold) | Slow::Exempt(hold) => Some(hold),
                    // It would be woken, and come again.
                    Slow::Wait(_) | Slow::Nothing => None,
                });
                let is_counted = hold.is_some();
                if let Some(hold) = hold {
                    hold.call();
                    hold.count();
                }
                usize::from(is_counted)
            }
        });
        let old = line.load().expect("the line is open");
        let pause = line.pause(base(1).expect("it is one"), Instant::now() + Duration::from_secs(3600));
        let pause = pause.expect("nothing else commits");
        let new = Generation::new(2);
        if is_drained(&line) {
            new.calls.store(old.calls.load(Ordering::Relaxed), Ordering::Relaxed);
            line.commit(&new, base(1), Some(pause)).expect("the pause lasts");
        } else {
            line.resume(pause);
            let refused = line.commit(&new, base(1), Some(pause));
            assert_eq!(refused, Err(NotCommitted::PauseEnded));
        }
        let counted = caller.join().unwrap();
        let current = line.load().expect("the line is open");
        assert_eq!(current.calls.load(Ordering::Relaxed), counted, "a call was lost");
        drop((current, old, new));
        close(&line);
    });
}

/// Nothing is lost: whoever got the old generation is seen, and whoever comes later waits, or gets the new one.
#[test]
fn hand_over_under_a_pause() {
    hand_over_against_call(|line| line.holds_on_serving() == Some(1));
}

/// The mistake: the hand-over does not wait for calls that are under way.
#[test]
#[should_panic(expected = "a call was lost")]
fn hand_over_under_a_pause_without_a_drain() {
    hand_over_against_call(|_| true);
}

/// Two leases on a retired generation, one cloned from the other: it is collected once, after both are gone.
#[test]
fn retirement() {
    loom::model(|| {
        let line = opened(0);
        let lease = line.load().expect("the line is open");
        let reader = thread::spawn(move || {
            let second = lease.clone();
            drop(lease);
            second.call();
        });
        line.commit(&Generation::new(2), base(1), None).expect("nothing else commits");
        IS_REAPER.with(|is| is.set(true));
        let early = line.collect(|_| {}).len();
        reader.join().unwrap();
        let late = line.collect(|_| {}).len();
        assert_eq!(early + late, 1, "generation 1 is collected exactly once");
        close(&line);
    });
}

/// The mistake: the count is looked at before the generation has left the cell, where a reader can still find it.
#[test]
#[should_panic(expected = "which is gone")]
fn retirement_that_counts_before_the_swap() {
    loom::model(|| {
        IS_REAPER.with(|is| is.set(true));
        let cell = Arc::new(Current::new());
        let first = Generation::new(1);
        set(&cell, &first);
        let reader = thread::spawn({
            let cell = cell.clone();
            move || {
                IS_REAPER.with(|is| is.set(true));
                cell.load().expect("the cell is filled").call();
            }
        });
        let cell_and_list = 2;
        let unused = Arc::strong_count(&first) == cell_and_list;
        set(&cell, &Generation::new(2));
        if unused {
            first.alive.store(false, Ordering::Relaxed);
        }
        reader.join().unwrap();
    });
}

/// A rollback comes while a plugin is staged beside generation 2: either the plugin was committed before, and is what
/// the rollback leaves, or its commit finds that its base has changed. Meanwhile a collection takes nothing that
/// either of them can still reach.
#[test]
fn rollback_against_reload() {
    loom::model(|| {
        let line = opened(2);
        line.commit(&Generation::new(2), base(1), None).expect("nothing else commits");
        let reload = thread::spawn({
            let line = line.clone();
            move || {
                let third = Generation::new(3);
                let committed = line.commit(&third, base(2), None);
                if committed.is_err() {
                    line.discard(third);
                }
                committed
            }
        });
        let (rolled_back, ()) = line.rollback(Target::Previous, Generation::call).expect("there is one before");
        let committed = reload.join().unwrap();
        match committed {
            Ok(change) => {
                assert_eq!((change.from, change.to), (Some(2), 3));
                assert_eq!((rolled_back.from, rolled_back.to), (Some(3), 2), "it leaves what was committed");
            }
            Err(reason) => {
                assert_eq!(reason, NotCommitted::BaseChanged { base: Some(2), current: 1 });
                assert_eq!((rolled_back.from, rolled_back.to), (Some(2), 1));
            }
        }
        let lease = line.load().expect("the line is open");
        lease.call();
        assert_eq!(lease.number, rolled_back.to);
        assert!(!lease.retired.load(Ordering::Relaxed), "what is current does not say that it is retired");
        drop(lease);
        close(&line);
    });
}

/// The mistake: the base is read again at the commit instead of being remembered from the staging.
#[test]
#[should_panic(expected = "a plugin that was staged beside 2 replaced")]
fn rollback_against_reload_that_forgets_its_base() {
    loom::model(|| {
        IS_REAPER.with(|is| is.set(true));
        let line = opened(2);
        line.commit(&Generation::new(2), base(1), None).expect("nothing else commits");
        let reload = thread::spawn({
            let line = line.clone();
            move || {
                IS_REAPER.with(|is| is.set(true));
                let third = Generation::new(3);
                let base = line.serving(|view| Base { generation: view.generation.number, epoch: view.epoch });
                if let Ok(change) = line.commit(&third, base, None) {
                    assert_eq!(change.from, Some(2), "a plugin that was staged beside 2 replaced another");
                }
            }
        });
        line.rollback(Target::Generation(1), Generation::call).ok();
        reload.join().unwrap();
        close(&line);
    });
}

/// A generation that comes back says so before anyone can find it.
#[test]
fn rollback_against_load() {
    loom::model(|| {
        let line = opened(1);
        line.commit(&Generation::new(2), base(1), None).expect("nothing else commits");
        let reader = thread::spawn({
            let line = line.clone();
            move || {
                let lease = line.load().expect("the line is open");
                let retired = lease.retired.load(Ordering::Relaxed);
                assert!(lease.number == 2 || !retired, "what is current says that it is retired");
            }
        });
        line.rollback(Target::Previous, Generation::call).expect("1 is warm");
        reader.join().unwrap();
        IS_REAPER.with(|is| is.set(true));
        close(&line);
    });
}

/// A generation that is warm at one moment and evicted at the next is either brought back or collected, never both.
#[test]
fn rollback_against_collection() {
    loom::model(|| {
        let line = opened(1);
        line.commit(&Generation::new(2), base(1), None).expect("nothing else commits");
        let reaper = thread::spawn({
            let line = line.clone();
            move || {
                IS_REAPER.with(|is| is.set(true));
                line.collect(|_| {}).len()
            }
        });
        let (change, ()) = line.rollback(Target::Previous, Generation::call).expect("1 is warm");
        assert_eq!(change.to, 1);
        line.load().expect("the line is open").call();
        assert_eq!(reaper.join().unwrap(), 0, "both are in use or warm");
        close(&line);
    });
}

/// A reader that has a key among the canary's share.
fn load_for(line: &Lineage<Generation>) -> super::current::Hold<Generation> {
    line.load_canary().or_else(|| line.load()).expect("the line is open")
}

fn begin_canary(line: &Lineage<Generation>, staged: &Arc<Generation>) {
    line.begin_canary(staged, base(1)).expect("nothing else is tried");
}

/// A canary that is dropped is not collected under a call on it.
#[test]
fn canary_against_discard() {
    loom::model(|| {
        let line = opened(0);
        let staged = Generation::new(2);
        begin_canary(&line, &staged);
        let reader = thread::spawn({
            let line = line.clone();
            move || load_for(&line).call()
        });
        line.discard(staged);
        IS_REAPER.with(|is| is.set(true));
        line.collect(|_| {});
        reader.join().unwrap();
        line.collect(|_| {});
        assert_eq!(line.retired(|_| ()).len(), 0, "nobody holds it any more");
        close(&line);
    });
}

/// The mistake: it is collected while readers can still find it.
#[test]
#[should_panic(expected = "which is gone")]
fn canary_that_stays_in_the_cell() {
    loom::model(|| {
        IS_REAPER.with(|is| is.set(true));
        let cell = Arc::new(Current::new());
        let staged = Generation::new(2);
        set(&cell, &staged);
        let reader = thread::spawn({
            let cell = cell.clone();
            move || {
                IS_REAPER.with(|is| is.set(true));
                cell.load().expect("the cell is filled").call();
            }
        });
        let cell_and_canary = 2;
        if Arc::strong_count(&staged) == cell_and_canary {
            staged.alive.store(false, Ordering::Relaxed);
        }
        reader.join().unwrap();
    });
}

/// Whoever got the canary gets nothing older once it is promoted, nor in between.
fn canary_against_promotion(promote: fn(&Lineage<Generation>, &Arc<Generation>)) {
    loom::model(move || {
        IS_REAPER.with(|is| is.set(true));
        let line = opened(0);
        let staged = Generation::new(2);
        begin_canary(&line, &staged);
        let reader = thread::spawn({
            let line = line.clone();
            move || {
                IS_REAPER.with(|is| is.set(true));
                let first = load_for(&line).number;
                assert!(load_for(&line).number >= first, "a caller of the canary was sent back");
            }
        });
        promote(&line, &staged);
        reader.join().unwrap();
        drop(staged);
        close(&line);
    });
}

#[test]
fn canary_that_is_promoted() {
    canary_against_promotion(|line, staged| {
        line.commit(staged, base(1), None).expect("nothing else commits");
    });
}

/// The mistake: it leaves its cell before it is in the other one.
#[test]
#[should_panic(expected = "was sent back")]
fn canary_that_ends_before_it_is_promoted() {
    canary_against_promotion(|line, staged| {
        line.end_canary(2, || ());
        line.commit(staged, base(1), None).expect("nothing else commits");
    });
}

/// What two members had at one moment.
struct Snapshot(u64, u64, u64);

impl Member for Snapshot {
    fn number(&self) -> u64 {
        self.0
    }
    fn install(&self, _: bool) {}
    fn consultations(&self) -> usize {
        0
    }
    fn retire(&self) {}
}

/// Two members and the group's own line, all of which go from 1 to 2 while somebody reads.
fn group_against_load(read: fn(&Lineage<Generation>, &Lineage<Generation>, &Lineage<Snapshot>) -> (u64, u64)) {
    loom::model(move || {
        IS_REAPER.with(|is| is.set(true));
        let (one, other) = (opened(1), opened(1));
        let group = Arc::new(Lineage::new(1));
        group.commit(&Arc::new(Snapshot(1, 1, 1)), None, None).expect("the line is new");
        let reader = thread::spawn({
            let (one, other, group) = (one.clone(), other.clone(), group.clone());
            move || {
                IS_REAPER.with(|is| is.set(true));
                let (one, other) = read(&one, &other, &group);
                assert_eq!(one, other, "torn");
            }
        });
        for member in [&one, &other] {
            member.commit(&Generation::new(2), base(1), None).expect("it is frozen for everyone else");
        }
        group.commit(&Arc::new(Snapshot(2, 2, 2)), base(1), None).expect("nobody else changes the group");
        reader.join().unwrap();
        close(&one);
        close(&other);
        group.close();
        group.collect(|_| {});
    });
}

/// Members that change as one are never seen in a mix by whoever asks the group.
#[test]
fn group_that_is_asked_for_a_snapshot() {
    group_against_load(|_, _, group| {
        let snapshot = group.load().expect("the line is open");
        (snapshot.1, snapshot.2)
    });
}

/// The mistake: the members are asked one after the other.
#[test]
#[should_panic(expected = "torn")]
fn group_whose_members_are_asked() {
    group_against_load(|one, other, _| (current(one), current(other)));
}

/// The models of the read protocol itself, on the fences that loom knows.
///
/// A value notices a reader that the freeing does not wait for: loom reports the race.
mod readers {
    use std::ptr::{self, NonNull};

    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
    use loom::thread;

    use crate::slot::barrier::Barrier;
    use crate::slot::readers::{Hazard, Readers, Record};

    struct Value {
        /// Read under a hold, written when it is freed.
        contents: UnsafeCell<u32>,
        counted: AtomicUsize,
    }

    /// Two values, the first of which is in the cell.
    struct Cell {
        readers: Readers,
        cell: AtomicPtr<Value>,
        values: [Value; 2],
    }

    // SAFETY: what is not an atomic is what the models check.
    unsafe impl Send for Cell {}
    // SAFETY: as above.
    unsafe impl Sync for Cell {}

    impl Cell {
        fn new(barrier: Barrier) -> Arc<Cell> {
            let value = || Value { contents: UnsafeCell::new(1), counted: AtomicUsize::new(0) };
            let cell = AtomicPtr::new(ptr::null_mut());
            let cell = Arc::new(Cell { readers: Readers::new(barrier), cell, values: [value(), value()] });
            cell.cell.store(cell.pointer(0), Ordering::Release);
            cell
        }

        fn pointer(&self, value: usize) -> *mut Value {
            ptr::from_ref(&self.values[value]).cast_mut()
        }

        fn hold(&self, record: &'static Record) -> Held<'_> {
            // SAFETY: the values live as long as the cell.
            let count = |value: NonNull<Value>| _ = unsafe { value.as_ref() }.counted.fetch_add(1, Ordering::Relaxed);
            let (value, hazard) = record.hold(&self.cell, count).expect("the cell is filled");
            // SAFETY: as above.
            Held { value: unsafe { &*value.as_ptr() }, hazard }
        }

        /// Replaces the first value, and frees it if nobody has it; gives whether it did.
        fn replace(&self) -> bool {
            self.cell.store(self.pointer(1), Ordering::Release);
            let Some(survey) = self.readers.survey() else { return false };
            let first = &self.values[0];
            // Acquires, as the `Arc` does whose last reference goes.
            let free = survey.count(self.pointer(0)) == 0 && first.counted.load(Ordering::Acquire) == 0;
            if free {
                // SAFETY: nobody reads it: that is what is checked.
                first.contents.with_mut(|contents| unsafe { *contents = 0 });
            }
            free
        }
    }

    struct Held<'a> {
        value: &'a Value,
        hazard: Option<&'static Hazard>,
    }

    impl Held<'_> {
        fn read(&self) {
            // SAFETY: it is held: that is what is checked.
            assert_eq!(self.value.contents.with(|contents| unsafe { *contents }), 1, "a value that is gone was read");
        }

        fn counted(&self) -> Self {
            self.value.counted.fetch_add(1, Ordering::Relaxed);
            Held { value: self.value, hazard: None }
        }
    }

    impl Drop for Held<'_> {
        fn drop(&mut self) {
            match self.hazard {
                Some(hazard) => hazard.clear(),
                None => _ = self.value.counted.fetch_sub(1, Ordering::Release),
            }
        }
    }

    /// A reader against a replacement; `read` is what the reader does.
    fn model(barrier: Barrier, read: impl Fn(&Cell, &'static Record) + Send + Sync + Clone + 'static) {
        loom::model(move || {
            let cell = Cell::new(barrier);
            let reader = thread::spawn({
                let (cell, read) = (cell.clone(), read.clone());
                move || read(&cell, cell.readers.claim())
            });
            cell.replace();
            reader.join().unwrap();
        });
    }

    #[test]
    fn a_held_value_is_not_freed() {
        model(Barrier::Fences, |cell, record| {
            cell.hold(record).read();
            cell.hold(record).read();
        });
    }

    /// The mistake: nothing keeps the announcement before the look.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn a_held_value_without_barriers() {
        model(Barrier::Missing, |cell, record| cell.hold(record).read());
    }

    #[test]
    fn a_value_that_is_counted_is_not_freed() {
        model(Barrier::Fences, |cell, record| {
            record.use_up();
            cell.hold(record).read();
        });
    }

    /// The mistake, on the other path.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn a_value_that_is_counted_without_barriers() {
        model(Barrier::Missing, |cell, record| {
            record.use_up();
            cell.hold(record).read();
        });
    }

    /// The hold ends on another thread than the one that took it, and a copy outlives it.
    #[test]
    fn a_copy_outlives_what_it_was_made_of() {
        model(Barrier::Fences, |cell, record| {
            let held = cell.hold(record);
            let copy = held.counted();
            drop(held);
            copy.read();
        });
    }

    /// The mistake: the counts are looked at before the hazards.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn a_copy_that_is_looked_for_first() {
        loom::model(|| {
            let cell = Cell::new(Barrier::Fences);
            let reader = thread::spawn({
                let cell = cell.clone();
                move || {
                    let held = cell.hold(cell.readers.claim());
                    let copy = held.counted();
                    drop(held);
                    copy.read();
                }
            });
            cell.cell.store(cell.pointer(1), Ordering::Release);
            let first = &cell.values[0];
            let counted = first.counted.load(Ordering::Acquire);
            if let Some(survey) = cell.readers.survey()
                && survey.count(cell.pointer(0)) + counted == 0
            {
                // SAFETY: somebody may read it: that is what the model must find.
                first.contents.with_mut(|contents| unsafe { *contents = 0 });
            }
            reader.join().unwrap();
        });
    }

    /// A record goes from a thread that ends to the next, while a hold that the first one took goes on elsewhere.
    #[test]
    fn a_record_is_passed_on_with_its_hazards() {
        loom::model(|| {
            let cell = Cell::new(Barrier::Fences);
            let reader = thread::spawn({
                let cell = cell.clone();
                move || {
                    let record = cell.readers.claim();
                    let held = cell.hold(record);
                    record.release();
                    let next = cell.readers.claim();
                    assert!(ptr::eq(record, next), "it is free");
                    cell.hold(next).read();
                    held.read();
                }
            });
            cell.replace();
            reader.join().unwrap();
        });
    }
}
