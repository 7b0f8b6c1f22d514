//! Threads that nobody joins.
//!
//! To drop a [`JoinHandle`] detaches its thread, and glibc's `pthread_detach` looks at the thread's descriptor once more after the
//! thread may have freed it: where a thread ends in that instant, and its stack is unmapped, the process dies. A busy machine that
//! replaces plugins all day comes to it. (The [same crash] in another library; [glibc's bug 19951].) So a thread here detaches
//! itself, when it begins: it is there as long as that takes.
//!
//! [same crash]: https://github.com/uxlfoundation/oneTBB/issues/1758
//! [glibc's bug 19951]: https://sourceware.org/bugzilla/show_bug.cgi?id=19951

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use crate::lock::Mutex;

/// Runs `body` on a thread of its own.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = Builder::new().name(name.to_owned()).spawn(|| {
        #[cfg(unix)]
        // SAFETY: it is the calling thread, which is joinable: the handle goes below without a join and without a detach.
        unsafe {
            libc::pthread_detach(libc::pthread_self());
        }
        on_clean_stack(body);
    })?;
    #[cfg(unix)]
    let _id = std::os::unix::thread::JoinHandleExt::into_pthread_t(thread);
    #[cfg(not(unix))]
    drop(thread);
    Ok(())
}

/// Runs what a thread was spawned for, on a stack that holds nothing of another thread.
///
/// glibc gives the stack of a thread that has ended to the next one. The words that this one's frames do not use would be taken
/// for its own by whoever looks for threads inside of a library that the other one was in, for as long as it waits or runs.
pub(crate) fn on_clean_stack(body: impl FnOnce()) {
    /// More than the frames of a thread that waits.
    const DEPTH: usize = 16 << 10;

    #[inline(never)]
    fn wipe() {
        std::hint::black_box(&mut [0_u8; DEPTH]);
    }

    // Not inlined either, so that its frame lies where that was.
    #[inline(never)]
    fn run(body: impl FnOnce()) {
        body();
    }

    wipe();
    run(body);
}

/// Runs `body` with a value on a thread of its own; gives the value back if there is none.
pub(crate) fn spawn_with<V: Send + 'static>(
    name: &str,
    value: V,
    body: impl FnOnce(V) + Send + 'static,
) -> Result<(), V> {
    run_with(value, body, |take| spawn(name, take)).map_err(|(value, _)| value)
}

/// Has `start` run `body` with a value elsewhere; gives the value back, with the reason, if it cannot.
pub(crate) fn run_with<V: Send + 'static>(
    value: V,
    body: impl FnOnce(V) + Send + 'static,
    start: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
) -> Result<(), (V, io::Error)> {
    // Shared, so that it does not go with the body of a thread that never was.
    let value = Arc::new(Mutex::new(Some(value)));
    let theirs = Arc::clone(&value);
    let take = move || {
        let value = theirs.lock().take();
        value.map(body);
    };
    start(Box::new(take)).map_err(|error| (value.lock().take().expect("nobody else had it"), error))
}

/// Lets go of a thread that may be about to end: one that waits for it is left in its place.
pub(crate) fn let_go(thread: JoinHandle<()>) {
    if let Err(thread) = spawn_with("hotslot-wait", thread, |thread| drop(thread.join())) {
        // What a thread leaves for whoever joins it stays.
        std::mem::forget(thread);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::ffi::c_int;
    use std::sync::mpsc::channel;

    unsafe extern "C" {
        /// As POSIX has it.
        fn pthread_attr_getdetachstate(attributes: *const libc::pthread_attr_t, state: *mut c_int) -> c_int;
    }

    /// Whether the calling thread is detached.
    fn is_detached() -> bool {
        // SAFETY: the attributes are initialised by the first call, read by the second and destroyed by the third.
        unsafe {
            let mut attributes = std::mem::zeroed();
            assert_eq!(libc::pthread_getattr_np(libc::pthread_self(), &mut attributes), 0);
            let mut state = -1;
            assert_eq!(pthread_attr_getdetachstate(&attributes, &mut state), 0);
            libc::pthread_attr_destroy(&mut attributes);
            state == libc::PTHREAD_CREATE_DETACHED
        }
    }

    #[test]
    fn a_thread_that_nobody_joins_is_detached_before_it_does_anything() {
        let (say, hears) = channel();
        super::spawn("detached", move || say.send(is_detached()).unwrap()).unwrap();
        assert!(hears.recv().unwrap());
        assert!(!std::thread::spawn(is_detached).join().unwrap(), "others are not");
    }

    #[test]
    fn a_thread_that_is_let_go_is_joined_when_it_ends() {
        let (end, ends) = channel::<()>();
        let (say, hears) = channel();
        let thread = std::thread::spawn(move || {
            _ = ends.recv();
            say.send(is_detached()).unwrap();
        });
        super::let_go(thread);
        drop(end);
        assert!(!hears.recv().unwrap());
    }
}
