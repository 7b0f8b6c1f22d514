//! Lets the process end although a library's constructors do not.
//!
//! `exit` runs the destructors of all libraries, and takes the dynamic linker's lock for that. While constructors run it
//! waits for them, which may be for ever. So the first load registers a handler that runs before that.
//!
//! Only glibc tells an exit handler the status to end with (`on_exit(3)`). Elsewhere the process waits, and this
//! file is left out.

/// Registers the handler, once.
pub(super) fn guard() {
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    // SAFETY: `end` is what `on_exit` calls, and is there as long as this library is, which `exit` needs anyway. Where it
    // fails, for want of memory, the process ends as it would have.
    REGISTERED.call_once(|| _ = unsafe { on_exit(end, std::ptr::null_mut()) });
}

unsafe extern "C" {
    fn on_exit(handler: extern "C" fn(libc::c_int, *mut libc::c_void), argument: *mut libc::c_void) -> libc::c_int;
}

/// How long `exit` waits for constructors that are under way.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

extern "C" fn end(status: libc::c_int, _: *mut libc::c_void) {
    while let Some(time) = crate::loader_lock::held_for() {
        if time >= PATIENCE {
            // SAFETY: ends the process, without the handlers that were registered before this one.
            unsafe { libc::_exit(status) };
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
