//! Memory that has a descriptor, as a file has: Linux's memfd.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

/// Makes an empty memfd. `name` is what the memory map shows. A system may forbid those that hold code.
pub(crate) fn create(name: &str, is_code: bool) -> io::Result<File> {
    let name = CString::new(name)?;
    let open = |flags| {
        // SAFETY: `name` is a terminated string that lives for the call.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        // SAFETY: the descriptor is new and open, and nobody else has it.
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { File::from_raw_fd(fd) }) }
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // Kernels before 6.3 know neither, and make every memfd executable.
    match open(flags | if is_code { MFD_EXEC } else { MFD_NOEXEC_SEAL }) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(flags),
        other => other,
    }
}

/// From linux/memfd.h; the libc crate has it for some targets only.
const MFD_EXEC: libc::c_uint = 0x10;
const MFD_NOEXEC_SEAL: libc::c_uint = 0x8;
