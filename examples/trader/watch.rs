//! `--watch`: detects changes of the plugin, once they have settled.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use hotslot::BoxError;
use notify::event::{Event, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::commands::Command;
use crate::source::Origin;

/// The quiet period after which a change counts as complete. If the writer has not finished, the slot refuses the
/// partial file, and the rest of the write is the next change.
const SETTLED: Duration = Duration::from_millis(500);

/// Sends [`Command::Rebuild`] after each change, for as long as the result lives.
pub fn watch(origin: &Origin, commands: Sender<Command>) -> Result<RecommendedWatcher, BoxError> {
    let (notify_change, changes) = channel();
    let subject = Subject::of(origin);
    let (folder, sources) = (subject.folder.clone(), subject.folder.join("src"));
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
        while changes.recv().is_ok() {
            while changes.recv_timeout(SETTLED).is_ok() {}
            if commands.send(Command::Rebuild).is_err() {
                return;
            }
        }
    })?;
    Ok(watcher)
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
