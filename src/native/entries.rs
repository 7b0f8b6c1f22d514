//! What a descriptor points to, checked in the mapped library after the loader has relocated it and before `create` is
//! called: a null or wild pointer is a refusal, not the end of the host.

use std::cell::LazyCell;
use std::mem::{offset_of, size_of};
use std::ops::Range;

use hotslot_plugin::abi::Descriptor;

use super::descriptor::DescriptorError;
#[cfg(target_os = "linux")]
use super::segments::{self, Segment};

/// The entries, in their order.
const ENTRIES: [(&str, usize); 6] = [
    ("create", offset_of!(Descriptor, create)),
    ("destroy", offset_of!(Descriptor, destroy)),
    ("run", offset_of!(Descriptor, run)),
    ("call", offset_of!(Descriptor, call)),
    ("save", offset_of!(Descriptor, save)),
    ("restore", offset_of!(Descriptor, restore)),
];

/// Checks the pointers of a descriptor, as numbers: no reference to it exists before they are known to be valid.
///
/// # Safety
/// `descriptor` points to a descriptor's bytes in a mapped library, which nothing writes to.
pub(super) unsafe fn check(descriptor: *const Descriptor) -> Result<(), DescriptorError> {
    if !descriptor.is_aligned() {
        return Err(DescriptorError::Misaligned { what: "the descriptor" });
    }
    // SAFETY: inside the descriptor, which is aligned; every bit pattern is a number.
    let pointer = |offset: usize| unsafe { descriptor.byte_add(offset).cast::<usize>().read() };
    let segments = Segments::around(descriptor.addr());
    for (entry, offset) in ENTRIES {
        segments.check_code(pointer(offset), || entry.to_owned())?;
    }
    // SAFETY: a number of the descriptor.
    let count = unsafe { (&raw const (*descriptor).identity.function_count).read() };
    let table = pointer(offset_of!(Descriptor, functions));
    if count == 0 {
        return Ok(());
    }
    if table == 0 {
        return Err(DescriptorError::NullEntry { entry: format!("functions, for {count} functions") });
    }
    if !table.is_multiple_of(align_of::<usize>()) {
        return Err(DescriptorError::Misaligned { what: "its table of functions" });
    }
    let size = (count as usize).checked_mul(size_of::<usize>());
    let end = size.and_then(|size| table.checked_add(size));
    if !end.is_some_and(|end| segments.are_readable(table..end)) {
        return Err(DescriptorError::OutsideImage { what: format!("its table of {count} functions") });
    }
    for index in 0..count as usize {
        // SAFETY: the table is aligned and mapped for reading, with that many entries.
        let function = unsafe { (table as *const usize).add(index).read() };
        segments.check_code(function, || format!("functions[{index}]"))?;
    }
    Ok(())
}

/// What the loader has mapped: of the image itself, where nearly all that a descriptor points to is, and of all images, which is
/// read if it is needed. Empty where that is not known, and then only null is refused.
struct Segments {
    own: Vec<Segment>,
    all: LazyCell<Vec<Segment>>,
}

impl Segments {
    fn check_code(&self, address: usize, entry: impl Fn() -> String) -> Result<(), DescriptorError> {
        if address == 0 {
            return Err(DescriptorError::NullEntry { entry: entry() });
        }
        if !self.any(|segment| segment.is_code && segment.range.contains(&address)) {
            return Err(DescriptorError::OutsideImage { what: format!("its entry {}", entry()) });
        }
        Ok(())
    }

    /// Returns whether a range lies in one segment. Memory that is no image's does not count: a descriptor is constant.
    fn are_readable(&self, range: Range<usize>) -> bool {
        self.any(|segment| segment.range.start <= range.start && range.end <= segment.range.end)
    }

    fn any(&self, holds: impl Fn(&Segment) -> bool) -> bool {
        self.own.iter().any(&holds) || self.all.is_empty() || self.all.iter().any(&holds)
    }

    #[cfg(target_os = "linux")]
    fn around(address: usize) -> Segments {
        let all = || segments::segments(|_| true, usize::MAX);
        Segments { own: segments::segments_around(address), all: LazyCell::new(all) }
    }

    #[cfg(not(target_os = "linux"))]
    fn around(_: usize) -> Segments {
        Segments { own: Vec::new(), all: LazyCell::new(Vec::new) }
    }
}

/// Stands for what is not known here.
#[cfg(not(target_os = "linux"))]
struct Segment {
    range: Range<usize>,
    is_code: bool,
}
