//! Who wanted to change what, from where, and what came of it: a line each, in a file that is only added to.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::http::StatusCode;
use hotslot::{BoxError, escape_untrusted};
use parking_lot::Mutex;
use serde::Serialize;

use super::Role;
use crate::json::moment;

/// From this size on the file is put aside, as `audit.jsonl.1`, and another one begun.
const LARGEST: u64 = 16 << 20;
/// How many entries the API shows.
const RECENT: usize = 256;
/// How many attempts without a token are written down, a second: anybody can make any number of them.
const STRANGERS: u32 = 10;

#[derive(Clone, Serialize)]
pub struct Entry {
    timestamp: String,
    /// The name of the token; null if none fits.
    who: Option<String>,
    role: Option<Role>,
    from: String,
    method: String,
    path: String,
    status: u16,
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
        Entry { timestamp: moment(SystemTime::now()), who, role, from, method, path, status: status.as_u16() }
    }
}

#[derive(Clone)]
pub struct Audit(Arc<Mutex<Log>>);

struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    recent: VecDeque<Entry>,
    strangers: (Instant, u32),
}

impl Audit {
    pub fn open(folder: &Path) -> Result<Audit, BoxError> {
        let path = folder.join("audit.jsonl");
        let (file, size) = open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let strangers = (Instant::now(), 0);
        Ok(Audit(Arc::new(Mutex::new(Log { path, file, size, recent: VecDeque::new(), strangers }))))
    }

    /// Writes an entry down, before its answer is sent.
    pub async fn note(&self, entry: Entry) {
        let log = Arc::clone(&self.0);
        let written = tokio::task::spawn_blocking(move || log.lock().write(entry)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }

    /// The latest entries since the start, the latest one first.
    pub fn recent(&self) -> Vec<Entry> {
        self.0.lock().recent.iter().rev().cloned().collect()
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

impl Log {
    fn write(&mut self, entry: Entry) -> std::io::Result<()> {
        if entry.who.is_none() {
            let (since, count) = &mut self.strangers;
            if since.elapsed().as_secs() > 0 {
                (*since, *count) = (Instant::now(), 0);
            }
            *count += 1;
            if *count > STRANGERS {
                return Ok(());
            }
        }
        if self.size >= LARGEST {
            let mut aside = self.path.as_os_str().to_owned();
            aside.push(".1");
            std::fs::rename(&self.path, aside)?;
            (self.file, self.size) = open(&self.path)?;
        }
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(entry);
        self.file.write_all(&line)?;
        self.size += line.len() as u64;
        self.file.sync_data()
    }
}
