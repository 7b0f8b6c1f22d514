//! The thread that destroys what nobody holds any more, reports what lingers, and watches the serving generation.
//!
//! Destruction is a plugin's own code, which may hang or panic, so each one has a thread of its own; and the plugin is
//! dropped on a thread that has ended before its keep_alive is released, because code that is being unmapped must not
//! have thread-local destructors left to run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use semver::Version;

use super::core::Shared;
use super::generation::Generation;
use super::lineage::{Collected, Target};
use crate::status::{Phase, RetiredStatus};
use crate::{Cause, Digest, ErrorKind, Loaded, Release};

/// How often the reaper looks while a generation drains: a lease's end rings for it, except in a race that it need
/// not win.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The same while all that drains has been reported as stuck.
const LOOK_EVERY_WHEN_STUCK: Duration = Duration::from_millis(250);

/// A destruction under way.
pub(super) struct Teardown {
    generation: u64,
    version: Option<Version>,
    digest: Digest,
    size: usize,
    epoch: u64,
    retired: Instant,
}

impl Teardown {
    pub(super) fn status(&self) -> RetiredStatus {
        RetiredStatus {
            generation: self.generation,
            version: self.version.clone(),
            digest: self.digest,
            size: self.size,
            epoch: self.epoch,
            age: self.retired.elapsed(),
            phase: Phase::Destroying,
            leases: 0,
            oldest_lease: None,
            stuck: false,
        }
    }
}

pub(super) fn start<T: ?Sized + Send + Sync + 'static>(shared: Arc<Shared<T>>) -> std::io::Result<()> {
    std::thread::Builder::new().name("hotslot-reaper".to_owned()).spawn(move || run(&shared)).map(drop)
}

fn run<T: ?Sized + Send + Sync + 'static>(shared: &Arc<Shared<T>>) {
    loop {
        for collected in shared.collect() {
            destroy(shared, collected);
        }
        let drain_timeout = shared.policy.drain_timeout;
        shared.report_stuck(|view| view.since.elapsed() >= drain_timeout);
        shared.watch();
        // Whoever else holds the shared part may still add to what there is to do, so that is the first question.
        if shared.line.is_closed() && Arc::strong_count(shared) == 1 && shared.lingering().sum() == 0 {
            return;
        }
        shared.wakeup.wait(shared.next_look());
    }
}

impl<T: ?Sized + Send + Sync + 'static> Shared<T> {
    /// Takes what can be destroyed off the line; from here on it counts as a destruction under way.
    fn collect(&self) -> Vec<Collected<Generation<T>>> {
        let mut teardowns = self.teardowns.lock();
        let collected = self.line.collect();
        teardowns.extend(collected.iter().map(|Collected { generation, epoch, since }| Teardown {
            generation: generation.number,
            version: generation.manifest.version.clone(),
            digest: generation.digest,
            size: generation.size,
            epoch: *epoch,
            retired: *since,
        }));
        collected
    }

    fn torn_down(&self, generation: u64, size: usize, release: Release) {
        self.journal.count_destroyed(size, &release);
        self.teardowns.lock().retain(|teardown| teardown.generation != generation);
        self.journal.destroyed(generation, release);
        self.wakeup.wake();
        self.freed.wake();
    }

    /// When to look again without having been woken for.
    fn next_look(&self) -> Option<Instant> {
        let waits = self.line.retired(|view| match (view.leases > 0 || !view.warm, view.stuck) {
            (false, _) => None,
            (true, false) => Some(LOOK_EVERY),
            (true, true) => Some(LOOK_EVERY_WHEN_STUCK),
        });
        let closing = self.line.is_closed().then_some(LOOK_EVERY);
        waits.into_iter().flatten().chain(closing).min().map(|wait| Instant::now() + wait)
    }

    /// Rolls the serving generation back if it failed too often in its probation.
    fn watch(self: &Arc<Self>) {
        let probation = self.policy.probation;
        let failing = self.line.serving(|view| {
            let failures = view.generation.failures();
            let on_probation = view.since.elapsed() < probation.window && view.replaced.is_some();
            (on_probation && failures > probation.max_failures).then(|| {
                // Whatever comes of it, the next look is for new failures.
                view.generation.reset_failures();
                let last = view.generation.failures.last_failure().unwrap_or_default();
                let age = view.since.elapsed();
                (view.generation.number, format!("{failures} failed calls within {age:?}, the last one: {last}"))
            })
        });
        if let Some(Some((generation, reason))) = failing {
            let cause = Cause::Automatic { reason };
            if let Err(error) = self.rollback(Target::PreviousOf(generation), cause, || None)
                && !matches!(error.kind(), ErrorKind::BaseChanged { .. })
            {
                self.journal.alarm(format!("generation {generation} fails, and cannot be rolled back: {error}"));
            }
        }
    }
}

/// Destroys a generation on a thread of its own.
fn destroy<T: ?Sized + Send + Sync + 'static>(shared: &Arc<Shared<T>>, collected: Collected<Generation<T>>) {
    let Generation { number, size, loaded, .. } = collected.generation;
    let theirs = Arc::clone(shared);
    let work = move || theirs.torn_down(number, size, tear_down(loaded));
    if let Err(error) = std::thread::Builder::new().name("hotslot-destroy".to_owned()).spawn(work) {
        // The closure is gone and the plugin with it, here; its keep_alive was not released.
        let reason = format!("no thread to destroy it on: {error}");
        shared.torn_down(number, size, Release::Retained { reason, alarm: None });
    }
}

/// Drops the plugin, and releases what it lived in when the thread that dropped it has ended.
fn tear_down<T: ?Sized + Send + Sync + 'static>(loaded: Loaded<T>) -> Release {
    let Loaded { plugin, keep_alive } = loaded;
    let Some(keep_alive) = keep_alive else {
        // A panic has been reported by the panic hook, and there is nothing left to keep.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(plugin)));
        return Release::Freed;
    };
    match std::thread::Builder::new().name("hotslot-destroy".to_owned()).spawn(move || drop(plugin)) {
        Ok(thread) => match thread.join() {
            Ok(()) => keep_alive.release(),
            Err(_) => Release::Retained { reason: "its destructor panicked".to_owned(), alarm: None },
        },
        Err(error) => Release::Retained { reason: format!("no thread to destroy it on: {error}"), alarm: None },
    }
}
