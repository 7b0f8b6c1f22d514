//! Admission of an image from its bytes: whatever the loader would trip over is refused before the loader sees it.
//!
//! A loader maps what the headers say and believes them: an image that was cut short raises SIGBUS inside `dlopen`, or
//! loads and crashes later; one for another machine is reported as "No such file or directory". Here the headers are
//! checked against the length and against this process, with checked arithmetic throughout, and nothing is run. What the
//! headers ask of the loader is read in the same pass (`elf`), for [`link`](super::link) to judge.

mod elf;
mod hash;
mod kind;
mod layout;
mod macho;
mod pe;
mod properties;
mod versions;
mod view;

use hotslot_plugin::abi;
use object::read::{ExportTarget, NameOrOrdinal};
use object::{Architecture, BinaryFormat, File, Object, ObjectKind, ObjectSection, ObjectSegment};

use crate::Format;

pub(super) use elf::Facts;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) use elf::Symbol;

/// Why the bytes are not an image that this process could load.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Another kind of file.
    #[error("this is {found}, and the host loads {expected}: build the plugin as a cdylib (in C: -shared)")]
    WrongFormat {
        /// What it looks like.
        found: &'static str,
        /// What this platform loads.
        expected: &'static str,
    },
    /// An image for another architecture, word size or byte order.
    #[error("the image is for {image}, and this process is {host}: build the plugin for the host's target")]
    WrongMachine {
        /// What the image was built for.
        image: String,
        /// What this process was built for.
        host: String,
    },
    /// A file that no loader takes as a library: an object file, a program, debug symbols, a linker script.
    #[error("this is {found}, not a shared library: {remedy}")]
    NeverLoads {
        /// What it is.
        found: String,
        /// What to hand over instead.
        remedy: &'static str,
    },
    /// Headers that make no sense.
    #[error("the image is damaged or cut short ({what}): build or copy it again")]
    Malformed {
        /// The first thing that is wrong.
        what: String,
    },
    /// A part of the image that lies beyond the end of the bytes.
    #[error("{part} ends at byte {end}, and there are only {length}: the image was cut short, copy it again")]
    CutShort {
        /// Which part.
        part: String,
        /// Where its headers say that it ends.
        end: u64,
        /// How many bytes there are.
        length: u64,
    },
    /// No descriptor: a library, but not a plugin.
    #[error(
        "the library exports no {}: export the plugin with hotslot_plugin::export!, or load it with Native::raw",
        abi::DESCRIPTOR_SYMBOL
    )]
    NotAPlugin,
    /// A descriptor that is not where the ABI puts it.
    #[error("{} does not lie in the section {}: {what}", abi::DESCRIPTOR_SYMBOL, abi::DESCRIPTOR_SECTION)]
    MisplacedDescriptor {
        /// What is wrong.
        what: &'static str,
    },
    /// A function that the host asked for is not there.
    #[error("the library does not export `{name}`, which this host needs: is it the right library, and not stripped?")]
    MissingSymbol {
        /// The symbol.
        name: String,
    },
}

impl From<kind::Kind> for ImageError {
    fn from(kind: kind::Kind) -> ImageError {
        ImageError::NeverLoads { found: kind.found, remedy: kind.remedy }
    }
}

impl From<object::Error> for ImageError {
    fn from(error: object::Error) -> ImageError {
        ImageError::Malformed { what: error.to_string() }
    }
}

/// A shared library for this process, whose parts lie within its bytes.
pub(super) struct Image<'data> {
    file: File<'data>,
    facts: Facts,
}

impl<'data> Image<'data> {
    /// Reads and checks the headers of `bytes`.
    pub(super) fn read(bytes: &'data [u8]) -> Result<Image<'data>, ImageError> {
        tracing::trace!(bytes = bytes.len(), "image parsed");
        let format = Format::of(bytes);
        if format != NATIVE {
            if let Some(kind) = kind::no_image(bytes, format) {
                return Err(kind.into());
            }
            return Err(ImageError::WrongFormat { found: format.description(), expected: NATIVE.description() });
        }
        let file = File::parse(bytes)?;
        check_machine(&file, bytes)?;
        let facts = match file.format() {
            BinaryFormat::Elf => match kind::other_type(bytes) {
                Some(kind) => return Err(kind.into()),
                None => elf_facts(bytes),
            },
            _ => {
                check_kind(&file, bytes)?;
                Ok(other_facts(&file))
            }
        };
        // What never loads says so first, because its headers may promise what was taken out of it; what was cut short,
        // before what cannot be read of it.
        if let Ok(Facts { never_loads: Some(never), .. }) = facts {
            return Err(kind::shared(never).into());
        }
        check_bounds(&file, bytes.len() as u64)?;
        Ok(Image { file, facts: facts? })
    }

    /// Reads and checks the headers of an image for whatever process: any format, any machine, and a program as well as a library.
    pub(super) fn of_any_machine(bytes: &'data [u8]) -> Result<Image<'data>, ImageError> {
        let format = Format::of(bytes);
        if !matches!(format, Format::Elf | Format::MachO | Format::Pe) {
            if let Some(kind) = kind::no_image(bytes, format) {
                return Err(kind.into());
            }
            let found = format.description();
            return Err(ImageError::WrongFormat { found, expected: "ELF, Mach-O and PE images" });
        }
        let file = File::parse(bytes)?;
        check_bounds(&file, bytes.len() as u64)?;
        let facts = match file.format() {
            // Objects and programs for a fixed address ask a loader for nothing, or are none of its files.
            BinaryFormat::Elf if file.kind() == ObjectKind::Dynamic => elf_facts(bytes)?,
            BinaryFormat::Elf => Facts::default(),
            _ => other_facts(&file),
        };
        Ok(Image { file, facts })
    }

    /// Returns what the image asks of the loader.
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns whether the image is for this process: its format and its machine.
    pub(super) fn is_for_this_process(&self, bytes: &[u8]) -> bool {
        Format::of(bytes) == NATIVE && check_machine(&self.file, bytes).is_ok()
    }

    /// Returns the format, by its short name.
    pub(super) fn format(&self) -> &'static str {
        match self.file.format() {
            BinaryFormat::MachO => "Mach-O",
            BinaryFormat::Pe => "PE",
            _ => "ELF",
        }
    }

    /// Returns the machine that it is for.
    pub(super) fn machine(&self) -> String {
        let architecture = format!("{:?}", self.file.architecture()).to_lowercase();
        machine(&architecture, self.file.is_64(), self.file.is_little_endian())
    }

    /// Returns the address of an exported function or variable.
    pub(super) fn export(&self, name: &str) -> Result<Option<u64>, ImageError> {
        for export in self.file.exports()? {
            let export = export?;
            if let (NameOrOrdinal::Name(found), ExportTarget::Address { address }) = (export.name(), export.target())
                && plain_name(self.file.format(), found) == name.as_bytes()
            {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// Refuses an image that does not export `name`.
    pub(super) fn require(&self, name: &str) -> Result<(), ImageError> {
        let found = self.export(name)?;
        found.map(|_| ()).ok_or_else(|| ImageError::MissingSymbol { name: name.to_owned() })
    }

    /// Returns the bytes of the descriptor and what follows it in its section.
    pub(super) fn descriptor(&self) -> Result<&'data [u8], ImageError> {
        let address = self.export(abi::DESCRIPTOR_SYMBOL)?.ok_or(ImageError::NotAPlugin)?;
        let section = self
            .file
            .sections()
            .find(|section| section.name_bytes().is_ok_and(|name| is_descriptor_section(self.file.format(), name)))
            .ok_or(ImageError::MisplacedDescriptor { what: "there is no such section" })?;
        let offset = address
            .checked_sub(section.address())
            .filter(|offset| *offset < section.size())
            .ok_or(ImageError::MisplacedDescriptor { what: "it lies outside" })?;
        // Read through the segment, as the loader does: a section's own file offset could show other bytes than run.
        self.file
            .segments()
            .find_map(|segment| segment.data_range(address, section.size() - offset).ok().flatten())
            .ok_or(ImageError::MisplacedDescriptor { what: "the section is not part of what the loader maps" })
    }
}

/// What the loader of this platform takes.
const NATIVE: Format = if cfg!(target_vendor = "apple") {
    Format::MachO
} else if cfg!(windows) {
    Format::Pe
} else {
    Format::Elf
};

/// Reads what an ELF image asks of the loader.
fn elf_facts(bytes: &[u8]) -> Result<Facts, ImageError> {
    let damaged = |what| ImageError::Malformed { what: format!("{what}, and a loader would believe it") };
    elf::read(bytes).map_err(damaged)
}

/// Reads what a Mach-O or PE image asks of the loader.
fn other_facts(file: &File<'_>) -> Facts {
    match file {
        File::MachO32(file) => macho::read(file),
        File::MachO64(file) => macho::read(file),
        File::Pe32(file) => pe::read(file),
        File::Pe64(file) => pe::read(file),
        _ => Facts::default(),
    }
}

/// Refuses a Mach-O or PE image of another kind than shared libraries.
fn check_kind(file: &File<'_>, bytes: &[u8]) -> Result<(), ImageError> {
    let remedy = "build the plugin as a cdylib (in C: -shared)";
    // MH_DSYM, in either byte order.
    let is_dsym =
        file.format() == BinaryFormat::MachO && matches!(bytes.get(12..16), Some([10, 0, 0, 0] | [0, 0, 0, 10]));
    let found = match file.kind() {
        ObjectKind::Dynamic => return Ok(()),
        ObjectKind::Executable => "an executable",
        ObjectKind::Relocatable => "an object file",
        ObjectKind::Core => "a core dump",
        _ if is_dsym => "a file of debug symbols (dSYM)",
        _ => "of a kind that no linker makes for loading",
    };
    Err(ImageError::NeverLoads { found: found.to_owned(), remedy })
}

/// Refuses an image that another machine would run.
fn check_machine(file: &File<'_>, bytes: &[u8]) -> Result<(), ImageError> {
    let (wide, little) = (file.is_64(), file.is_little_endian());
    let same_words = wide == cfg!(target_pointer_width = "64") && little == cfg!(target_endian = "little");
    if same_words && host_architecture().is_none_or(|host| host == file.architecture()) {
        return Ok(());
    }
    let architecture = match (file.architecture(), file.format(), bytes) {
        (Architecture::Unknown, BinaryFormat::Elf, [_, _, _, _, _, 1, ..]) if bytes.len() > 19 => {
            format!("ELF machine {}", u16::from_le_bytes([bytes[18], bytes[19]]))
        }
        (known, ..) => format!("{known:?}").to_lowercase(),
    };
    let host_is_wide = cfg!(target_pointer_width = "64");
    let host_is_little = cfg!(target_endian = "little");
    Err(ImageError::WrongMachine {
        image: machine(&architecture, wide, little),
        host: machine(std::env::consts::ARCH, host_is_wide, host_is_little),
    })
}

/// Names a machine as `file` would write it.
fn machine(architecture: &str, wide: bool, little: bool) -> String {
    let bits = if wide { 64 } else { 32 };
    let order = if little { "little" } else { "big" };
    format!("{architecture} ({bits}-bit, {order}-endian)")
}

/// Returns the architecture of this process, if it is one that can be told apart in a header.
fn host_architecture() -> Option<Architecture> {
    Some(match std::env::consts::ARCH {
        "x86_64" if cfg!(target_pointer_width = "32") => Architecture::X86_64_X32,
        "x86_64" => Architecture::X86_64,
        "x86" => Architecture::I386,
        "aarch64" => Architecture::Aarch64,
        "arm" => Architecture::Arm,
        "riscv64" => Architecture::Riscv64,
        "riscv32" => Architecture::Riscv32,
        "powerpc64" => Architecture::PowerPc64,
        "s390x" => Architecture::S390x,
        "loongarch64" => Architecture::LoongArch64,
        _ => return None,
    })
}

/// Refuses an image of which a part lies beyond the bytes.
fn check_bounds(file: &File<'_>, length: u64) -> Result<(), ImageError> {
    let check = |part: String, (offset, size): (u64, u64)| match offset.checked_add(size) {
        Some(end) if end <= length => Ok(()),
        end => Err(ImageError::CutShort { part, end: end.unwrap_or(u64::MAX), length }),
    };
    let mut segments = 0;
    for segment in file.segments() {
        check(format!("segment {segments}"), segment.file_range())?;
        segments += 1;
    }
    if segments == 0 {
        return Err(ImageError::Malformed { what: "there is nothing to load in it".to_owned() });
    }
    for section in file.sections() {
        if let Some(range) = section.file_range() {
            check(format!("section {}", section.index()), range)?;
        }
    }
    Ok(())
}

/// Returns a symbol's name as C writes it: Mach-O puts an underscore before it.
fn plain_name(format: BinaryFormat, name: &[u8]) -> &[u8] {
    if format == BinaryFormat::MachO { name.strip_prefix(b"_").unwrap_or(name) } else { name }
}

/// Returns whether a section is the descriptor's.
fn is_descriptor_section(format: BinaryFormat, name: &[u8]) -> bool {
    if format == BinaryFormat::MachO { name == b"__hotslot" } else { name == abi::DESCRIPTOR_SECTION.as_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a library that this process has mapped.
    #[cfg(target_os = "linux")]
    fn image() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
        std::fs::read(paths.find(|path| path.contains("/libgcc_s")).expect("it is linked")).unwrap()
    }

    fn refusal(bytes: &[u8]) -> String {
        Image::read(bytes).err().expect("it was let in").to_string()
    }

    #[test]
    fn other_files_are_called_by_their_name() {
        for (bytes, name) in [
            (&b""[..], "an empty file"),
            (b"\0asm\x01\0\0\0", "a WebAssembly module"),
            (b"!<arch>\nlib.o", "a static library"),
            (b"fn main() {}", "no known format"),
        ] {
            assert!(refusal(bytes).contains(name), "{}", refusal(bytes));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_image_that_was_cut_anywhere_is_refused() {
        let whole = image();
        assert!(Image::read(&whole).is_ok());
        let cuts = (0..100).map(|percent| whole.len() * percent / 100).chain([1, 16, 63, 64, 65, whole.len() - 1]);
        for cut in cuts {
            assert!(Image::read(&whole[..cut]).is_err(), "cut at {cut} of {}", whole.len());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn both_machines_are_named() {
        let mut foreign = image();
        foreign[18..20].copy_from_slice(&8u16.to_ne_bytes());
        let error = refusal(&foreign);
        assert!(error.contains("mips") && error.contains(std::env::consts::ARCH), "{error}");
        foreign[18..20].copy_from_slice(&4242u16.to_ne_bytes());
        assert!(refusal(&foreign).contains("4242"), "{}", refusal(&foreign));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn no_byte_of_the_headers_can_make_it_panic() {
        let whole = image();
        let mut damaged = whole.clone();
        for at in 0..1024 {
            for value in [0, 0x7f, 0xff] {
                damaged[at] = value;
                if let Ok(image) = Image::read(&damaged) {
                    let _ = (image.descriptor(), image.require("main"));
                }
            }
            damaged[at] = whole[at];
        }
    }
}
