//! The numbers of an ELF file: no read is wider than the bytes, whatever the offsets in it say.

use object::elf;

/// Numbers of an ELF file, of its word size and byte order.
#[derive(Clone, Copy)]
pub(super) struct View<'data> {
    pub(super) bytes: &'data [u8],
    pub(super) wide: bool,
    little: bool,
}

impl<'data> View<'data> {
    pub(super) fn new(bytes: &'data [u8]) -> Option<View<'data>> {
        let (class, order) = (*bytes.get(4)?, *bytes.get(5)?);
        let (wide, little) = (class == elf::ELFCLASS64.0, order == elf::ELFDATA2LSB.0);
        let known = (wide || class == elf::ELFCLASS32.0) && (little || order == elf::ELFDATA2MSB.0);
        known.then_some(View { bytes, wide, little })
    }

    /// Other bytes of the same file.
    pub(super) fn over(self, bytes: &'data [u8]) -> View<'data> {
        View { bytes, ..self }
    }

    fn chunk<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    pub(super) fn half(&self, at: usize) -> Option<u16> {
        let chunk = self.chunk(at)?;
        Some(if self.little { u16::from_le_bytes(chunk) } else { u16::from_be_bytes(chunk) })
    }

    pub(super) fn number(&self, at: usize) -> Option<u32> {
        let chunk = self.chunk(at)?;
        Some(if self.little { u32::from_le_bytes(chunk) } else { u32::from_be_bytes(chunk) })
    }

    /// Reads four or eight bytes, by the class.
    pub(super) fn word(&self, at: usize) -> Option<u64> {
        if !self.wide {
            return self.number(at).map(u64::from);
        }
        let chunk = self.chunk(at)?;
        Some(if self.little { u64::from_le_bytes(chunk) } else { u64::from_be_bytes(chunk) })
    }

    /// Chooses an offset or a size by the class.
    pub(super) fn by_class(&self, wide: usize, narrow: usize) -> usize {
        if self.wide { wide } else { narrow }
    }

    /// The `count` entries of `size` bytes from `at` on, within these bytes.
    pub(super) fn entries(self, at: u64, size: usize, count: usize) -> Option<impl Iterator<Item = View<'data>>> {
        let start = usize::try_from(at).ok()?;
        let table = self.bytes.get(start..start.checked_add(size.checked_mul(count)?)?)?;
        Some(table.chunks_exact(size.max(1)).map(move |bytes| View { bytes, ..self }))
    }

    pub(super) fn machine(&self) -> Option<u16> {
        self.half(18)
    }

    pub(super) fn program_headers(&self) -> Option<Vec<Header>> {
        let at = self.word(self.by_class(32, 28))?;
        let size = usize::from(self.half(self.by_class(54, 42))?);
        let count = usize::from(self.half(self.by_class(56, 44))?);
        if count > 0 && size < self.by_class(56, 32) {
            return None;
        }
        self.entries(at, size, count)?.map(|entry| Header::read(&entry)).collect()
    }

    /// Whether there is a section table in which the dynamic section, or the symbols, have no content.
    pub(super) fn dynamic_section_is_empty(&self) -> bool {
        let empty = || {
            let at = self.word(self.by_class(40, 32))?;
            let size = usize::from(self.half(self.by_class(58, 46))?);
            let count = usize::from(self.half(self.by_class(60, 48))?);
            if at == 0 || size < self.by_class(64, 40) {
                return None;
            }
            let mut seen = (false, false);
            for entry in self.entries(at, size, count)? {
                let kind = entry.number(4)?;
                let flags = entry.word(8)?;
                let code = (elf::SHF_ALLOC | elf::SHF_EXECINSTR).0;
                seen.0 |= kind == elf::SHT_NOBITS.0 && flags & code == code;
                seen.1 |= kind == elf::SHT_DYNAMIC.0;
            }
            Some(seen.0 && !seen.1)
        };
        empty().unwrap_or(false)
    }
}

/// A program header.
pub(super) struct Header {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) file_size: u64,
    pub(super) size: u64,
    pub(super) align: u64,
}

impl Header {
    fn read(view: &View<'_>) -> Option<Header> {
        let word = |wide, narrow| view.word(view.by_class(wide, narrow));
        Some(Header {
            kind: view.number(0)?,
            flags: view.number(view.by_class(4, 24))?,
            offset: word(8, 4)?,
            address: word(16, 8)?,
            file_size: word(32, 16)?,
            size: word(40, 20)?,
            align: word(48, 28)?,
        })
    }

    pub(super) fn has(&self, flags: elf::ProgramFlags) -> bool {
        self.flags & flags.0 == flags.0
    }
}
