//! The mapped libraries that a new one can meet: those that share a needed library, directly or through others, or a unified symbol
//! with it.
//!
//! A library that is sound alone may not be beside another one. Registries in shared libraries are the usual case: both enter
//! the same name, and the second one ends the process. So a rehearsal loads those first, in the order in which this process
//! did.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::image::Facts;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use super::linkmap;
use crate::{Artifact, Payload};

/// What two libraries can meet in.
#[derive(Clone, Debug, Default)]
struct Ties {
    /// By name and by file.
    needed: Vec<String>,
    unique_symbols: Vec<String>,
}

impl Ties {
    fn of(facts: &Facts) -> Ties {
        Ties { needed: reached(facts), unique_symbols: facts.unique_symbols.clone() }
    }

    fn is_empty(&self) -> bool {
        self.needed.is_empty() && self.unique_symbols.is_empty()
    }

    fn meets(&self, other: &Ties) -> bool {
        let common = |ours: &[String], theirs: &[String]| ours.iter().any(|name| theirs.contains(name));
        common(&self.needed, &other.needed) || common(&self.unique_symbols, &other.unique_symbols)
    }
}

/// Returns names and files of the libraries that an image needs, through others as well; without the runtime, which every library
/// needs, and which is made for that.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn reached(facts: &Facts) -> Vec<String> {
    // Most have no others, and the list takes a look at the disk.
    if facts.needed.iter().all(|name| linkmap::is_runtime(name)) { Vec::new() } else { linkmap::reached(facts) }
}

/// Elsewhere it is not known which libraries are the runtime, and every library needs some of them: if they counted as shared, all
/// that is mapped would stay in memory twice, and be rehearsed each time. So none counts.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn reached(_: &Facts) -> Vec<String> {
    Vec::new()
}

/// Those that are mapped, in the order in which they were. Their bytes stay in memory for as long.
static MAPPED: Mutex<Mapped> = Mutex::new(Mapped { next: 0, libraries: BTreeMap::new() });

struct Mapped {
    next: u64,
    libraries: BTreeMap<u64, Met>,
}

/// A mapped library as another one meets it.
struct Met {
    ties: Ties,
    payload: Payload,
}

/// A library that can be met, until it is said to be gone.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nothing is unmapped there"))]
pub(super) struct Place(u64);

/// Notes that a library is mapped, if another one can meet it.
pub(super) fn note(facts: &Facts, artifact: &Artifact) -> Option<Place> {
    let ties = Ties::of(facts);
    if ties.is_empty() {
        return None;
    }
    let mut mapped = MAPPED.lock();
    let number = mapped.next;
    mapped.next += 1;
    mapped.libraries.insert(number, Met { ties, payload: artifact.payload().clone() });
    Some(Place(number))
}

/// Notes that a library is no longer mapped.
#[cfg(target_os = "linux")]
pub(super) fn forget(place: Place) {
    MAPPED.lock().libraries.remove(&place.0);
}

/// Returns the mapped libraries that one with these facts meets.
pub(super) fn beside(facts: &Facts) -> Vec<Payload> {
    let ties = Ties::of(facts);
    let mapped = MAPPED.lock();
    mapped.libraries.values().filter(|met| ties.meets(&met.ties)).map(|met| met.payload.clone()).collect()
}
