//! Files that are taken for a shared library and never load: said by what they are, with what to hand over instead.

use object::elf;

use super::elf::NeverLoads;
use crate::Format;

/// What a file is, and what to do about it.
pub(super) struct Kind {
    pub(super) found: String,
    pub(super) remedy: &'static str,
}

const fn kind(found: String, remedy: &'static str) -> Option<Kind> {
    Some(Kind { found, remedy })
}

const SHARED: &str = "build the plugin as a cdylib (in C: -shared)";

/// Names a file that is no image, if it is one that a build or a package may have in the place of a library.
pub(super) fn no_image(bytes: &[u8], format: Format) -> Option<Kind> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    if format == Format::StaticLibrary || starts(b"!<thin>\n") {
        let remedy =
            "link it into a shared library: crate-type = [\"cdylib\"] (in C: -shared, with -Wl,--whole-archive)";
        return kind("a static library".to_owned(), remedy);
    }
    if format != Format::Unknown {
        return None;
    }
    if starts(b"BC\xc0\xde") || starts(b"\xde\xc0\x17\x0b") {
        return kind("LLVM bitcode, for link-time optimisation".to_owned(), SHARED);
    }
    if starts(b"version https://git-lfs") {
        return kind("a pointer of Git LFS".to_owned(), "fetch the file itself with git lfs pull");
    }
    let packed: [(&[u8], &str); 6] = [
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"PK\x03\x04", "zip"),
        (b"7z\xbc\xaf", "7z"),
    ];
    if let Some((_, name)) = packed.iter().find(|(magic, _)| starts(magic)) {
        return kind(format!("a file packed with {name}"), "unpack it first");
    }
    linker_script(bytes)
}

/// Names a text that tells the linker which library to take, under the name of a library.
fn linker_script(bytes: &[u8]) -> Option<Kind> {
    let text = std::str::from_utf8(bytes.get(..4096).unwrap_or(bytes)).ok()?;
    let command = ["GROUP", "INPUT"].iter().find_map(|command| {
        let rest = text.split_once(command)?.1.trim_start();
        rest.strip_prefix('(')
    })?;
    let library = command.split([' ', ',', '(', ')', '\n']).find(|word| word.contains(".so"));
    let found = match library {
        Some(library) => format!("a linker script that stands for {}", crate::escape_untrusted(library)),
        None => "a linker script".to_owned(),
    };
    kind(found, "hand over the library that it names")
}

/// Names an ELF file that is of another type than shared libraries.
pub(super) fn other_type(bytes: &[u8]) -> Option<Kind> {
    let both = [*bytes.get(16)?, *bytes.get(17)?];
    let number =
        if bytes.get(5) == Some(&elf::ELFDATA2MSB.0) { u16::from_be_bytes(both) } else { u16::from_le_bytes(both) };
    match elf::FileType(number) {
        elf::ET_REL if holds_gcc_lto(bytes) => {
            kind("an object file with GCC's intermediate code, for link-time optimisation".to_owned(), SHARED)
        }
        elf::ET_REL => kind("an object file".to_owned(), SHARED),
        elf::ET_EXEC => kind("an executable, linked for a fixed address".to_owned(), SHARED),
        elf::ET_CORE => kind("a core dump".to_owned(), "hand over the library, not what a crash left behind"),
        elf::ET_DYN => None,
        elf::FileType(other) => kind(format!("an ELF file of type {other}, which no linker makes for loading"), SHARED),
    }
}

/// Whether the names of sections show code that is not compiled yet.
fn holds_gcc_lto(bytes: &[u8]) -> bool {
    let mark = b"\0.gnu.lto_";
    bytes.windows(mark.len()).any(|window| window == mark)
}

/// Names what has the type of a shared library.
pub(super) fn shared(never: NeverLoads) -> Kind {
    let (found, remedy) = match never {
        NeverLoads::DebugSymbols => (
            "a file of debug symbols, split from a library",
            "hand over the library itself: the file that was stripped, not the one with the debug symbols",
        ),
        NeverLoads::Program => ("an executable (position-independent)", SHARED),
        NeverLoads::Static => ("an image without a dynamic section, which the loader does not take", SHARED),
        NeverLoads::NoOpen => {
            ("a library that was linked with -z nodlopen, which forbids loading it at run time", "link it without")
        }
    };
    Kind { found: found.to_owned(), remedy }
}
