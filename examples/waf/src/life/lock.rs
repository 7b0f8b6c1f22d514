//! One node for each state folder: two would overwrite each other's archive, history and rule file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use hotslot::BoxError;

/// Takes the lock of a state folder, which ends with the process, however that ends.
pub fn lock(folder: &Path) -> Result<File, BoxError> {
    let path = folder.join("lock");
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(named)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = file.read_to_string(&mut owner);
            let owner =
                owner.trim().parse::<u32>().map_or_else(|_| "another process".to_owned(), |id| format!("process {id}"));
            return Err(format!(
                "{}: {owner} keeps its state there: give this one another folder with `data` or --data",
                folder.display()
            )
            .into());
        }
        // Some network file systems have no locks: better a node without one than none.
        Err(TryLockError::Error(error)) => tracing::warn!(path = %path.display(), %error, "no lock"),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(named)?;
    Ok(file)
}

/// Returns whether a state folder is locked: not where the file system has no locks.
pub fn is_locked(folder: &Path) -> bool {
    let file = OpenOptions::new().read(true).write(true).open(folder.join("lock"));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}
