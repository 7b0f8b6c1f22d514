//! Which process this is: an identity that no process shares with one that was forked from it.
//!
//! A number is not enough. The first process of each PID namespace has number 1, so one that is forked from the first process of a
//! container into a namespace of its own has the same number as that: it would take the other one's files and slots for its own. So
//! there is a mark in memory that the kernel clears in a forked process.

/// The identity of a process, as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProcessId {
    number: u32,
    /// 0 where there is none.
    mark: u64,
}

impl ProcessId {
    /// Returns the calling process's. Waits for nothing, not even in a process that was forked in the middle of this.
    pub(crate) fn current() -> ProcessId {
        ProcessId { number: std::process::id(), mark: mark() }
    }

    /// Takes the library for the calling process, unless that was forked from one that has it: returns whether it is this one's.
    /// Waits for nothing, as [`current`](ProcessId::current).
    pub(crate) fn claim() -> bool {
        use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

        /// 0 before anybody has it. Written after the mark; whoever writes one of them writes the same.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static MARK: AtomicU64 = AtomicU64::new(0);
        let own = ProcessId::current();
        match NUMBER.load(Ordering::Acquire) {
            0 => {
                MARK.store(own.mark, Ordering::Relaxed);
                NUMBER.store(own.number, Ordering::Release);
                true
            }
            number => own == ProcessId { number, mark: MARK.load(Ordering::Relaxed) },
        }
    }

    /// Returns whether this is the calling process.
    pub(crate) fn is_current(self) -> bool {
        self == ProcessId::current()
    }
}

#[cfg(target_os = "linux")]
fn mark() -> u64 {
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

    /// A page of which the first word is the mark.
    static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
    /// What stands in for a page where the kernel has none of this kind (before 4.14).
    static NO_PAGE: AtomicU64 = AtomicU64::new(0);

    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        let made = cleared_on_fork().unwrap_or(ptr::from_ref(&NO_PAGE).cast_mut());
        page = match PAGE.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => made,
            // Another thread was faster. The page that is left over stays mapped: it is one, once.
            Err(first) => first,
        };
    }
    if ptr::eq(page, &raw const NO_PAGE) {
        return 0;
    }
    // SAFETY: a page that is never unmapped, or the static; only atomics touch it.
    let mark = unsafe { &*page };
    match mark.load(Ordering::Acquire) {
        0 => {
            let new = random();
            mark.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire).map_or_else(|first| first, |_| new)
        }
        known => known,
    }
}

/// Maps a page that is all zeroes in a forked process.
#[cfg(target_os = "linux")]
fn cleared_on_fork() -> Option<*mut std::sync::atomic::AtomicU64> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let size = size_of::<u64>();
    // SAFETY: the kernel chooses the place, so no existing mapping is touched.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping that was just made, whole pages of it.
    if unsafe { libc::madvise(page, size, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above, and nothing refers to it.
        unsafe { libc::munmap(page, size) };
        return None;
    }
    Some(page.cast())
}

/// Returns a number that is not 0, and that another process does not have.
#[cfg(target_os = "linux")]
fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: the kernel writes that many bytes at the most.
    let written = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    let number = if written == 8 { u64::from_ne_bytes(bytes) } else { 0 };
    // Right after the machine has started there may be none; no two processes are forked from another at the same nanosecond.
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    if number == 0 { (since.as_nanos() as u64).max(1) } else { number }
}

/// Elsewhere numbers mean the same to all processes.
#[cfg(not(target_os = "linux"))]
fn mark() -> u64 {
    0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_forked_process_has_another_identity_even_under_the_same_number() {
        let own = ProcessId::current();
        assert!(own.is_current() && own.mark != 0);
        let others = (0..8).map(|_| std::thread::spawn(ProcessId::current).join().unwrap());
        assert!(others.into_iter().all(|other| other == own));
        // SAFETY: the child reads memory, makes system calls, and ends by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mark = ProcessId::current().mark;
            let is_new = mark != own.mark && mark != 0 && mark == ProcessId::current().mark;
            // SAFETY: ends the child without running what the parent will run.
            unsafe { libc::_exit(if is_new { 0 } else { 1 }) }
        }
        let mut status = 0;
        // SAFETY: waits for the child that was forked above.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status}");
        assert!(own.is_current());
    }
}
