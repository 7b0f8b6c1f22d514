//! The versions of symbols: which ones an image needs, of which library, and which ones it defines.
//!
//! The loader follows both lists from entry to entry, whatever their counts say, until one says that it is the last.

use std::collections::{BTreeMap, BTreeSet};

use super::view::View;

/// There are fifteen bits for the number of a version.
const MOST: usize = 0x7fff;

/// The versions that an image needs.
#[derive(Default)]
pub(super) struct Needs {
    /// By the number that symbols have, where the name of the library is among the strings.
    versions: BTreeMap<u16, u32>,
    libraries: BTreeSet<u32>,
}

impl Needs {
    /// Reads the list; `None` if it cannot be followed to its end.
    pub(super) fn read(list: &View<'_>) -> Option<Needs> {
        let mut found = Needs::default();
        let (mut at, mut count) = (0_usize, 0);
        loop {
            let library = list.number(at.checked_add(4)?)?;
            let mut version = at.checked_add(list.number(at.checked_add(8)?)? as usize)?;
            loop {
                let number = list.half(version.checked_add(6)?)? & 0x7fff;
                found.versions.entry(number).or_insert(library);
                count += 1;
                // They need not be distinct, or even apart.
                if count > MOST {
                    return None;
                }
                match list.number(version.checked_add(12)?)? {
                    0 => break,
                    next => version = version.checked_add(next as usize)?,
                }
            }
            found.libraries.insert(library);
            match list.number(at.checked_add(12)?)? {
                0 => return Some(found),
                next => at = at.checked_add(next as usize)?,
            }
        }
    }

    /// Returns where the names of the libraries are among the strings.
    pub(super) fn libraries(&self) -> impl Iterator<Item = u32> {
        self.libraries.iter().copied()
    }

    /// Returns where the name of the library of a version is among the strings.
    pub(super) fn library(&self, version: u16) -> Option<u32> {
        self.versions.get(&version).copied()
    }

    /// Returns the highest number of a version.
    pub(super) fn highest(&self) -> u16 {
        self.versions.last_key_value().map_or(0, |(number, _)| *number)
    }
}

/// Returns the highest number of a version that an image defines; `None` if the list cannot be followed to its end.
pub(super) fn highest_defined(list: &View<'_>) -> Option<u16> {
    let (mut highest, mut at) = (0, 0_usize);
    for _ in 0..=MOST {
        highest = highest.max(list.half(at.checked_add(4)?)? & 0x7fff);
        match list.number(at.checked_add(16)?)? {
            0 => return Some(highest),
            next => at = at.checked_add(next as usize)?,
        }
    }
    None
}
