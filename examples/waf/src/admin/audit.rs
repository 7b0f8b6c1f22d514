//! Who wanted to change what, from where, and what came of it: a line each, in a file that is only added to.
//!
//! What was refused for want of rights, or for a route that there is not, is in a file of its own: whoever may do nothing can
//! make any number of such entries, and must not push out those of others.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use axum::http::StatusCode;
use hotslot::{BoxError, escape_untrusted};
use parking_lot::Mutex;
use serde::Serialize;

use super::Role;
use crate::json::moment;

/// From this size on the file is put aside, as `audit.jsonl.1`, and another one begun.
const LARGEST: u64 = 16 << 20;
/// How many entries of each file the API shows.
const RECENT: usize = 256;
/// How many attempts without a token are written down, a second: anybody can make any number of them.
const STRANGERS: u32 = 10;
/// What is answered to whoever may not do something, or wants what there is not.
const REFUSED: [u16; 4] = [401, 403, 404, 405];

#[derive(Clone, Serialize)]
pub struct Entry {
    timestamp: String,
    /// The name of the token; null if none fits.
    who: Option<String>,
    role: Option<Role>,
    from: String,
    method: String,
    path: String,
    /// The module that it was about, if it was about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    status: u16,
}

/// Which module a request is about, once whoever answers it has found that out.
#[derive(Clone, Default)]
pub struct About(Arc<OnceLock<String>>);

impl About {
    pub fn is(&self, module: &str) {
        let _ = self.0.set(module.to_owned());
    }
}

impl Entry {
    pub fn new(
        who: Option<String>,
        role: Option<Role>,
        from: String,
        method: &str,
        path: &str,
        status: StatusCode,
    ) -> Entry {
        let safe = |text: &str| escape_untrusted(text).chars().take(512).collect();
        let (method, path) = (safe(method), safe(path));
        let (timestamp, status) = (moment(SystemTime::now()), status.as_u16());
        Entry { timestamp, who, role, from, method, path, module: None, status }
    }

    /// The same, with the module that it was about.
    pub fn about(self, About(module): &About) -> Entry {
        Entry { module: module.get().cloned(), ..self }
    }
}

#[derive(Clone)]
pub struct Audit(Arc<Logs>);

struct Logs {
    made: Log,
    refused: Log,
    /// How many entries there are.
    count: AtomicU64,
}

/// A file, and its latest entries with their numbers. Whoever reads these does not wait for the disk.
struct Log {
    file: Mutex<LogFile>,
    recent: Mutex<VecDeque<(u64, Entry)>>,
}

struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    strangers: (Instant, u32),
}

impl Audit {
    pub fn open(folder: &Path) -> Result<Audit, BoxError> {
        let log = |name: &str| -> Result<Log, BoxError> {
            let path = folder.join(name);
            let (file, size) = open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let strangers = (Instant::now(), 0);
            Ok(Log { file: Mutex::new(LogFile { path, file, size, strangers }), recent: Mutex::default() })
        };
        let (made, refused) = (log("audit.jsonl")?, log("audit-refused.jsonl")?);
        Ok(Audit(Arc::new(Logs { made, refused, count: AtomicU64::new(0) })))
    }

    /// Writes an entry down, before its answer is sent.
    pub async fn note(&self, entry: Entry) {
        let logs = Arc::clone(&self.0);
        let written = tokio::task::spawn_blocking(move || logs.write(entry)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }

    /// The latest entries since the start, the latest one first. Those that were refused are no more than the others may be.
    pub fn recent(&self) -> Vec<Entry> {
        let of = |log: &Log| log.recent.lock().iter().cloned().collect::<Vec<_>>();
        let mut all = of(&self.0.made);
        all.extend(of(&self.0.refused));
        all.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        all.into_iter().map(|(_, entry)| entry).collect()
    }
}

impl Logs {
    fn write(&self, entry: Entry) -> std::io::Result<()> {
        let log = if REFUSED.contains(&entry.status) { &self.refused } else { &self.made };
        let mut file = log.file.lock();
        if !file.has_room_for(&entry) {
            return Ok(());
        }
        {
            let mut recent = log.recent.lock();
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back((self.count.fetch_add(1, Relaxed), entry.clone()));
        }
        file.write(&entry)
    }
}

fn open(path: &Path) -> std::io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

impl LogFile {
    /// Whether an entry is not one too many.
    fn has_room_for(&mut self, entry: &Entry) -> bool {
        if entry.who.is_some() {
            return true;
        }
        let (since, count) = &mut self.strangers;
        if since.elapsed().as_secs() > 0 {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        *count <= STRANGERS
    }

    fn write(&mut self, entry: &Entry) -> std::io::Result<()> {
        if self.size >= LARGEST {
            let mut aside = self.path.as_os_str().to_owned();
            aside.push(".1");
            std::fs::rename(&self.path, aside)?;
            (self.file, self.size) = open(&self.path)?;
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.size += line.len() as u64;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(who: Option<&str>, path: &str, status: StatusCode) -> Entry {
        Entry::new(who.map(str::to_owned), None, "here".to_owned(), "POST", path, status)
    }

    #[test]
    fn what_is_refused_pushes_nothing_else_out() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path()).unwrap();
        let write = |entry| audit.0.write(entry).unwrap();
        write(entry(Some("token"), "/made", StatusCode::OK));
        for status in REFUSED {
            for _ in 0..RECENT {
                write(entry(Some("viewer"), "/refused", StatusCode::from_u16(status).unwrap()));
            }
        }
        write(entry(Some("token"), "/latest", StatusCode::BAD_REQUEST));
        let recent = audit.recent();
        assert_eq!((recent.len(), recent[0].path.as_str()), (RECENT + 2, "/latest"));
        assert_eq!(recent.last().unwrap().path, "/made");
        let lines = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap().lines().count();
        assert_eq!((lines("audit.jsonl"), lines("audit-refused.jsonl")), (2, 4 * RECENT));
    }

    #[test]
    fn readers_do_not_wait_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path()).unwrap();
        audit.0.write(entry(Some("token"), "/made", StatusCode::OK)).unwrap();
        // As long as a file is written, its lock is held.
        let _writing = (audit.0.made.file.lock(), audit.0.refused.file.lock());
        assert_eq!(audit.recent().len(), 1);
    }
}
