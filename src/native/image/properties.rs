//! What an image is marked with: protections of its control flow that it was compiled for, and the processor that it needs.
//!
//! The marks are properties in a note. Which note counts, and what becomes of one that is malformed, is what glibc's loader does:
//! on x86 a damaged note says nothing, and neither do two; on AArch64 what comes before the damage holds, and the first one counts.
//! So an image is never taken for better protected than the loader takes it.

use object::elf;

use super::view::{Header, View};
use crate::Protection;

/// The marks of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::native) struct Properties {
    pub(in crate::native) protections: Vec<Protection>,
    /// The levels of x86-64 that it needs, a bit each (`GNU_PROPERTY_X86_ISA_1_NEEDED`).
    pub(in crate::native) processor: u32,
}

// Source: Linux Extensions to gABI (x86 psABI, AArch64 ELF ABI), and elf.h of glibc 2.41.
const NOTE: u32 = 5;
const X86_FEATURES: u32 = 0xc000_0002;
const X86_PROCESSOR: u32 = 0xc000_8002;
const GENERIC_NEEDED: u32 = 0xb000_8000;
const ARM_FEATURES: u32 = 0xc000_0000;

/// The bits of the features, and what they stand for.
const ON_X86: [(u32, Protection); 2] = [(1, Protection::IndirectBranchTracking), (2, Protection::ShadowStack)];
const ON_ARM: [(u32, Protection); 3] =
    [(1, Protection::BranchTargets), (2, Protection::PointerAuthentication), (4, Protection::GuardedControlStack)];

/// Reads the notes among these segments, each with what is mapped of it, in the loader's order.
pub(super) fn read<'a>(machine: u16, segments: impl Iterator<Item = (&'a Header, View<'a>)>) -> Properties {
    let is_x86 = matches!(elf::Machine(machine), elf::EM_X86_64 | elf::EM_386);
    if !is_x86 && elf::Machine(machine) != elf::EM_AARCH64 {
        return Properties::default();
    }
    for (header, notes) in segments {
        // Older linkers for x86 wrote no segment of its own for it.
        let may_hold = header.kind == elf::PT_GNU_PROPERTY.0 || (is_x86 && header.kind == elf::PT_NOTE.0);
        // Others may hold notes of that type, and the loader does not look there.
        if !may_hold || header.align != notes.by_class(8, 4) as u64 {
            continue;
        }
        return if is_x86 { on_x86(&notes).unwrap_or_default() } else { on_arm(&notes) };
    }
    Properties::default()
}

/// `None` if something is wrong with it.
fn on_x86(notes: &View<'_>) -> Option<Properties> {
    let (mut found, mut is_first) = (Properties::default(), true);
    for list in property_notes(notes) {
        if !std::mem::replace(&mut is_first, false) {
            return None;
        }
        for property in properties(list?) {
            let (kind, value) = property?;
            if kind > X86_PROCESSOR {
                break;
            }
            if !matches!(kind, X86_FEATURES | X86_PROCESSOR | GENERIC_NEEDED) {
                continue;
            }
            let value = number_of(&value)?;
            match kind {
                X86_FEATURES => found.protections = named(value, &ON_X86),
                X86_PROCESSOR => found.processor = value,
                _ => {}
            }
            // The loader wants no more of it.
            if kind == X86_PROCESSOR {
                break;
            }
        }
    }
    Some(found)
}

fn on_arm(notes: &View<'_>) -> Properties {
    let mut found = Properties::default();
    let Some(Some(list)) = property_notes(notes).next() else { return found };
    for (kind, value) in properties(list).map_while(|property| property) {
        if kind == ARM_FEATURES {
            let Some(value) = number_of(&value) else { break };
            found.protections = named(value, &ON_ARM);
        }
    }
    found
}

fn named(bits: u32, names: &[(u32, Protection)]) -> Vec<Protection> {
    names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
}

/// The value of a property that is a number; none of those has another size.
fn number_of(value: &View<'_>) -> Option<u32> {
    if value.bytes.len() == 4 { value.number(0) } else { None }
}

/// The lists of properties in a row of notes, `None` for one that is malformed. What reaches beyond the segment ends the row.
fn property_notes<'a>(notes: &View<'a>) -> impl Iterator<Item = Option<View<'a>>> {
    let (notes, word) = (*notes, notes.by_class(8, 4));
    let mut at = 0_usize;
    std::iter::from_fn(move || {
        loop {
            let (name, size, kind) = (
                notes.number(at)? as usize,
                notes.number(at.checked_add(4)?)? as usize,
                notes.number(at.checked_add(8)?)?,
            );
            let start = at.checked_add(12)?;
            let content = start.checked_add(name)?.checked_next_multiple_of(word)?;
            let end = content.checked_add(size)?;
            let is_property = kind == NOTE && name == 4 && notes.bytes.get(start..start.checked_add(4)?)? == b"GNU\0";
            at = end.checked_next_multiple_of(word)?;
            if is_property {
                let list = notes.bytes.get(content..end).map(|bytes| notes.over(bytes));
                return Some(list.filter(|_| size >= 8 && size % word == 0));
            }
        }
    })
}

/// The properties of a list, each with its type, and `None` for the first that is out of order or reaches beyond the end.
fn properties<'a>(list: View<'a>) -> impl Iterator<Item = Option<(u32, View<'a>)>> {
    let word = list.by_class(8, 4);
    let (mut at, mut last) = (Some(0_usize), 0_u32);
    std::iter::from_fn(move || {
        let start = at.take()?;
        if list.bytes.len().saturating_sub(start) < 8 {
            return None;
        }
        let mut next = || {
            let (kind, size) = (list.number(start)?, list.number(start + 4)? as usize);
            let bytes = list.bytes.get(start + 8..(start + 8).checked_add(size)?)?;
            if kind < std::mem::replace(&mut last, kind) {
                return None;
            }
            at = (start + 8).checked_add(size.checked_next_multiple_of(word)?);
            Some((kind, list.over(bytes)))
        };
        Some(next())
    })
}
