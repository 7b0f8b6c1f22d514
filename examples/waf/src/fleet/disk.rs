//! What a node of a fleet must find again after a crash: durable before anything follows from it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use hotslot::BoxError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use waf_rollout::{Memory, NodeId, ReleaseId};

use super::{Description, Settings};
use crate::release::Release;
use crate::replace_file::replace_file;

/// A folder in the node's data folder.
#[derive(Clone)]
pub struct Disk(PathBuf);

/// A change of what serves: written before it, and once more after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    pub from: ReleaseId,
    pub to: ReleaseId,
    pub done: bool,
}

/// What a node serves after a start, by what it finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub serving: ReleaseId,
    pub settings: Settings,
    /// The release that failed its probation while nobody could be told.
    pub failed: Option<ReleaseId>,
}

impl Disk {
    pub fn open(data: &Path) -> Result<Disk, BoxError> {
        let disk = Disk(data.join("fleet"));
        let releases = disk.0.join("releases");
        std::fs::create_dir_all(&releases).map_err(|error| format!("{}: {error}", releases.display()))?;
        Ok(disk)
    }

    /// The name of the node: the one that is given, or the one that it was given at its first start.
    pub fn name(&self, given: Option<&str>) -> Result<NodeId, BoxError> {
        if let Some(name) = given {
            return Ok(NodeId::new(name));
        }
        if let Some(name) = self.read::<NodeId>("name.json")? {
            return Ok(name);
        }
        let name = NodeId::new(format!("node-{:08x}", rand::random::<u32>()));
        self.write("name.json", &name)?;
        Ok(name)
    }

    pub fn memory(&self) -> Result<Memory, BoxError> {
        Ok(self.read("memory.json")?.unwrap_or_default())
    }

    pub fn remember(&self, memory: &Memory) -> io::Result<()> {
        self.write("memory.json", memory)
    }

    pub fn swap(&self) -> Result<Option<Swap>, BoxError> {
        self.read("swap.json")
    }

    pub fn write_swap(&self, swap: &Swap) -> io::Result<()> {
        self.write("swap.json", swap)
    }

    pub(super) fn description(&self, id: ReleaseId) -> Option<Description> {
        let bytes = std::fs::read(self.0.join(format!("releases/{id}.json"))).ok()?;
        Description::read(id, &bytes).ok()
    }

    pub(super) fn keep(&self, description: &Description) -> io::Result<()> {
        let id = description.id();
        match self.description(id) {
            Some(_) => Ok(()),
            None => replace_file(&self.0.join(format!("releases/{id}.json")), &description.bytes()),
        }
    }

    /// Returns which release it is that serves, by its name in the fleet.
    pub(super) fn find(&self, serving: &Release) -> Result<Found, BoxError> {
        let swap = self.swap()?;
        let known = |id: ReleaseId| self.description(id).filter(|description| description.is_of(serving));
        let found = swap.and_then(|Swap { from, to, done }| {
            // Two releases may differ in nothing but their settings. Then the swap that was done decides.
            let order = if done { [to, from] } else { [from, to] };
            order.into_iter().find_map(|id| known(id).map(|description| (id, description.config)))
        });
        let plain = Description::of(serving, Settings::default());
        let (id, settings) = found.unwrap_or_else(|| (plain.id(), plain.config));
        self.keep(&Description::of(serving, settings))?;
        let failed = swap.filter(|swap| swap.done && swap.to != id).map(|swap| swap.to);
        Ok(Found { serving: id, settings, failed })
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, BoxError> {
        let path = self.0.join(name);
        let named = |error: String| {
            format!(
                "{}: {error}: without it the node could follow a document that is older than what it knows",
                path.display()
            )
        };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| named(error.to_string()).into()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(error.to_string()).into()),
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        replace_file(&self.0.join(name), &serde_json::to_vec(value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(rules: &str) -> (Release, Description) {
        let release = Release::new(&b"module"[..], rules.as_bytes());
        let description = Description::of(&release, Settings::default());
        (release, description)
    }

    #[test]
    fn what_serves_is_named_by_the_swap_that_led_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let ((old, from), (new, to)) = (description("old"), description("new"));
        for description in [&from, &to] {
            disk.keep(description).unwrap();
        }
        let (from, to) = (from.id(), to.id());
        let found = |serving: &Release| {
            let found = disk.find(serving).unwrap();
            (found.serving, found.failed)
        };
        assert_eq!(found(&old), (from, None), "nothing was ever swapped");
        disk.write_swap(&Swap { from, to, done: false }).unwrap();
        assert_eq!(found(&old), (from, None), "it did not come to the swap");
        assert_eq!(found(&new), (to, None), "it came to the swap, and no further");
        disk.write_swap(&Swap { from, to, done: true }).unwrap();
        assert_eq!(found(&new), (to, None));
        assert_eq!(found(&old), (from, Some(to)), "the node went back on its own");
    }

    #[test]
    fn a_memory_that_cannot_be_read_is_no_memory_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.remember(&Memory { term: 7, ..Memory::default() }).unwrap();
        assert_eq!(disk.memory().unwrap().term, 7);
        std::fs::write(folder.path().join("fleet/memory.json"), "{").unwrap();
        assert!(disk.memory().unwrap_err().to_string().contains("memory.json"));
    }
}
