//! The hash tables of symbols. The loader follows them without a look at their ends: a wrong count ends the process by an
//! assertion, a wrong chain is followed out of the image, and one in a circle for ever, with the loader's lock held.

use super::view::View;

/// Whether the loader divides by the number of buckets without a look: glibc's takes a table without any for an empty one.
const DIVIDES: bool = cfg!(target_env = "musl");

/// Returns how many symbols a table of System V's form reaches; `None` if it cannot be followed.
pub(super) fn sysv(table: &View<'_>) -> Option<u32> {
    // Alpha and 64-bit S/390 have wider entries, and a GNU table as well.
    let (buckets, symbols) = (table.number(0)?, table.number(4)?);
    if buckets == 0 && DIVIDES {
        return None;
    }
    let chains = 8_usize.checked_add((buckets as usize).checked_mul(4)?)?;
    // All that there is, so that the steps below are bounded by the bytes.
    drop(table.entries(chains as u64, 4, symbols as usize)?);
    let next = |symbol: u32| table.number(chains.checked_add((symbol as usize).checked_mul(4)?)?);
    let mut steps = 0;
    for bucket in table.entries(8, 4, buckets as usize)? {
        let mut symbol = bucket.number(0)?;
        while symbol != 0 {
            steps += 1;
            // Every symbol is in one chain at most.
            if symbol >= symbols || steps > symbols {
                return None;
            }
            symbol = next(symbol)?;
        }
    }
    Some(symbols)
}

/// Returns how many symbols a table of GNU's form reaches: to the end of the chain that begins last.
pub(super) fn gnu(table: &View<'_>) -> Option<u32> {
    let (buckets, first, filters) = (table.number(0)?, table.number(4)?, table.number(8)?);
    // Asserted by the loader.
    if !filters.is_power_of_two() || (buckets == 0 && DIVIDES) {
        return None;
    }
    let filters = (filters as usize).checked_mul(table.by_class(8, 4))?;
    let at = 16_usize.checked_add(filters)?;
    let mut last = 0;
    for bucket in table.entries(at as u64, 4, buckets as usize)? {
        let symbol = bucket.number(0)?;
        if symbol != 0 && symbol < first {
            return None;
        }
        last = last.max(symbol);
    }
    if last == 0 {
        return Some(first);
    }
    let chains = at.checked_add((buckets as usize).checked_mul(4)?)?;
    let mut index = last;
    loop {
        let place = ((index - first) as usize).checked_mul(4)?.checked_add(chains)?;
        if table.number(place)? & 1 == 1 {
            return index.checked_add(1);
        }
        index = index.checked_add(1)?;
    }
}
