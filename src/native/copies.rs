//! What the copies take from which libraries are mapped: files on disk, or shared memory.

use std::collections::BTreeMap;
use std::io;

use super::budget;
use crate::lock::Mutex;
use crate::{Footprint, Retained};

/// What this process's libraries take, whichever slots they serve or served: see [`usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Usage {
    /// How many are mapped, or are being loaded: those that serve, are staged, warm or on their way out, and retained ones.
    pub libraries: u64,
    /// What the copies take that they are mapped from.
    pub footprint: Footprint,
    /// What belongs to generations that are gone and stay mapped.
    pub retained: Retained,
}

/// What of this process's libraries is in memory: see [`resident`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Resident {
    /// Bytes of their mappings that are in memory. Those of a file can be dropped and read again, unless they are private.
    pub resident: u64,
    /// Bytes of pages that the loader and the libraries have changed, which are this process's own: relocated data, and
    /// variables.
    pub private: u64,
}

/// The copies that there are, by their names in the memory map.
static COPIES: Mutex<BTreeMap<String, Footprint>> = Mutex::new(BTreeMap::new());

/// Returns what this process's libraries take. It only reads counters.
pub fn usage() -> Usage {
    let copies = COPIES.lock();
    Usage { libraries: copies.len() as u64, footprint: sum(&copies), retained: budget::retained() }
}

/// Returns what of this process's libraries is in memory, from `/proc/self/smaps`. That takes a while where much is mapped:
/// ask when somebody wants to know. Memory that a library allocates is not among it, nor are variables that begin as zero.
///
/// # Errors
/// If the map cannot be read, as on other systems than Linux.
pub fn resident() -> io::Result<Resident> {
    #[cfg(target_os = "linux")]
    {
        let text = std::fs::read("/proc/self/smaps")?;
        let copies = COPIES.lock();
        Ok(measure(&String::from_utf8_lossy(&text), |name| copies.contains_key(name)))
    }
    #[cfg(not(target_os = "linux"))]
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns whether a file of this name in the memory map is a copy that a library of this process is mapped from.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn is_copy(name: &str) -> bool {
    COPIES.lock().contains_key(name.trim_start_matches("memfd:"))
}

fn sum(copies: &BTreeMap<String, Footprint>) -> Footprint {
    copies.values().fold(Footprint::default(), |sum, copy| sum.plus(*copy))
}

/// Sums up the mappings whose files are `ours`.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "there is no such map"))]
fn measure(smaps: &str, ours: impl Fn(&str) -> bool) -> Resident {
    let (mut sum, mut counts) = (Resident::default(), false);
    for line in smaps.lines() {
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        match key.strip_suffix(':') {
            // The line of a mapping: its range, and its file at the end.
            None => {
                let name = line.trim_end_matches(" (deleted)").rsplit(['/', ':']).next();
                counts = name.is_some_and(&ours);
            }
            Some(key) if counts => {
                let bytes = rest.trim().strip_suffix(" kB").and_then(|number| number.trim().parse::<u64>().ok());
                let bytes = bytes.unwrap_or_default() << 10;
                match key {
                    "Rss" => sum.resident += bytes,
                    "Anonymous" => sum.private += bytes,
                    _ => {}
                }
            }
            Some(_) => {}
        }
    }
    sum
}

/// A copy, which is counted for as long as this lives.
#[derive(Debug)]
pub(super) struct Share {
    name: String,
    footprint: Footprint,
}

impl Share {
    /// Counts a file on disk, of this name in the memory map.
    pub(super) fn on_disk(name: &str, size: usize) -> Share {
        let footprint = Footprint { disk: size as u64, ..Footprint::default() };
        COPIES.lock().insert(name.to_owned(), footprint);
        Share { name: name.to_owned(), footprint }
    }

    /// Counts a copy in memory, unless there would be more than `limit` bytes of them then.
    pub(super) fn in_memory(name: &str, size: usize, limit: u64) -> Result<Share, MemorySpent> {
        let mut copies = COPIES.lock();
        let (needed, used) = (size as u64, sum(&copies).shared_memory);
        if used.saturating_add(needed) > limit {
            return Err(MemorySpent { needed, used, limit });
        }
        let footprint = Footprint { shared_memory: needed, ..Footprint::default() };
        copies.insert(name.to_owned(), footprint);
        Ok(Share { name: name.to_owned(), footprint })
    }

    pub(super) fn footprint(&self) -> Footprint {
        self.footprint
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        COPIES.lock().remove(&self.name);
    }
}

/// There is a budget for copies in memory, and this one does not fit into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemorySpent {
    pub(super) needed: u64,
    pub(super) used: u64,
    pub(super) limit: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_our_files_are_summed_up() {
        let smaps = "\
1000-2000 r--p 00000000 00:01 7                          /memfd:hotslot-1.so (deleted)
Size:                  4 kB
Rss:                   4 kB
Private_Dirty:         4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
2000-4000 rw-p 00001000 08:01 7                          /tmp/a b/hotslot-2.so
Rss:                   8 kB
Private_Clean:         4 kB
Anonymous:             4 kB
4000-5000 rw-p 00000000 00:00 0
Rss:                 100 kB
5000-6000 r-xp 00000000 08:01 9                          /lib/other.so
Rss:                 200 kB
Anonymous:             4 kB
";
        let measured = measure(smaps, |name| ["hotslot-1.so", "hotslot-2.so"].contains(&name));
        assert_eq!(measured, Resident { resident: 12 << 10, private: 4 << 10 });
    }
}
