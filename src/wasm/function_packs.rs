//! Compiled functions in the private directory, for the first edit after a restart.
//!
//! What a compilation has added to the [cache in memory](super::function_cache) becomes one file, a pack, which is written
//! beside the reload that made it and holds up none. Packs are read once, before the first compilation. A file for each function
//! would be thousands of them, each opened and verified by itself, and takes several times as long to write; one large file
//! would be written anew for every edit. When there are many packs, one takes the place of all.
//!
//! A pack counts only with its [MAC](super::seal). One that does not verify is removed, and costs its functions' compilation.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::disk_cache::{DiskCache, PACK};
use super::function_cache::{FunctionCache, KEY, Key};
use crate::lock::Mutex;
use crate::private_dir;
use crate::text::panic_text;
use crate::workers::{self, Afterwards};

/// How many packs are read and written until one takes their place.
const PACKS: usize = 16;

/// The packs of one engine.
pub(super) struct FunctionPacks {
    cache: Arc<FunctionCache>,
    disk: Arc<DiskCache>,
    is_read: AtomicBool,
    /// What was found and written so far.
    files: Mutex<Vec<PathBuf>>,
    writer: Mutex<Writer>,
}

/// The thread that writes, if there is one.
#[derive(Default)]
struct Writer {
    is_running: bool,
    /// Whether there may be something new to write.
    is_due: bool,
}

impl FunctionPacks {
    pub(super) fn new(cache: Arc<FunctionCache>, disk: Arc<DiskCache>) -> FunctionPacks {
        FunctionPacks {
            cache,
            disk,
            is_read: AtomicBool::new(false),
            files: Mutex::default(),
            writer: Mutex::default(),
        }
    }

    /// Reads the packs, unless that has been done, or another thread is at it: nobody waits for a disk that is slow.
    pub(super) fn read(&self) {
        if !self.is_read.swap(true, Ordering::Relaxed) {
            // Without them, everything is compiled.
            let _ = self.read_all();
        }
    }

    /// Reads the newest packs, as many as there is room for.
    fn read_all(&self) -> io::Result<()> {
        let (mut has_room, mut used) = (true, Vec::new());
        for (_, size, path) in self.disk.files()?.into_iter().rev() {
            if !path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(&self.ending())) {
                continue;
            }
            has_room &= size <= self.disk.limit();
            if has_room {
                let Ok(sealed) = fs::read(&path) else { continue };
                match self.disk.key().open_functions(&sealed).and_then(|pack| self.fill(pack)) {
                    Ok(all) => has_room = all,
                    Err(reason) => {
                        self.disk.skip(&path, &reason);
                        continue;
                    }
                }
                used.push(path.clone());
            }
            self.files.lock().push(path);
        }
        // The newest is to stay the newest.
        used.iter().rev().for_each(|path| self.disk.mark_used(path));
        Ok(())
    }

    /// Takes over what is in a pack: each function's key, the length of its code, and the code. Returns `false` if there was no
    /// room for all.
    fn fill(&self, mut pack: &[u8]) -> Result<bool, String> {
        let mut all = true;
        while !pack.is_empty() {
            let function = pack.split_first_chunk::<KEY>().and_then(|(key, rest)| {
                let (len, rest) = rest.split_first_chunk()?;
                let (code, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
                Some((key, code, rest))
            });
            let (key, code, rest) = function.ok_or("a function in it is cut short")?;
            all &= self.cache.fill(*key, code);
            pack = rest;
        }
        Ok(all)
    }

    /// Has what is new written, soon and on another thread.
    pub(super) fn save(self: &Arc<Self>) {
        let mut writer = self.writer.lock();
        writer.is_due = true;
        if std::mem::replace(&mut writer.is_running, true) {
            return;
        }
        drop(writer);
        let packs = Arc::clone(self);
        if let Err(error) = workers::run(Afterwards::Stay, move || packs.write_while_due()) {
            self.writer.lock().is_running = false;
            tracing::debug!("compiled functions are written after the next compilation: no thread is left: {error}");
        }
    }

    fn write_while_due(&self) {
        loop {
            let mut writer = self.writer.lock();
            if !std::mem::take(&mut writer.is_due) {
                writer.is_running = false;
                return;
            }
            drop(writer);
            // A tracing subscriber may panic, who is told what could not be written. The panic hook has told of it.
            let _ = catch_unwind(AssertUnwindSafe(|| self.write())).map_err(panic_text);
        }
    }

    fn write(&self) {
        let mut files = self.files.lock();
        let is_full = files.len() >= PACKS;
        // Modules have their share of the directory, too.
        let share = usize::try_from(self.disk.limit() / 2).unwrap_or(usize::MAX);
        let functions = if is_full { self.cache.take_latest(share) } else { self.cache.take_unsaved() };
        if functions.is_empty() {
            return;
        }
        let pack = pack(&functions);
        drop(functions);
        let path = self.disk.path().join(format!("{:016x}{}", private_dir::random(), self.ending()));
        let mac = self.disk.key().seal_functions(&pack);
        if !self.disk.write_functions(&path, &[&mac, &pack]) {
            // They are in the pack that takes the place of all, or are compiled again.
            return;
        }
        if is_full {
            // It is in the new one, or was not used for long.
            files.drain(..).for_each(|file| drop(fs::remove_file(file)));
        }
        files.push(path);
    }

    /// Returns how the names of packs end that hold code for this engine.
    fn ending(&self) -> String {
        format!("-{:016x}.{PACK}", self.disk.key().compatibility)
    }
}

fn pack(functions: &[(Key, Arc<[u8]>)]) -> Vec<u8> {
    let mut pack = Vec::with_capacity(functions.iter().map(|(_, code)| KEY + size_of::<u32>() + code.len()).sum());
    for (key, code) in functions {
        let Ok(len) = u32::try_from(code.len()) else { continue };
        pack.extend(key);
        pack.extend(len.to_le_bytes());
        pack.extend(&**code);
    }
    pack
}
