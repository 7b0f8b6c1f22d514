//! `--watch`: detects changes of the plugin, once they have settled.
//!
//! The name of a plugin's file can lead to another one without a change in its folder, as with a link to the current release.
//! So the file that it leads to is looked at every second as well.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use hotslot::BoxError;
use notify::event::{Event, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::commands::Command;
use crate::source::Origin;

/// The quiet period after which a change counts as complete. If the writer has not finished, the slot refuses the
/// partial file, and the rest of the write is the next change.
const SETTLED: Duration = Duration::from_millis(500);

/// How often a name is followed to its file.
const LOOK: Duration = Duration::from_secs(1);

/// Sends [`Command::Rebuild`] after each change, for as long as the result lives.
pub fn watch(origin: &Origin, commands: Sender<Command>) -> Result<RecommendedWatcher, BoxError> {
    let (notify_change, changes) = channel();
    let subject = Subject::of(origin);
    let (folder, sources) = (subject.folder.clone(), subject.folder.join("src"));
    let file = subject.file.clone();
    let mut seen = identity(file.as_deref());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error may concern any file, ours included.
        if event.map_or(true, |event| subject.is_changed_by(&event)) {
            let _ = notify_change.send(());
        }
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    if matches!(origin, Origin::Crate(_)) && sources.is_dir() {
        // Not the whole directory: a target directory in it is large, and changes with every build.
        watcher.watch(&sources, RecursiveMode::Recursive)?;
    }
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
        loop {
            match changes.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if identity(file.as_deref()) == seen => continue,
                _ => {}
            }
            while changes.recv_timeout(SETTLED).is_ok() {}
            seen = identity(file.as_deref());
            if commands.send(Command::Rebuild).is_err() {
                return;
            }
        }
    })?;
    Ok(watcher)
}

/// Which file a name leads to, and how it is: its number, its size and its time. `None` if there is none.
fn identity(file: Option<&Path>) -> Option<(u64, u64, Option<SystemTime>)> {
    let metadata = std::fs::metadata(file?).ok()?;
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let number = 0;
    Some((number, metadata.len(), metadata.modified().ok()))
}

/// The watched files.
struct Subject {
    folder: PathBuf,
    /// The only file that matters; `None` if every source file does.
    file: Option<PathBuf>,
}

impl Subject {
    fn of(origin: &Origin) -> Subject {
        let (Origin::Crate(path) | Origin::File(path)) = origin;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        Subject { folder, file: matches!(origin, Origin::File(_)).then(|| path.clone()) }
    }

    fn is_changed_by(&self, event: &Event) -> bool {
        let counts = |path: &PathBuf| match &self.file {
            Some(file) => path == file,
            None => path.extension().is_some_and(|extension| extension == "rs" || extension == "toml"),
        };
        !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(counts)
    }
}
