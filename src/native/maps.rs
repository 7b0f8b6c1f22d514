//! What the process has mapped, from `/proc/self/maps`: the only witness of whether a library is gone.

use std::io;
use std::ops::Range;

/// One line of the map.
pub(super) struct Area {
    pub(super) range: Range<usize>,
    pub(super) executable: bool,
}

/// The areas of this process that are mapped from a file whose path ends with `name`.
pub(super) fn areas_of(name: &str) -> io::Result<Vec<Area>> {
    Ok(areas(&read()?, |path| path.trim_end_matches(" (deleted)").ends_with(name)))
}

/// The whole map as text.
pub(super) fn read() -> io::Result<String> {
    // A path in it may be of any bytes; the parts that are parsed are ASCII.
    Ok(String::from_utf8_lossy(&std::fs::read("/proc/self/maps")?).into_owned())
}

/// The areas in `maps` whose path is wanted; an anonymous one has the empty path.
pub(super) fn areas(maps: &str, wanted: impl Fn(&str) -> bool) -> Vec<Area> {
    maps.lines().filter_map(|line| parse(line).filter(|(_, path)| wanted(path))).map(|(area, _)| area).collect()
}

/// `7f0c1000-7f0c2000 r-xp 00001000 00:01 1234   /memfd:name (deleted)`
fn parse(line: &str) -> Option<(Area, &str)> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    let executable = fields.next()?.contains('x');
    Some((Area { range, executable }, fields.nth(3).unwrap_or_default().trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_found_by_the_end_of_their_path() {
        let maps = "\
1000-2000 r--p 00000000 00:01 7                          /memfd:hotslot-5-waf-1.so (deleted)
2000-3000 r-xp 00001000 00:01 7                          /memfd:hotslot-5-waf-1.so (deleted)
3000-4000 rw-p 00000000 00:00 0 
4000-5000 r-xp 00001000 08:01 9                          /tmp/x/hotslot-15-waf-1.so
";
        let found = areas(maps, |path| path.trim_end_matches(" (deleted)").ends_with("hotslot-5-waf-1.so"));
        let found: Vec<_> = found.iter().map(|area| (area.range.clone(), area.executable)).collect();
        assert_eq!(found, [(0x1000..0x2000, false), (0x2000..0x3000, true)]);
        assert_eq!(areas(maps, str::is_empty).len(), 1);
    }

    #[test]
    fn this_process_finds_its_own_code() {
        let own = std::env::current_exe().unwrap();
        let areas = areas_of(own.to_str().unwrap()).unwrap();
        let here = this_process_finds_its_own_code as fn() as usize;
        assert!(areas.iter().any(|area| area.executable && area.range.contains(&here)));
    }
}
