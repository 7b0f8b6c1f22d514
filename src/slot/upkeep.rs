//! What the reaper does for one slot: it has destroyed what nobody holds, reports what lingers, and rolls back what was
//! condemned.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::core::Core;
use super::generation::Generation;
use super::lineage::{Base, Collected, Target};
use super::reaper::{self, Next, Tended};
use super::teardown::{Teardown, tear_down};
use crate::artifact::Request;
use crate::{Cause, ErrorKind, Footprint, Release};

/// The shortest and the longest time after which the reaper looks again at a generation that drains. The end of a lease
/// wakes it, except for one that ended in the instant of the retirement; so it looks soon after, and then ever more
/// rarely.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(10));

impl<T: ?Sized + Send + Sync + 'static> Tended for Core<T> {
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn tend(self: Arc<Self>) -> Next {
        // Before the look: what is there from now on is for the next one.
        self.woken.store(false, Ordering::Release);
        for Collected { generation, .. } in self.collect() {
            let Generation { number, size, footprint, loaded, .. } = generation;
            let core = Arc::clone(&self);
            tear_down(&self.scope, self.afterwards(), loaded, move |release| {
                core.torn_down(number, size, footprint, release);
                core.journal.flush_elsewhere();
            });
        }
        let drain_timeout = self.settings.drain_timeout;
        self.report_stuck(|view| view.since.elapsed() >= drain_timeout);
        self.report_slow_teardowns();
        self.roll_back_condemned();
        self.journal.flush_elsewhere();
        self.next()
    }

    fn leave(self: Arc<Self>) {
        reaper::let_go(self);
    }
}

impl<T: ?Sized + Send + Sync + 'static> Core<T> {
    /// Takes what can be destroyed off the lineage; from here on it counts as a destruction under way.
    fn collect(&self) -> Vec<Collected<Generation<T>>> {
        // A swap that is being recorded comes first.
        let _in_order = self.swapping.lock();
        let mut teardowns = self.teardowns.lock();
        let collected = self.lineage.collect(|_| {});
        teardowns.extend(collected.iter().map(Teardown::begin));
        collected
    }

    fn torn_down(self: &Arc<Self>, generation: u64, size: usize, footprint: Option<Footprint>, release: Release) {
        self.journal.count_destroyed(size, footprint, &release);
        self.teardowns.lock().retain(|teardown| teardown.generation != generation);
        self.journal.destroyed(generation, release);
        self.wake();
        self.freed.wake();
    }

    fn report_slow_teardowns(&self) {
        let limit = self.settings.drain_timeout;
        let mut slow = Vec::new();
        for teardown in self.teardowns.lock().iter_mut() {
            if !teardown.reported && teardown.began.elapsed() >= limit {
                teardown.reported = true;
                slow.push(teardown.generation);
            }
        }
        for generation in slow {
            self.journal.alarm(format!(
                "the destructor of generation {generation} has not returned within {limit:?}: what it holds stays in \
                 memory, and it counts towards max_retired, until it does"
            ));
        }
    }

    /// When to look again without having been woken.
    fn next(&self) -> Next {
        let drain_timeout = self.settings.drain_timeout;
        let (shortest, longest) = LOOK_AGAIN;
        let mut keep = false;
        let mut looks = Vec::new();
        self.lineage.retired(|view| {
            keep |= !view.warm;
            if view.leases > 0 || !view.warm {
                let age = view.since.elapsed();
                looks.push((age / 2).clamp(shortest, longest));
                if !view.stuck {
                    looks.push(drain_timeout.saturating_sub(age).max(shortest));
                }
            }
        });
        for teardown in self.teardowns.lock().iter() {
            keep = true;
            if !teardown.reported {
                looks.push(drain_timeout.saturating_sub(teardown.began.elapsed()).max(shortest));
            }
        }
        match looks.into_iter().min().and_then(|wait| Instant::now().checked_add(wait)) {
            Some(at) => Next::LookAt(at),
            None if keep => Next::Keep,
            None => Next::Forget,
        }
    }

    /// Rolls the serving generation back if it was condemned. One that cannot be rolled back is told of once.
    fn roll_back_condemned(self: &Arc<Self>) {
        let condemned = self.lineage.serving(|view| {
            let base = Base { generation: view.generation.number, epoch: view.epoch };
            let trial = Arc::clone(&view.generation.trial);
            trial.objection_to_act_on().map(|reason| (base, trial, reason))
        });
        let Some((base, trial, reason)) = condemned.flatten() else { return };
        let cause = Cause::Automatic { reason };
        let Err(error) = self.roll_back(Target::PreviousOf(base), cause, Request::default(), || None) else { return };
        if !matches!(error.kind(), ErrorKind::BaseChanged { .. }) {
            trial.give_up();
            let generation = base.generation;
            self.journal.alarm(format!("generation {generation} fails, and cannot be rolled back: {error}"));
        }
    }
}
