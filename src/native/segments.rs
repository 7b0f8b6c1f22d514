//! What the loader has mapped of which image, from its own list: cheaper than the memory map, which has a line for every area
//! of every generation.

use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;

/// A part of an image that is mapped.
pub(super) struct Segment {
    pub(super) range: Range<usize>,
    pub(super) is_code: bool,
}

/// Returns the segments of the first `most` images whose paths are `wanted`; the program's own path is empty. The list has what
/// the program was started with first.
pub(super) fn segments(wanted: fn(&CStr) -> bool, most: usize) -> Vec<Segment> {
    Search { wanted, holding: None, left: most, found: Vec::new() }.run()
}

/// Returns the segments of the image that an address is in.
pub(super) fn segments_around(address: usize) -> Vec<Segment> {
    Search { wanted: |_| true, holding: Some(address), left: 1, found: Vec::new() }.run()
}

/// Returns how many images are mapped, without a look at each.
pub(super) fn image_count() -> u64 {
    unsafe extern "C" fn count(info: *mut libc::dl_phdr_info, _: usize, images: *mut c_void) -> c_int {
        // SAFETY: the loader's record, which glibc and musl write with these fields; and the number that is passed below.
        unsafe { *images.cast::<u64>() = (*info).dlpi_adds - (*info).dlpi_subs };
        1
    }
    let mut images = 0_u64;
    // SAFETY: the function is called during this call only, with the pointer that is given here; it does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(count), (&raw mut images).cast()) };
    images
}

struct Search {
    wanted: fn(&CStr) -> bool,
    /// An address that is in the image.
    holding: Option<usize>,
    /// How many images are still to be found.
    left: usize,
    found: Vec<Segment>,
}

impl Search {
    fn run(mut self) -> Vec<Segment> {
        if self.left > 0 {
            // SAFETY: the function is called during this call only, with the pointer that is given here; it does not unwind.
            unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut self).cast()) };
        }
        self.found
    }
}

unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
    // SAFETY: `run` passed a `Search` that nobody else uses meanwhile.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the loader's record, which lives for the call; these fields are there in every version of it.
    let (base, name, headers, count) =
        unsafe { ((*info).dlpi_addr as usize, (*info).dlpi_name, (*info).dlpi_phdr, (*info).dlpi_phnum) };
    // Without a look at its headers, which are elsewhere in memory for each image: there may be thousands.
    if headers.is_null() || search.holding.is_some_and(|address| address < base) {
        return 0;
    }
    // SAFETY: a name is the loader's own string, which lives as long as the image.
    let name = if name.is_null() { c"" } else { unsafe { CStr::from_ptr(name) } };
    if !(search.wanted)(name) {
        return 0;
    }
    let before = search.found.len();
    // SAFETY: the program headers of a mapped image, as many as the record says.
    let headers = unsafe { std::slice::from_raw_parts(headers, usize::from(count)) };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
        let start = base.wrapping_add(header.p_vaddr as usize);
        let range = start..start.saturating_add(header.p_memsz as usize);
        search.found.push(Segment { range, is_code: header.p_flags & libc::PF_X != 0 });
    }
    let holds = |address| search.found[before..].iter().any(|segment| segment.range.contains(&address));
    if !search.holding.is_none_or(holds) {
        search.found.truncate(before);
        return 0;
    }
    search.left -= 1;
    c_int::from(search.left == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_function_is_code_of_the_program() {
        let here = this_function_is_code_of_the_program as fn() as usize;
        let holds = |segments: &[Segment]| segments.iter().any(|it| it.is_code && it.range.contains(&here));
        assert!(holds(&segments(|_| true, usize::MAX)));
        assert!(holds(&segments(|_| true, 1)), "the program is the first");
        assert!(!holds(&segments(|name| name.to_bytes().ends_with(b"/libc.so.6"), usize::MAX)));
        assert!(segments(|_| true, 0).is_empty());
    }

    #[test]
    fn images_are_counted_as_the_list_has_them() {
        unsafe extern "C" fn count(_: *mut libc::dl_phdr_info, _: usize, images: *mut c_void) -> c_int {
            // SAFETY: the number that is passed below.
            unsafe { *images.cast::<u64>() += 1 };
            0
        }
        let listed = || {
            let mut listed = 0_u64;
            // SAFETY: the function is called during this call only, with the pointer that is given here; it does not unwind.
            unsafe { libc::dl_iterate_phdr(Some(count), (&raw mut listed).cast()) };
            listed
        };
        // Other tests may load libraries meanwhile.
        let (counted, listed) = loop {
            let before = image_count();
            let listed = listed();
            if image_count() == before {
                break (before, listed);
            }
        };
        assert!(listed > 1);
        assert_eq!(counted, listed);
    }

    #[test]
    fn an_address_is_in_one_image() {
        let here = an_address_is_in_one_image as fn() as usize;
        let own = segments_around(here);
        assert!(own.iter().any(|it| it.is_code && it.range.contains(&here)));
        let libc = segments_around(libc::getpid as unsafe extern "C" fn() -> libc::pid_t as usize);
        assert!(!libc.is_empty() && !libc.iter().any(|it| it.range.contains(&here)));
        assert!(segments_around((&raw const own).addr()).is_empty(), "a stack is no image");
    }
}
