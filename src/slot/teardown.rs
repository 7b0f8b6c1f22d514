//! The end of a generation: its plugin is dropped, and what it lived in is released.
//!
//! That is a plugin's own code, which may hang or panic, so it runs on another thread than the reaper: on a worker, or on
//! threads of its own if it may leave something in them. A plugin that lives in something is dropped on a thread that has
//! ended before that is released, because code that is being unmapped must not have thread-local destructors left to run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use semver::Version;

use super::generation::Generation;
use super::lineage::Collected;
use crate::lock::Mutex;
use crate::status::{Phase, RetiredStatus};
use crate::text::panic_text;
use crate::workers::{self, Afterwards};
use crate::{ArtifactId, Footprint, Loaded, PluginScope, Release, detached};

/// A destruction under way.
pub(super) struct Teardown {
    pub(super) generation: u64,
    version: Option<Version>,
    id: ArtifactId,
    size: usize,
    footprint: Option<Footprint>,
    epoch: u64,
    retired: Instant,
    pub(super) began: Instant,
    /// Whether it was reported that it takes too long.
    pub(super) reported: bool,
}

impl Teardown {
    pub(super) fn begin<T: ?Sized>(collected: &Collected<Generation<T>>) -> Teardown {
        let Collected { generation, epoch, since } = collected;
        Teardown {
            generation: generation.number,
            version: generation.manifest.version.clone(),
            id: generation.id,
            size: generation.size,
            footprint: generation.footprint,
            epoch: *epoch,
            retired: *since,
            began: Instant::now(),
            reported: false,
        }
    }

    pub(super) fn status(&self) -> RetiredStatus {
        RetiredStatus {
            generation: self.generation,
            version: self.version.clone(),
            digest: self.id.digest,
            config_digest: self.id.config_digest,
            size: self.size,
            footprint: self.footprint,
            epoch: self.epoch,
            age: self.retired.elapsed(),
            phase: Phase::Destroying,
            leases: 0,
            oldest_lease: None,
            stuck: self.reported,
        }
    }
}

/// Destroys a plugin on another thread, and tells `ended` there what became of what it lived in. Whatever panics, that is
/// told; if there is no thread, it is told here, and the plugin stays.
pub(super) fn tear_down<T: ?Sized + Send + Sync + 'static, E: FnOnce(Release) + Send + 'static>(
    scope: &PluginScope,
    afterwards: Afterwards,
    loaded: Loaded<T>,
    ended: E,
) {
    let scope = scope.clone();
    let body = move |(loaded, ended): (Loaded<T>, E)| ended(scope.enter(|| drop_and_release(&scope, loaded)));
    let started = detached::run_with((loaded, ended), body, |work| match afterwards {
        Afterwards::Stay => workers::run(afterwards, work),
        // A thread with a name, because what a library does when it ends is worth a look in a debugger.
        Afterwards::End => detached::spawn("hotslot-destroy", work),
    });
    if let Err(((loaded, ended), error)) = started {
        std::mem::forget(loaded);
        ended(retained_for_want_of_a_thread(&error));
    }
}

/// Drops the plugin, and releases what it lived in when the thread that dropped it has ended. Whatever panics, this ends.
fn drop_and_release<T: ?Sized + Send + Sync + 'static>(scope: &PluginScope, loaded: Loaded<T>) -> Release {
    let Loaded { plugin, keep_alive } = loaded;
    let Some(keep_alive) = keep_alive else {
        // A panic has been reported by the panic hook, and there is nothing left to keep.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(plugin))).map_err(panic_text);
        return Release::Freed;
    };
    let (plugin, scope) = (Arc::new(Mutex::new(Some(plugin))), scope.clone());
    let theirs = Arc::clone(&plugin);
    let body = move || scope.enter(|| drop(theirs.lock().take()));
    let body = || detached::on_clean_stack(body);
    match std::thread::Builder::new().name("hotslot-destroy".to_owned()).spawn(body).map(|thread| thread.join()) {
        Ok(Ok(())) => catch_unwind(AssertUnwindSafe(|| keep_alive.release())).unwrap_or_else(|panic| {
            let reason = format!("its release panicked: {}", panic_text(panic));
            let alarm = Some(format!("a generation stays in memory, because {reason}"));
            Release::Retained { reason, alarm }
        }),
        Ok(Err(panic)) => {
            let reason = format!("its destructor panicked: {}", panic_text(panic));
            // What it lived in is dropped without a release, which must do what is safe.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(keep_alive))).map_err(panic_text);
            Release::Retained { reason, alarm: None }
        }
        Err(error) => {
            std::mem::forget((plugin.lock().take(), keep_alive));
            retained_for_want_of_a_thread(&error)
        }
    }
}

fn retained_for_want_of_a_thread(error: &std::io::Error) -> Release {
    Release::Retained { reason: format!("could not spawn a thread to destroy it on: {error}"), alarm: None }
}
