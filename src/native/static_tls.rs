//! The loader's fixed reserve for thread-local storage, which libraries with the initial-exec model share: how much of it
//! is left.
//!
//! glibc reserves it when the process starts, about 1.6 KiB by default, and gives nothing back as long as libraries stay
//! mapped. What is left is not published. It follows from what is: the size of the whole block with the thread's own
//! record, and where each library's storage lies in it.

/// What to do about a library that takes too much.
pub(super) const REMEDY: &str = "compile the plugin, and what it links statically, without -ftls-model=initial-exec and \
    tls_model(\"initial-exec\"): with -ftls-model=global-dynamic, or -mtls-dialect=gnu2; or start the host with a \
    larger reserve, GLIBC_TUNABLES=glibc.rtld.optional_static_tls=BYTES";

/// Returns how many bytes of the reserve are left; `None` where that cannot be known.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
pub(super) fn free() -> Option<u64> {
    // A thread that is older than a library may not know yet where the library's storage lies.
    let measured = std::thread::Builder::new().name("hotslot-static-tls".to_owned()).spawn(glibc::free).ok()?;
    measured.join().ok()?
}

/// Returns how many bytes of the reserve are left; `None` where that cannot be known.
#[cfg(not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64")))]
pub(super) fn free() -> Option<u64> {
    None
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
mod glibc {
    use std::ffi::{c_int, c_void};
    use std::mem::transmute;

    use crate::native::linkmap::lookup;

    /// On this architecture the blocks lie below the thread's own record, from it downwards.
    pub(super) fn free() -> Option<u64> {
        let (whole, record) = (whole_size()?, record_size()?);
        let pointer: usize;
        // SAFETY: reads the first word of the thread's own record, which holds the record's address (x86-64 ABI).
        unsafe { std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags)) };
        let mut search = Search { pointer, whole, used: 0 };
        // SAFETY: the function is called during this call only, with the pointer that is given here.
        unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
        let free = whole.checked_sub(record)?.checked_sub(search.used)?;
        Some(free as u64)
    }

    struct Search {
        pointer: usize,
        whole: usize,
        used: usize,
    }

    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, size: usize, search: *mut c_void) -> c_int {
        // SAFETY: `free` passed a `Search`, which nobody else uses meanwhile.
        let search = unsafe { &mut *search.cast::<Search>() };
        if size < size_of::<libc::dl_phdr_info>() {
            return 0;
        }
        // SAFETY: the loader's record, as long as it says, which lives for the call.
        let storage = unsafe { (*info).dlpi_tls_data } as usize;
        if let Some(offset) = search.pointer.checked_sub(storage)
            && storage != 0
            && offset <= search.whole
        {
            search.used = search.used.max(offset);
        }
        0
    }

    /// The size of the storage of all libraries, of the reserve and of the thread's record.
    fn whole_size() -> Option<usize> {
        let address = lookup(libc::RTLD_DEFAULT, c"_dl_get_tls_static_info")?;
        // SAFETY: glibc's function for its own debugging and sanitizer runtimes; this has been its type since 2.2.
        let info = unsafe { transmute::<*mut c_void, unsafe extern "C" fn(*mut usize, *mut usize)>(address) };
        let (mut size, mut align) = (0, 0);
        // SAFETY: writes two numbers.
        unsafe { info(&raw mut size, &raw mut align) };
        (size > 0).then_some(size)
    }

    /// The size of the thread's record, which glibc publishes for debuggers.
    fn record_size() -> Option<usize> {
        let address = lookup(libc::RTLD_DEFAULT, c"_thread_db_sizeof_pthread")?;
        // SAFETY: a constant of that type.
        usize::try_from(unsafe { address.cast::<u32>().read() }).ok().filter(|size| *size > 0)
    }
}
