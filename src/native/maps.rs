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

    /// Returns the files that are mapped, one for each row of areas.
    pub(super) fn files(&self) -> impl Iterator<Item = MappedFile<'_>> {
        let mut last = None;
        self.0.lines().filter_map(parse_file).filter(move |file| {
            let key = Some((file.device, file.inode));
            std::mem::replace(&mut last, key) != key
        })
    }

    /// Returns the file that is mapped at `address`.
    pub(super) fn file_at(&self, address: usize) -> Option<MappedFile<'_>> {
        let holds = |line: &&str| parse(line).is_some_and(|area| area.range.contains(&address));
        let found = parse_file(self.0.lines().find(holds)?)?;
        // Another copy may be mapped elsewhere: the row that ends here is meant.
        self.files().filter(|file| file.inode == found.inode && file.start <= found.start).last()
    }

    /// Returns all areas, in the order of their addresses.
    pub(super) fn all(&self) -> Vec<Area> {
        self.0.lines().filter_map(parse).collect()
    }
}

/// A file that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MappedFile<'a> {
    /// Where its first area begins.
    pub(super) start: usize,
    /// As the map shows it; some file systems give another one to `stat`.
    pub(super) device: &'a str,
    pub(super) inode: u64,
    /// Without the mark of one that was removed.
    pub(super) path: &'a str,
}

/// Reads a line such as `7f0c1000-7f0c2000 r-xp 00001000 00:01 1234   /memfd:name (deleted)`
fn parse(line: &str) -> Option<Area> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    Some(Area { range, executable: rest.as_bytes().get(2) == Some(&b'x') })
}

/// Reads the file of such a line, if it has one.
fn parse_file(line: &str) -> Option<MappedFile<'_>> {
    let start = parse(line)?.range.start;
    let mut fields = line.splitn(6, ' ');
    let device = fields.nth(3)?;
    let inode = fields.next()?.parse().ok()?;
    let path = fields.next()?.trim_start();
    (inode != 0 && !path.is_empty()).then(|| MappedFile {
        start,
        device,
        inode,
        path: path.strip_suffix(" (deleted)").unwrap_or(path),
    })
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
    fn files_are_found_by_an_address_in_them() {
        let maps = "\
1000-2000 r--p 00000000 08:01 7                          /lib/one two.so (deleted)
2000-3000 rw-p 00001000 08:01 7                          /lib/one two.so (deleted)
3000-4000 rw-p 00000000 00:00 0                          [heap]
5000-6000 r--p 00000000 08:01 9                          /lib/other.so
";
        let maps = Maps(maps.to_owned());
        let one = MappedFile { start: 0x1000, device: "08:01", inode: 7, path: "/lib/one two.so" };
        assert_eq!(maps.file_at(0x2800), Some(one));
        assert_eq!((maps.file_at(0x3800), maps.file_at(0x4800)), (None, None));
        assert_eq!(maps.files().map(|file| file.start).collect::<Vec<_>>(), [0x1000, 0x5000]);
    }

    #[test]
    fn this_process_finds_its_own_code() {
        let own = std::env::current_exe().unwrap();
        let areas = Maps::read().unwrap().of(own.to_str().unwrap());
        let here = this_process_finds_its_own_code as fn() as usize;
        assert!(areas.iter().any(|area| area.executable && area.range.contains(&here)));
    }
}
