//! Notices that the module, the rule file or the configuration has changed, once it has settled.
//!
//! A name can lead elsewhere without a change in its own folder: a volume of a ConfigMap replaces the link `..data`, a
//! deployment the link `current`. So besides waiting for events the file that the name leads to is looked at every second.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, SystemTime};

use hotslot::BoxError;
use notify::event::{Event, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::deploy::Deployments;

/// So long without another change, and whoever was writing has finished. If not, the node refuses the half that it
/// gets, and the rest of the writing is the next change.
const SETTLED: Duration = Duration::from_millis(300);

/// How often a name is followed to its file.
const LOOK: Duration = Duration::from_secs(1);

/// Takes up every change of a module's files, for as long as the result lives.
pub fn watch(deployments: &Arc<Deployments>) -> Result<[RecommendedWatcher; 2], BoxError> {
    let (module, config) = deployments.files();
    let (modules, configs) = (Arc::clone(deployments), Arc::clone(deployments));
    Ok([
        watch_file(&module, move |path| modules.module_file_changed(path))?,
        watch_file(&config, move |path| configs.rule_file_changed(path))?,
    ])
}

/// Calls `changed` after each change of a file. It says when to try again, if it is to be tried again.
pub fn watch_file(
    path: &Path,
    changed: impl Fn(&Path) -> Option<Duration> + Send + 'static,
) -> Result<RecommendedWatcher, BoxError> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let path = std::path::absolute(path).map_err(named)?;
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    let name = path.file_name().ok_or_else(|| format!("{}: is no file", path.display()))?.to_owned();
    let (tell, changes) = channel();
    // The folder and not the file: a file that is replaced is another one to the system.
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let concerns = event.map_or(true, |event| {
            !matches!(event.kind, EventKind::Access(_))
                && event.paths.iter().any(|path| path.file_name() == Some(name.as_os_str()))
        });
        if concerns {
            let _ = tell.send(());
        }
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(|error| format!("{}: {error}", folder.display()))?;
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || follow(&changes, &path, changed))?;
    Ok(watcher)
}

fn follow(changes: &Receiver<()>, path: &Path, changed: impl Fn(&Path) -> Option<Duration>) {
    // What has changed since the node read it at its start is the first change.
    let (mut again, mut seen) = (Some(Duration::ZERO), None);
    loop {
        let due = again.take();
        match changes.recv_timeout(due.unwrap_or(LOOK)) {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) if due.is_none() && identity(path) == seen => continue,
            _ => {}
        }
        while changes.recv_timeout(SETTLED).is_ok() {}
        seen = identity(path);
        again = changed(path);
    }
}

/// Which file a name leads to, and how it is: its number, its size and its time.
fn identity(path: &Path) -> Option<(u64, u64, Option<SystemTime>)> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let number = {
        use std::os::unix::fs::MetadataExt;
        metadata.ino() ^ metadata.dev().rotate_left(32)
    };
    #[cfg(not(unix))]
    let number = 0;
    Some((number, metadata.len(), metadata.modified().ok()))
}
