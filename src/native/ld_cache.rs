//! The loader's cache of libraries (`/etc/ld.so.cache`), in which it looks before it looks into the system's folders.
//!
//! Only names and paths are taken from it. It is root's file, but a file all the same: every offset is checked, no read is
//! wider than the bytes, and a cache that makes no sense has nothing in it, as for the loader.

// Source: sysdeps/generic/dl-cache.h of glibc 2.41.
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;
const EXTENSIONS: u32 = 0xeaa4_2174;
const EXTENSION: usize = 16;
/// The extension that lists the names of processor levels.
const LEVEL_NAMES: u32 = 1;
/// Marks an entry for a processor level; the rest of the word is the level's place in that list.
const FOR_A_LEVEL: u32 = 1 << 30;
/// An entry for the C library that programs use: other kinds are of the last century.
const OF_LIBC_6: u32 = 3;

/// What the paths of a name are, as far as it can be read.
pub(super) struct LdCache<'data> {
    /// From where offsets of strings count.
    strings: &'data [u8],
    entries: &'data [u8],
    /// The places of the names of processor levels, four bytes each.
    levels: &'data [u8],
    little: bool,
}

/// One entry of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'data> {
    pub(super) path: &'data str,
    /// The processor level that the library is for; `None` if it is for all.
    pub(super) level: Option<&'data str>,
}

impl<'data> LdCache<'data> {
    /// Reads the header; `None` if this is no cache, or one for another byte order.
    pub(super) fn read(file: &'data [u8]) -> Option<LdCache<'data>> {
        // The format before may come first, with the new one behind it.
        let start = if file.starts_with(OLD_MAGIC) {
            let old = usize::try_from(number(file, 12, cfg!(target_endian = "little"))?).ok()?;
            OLD_HEADER.checked_add(old.checked_mul(OLD_ENTRY)?)?.checked_next_multiple_of(8)?
        } else {
            0
        };
        let cache = file.get(start..)?;
        if !cache.starts_with(MAGIC) {
            return None;
        }
        let little = match cache.get(28)? & 3 {
            0 => cfg!(target_endian = "little"),
            2 => true,
            3 => false,
            _ => return None,
        };
        if little != cfg!(target_endian = "little") {
            return None;
        }
        let count = usize::try_from(number(cache, 20, little)?).ok()?;
        let entries = cache.get(HEADER..HEADER.checked_add(count.checked_mul(ENTRY)?)?)?;
        let extensions = usize::try_from(number(cache, 32, little)?).ok()?;
        let levels = level_names(file, extensions, little).unwrap_or_default();
        Some(LdCache { strings: cache, entries, levels, little })
    }

    /// Returns the entries of a name, in their order. Those with marks of processors from before levels are left out.
    pub(super) fn find(&self, name: &str) -> impl Iterator<Item = Entry<'data>> {
        self.entries.chunks_exact(ENTRY).filter_map(move |entry| {
            let number = |at| number(entry, at, self.little);
            if number(0)? & 0xff != OF_LIBC_6 || self.text(number(4)?)? != name {
                return None;
            }
            let (low, high) = if self.little { (number(16)?, number(20)?) } else { (number(20)?, number(16)?) };
            let level = match (high, low) {
                (0, 0) => None,
                (FOR_A_LEVEL, place) => Some(self.level(place)?),
                _ => return None,
            };
            Some(Entry { path: self.text(number(8)?)?, level })
        })
    }

    fn level(&self, place: u32) -> Option<&'data str> {
        let at = usize::try_from(place).ok()?.checked_mul(4)?;
        self.text(number(self.levels, at, self.little)?)
    }

    fn text(&self, offset: u32) -> Option<&'data str> {
        let bytes = self.strings.get(usize::try_from(offset).ok()?..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

/// Finds the list of the names of processor levels.
fn level_names(file: &[u8], at: usize, little: bool) -> Option<&[u8]> {
    let extensions = file.get(at..).filter(|_| at > 0)?;
    if number(extensions, 0, little)? != EXTENSIONS {
        return None;
    }
    let count = usize::try_from(number(extensions, 4, little)?).ok()?;
    let sections = extensions.get(8..)?.chunks_exact(EXTENSION).take(count);
    let list = sections.into_iter().find(|section| number(section, 0, little) == Some(LEVEL_NAMES))?;
    let (start, size) = (number(list, 8, little)? as usize, number(list, 12, little)? as usize);
    file.get(start..start.checked_add(size)?)
}

fn number(bytes: &[u8], at: usize, little: bool) -> Option<u32> {
    let chunk = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(if little { u32::from_le_bytes(chunk) } else { u32::from_be_bytes(chunk) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library in a cache: its name, its path, its level by its place in the list.
    type Library = (&'static str, &'static str, Option<u32>);

    const LIBRARIES: [Library; 4] = [
        ("libone.so.1", "/opt/one/libone.so.1", None),
        ("libtwo.so.2", "/opt/two/glibc-hwcaps/x86-64-v3/libtwo.so.2", Some(1)),
        ("libtwo.so.2", "/opt/two/glibc-hwcaps/x86-64-v2/libtwo.so.2", Some(0)),
        ("libtwo.so.2", "/opt/two/libtwo.so.2", None),
    ];

    /// A cache as ldconfig writes it, in this machine's byte order, behind one in the old format if that is asked for.
    fn written(libraries: &[Library], levels: &[&str], old: bool) -> Vec<u8> {
        let mut file = Vec::new();
        if old {
            file.extend_from_slice(OLD_MAGIC);
            file.resize(12, 0);
            file.extend_from_slice(&1_u32.to_ne_bytes());
            file.resize((OLD_HEADER + OLD_ENTRY).next_multiple_of(8), 0xee);
        }
        let start = file.len();
        let mut strings = Vec::new();
        let strings_at = HEADER + libraries.len() * ENTRY;
        let mut text = |text: &str| {
            let at = strings_at + strings.len();
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            u32::try_from(at).unwrap().to_ne_bytes()
        };
        let mut entries = Vec::new();
        for (name, path, level) in libraries {
            entries.extend_from_slice(&0x0303_u32.to_ne_bytes());
            entries.extend_from_slice(&text(name));
            entries.extend_from_slice(&text(path));
            entries.extend_from_slice(&[0; 4]);
            let hwcap = level.map_or(0, |level| u64::from(FOR_A_LEVEL) << 32 | u64::from(level));
            entries.extend_from_slice(&hwcap.to_ne_bytes());
        }
        let list: Vec<u8> = levels.iter().flat_map(|level| text(level)).collect();
        let extensions = (start + strings_at + strings.len()).next_multiple_of(4);
        file.extend_from_slice(MAGIC);
        for number in [libraries.len(), strings.len()] {
            file.extend_from_slice(&u32::try_from(number).unwrap().to_ne_bytes());
        }
        file.extend_from_slice(&[if cfg!(target_endian = "little") { 2 } else { 3 }, 0, 0, 0]);
        file.extend_from_slice(&u32::try_from(extensions).unwrap().to_ne_bytes());
        file.resize(start + HEADER, 0);
        file.extend(entries);
        file.extend(strings);
        file.resize(extensions, 0);
        let list_at = extensions + 8 + EXTENSION;
        for number in [EXTENSIONS as usize, 1, LEVEL_NAMES as usize, 0, list_at, list.len()] {
            file.extend_from_slice(&u32::try_from(number).unwrap().to_ne_bytes());
        }
        file.extend(list);
        file
    }

    const LEVELS: [&str; 2] = ["x86-64-v2", "x86-64-v3"];

    #[test]
    fn what_was_written_is_found_in_its_order() {
        for old in [false, true] {
            let file = written(&LIBRARIES, &LEVELS, old);
            let cache = LdCache::read(&file).expect("it is a cache");
            let one: Vec<Entry<'_>> = cache.find("libone.so.1").collect();
            assert_eq!(one, [Entry { path: "/opt/one/libone.so.1", level: None }]);
            let two: Vec<Option<&str>> = cache.find("libtwo.so.2").map(|entry| entry.level).collect();
            assert_eq!(two, [Some("x86-64-v3"), Some("x86-64-v2"), None]);
            assert_eq!(cache.find("libthree.so").count(), 0);
        }
    }

    #[test]
    fn what_is_no_cache_and_one_of_another_byte_order_have_nothing_in_them() {
        let mut file = written(&LIBRARIES, &LEVELS, false);
        assert!(LdCache::read(b"").is_none() && LdCache::read(b"glibc-ld.so.cache1.0").is_none());
        for order in [1, if cfg!(target_endian = "little") { 3 } else { 2 }] {
            file[28] = order;
            assert!(LdCache::read(&file).is_none());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_cache_of_this_system_is_read() {
        let Ok(file) = std::fs::read("/etc/ld.so.cache") else { return println!("skipped: there is no cache here") };
        let cache = LdCache::read(&file).expect("it is a cache");
        let paths: Vec<&str> = cache.find("libc.so.6").map(|entry| entry.path).collect();
        assert!(paths.iter().any(|path| path.ends_with("/libc.so.6")), "{paths:?}");
    }

    /// Any bytes: nothing is read beyond them, and nothing takes longer than there are bytes.
    #[test]
    fn no_bytes_make_it_panic() {
        let whole = written(&LIBRARIES, &LEVELS, true);
        let look = |bytes: &[u8]| {
            let Some(cache) = LdCache::read(bytes) else { return };
            for name in ["libone.so.1", "libtwo.so.2", "", "x"] {
                assert!(cache.find(name).count() <= bytes.len() / ENTRY);
            }
        };
        for end in 0..whole.len() {
            look(&whole[..end]);
        }
        // A generator of Marsaglia's, so that a failure comes again.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..50_000 {
            let mut bytes = whole.clone();
            for _ in 0..=next() % 6 {
                let at = usize::try_from(next()).unwrap() % bytes.len();
                bytes[at] = [0, 1, 0x7f, 0xff, next() as u8][usize::try_from(next() % 5).unwrap()];
            }
            bytes.truncate(usize::try_from(next()).unwrap() % (2 * whole.len()));
            look(&bytes);
            // Nothing of a cache but how it begins.
            for byte in bytes.iter_mut().skip(MAGIC.len()) {
                *byte = next() as u8;
            }
            bytes.splice(..MAGIC.len().min(bytes.len()), MAGIC.iter().copied());
            look(&bytes);
        }
    }
}
