//! What the programs in `bin/` share.

/// Makes this process a host that leaves no child to be waited for: `ignored` has the kernel reap them, `reaped` a thread.
/// Anything else leaves it as it is.
#[cfg(unix)]
pub fn leave_no_children(how: Option<&str>) {
    match how {
        // SAFETY: sets what the kernel does with children that end.
        Some("ignored") => _ = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) },
        Some("reaped") => {
            std::thread::spawn(|| {
                loop {
                    // SAFETY: waits for any child, which is what such a host does.
                    let waited = unsafe { libc::wait(std::ptr::null_mut()) };
                    if waited < 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
        _ => {}
    }
}
