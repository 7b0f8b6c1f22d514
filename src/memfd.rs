//! Memory that has a descriptor, as a file has: Linux's memfd.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

/// Makes an empty memfd. `name` is what the memory map shows.
pub(crate) fn create(name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    let open = |flags| {
        // SAFETY: `name` is a terminated string that lives for the call.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        // SAFETY: the descriptor is new and open, and nobody else has it.
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { File::from_raw_fd(fd) }) }
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // Kernels before 6.3 do not know MFD_EXEC, and make every memfd executable.
    match open(flags | MFD_EXEC) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(flags),
        other => other,
    }
}

/// From linux/memfd.h; the libc crate has it for some targets only.
const MFD_EXEC: libc::c_uint = 0x10;
