//! A fence in two halves, for readers that come often and writers that come rarely.
//!
//! Between a store and a later load of another location, both sides of the read protocol need a full fence. Where the
//! kernel has [`membarrier`], the writer's half makes every running thread of the process execute one, so the reader's half
//! only has to keep the compiler from reordering. Elsewhere each side has a fence of its own.
//!
//! Source: `membarrier(2)`, `MEMBARRIER_CMD_PRIVATE_EXPEDITED`. It returns after every thread of the process that runs has
//! passed a full barrier between entry and return; a thread that does not run passes one when it is scheduled.
//!
//! [`membarrier`]: https://man7.org/linux/man-pages/man2/membarrier.2.html

use super::sync::fence;
use std::sync::atomic::Ordering::SeqCst;

/// Which of the two the process uses. One process uses only one, so that the halves fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barrier {
    /// The writer pays for both sides.
    #[cfg(all(target_os = "linux", not(miri), not(hotslot_loom)))]
    Membarrier,
    /// Each side pays for itself.
    Fences,
    /// Nobody pays: the mistake that the models must find.
    #[cfg(hotslot_loom)]
    Missing,
}

impl Barrier {
    /// Decides for the process, at the first call. A sandbox may deny the system call; then there are fences.
    #[cfg(not(hotslot_loom))]
    pub(super) fn of_this_process() -> Barrier {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            static REGISTERED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
            if *REGISTERED.get_or_init(|| membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)) {
                return Barrier::Membarrier;
            }
        }
        Barrier::Fences
    }

    /// The reader's half, between the store that announces it and the load that it decides on.
    #[inline]
    pub(super) fn light(self) {
        match self {
            #[cfg(all(target_os = "linux", not(miri), not(hotslot_loom)))]
            Barrier::Membarrier => std::sync::atomic::compiler_fence(SeqCst),
            Barrier::Fences => fence(SeqCst),
            #[cfg(hotslot_loom)]
            Barrier::Missing => {}
        }
    }

    /// The writer's half, between the store that readers decide on and the look at what they announced. `false` if the
    /// kernel refused: then nothing is known about the readers.
    pub(super) fn heavy(self) -> bool {
        match self {
            #[cfg(all(target_os = "linux", not(miri), not(hotslot_loom)))]
            Barrier::Membarrier => membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED),
            Barrier::Fences => {
                fence(SeqCst);
                true
            }
            #[cfg(hotslot_loom)]
            Barrier::Missing => true,
        }
    }
}

#[cfg(all(target_os = "linux", not(miri), not(hotslot_loom)))]
fn membarrier(command: libc::c_int) -> bool {
    // The caller's own loads and stores are ordered by the call, too, but the compiler does not know that.
    std::sync::atomic::fence(SeqCst);
    // SAFETY: the system call takes integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    std::sync::atomic::fence(SeqCst);
    result == 0
}

#[cfg(all(test, target_os = "linux", not(miri), not(hotslot_loom)))]
mod tests {
    use super::Barrier;

    #[test]
    fn the_kernels_barrier_is_used_where_it_is_offered() {
        // SAFETY: as in `membarrier`; it only answers.
        let offered = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_QUERY, 0, 0) };
        let is_offered = offered > 0 && offered & i64::from(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0;
        let barrier = Barrier::of_this_process();
        assert_eq!(barrier, if is_offered { Barrier::Membarrier } else { Barrier::Fences });
        assert!(barrier.heavy() && Barrier::Fences.heavy(), "none was refused");
    }
}
