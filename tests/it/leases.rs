//! Leases in all shapes that the read side tells apart: the first ones of a thread, those beyond what its record notes, clones,
//! ones that end on another thread or outlive theirs. Whatever is swapped meanwhile, none dereferences to what is gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use hotslot::{Admission, Artifact, Backend, BoxError, HotSlot, Lease, LoadContext, Loaded, Manifest, Payload, Phase};

use crate::support::{Done, PATIENCE, eventually};

/// A plugin that knows whether it is alive.
struct Canary {
    number: u64,
    alive: AtomicBool,
}

impl Canary {
    #[track_caller]
    fn sing(&self) -> u64 {
        assert!(self.alive.load(Ordering::Relaxed), "generation {} was used when it was gone", self.number);
        self.number
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::Relaxed);
    }
}

struct Canaries;

impl Backend<Canary> for Canaries {
    fn admit(&self, _: &Payload) -> Result<Admission, BoxError> {
        Ok(Manifest::new("canary").into())
    }

    fn load(&self, _: &Artifact, context: &LoadContext) -> Result<Loaded<Canary>, BoxError> {
        Ok(Loaded::new(Canary { number: context.generation, alive: AtomicBool::new(true) }))
    }

    fn taints_threads(&self) -> bool {
        false
    }
}

fn slot(keep: usize) -> HotSlot<Canary> {
    HotSlot::builder(Canaries).keep_previous(keep).max_retired(64).open(b"0").unwrap()
}

/// Closes the slot, which has had this many generations; all of them are gone then.
#[track_caller]
fn close(slot: HotSlot<Canary>, generations: u64) {
    let status = slot.close(PATIENCE);
    assert!(status.retired.is_empty(), "something lingers: {status:?}");
    assert_eq!(status.counters.destroyed, generations);
}

fn held(slot: &HotSlot<Canary>) -> usize {
    slot.status().retired.iter().filter(|retired| retired.phase == Phase::Draining).map(|retired| retired.leases).sum()
}

#[test]
fn leases_are_counted_however_many_a_thread_has() {
    for count in [1, 13, 14, 15, 100] {
        let slot = slot(0);
        let mut leases: Vec<_> = (0..count).map(|_| slot.load()).collect();
        leases.extend(leases.clone());
        slot.reload(b"1").unwrap();
        assert_eq!(held(&slot), 2 * count);
        leases.truncate(count);
        eventually("half of them are left", || held(&slot) == count);
        assert!(leases.iter().all(|lease| lease.sing() == 1));
        drop(leases);
        close(slot, 2);
    }
}

#[test]
fn a_clone_outlives_its_original_and_the_slot() {
    let slot = slot(0);
    let lease = slot.load();
    let clone = lease.clone();
    drop(lease);
    slot.reload(b"1").unwrap();
    assert_eq!((held(&slot), clone.sing()), (1, 1));
    let events = slot.subscribe();
    drop(slot);
    assert_eq!(clone.sing(), 1);
    drop(clone);
    assert!(events.into_iter().any(|event| matches!(event, hotslot::Event::Destroyed { generation: 1, .. })));
}

/// Records are passed on from threads that ended to new ones, with what is still held.
#[test]
fn leases_outlive_the_threads_that_took_them() {
    let slot = slot(0);
    let mut leases = Vec::new();
    for number in 1..=50 {
        let taken = thread::scope(|scope| scope.spawn(|| (slot.load(), slot.load())).join().unwrap());
        assert_eq!((taken.0.sing(), taken.1.sing()), (number, number));
        leases.push(taken);
        slot.reload(number.to_string().into_bytes()).unwrap();
        assert_eq!(held(&slot), 2 * leases.len());
        // Another thread gives back what the first one took, while the record is a third one's.
        thread::scope(|scope| {
            let first = leases.remove(0);
            scope.spawn(move || drop(first));
        });
        eventually("they are given back", || held(&slot) == 2 * leases.len());
    }
    close(slot, 51);
}

#[test]
fn no_lease_in_a_storm_dereferences_to_what_is_gone() {
    let slot = slot(1);
    let (done, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    let (send, receive) = sync_channel::<Lease<Canary>>(64);
    // A burst between two looks at the flag.
    let read = || {
        for _ in 0..100 {
            assert!(slot.load().sing() > 0);
        }
        calls.fetch_add(100, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        let _done = Done(&done);
        let done = &done;
        // One that only reads.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                read();
            }
        });
        // One that holds more than its record notes, clones, and gives some of them away.
        scope.spawn(|| {
            let send = send;
            let mut held = std::collections::VecDeque::new();
            while !done.load(Ordering::Relaxed) {
                held.push_back(slot.load());
                held.push_back(held[held.len() / 2].clone());
                held.iter().for_each(|lease| _ = lease.sing());
                while held.len() > 20 {
                    let lease = held.pop_front().expect("there are more");
                    drop(send.try_send(lease));
                }
            }
        });
        // One that ends what others took.
        scope.spawn(|| receive.into_iter().for_each(|lease| _ = lease.sing()));
        // One whose threads do not last.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                thread::scope(|short| _ = short.spawn(read));
            }
        });
        for number in 0..2_000_u64 {
            match slot.reload(number.to_string().into_bytes()) {
                Ok(_) => {}
                Err(error) => assert!(matches!(error.kind(), hotslot::ErrorKind::TooManyRetired { .. }), "{error}"),
            }
            if number % 7 == 0 {
                let _ = slot.rollback();
            }
        }
    });
    assert!(calls.load(Ordering::Relaxed) > 0);
    let newest = slot.status().serving.expect("it is open").generation;
    let status = slot.close(PATIENCE);
    assert!(status.retired.is_empty(), "something lingers: {status:?}");
    assert!(status.counters.destroyed >= newest, "{status:?}");
}

/// A lease that ends when its generation is just retired is not overlooked for long.
#[test]
fn the_end_of_a_lease_frees_its_generation() {
    let slot = slot(0);
    // Bounded: a holder that gets no processor for a while must not hold more generations than the slot allows.
    let (send, receive) = sync_channel(16);
    let holder = thread::spawn(move || receive.into_iter().for_each(|lease: Lease<Canary>| _ = lease.sing()));
    for number in 1..500_u64 {
        send.send(slot.load()).unwrap();
        slot.reload(number.to_string().into_bytes()).unwrap();
    }
    drop(send);
    holder.join().unwrap();
    close(slot, 500);
}
