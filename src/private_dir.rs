//! Folders and files that only the user of this process can get at.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::process_id::ProcessId;

/// A new folder that only this user can enter, removed with all that is in it when this is dropped.
pub(crate) struct PrivateDir(PathBuf);

impl PrivateDir {
    /// Makes one inside of `parent`, under a name that nobody can guess.
    pub(crate) fn temporary(parent: &Path) -> io::Result<PrivateDir> {
        let path = parent.join(format!("hotslot-{:016x}", random()));
        // One that exists already is somebody else's.
        dir_builder().recursive(false).create(&path).map_err(|error| {
            let place = parent.display();
            io::Error::new(error.kind(), format!("cannot make a private folder in {place}: {error}"))
        })?;
        Ok(PrivateDir(path))
    }

    #[cfg_attr(not(feature = "native"), allow(dead_code, reason = "libraries are loaded from a path"))]
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a file in it that did not exist before, with these bytes.
    pub(crate) fn create_file(&self, name: &str, bytes: &[u8]) -> io::Result<(PathBuf, File)> {
        let path = self.0.join(name);
        let mut file = create_file(&path)?;
        file.write_all(bytes)?;
        Ok((path, file))
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // Windows keeps the file of a library that is still mapped; there is nobody to tell.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes the folder `path`, or finds it, and makes sure that nobody else can look or write into it.
#[cfg(feature = "wasm")]
pub(crate) fn open_dir(path: &Path) -> io::Result<()> {
    dir_builder().recursive(true).create(path)?;
    let folder = fs::symlink_metadata(path)?;
    if !folder.is_dir() {
        return Err(io::Error::other("it is not a folder itself; a link to one could lead elsewhere tomorrow"));
    }
    require_private(&folder, "it")?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        // A file of this process has its user, without anybody having to ask for it. On Linux there is one already, and
        // a folder that is mounted for reading only cannot have another.
        let owner = match fs::metadata("/proc/self") {
            Ok(own) => own.uid(),
            Err(_) => {
                let probe = path.join(format!("{:016x}.new", random()));
                let owner = create_file(&probe)?.metadata().map(|own| own.uid());
                fs::remove_file(&probe)?;
                owner?
            }
        };
        if owner != folder.uid() {
            return Err(io::Error::other("it belongs to another user"));
        }
    }
    Ok(())
}

/// Makes a file that did not exist before, for this user to read and write.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Refuses what others can get at; `what` names it in the error.
#[cfg(all(unix, feature = "wasm"))]
pub(crate) fn require_private(metadata: &fs::Metadata, what: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(io::Error::other(format!("others can get at {what} (mode {mode:o}): make it private, or remove it"))),
    }
}

/// Elsewhere a user's folders are private by what they inherit.
#[cfg(all(not(unix), feature = "wasm"))]
pub(crate) fn require_private(_: &fs::Metadata, _: &str) -> io::Result<()> {
    Ok(())
}

/// Makes folders that only this user can enter.
pub(crate) fn dir_builder() -> DirBuilder {
    #[cfg_attr(not(unix), allow(unused_mut, reason = "only Unix has modes"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Returns a number that another process cannot guess: each `RandomState` has keys of its own, seeded by the system. A forked process
/// goes on with the same keys, and has another identity.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(ProcessId::current())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_temporary_folder_is_this_users_alone_and_goes_with_its_files() {
        let folder = PrivateDir::temporary(&std::env::temp_dir()).unwrap();
        let (file, _) = folder.create_file("file", b"bytes").unwrap();
        assert_eq!((mode(folder.path()), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read(&file).unwrap(), b"bytes");
        assert!(folder.create_file("file", b"").is_err(), "it was there before");
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }

    #[cfg(feature = "wasm")]
    #[test]
    fn a_folder_that_others_can_get_at_is_not_opened() {
        let parent = PrivateDir::temporary(&std::env::temp_dir()).unwrap();
        let path = parent.path().join("cache");
        open_dir(&path).unwrap();
        assert_eq!((mode(&path), fs::read_dir(&path).unwrap().count()), (0o700, 0));
        open_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(open_dir(&path).unwrap_err().to_string().contains("mode 750"));
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(open_dir(&link).unwrap_err().to_string().contains("not a folder itself"));
    }
}
