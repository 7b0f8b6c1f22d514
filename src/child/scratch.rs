//! Files for what passes between this process and a child.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use crate::private_dir::{PrivateDir, random};

/// A file for data that passes between this process and a child, gone when both have closed it.
pub(crate) struct Scratch {
    pub(super) file: File,
    _folder: Option<PrivateDir>,
}

impl Scratch {
    /// Makes a file with these bytes, to be read from the start.
    pub(crate) fn new(parts: &[&[u8]]) -> io::Result<Scratch> {
        let name = format!("hotslot-scratch-{:016x}", random());
        #[cfg(target_os = "linux")]
        let anonymous = crate::memfd::create(&name, false).map(|file| Scratch { file, _folder: None });
        #[cfg(not(target_os = "linux"))]
        let anonymous = Err(io::Error::from(io::ErrorKind::Unsupported));
        let mut scratch = anonymous.or_else(|_: io::Error| {
            let folder = PrivateDir::temporary(&std::env::temp_dir())?;
            let (_, file) = folder.create_file(&name, &[])?;
            Ok::<_, io::Error>(Scratch { file, _folder: Some(folder) })
        })?;
        for part in parts {
            scratch.file.write_all(part)?;
        }
        scratch.file.rewind()?;
        Ok(scratch)
    }

    /// Reads what the child has written, up to `limit` bytes.
    pub(crate) fn read_back(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut written = Vec::new();
        self.file.rewind()?;
        (&self.file).take(limit).read_to_end(&mut written)?;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;

    #[test]
    fn scratch_bytes_are_read_from_the_start() {
        let mut scratch = Scratch::new(&[b"one ", b"two"]).unwrap();
        assert_eq!(scratch.read_back(u64::MAX).unwrap(), b"one two");
        assert_eq!(scratch.read_back(3).unwrap(), b"one");
    }
}
