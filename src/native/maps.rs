//! What the process has mapped, from `/proc/self/maps`: the only witness of whether a library is gone.

use std::io;
use std::ops::Range;

/// One line of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) range: Range<usize>,
    pub(super) executable: bool,
}

/// The map as it was at one moment.
pub(super) struct Maps(String);

impl Maps {
    pub(super) fn read() -> io::Result<Maps> {
        let text = std::fs::read("/proc/self/maps")?;
        // A path may be of any bytes; what is parsed here is ASCII.
        Ok(Maps(String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())))
    }

    /// Returns the areas that are mapped from a file whose path ends with `name`.
    pub(super) fn of(&self, name: &str) -> Vec<Area> {
        let ours = |line: &&str| line.trim_end_matches(" (deleted)").ends_with(name);
        self.0.lines().filter(ours).filter_map(parse).collect()
    }

    /// Returns all areas, in the order of their addresses.
    pub(super) fn all(&self) -> Vec<Area> {
        self.0.lines().filter_map(parse).collect()
    }
}

/// Reads a line such as `7f0c1000-7f0c2000 r-xp 00001000 00:01 1234   /memfd:name (deleted)`
fn parse(line: &str) -> Option<Area> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    Some(Area { range, executable: rest.as_bytes().get(2) == Some(&b'x') })
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
        let maps = Maps(maps.to_owned());
        let area = |range, executable| Area { range, executable };
        let (data, code) = (area(0x1000..0x2000, false), area(0x2000..0x3000, true));
        assert_eq!(maps.of("hotslot-5-waf-1.so"), [data, code]);
        assert_eq!(maps.all().len(), 4);
    }

    #[test]
    fn this_process_finds_its_own_code() {
        let own = std::env::current_exe().unwrap();
        let areas = Maps::read().unwrap().of(own.to_str().unwrap());
        let here = this_process_finds_its_own_code as fn() as usize;
        assert!(areas.iter().any(|area| area.executable && area.range.contains(&here)));
    }
}
