//! Child processes of this program, for work that may end a process or has to be bounded as a whole.
//!
//! The child is this program again. It comes as far as [`rehearsal_point`], the first line of `main`, recognises by an
//! environment variable what it is for, does it and exits. What it works on comes as its standard input, a file; what it
//! prints goes to others. It lowers its own limits first, and keeps no descriptor but those three.

mod limits;
mod process;
mod scratch;

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use limits::{Limits, Memory};
#[cfg(feature = "wasm")]
pub(crate) use limits::{OUT_OF_FILE_SIZE, OUT_OF_PROCESSOR_TIME, OUT_OF_TIME};
pub(crate) use process::{Ended, Start, last_words, seconds, wait};
pub(crate) use scratch::Scratch;

/// Set once this program has come by a rehearsal point as a host.
static ARMED: AtomicBool = AtomicBool::new(false);
/// Set if this process is a child.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Something that a child can be started for.
pub(crate) struct Role<'a> {
    /// The variable that says so.
    pub(crate) variable: &'static str,
    /// Does it. The argument is what the child was told.
    pub(crate) play: Box<dyn FnOnce(&str) + 'a>,
}

/// Marks where a child process of this program does its work. Call it first thing in `main`, if you
/// [rehearse](crate::native::Native::rehearse) libraries or [compile modules in a
/// child](crate::wasm::EngineBuilder::compile_in_child).
///
/// In the host it returns at once. In a child that rehearses, it loads the plugin, after those that are mapped in the host and
/// share a needed library or a unified symbol with it, makes an instance, destroys it, and ends the process; the instance
/// gets the configuration, and a host that ignores its messages. In a child that compiles, it compiles the module and ends the
/// process. Whatever the host had open is closed in a child.
pub fn rehearsal_point() {
    enter(None);
}

/// Enters the rehearsal point: returns in a host, and does what it is for and exits in a child. `own` takes the place of
/// the role with the same variable.
pub(crate) fn enter(own: Option<Role<'_>>) {
    for role in own.into_iter().chain(crate::child_roles()) {
        let told = std::env::var_os(role.variable);
        let told = told.as_deref().and_then(OsStr::to_str).and_then(Limits::read);
        let Some((limits, told)) = told.filter(|_| !privileged()) else { continue };
        IS_CHILD.store(true, Ordering::Relaxed);
        close_descriptors();
        end_with_the_host();
        limits.apply();
        (role.play)(told);
        leave();
    }
    ARMED.store(true, Ordering::Relaxed);
}

/// Returns whether this program has come by a rehearsal point, so that a child of it will.
pub(crate) fn is_armed() -> bool {
    ARMED.load(Ordering::Relaxed) || is_child()
}

/// Returns whether this process is a child.
pub(crate) fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// Returns whether this program has more rights than its user, who then must not choose what it runs.
#[cfg(target_os = "linux")]
pub(crate) fn privileged() -> bool {
    // SAFETY: reads a value that the kernel gave this process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) fn privileged() -> bool {
    // SAFETY: four system calls that cannot fail.
    unsafe { libc::getuid() != libc::geteuid() || libc::getgid() != libc::getegid() }
}

#[cfg(not(unix))]
pub(crate) fn privileged() -> bool {
    false
}

/// Closes what a host had open without saying that a child is not to have it: nothing of this process is open yet.
#[cfg(target_os = "linux")]
fn close_descriptors() {
    // SAFETY: `main` has just begun, so no value in this process owns one of them.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } == 0;
    if closed {
        return;
    }
    // Kernels before 5.9. The list is complete before the first is closed; its own descriptor is among them, and gone.
    let numbers: Vec<libc::c_int> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: as above.
        unsafe { libc::close(number) };
    }
}

#[cfg(not(target_os = "linux"))]
fn close_descriptors() {}

/// Has the kernel end this process with the thread that waits for it.
#[cfg(target_os = "linux")]
fn end_with_the_host() {
    // SAFETY: sets an attribute of this process. Should the host be gone already, the alarm ends it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_the_host() {}

/// Ends the child. Its exit handlers are not part of its work: in the host they run when the host ends.
fn leave() -> ! {
    #[cfg(unix)]
    // SAFETY: ends the process at once, and the output has been flushed.
    unsafe {
        libc::_exit(0)
    }
    #[cfg(not(unix))]
    std::process::exit(0)
}
