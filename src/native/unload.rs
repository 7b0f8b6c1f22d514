//! What becomes of a library after its plugin is gone: retained mapped under a budget, or unmapped and proven to be.
//!
//! `dlclose` answers 0 and unmaps nothing if a thread-local destructor is pending, and unmaps code that a thread of the
//! plugin still runs. So nothing is closed by default. [`Unload::WhenIdle`] closes what nothing refers to any more, as
//! far as that can be seen, and believes the process's memory map rather than the return code.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use super::budget::Budget;
#[cfg(target_os = "linux")]
use super::budget::count_retained;
use super::host::HostContext;
use super::library::Library;
use crate::{Footprint, KeepAlive, Release};

/// Whether a library is unmapped once its plugin is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unload {
    /// Never. A retired generation costs the file that it is mapped from, the pages of it that the loader changed, and about
    /// five entries of the process's memory map (Linux allows 65,530): for a small Rust cdylib 0.5 MB on disk and 20 KB
    /// of memory. If it had to be loaded from memory, what is on disk otherwise is there, too; see
    /// [`usage`](super::usage()). The [`Budget`](super::Budget) says when that gets too much. Nothing can go wrong.
    ///
    /// Threads that are still inside are named in the [`Release`], on Linux and for the first 64 libraries of the process that are
    /// kept, unless it has more than 512 mapped.
    #[default]
    KeepMapped,
    /// If no trace of use is left, and only where that can be proven: on Linux. Otherwise it is retained, and the
    /// [`Release`] says why.
    ///
    /// It is retained if another thread has an address of its code on its stack: a thread that the plugin started, one
    /// that is still in a call, and one whose frame merely has a stale copy of a function's address. A thread that
    /// runs without a pause counts too, because its stack cannot be read. It is retained if a signal handler points into
    /// it; and the loader keeps it if a living thread owes it a thread-local destructor, or if it was linked with
    /// `-z nodelete`. `atexit` handlers and static destructors run when it is unmapped, not later.
    ///
    /// What cannot be seen, a plugin must clean up itself: callbacks that it registered with *other* libraries, the
    /// destructors of `pthread_key_create` keys, and handlers of `on_exit`.
    WhenIdle,
}

/// A plugin's library, and what the library's pointers into the host point to.
pub(super) struct Mapping {
    library: Arc<Library>,
    /// Freed only if the library is proven to be gone; otherwise it is left for the library to use.
    host: ManuallyDrop<Option<Arc<HostContext>>>,
    unload: Unload,
    budget: Budget,
}

impl Mapping {
    pub(super) fn new(
        library: Arc<Library>,
        host: Option<Arc<HostContext>>,
        unload: Unload,
        budget: Budget,
    ) -> Mapping {
        Mapping { library, host: ManuallyDrop::new(host), unload, budget }
    }
}

impl KeepAlive for Mapping {
    fn footprint(&self) -> Option<Footprint> {
        Some(self.library.footprint())
    }

    fn release(self: Box<Self>) -> Release {
        let Mapping { library, host, unload, budget } = *self;
        let size = library.size();
        let retained = match (Arc::into_inner(library), unload) {
            (None, _) => Err("something in this process still holds the library".to_owned()),
            (Some(library), Unload::KeepMapped) => Err(keep(library)),
            (Some(library), Unload::WhenIdle) => unmap(library),
        };
        match retained {
            Ok(()) => {
                drop(ManuallyDrop::into_inner(host));
                Release::Freed
            }
            Err(reason) => {
                tracing::debug!(size, reason, "a library stays mapped");
                Release::Retained { reason, alarm: budget.alarm() }
            }
        }
    }
}

/// Leaves the library mapped, and names the threads that still run in it, where that can be seen.
fn keep(library: Library) -> String {
    let threads = still_inside(&library);
    drop(library);
    match &*threads {
        [] => "every generation is kept mapped".to_owned(),
        threads => {
            format!("every generation is kept mapped; threads are still inside this one: {}", threads.join(", "))
        }
    }
}

#[cfg(target_os = "linux")]
fn still_inside(library: &Library) -> Vec<String> {
    /// To look takes as long as the process has mappings, five for each library, and holds up who maps meanwhile. So it is
    /// done for the first so many; a plugin that leaves threads behind is found among them.
    const LOOKS: u64 = 64;
    /// And not in a process that has more libraries than that.
    const MOST_IMAGES: u64 = 512;
    if super::budget::retained().generations >= LOOKS || super::segments::image_count() > MOST_IMAGES {
        return Vec::new();
    }
    let look = super::maps::Maps::read().and_then(|maps| super::threads::threads(&maps.of(library.name()), &maps));
    look.unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn still_inside(_: &Library) -> Vec<String> {
    Vec::new()
}

/// Unmaps the library if nothing uses it, and makes sure of it. The error says why it is still there.
#[cfg(target_os = "linux")]
fn unmap(library: Library) -> Result<(), String> {
    use super::threads::threads_or_doubts;
    let unreadable = |error: std::io::Error| format!("the process's memory map cannot be read: {error}");

    let (name, size) = (library.name().to_owned(), library.size());
    let (static_tls, place) = (library.static_tls(), library.place());
    let areas = || super::maps::Maps::read().map(|maps| maps.of(&name)).map_err(unreadable);
    let mapped = areas()?;
    if mapped.is_empty() {
        return Err("it cannot be found in the process's memory map".to_owned());
    }
    if let Some(signal) = handled_signal(&mapped) {
        return Err(format!("it handles signal {signal}"));
    }
    let threads = threads_or_doubts(&mapped).map_err(unreadable)?;
    if !threads.is_empty() {
        return Err(format!("threads that are or may be inside it: {}", threads.join(", ")));
    }
    // SAFETY: the plugin has been dropped and this was the last reference to the library, so the host does not call it;
    // no thread stands in its code or returns to it, and no signal leads there. `WhenIdle` says what else must hold.
    // Its destructors run meanwhile, with the loader's lock held, as constructors do when it is loaded.
    let (closed, source) = crate::workers::load(|| unsafe { library.close() });
    match (closed, areas()) {
        (Ok(()), Ok(areas)) if areas.is_empty() => {
            super::budget::give_back_static_tls(static_tls);
            place.into_iter().for_each(super::shared::forget);
            drop(source);
            Ok(())
        }
        (closed, _) => {
            count_retained(size, source.footprint());
            // It is still mapped, and those who look from outside still open it.
            std::mem::forget(source);
            Err(match closed {
                Ok(()) => "the loader keeps it: a living thread owes it a thread-local destructor, another library \
                           needs it, or it was linked with nodelete"
                    .to_owned(),
                Err(error) => error.to_string(),
            })
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn unmap(library: Library) -> Result<(), String> {
    drop(library);
    Err("on this platform it cannot be proven that a library was unmapped".to_owned())
}

/// Returns a signal whose handler lies in one of `areas`.
#[cfg(target_os = "linux")]
fn handled_signal(areas: &[super::maps::Area]) -> Option<i32> {
    (1..=libc::SIGRTMAX()).find(|signal| {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: asks only; the answer goes to a place of the right type, which all-zero bytes are valid for.
        let handler = unsafe {
            libc::sigaction(*signal, std::ptr::null(), action.as_mut_ptr());
            action.assume_init().sa_sigaction
        };
        areas.iter().any(|area| area.range.contains(&handler))
    })
}
