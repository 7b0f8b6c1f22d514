//! What the loader has mapped of which image, from its own list: cheaper than the memory map, which has a line for every area
//! of every generation.

use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;

/// A part of an image that is mapped.
pub(super) struct Segment {
    pub(super) range: Range<usize>,
    pub(super) is_code: bool,
}

/// Returns the segments of all images whose paths are `wanted`; the program's own path is empty.
pub(super) fn segments(wanted: fn(&CStr) -> bool) -> Vec<Segment> {
    let mut search = Search { wanted, found: Vec::new() };
    // SAFETY: the function is called during this call only, with the pointer that is given here; it does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.found
}

struct Search {
    wanted: fn(&CStr) -> bool,
    found: Vec<Segment>,
}

unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
    // SAFETY: `segments` passed a `Search` that nobody else uses meanwhile.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the loader's record, which lives for the call; these fields are there in every version of it.
    let (base, name, headers, count) =
        unsafe { ((*info).dlpi_addr, (*info).dlpi_name, (*info).dlpi_phdr, (*info).dlpi_phnum) };
    // SAFETY: a name is the loader's own string, which lives as long as the image.
    let name = if name.is_null() { c"" } else { unsafe { CStr::from_ptr(name) } };
    if headers.is_null() || !(search.wanted)(name) {
        return 0;
    }
    // SAFETY: the program headers of a mapped image, as many as the record says.
    let headers = unsafe { std::slice::from_raw_parts(headers, usize::from(count)) };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
        let start = (base as usize).wrapping_add(header.p_vaddr as usize);
        let range = start..start.saturating_add(header.p_memsz as usize);
        search.found.push(Segment { range, is_code: header.p_flags & libc::PF_X != 0 });
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_function_is_code_of_the_program() {
        let here = this_function_is_code_of_the_program as fn() as usize;
        let holds = |segments: &[Segment]| segments.iter().any(|it| it.is_code && it.range.contains(&here));
        assert!(holds(&segments(|_| true)));
        assert!(!holds(&segments(|name| name.to_bytes().ends_with(b"/libc.so.6"))));
    }
}
