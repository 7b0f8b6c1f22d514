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

/// Opens a file as a host does that does not think of its children: they have it, too.
#[cfg(unix)]
pub fn open_for_children(path: &str) -> std::io::Result<()> {
    let path = std::ffi::CString::new(path)?;
    // SAFETY: the path is a terminated string.
    let opened = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) };
    if opened < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
