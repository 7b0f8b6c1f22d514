//! Which protections of the control flow are on in this process, and would be turned off by a library without them.

use crate::Protection;

/// Returns those that are on for the calling thread. They are the process's: threads begin with them, and the loader turns them
/// off for all or for none.
pub(super) fn of_this_process() -> Vec<Protection> {
    second_stack().into_iter().collect()
}

#[cfg(all(target_os = "linux", any(target_arch = "x86", target_arch = "x86_64")))]
fn second_stack() -> Option<Protection> {
    on_x86(&std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default())
}

/// Nothing of the kind is known elsewhere.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64"))))]
fn second_stack() -> Option<Protection> {
    None
}

/// Reads what the kernel says of a thread. It has no indirect branch tracking for programs.
#[cfg(all(target_os = "linux", any(target_arch = "x86", target_arch = "x86_64")))]
fn on_x86(status: &str) -> Option<Protection> {
    let features = status.lines().find_map(|line| line.strip_prefix("x86_Thread_features:"))?;
    features.split_whitespace().any(|feature| feature == "shstk").then_some(Protection::ShadowStack)
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn second_stack() -> Option<Protection> {
    // From linux/prctl.h.
    const PR_GET_SHADOW_STACK_STATUS: libc::c_int = 74;
    const ENABLED: libc::c_ulong = 1;
    let mut status: libc::c_ulong = 0;
    // SAFETY: with this request the kernel writes a word to the address; one that does not know it writes nothing.
    let answered = unsafe { libc::prctl(PR_GET_SHADOW_STACK_STATUS, &raw mut status, 0, 0, 0) } == 0;
    (answered && status & ENABLED != 0).then_some(Protection::GuardedControlStack)
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::{Protection, on_x86};

    #[test]
    fn the_kernels_words_are_understood() {
        let status = |features: &str| {
            format!("Name:\thost\nx86_Thread_features:\t{features}\nx86_Thread_features_locked:\tshstk \n")
        };
        assert_eq!(on_x86(&status("shstk wrss ")), Some(Protection::ShadowStack));
        assert_eq!(on_x86(&status("wrss ")), None);
        assert_eq!(on_x86(&status("")), None);
        assert_eq!(on_x86("Name:\thost\n"), None, "a kernel without it");
    }
}
