//! What a file is, by its first bytes.

use std::fmt;

/// The format of a file, by its magic bytes. Whether the rest of it holds what they promise is for a backend to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// An ELF image: what Linux and most Unix systems load.
    Elf,
    /// A Mach-O image for one architecture, of 32 or 64 bits and of either byte order: what macOS loads.
    MachO,
    /// Several Mach-O images in one file.
    UniversalMachO,
    /// A PE image: what Windows loads.
    Pe,
    /// A WebAssembly core module.
    WasmModule,
    /// A WebAssembly component.
    WasmComponent,
    /// A static library.
    StaticLibrary,
    /// A Java class, whose magic bytes are those of a universal Mach-O file.
    JavaClass,
    /// No bytes at all.
    Empty,
    /// Anything else.
    Unknown,
}

impl Format {
    /// What platforms load as dynamic libraries.
    pub const LIBRARIES: [Format; 4] = [Format::Elf, Format::MachO, Format::UniversalMachO, Format::Pe];

    /// Looks at the first bytes of a file: eight of them decide.
    ///
    /// ```
    /// use hotslot::Format;
    ///
    /// assert_eq!(Format::of(b"\x7fELF\x02\x01\x01"), Format::Elf);
    /// assert_eq!(Format::of(b"\0asm\x01\0\0\0"), Format::WasmModule);
    /// assert_eq!(Format::of(b"#!/bin/sh"), Format::Unknown);
    /// ```
    pub fn of(bytes: &[u8]) -> Format {
        match bytes {
            [] => Format::Empty,
            [0x7f, b'E', b'L', b'F', ..] => Format::Elf,
            // MH_MAGIC and MH_MAGIC_64, each in both byte orders.
            [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] => Format::MachO,
            // FAT_MAGIC is that of Java, too. Then comes, in Java, a version of at least 45; here, the number of images,
            // of which there are as many as there are architectures.
            [0xca, 0xfe, 0xba, 0xbe, a, b, c, d, ..] => match u32::from_be_bytes([*a, *b, *c, *d]) {
                ..45 => Format::UniversalMachO,
                _ => Format::JavaClass,
            },
            // FAT_MAGIC_64, and both in the other byte order.
            [0xca, 0xfe, 0xba, 0xbf, ..] | [0xbe | 0xbf, 0xba, 0xfe, 0xca, ..] => Format::UniversalMachO,
            [b'M', b'Z', ..] => Format::Pe,
            // A version of two bytes, and a layer of two.
            [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => Format::WasmComponent,
            [b'\0', b'a', b's', b'm', ..] => Format::WasmModule,
            [b'!', b'<', b'a', b'r', b'c', b'h', b'>', b'\n', ..] => Format::StaticLibrary,
            _ => Format::Unknown,
        }
    }

    /// Returns whether it is a dynamic library or a program, of whatever platform.
    pub fn is_library(self) -> bool {
        Format::LIBRARIES.contains(&self)
    }

    /// Returns whether it is WebAssembly: a core module, or a component.
    pub fn is_wasm(self) -> bool {
        matches!(self, Format::WasmModule | Format::WasmComponent)
    }

    /// Returns it as part of a sentence: "an ELF image".
    pub fn description(self) -> &'static str {
        match self {
            Format::Elf => "an ELF image",
            Format::MachO => "a Mach-O image",
            Format::UniversalMachO => "a universal Mach-O file (take one image out of it with lipo -thin)",
            Format::Pe => "a PE image",
            Format::WasmModule => "a WebAssembly module",
            Format::WasmComponent => "a WebAssembly component",
            Format::StaticLibrary => "a static library",
            Format::JavaClass => "a Java class",
            Format::Empty => "an empty file",
            Format::Unknown => "a file of no known format",
        }
    }
}

/// The [description](Format::description).
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description())
    }
}

/// A format as a list of one, for [`Auto::on`](crate::Auto::on).
impl AsRef<[Format]> for Format {
    fn as_ref(&self) -> &[Format] {
        std::slice::from_ref(self)
    }
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn every_form_of_every_format_is_known() {
        for (bytes, format) in [
            (&b""[..], Format::Empty),
            (b"\x7fELF", Format::Elf),
            (b"MZ\x90\0", Format::Pe),
            (b"\xfe\xed\xfa\xce", Format::MachO),
            (b"\xce\xfa\xed\xfe", Format::MachO),
            (b"\xfe\xed\xfa\xcf", Format::MachO),
            (b"\xcf\xfa\xed\xfe", Format::MachO),
            (b"\xca\xfe\xba\xbe\0\0\0\x02", Format::UniversalMachO),
            (b"\xbe\xba\xfe\xca\x02\0\0\0", Format::UniversalMachO),
            (b"\xca\xfe\xba\xbf\0\0\0\x02", Format::UniversalMachO),
            (b"\xbf\xba\xfe\xca\x02\0\0\0", Format::UniversalMachO),
            (b"\xca\xfe\xba\xbe\0\0\0\x2d", Format::JavaClass),
            (b"\xca\xfe\xba\xbe\0\x03\0\x2d", Format::JavaClass),
            (b"\xca\xfe\xba\xbe\xff\xff\0\x41", Format::JavaClass),
            (b"\xca\xfe\xba\xbe", Format::Unknown),
            (b"\0asm\x01\0\0\0", Format::WasmModule),
            (b"\0asm", Format::WasmModule),
            (b"\0asm\x0d\0\x01\0", Format::WasmComponent),
            (b"!<arch>\nlib.o", Format::StaticLibrary),
            (b"fn main() {}", Format::Unknown),
        ] {
            assert_eq!(Format::of(bytes), format, "{bytes:x?}");
        }
    }
}
