//! Where the segments of an image go. The loader believes its headers: of two that may be there once it takes the last one, and
//! segments that are out of order or overlap are mapped over each other, or over memory of others.

use object::elf;

use super::view::Header;

/// The smallest page that there is; what may not share one may not share a larger one either.
const PAGE: u64 = 4096;

/// More program headers than any linker writes. The loader has them, and twice as much for each, on the stack of whoever loads.
const MOST_HEADERS: usize = 512;

/// Checks the program headers against each other. The error is what is wrong, as part of a sentence.
pub(super) fn check(headers: &[Header]) -> Result<(), &'static str> {
    if headers.len() > MOST_HEADERS {
        return Err("it has more than 512 program headers");
    }
    for (kind, twice) in [
        (elf::PT_DYNAMIC, "there are two headers for the dynamic section"),
        (elf::PT_TLS, "there are two headers for thread-local storage"),
        (elf::PT_GNU_STACK, "there are two headers for the stack"),
    ] {
        if headers.iter().filter(|header| header.kind == kind.0).count() > 1 {
            return Err(twice);
        }
    }
    for header in headers.iter().filter(|header| [elf::PT_LOAD.0, elf::PT_TLS.0].contains(&header.kind)) {
        if header.file_size > header.size {
            return Err("a segment has more bytes in the file than in memory");
        }
        if header.address.checked_add(header.size).is_none_or(|end| end > u64::MAX - PAGE) {
            return Err("a segment ends beyond all addresses");
        }
    }
    let storage = headers.iter().find(|header| header.kind == elf::PT_TLS.0 && header.size > 0);
    if storage.is_some_and(|header| !header.align.is_power_of_two()) {
        return Err("its thread-local storage has an alignment that is none");
    }
    // Those that are empty, too: the loader maps a page for one that does not begin with a page.
    let loaded: Vec<&Header> = headers.iter().filter(|header| header.kind == elf::PT_LOAD.0).collect();
    for pair in loaded.windows(2) {
        let [first, second] = pair else { continue };
        if second.address < first.address + first.size {
            return Err("its segments overlap, or are not in order");
        }
        let share_a_page = second.address / PAGE < (first.address + first.file_size).div_ceil(PAGE);
        let distance = |header: &Header| header.address.wrapping_sub(header.offset);
        if share_a_page && first.file_size > 0 && distance(first) != distance(second) {
            return Err("two segments share a page, and not what is in it");
        }
    }
    for header in headers.iter().filter(|header| header.kind == elf::PT_GNU_RELRO.0) {
        let outside = Err("what is to be write-protected after relocation lies outside of it");
        let Some(end) = header.address.checked_add(header.size) else { return outside };
        let (from, to) = (header.address / PAGE, end / PAGE);
        if from == to {
            // Whole pages only, and there is none.
            continue;
        }
        let (Some(first), Some(last)) = (loaded.first(), loaded.last()) else { return outside };
        // Linkers round it up.
        let all = (last.address + last.size).checked_next_multiple_of(last.align.max(PAGE)).unwrap_or(u64::MAX);
        if from < first.address / PAGE || to > all / PAGE {
            return outside;
        }
    }
    Ok(())
}
