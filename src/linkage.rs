//! What a native image asks of the loader, and what that does to the process: read from its headers, before any of it
//! runs.

use std::fmt;

/// What a native image asks of the loader. Part of an [`Inspection`](crate::Inspection).
///
/// All of it is read from ELF images; from Mach-O and PE images what there is a counterpart of there, as each field says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Linkage {
    /// The name by which other images find it once it is mapped (`DT_SONAME`, `LC_ID_DYLIB`, the name in a PE export table).
    pub soname: Option<String>,
    /// The libraries that the loader maps with it (`DT_NEEDED`, `LC_LOAD_DYLIB` and its kin, PE imports, those that are delay-loaded
    /// included), in their order; behind them, for an image that is for
    /// this process, what those need in turn, as far as their files are found.
    pub needed: Vec<NeededLibrary>,
    /// The folders of its own in which the loader looks for them (`DT_RPATH`, `DT_RUNPATH`, `LC_RPATH`), as they are written.
    /// `$ORIGIN` among them leads nowhere: a plugin is not loaded from where its file lies.
    pub search_path: Vec<String>,
    /// The symbols that the loader binds once for the whole process (`STB_GNU_UNIQUE`; in Mach-O weak definitions of data), so that
    /// all generations share the first one's.
    pub unique_symbols: Vec<String>,
    /// How many bytes it takes of the loader's fixed reserve for thread-local storage; 0 if it takes none.
    pub static_tls: u64,
    /// What its headers do to the whole process.
    pub effects: Vec<ProcessEffect>,
    /// The protections that it was compiled for, and is marked with (`.note.gnu.property`, flags of a PE header).
    pub protections: Vec<Protection>,
    /// What else a reader may want to know of its headers, a sentence each.
    pub remarks: Vec<String>,
    /// Symbols for which this process already has a definition that is used instead of the one that the image was linked
    /// with. Empty for an image that is not for this process.
    pub interposed: Vec<Interposition>,
}

/// A library that an image needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NeededLibrary {
    /// Its name, as the image gives it.
    pub name: String,
    /// The library that needs it; `None` if the image itself does.
    pub needed_by: Option<String>,
    /// What this process has mapped under that name, which the loader takes without looking further. `None` if there is
    /// nothing yet, or if it cannot be known.
    pub mapped: Option<MappedLibrary>,
    /// The file that would be mapped: set if nothing is mapped yet, and it lies where the loader looks.
    pub file: Option<String>,
    /// What leads to [`file`](NeededLibrary::file).
    pub found_through: Option<FoundThrough>,
    /// The protections that that file is marked with.
    pub protections: Vec<Protection>,
    /// What the headers of that file do to the whole process.
    pub effects: Vec<ProcessEffect>,
    /// How many bytes that file takes of the loader's fixed reserve for thread-local storage.
    pub static_tls: u64,
}

#[cfg(feature = "native")]
impl NeededLibrary {
    pub(crate) fn new(name: String) -> NeededLibrary {
        NeededLibrary {
            name,
            needed_by: None,
            mapped: None,
            file: None,
            found_through: None,
            protections: Vec::new(),
            effects: Vec::new(),
            static_tls: 0,
        }
    }
}

/// What leads the loader to the file of a library, in the order in which it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum FoundThrough {
    /// The name is a path.
    Name,
    /// A folder that the image names, one that needs it, or the program (`DT_RPATH`, `DT_RUNPATH`).
    SearchPath,
    /// A folder in `LD_LIBRARY_PATH`, as it was when the process started.
    Environment,
    /// The loader's cache, `/etc/ld.so.cache`.
    Cache,
    /// A folder of the system.
    DefaultFolder,
}

/// A protection of the control flow, which holds only for code that was compiled for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Protection {
    /// Calls and jumps by address arrive only where the compiler put a mark (IBT of x86). Per process.
    IndirectBranchTracking,
    /// Returns go where the call came from, by a second stack (SHSTK of x86). Per process.
    ShadowStack,
    /// Calls and jumps by address arrive only where the compiler put a mark (BTI of AArch64). Per library: code without it is not
    /// protected, and other code still is.
    BranchTargets,
    /// Return addresses are signed (PAC of AArch64). Per function.
    PointerAuthentication,
    /// Returns go where the call came from, by a second stack (GCS of AArch64). Per process.
    GuardedControlStack,
    /// Calls by address arrive only at functions that are listed (Control Flow Guard of Windows). Per library.
    ControlFlowGuard,
}

/// What the protection is called.
impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protection::IndirectBranchTracking => "indirect branch tracking (IBT)",
            Protection::ShadowStack => "shadow stacks (SHSTK)",
            Protection::BranchTargets => "branch target identification (BTI)",
            Protection::PointerAuthentication => "pointer authentication (PAC)",
            Protection::GuardedControlStack => "guarded control stacks (GCS)",
            Protection::ControlFlowGuard => "Control Flow Guard (CFG)",
        })
    }
}

#[cfg(feature = "native")]
impl Protection {
    /// Returns what makes a compiler put it in.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Protection::IndirectBranchTracking | Protection::ShadowStack => "-fcf-protection",
            Protection::ControlFlowGuard => "/guard:cf",
            _ => "-mbranch-protection=standard",
        }
    }
}

/// A library that is mapped into this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MappedLibrary {
    /// Where it was mapped from.
    pub path: String,
    /// How what a new process would load differs from what is mapped; `None` if it does not. Not looked at for the C and C++
    /// runtime.
    pub change: Option<LibraryChange>,
}

/// How the library on disk differs from the one that is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LibraryChange {
    /// Another file lies at its path.
    Replaced,
    /// The same file has another content or other times than when it was first seen mapped.
    Rewritten,
    /// Nothing lies at its path any more.
    Removed,
    /// It is a generation of a plugin, which happens to have that `DT_SONAME`, and goes or stays with its slot.
    Generation,
    /// The image's own search path leads to another file.
    Elsewhere {
        /// Which one.
        path: String,
    },
}

impl fmt::Display for LibraryChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LibraryChange::Replaced => f.write_str("that file has been replaced since"),
            LibraryChange::Rewritten => f.write_str("that file has been rewritten since"),
            LibraryChange::Removed => f.write_str("that file is gone"),
            LibraryChange::Generation => f.write_str("that is a generation of a plugin, and no library for others"),
            LibraryChange::Elsewhere { path } => write!(f, "the plugin's own search path leads to {path}"),
        }
    }
}

/// A symbol that this process defines already.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Interposition {
    /// The symbol.
    pub symbol: String,
    /// The file whose definition is used.
    pub by: String,
    /// What it replaces.
    pub replaces: Replaced,
}

#[cfg(all(feature = "native", target_os = "linux", target_env = "gnu"))]
impl Interposition {
    pub(crate) fn new(symbol: String, by: String, replaces: Replaced) -> Interposition {
        Interposition { symbol, by, replaces }
    }
}

/// Whose definition of a symbol is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Replaced {
    /// The image's own, of a function or of data of the same size.
    Own,
    /// The image's own weak one, which is meant to give way: inline functions and templates of C++ for instance.
    OwnWeak,
    /// The image's own data, of another size.
    OwnData {
        /// In the image.
        size: u64,
        /// In the process.
        host_size: u64,
    },
    /// That of a library that the image was linked with.
    Needed {
        /// Which one.
        library: String,
    },
    /// The data of a library that would be mapped with the image, of another size: by symbols that are in the global scope, or that the
    /// loader binds once for the whole process (`STB_GNU_UNIQUE`).
    NeededData {
        /// Which one.
        library: String,
        /// In that library.
        size: u64,
        /// In the process.
        host_size: u64,
    },
}

/// What the headers of an image make the loader do to the whole process, before and whether or not any code of it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ProcessEffect {
    /// Makes the stacks of all threads executable (`PT_GNU_STACK`).
    ExecutableStack,
    /// Has memory that is writable and executable at a time (`PT_LOAD`, Mach-O segments, PE sections).
    WritableCode,
    /// Has relocations in its code, which is writable while they are applied (`DT_TEXTREL`).
    TextRelocations,
    /// Adds its symbols to those that every later library binds to (`DF_1_GLOBAL`).
    GlobalScope,
    /// Asks to come before other libraries when symbols are looked up (`DF_1_INTERPOSE`, Mach-O's `__interpose`).
    Interposer,
    /// Asks to be initialised before all other libraries (`DF_1_INITFIRST`).
    InitFirst,
    /// Names libraries that watch the loader (`DT_AUDIT`, `DT_DEPAUDIT`).
    Auditor,
    /// Stands for another library, whose definitions replace its own (`DT_FILTER`, `DT_AUXILIARY`).
    Filter,
}

impl ProcessEffect {
    /// Returns what the linker was told, and what it should be told.
    fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            ProcessEffect::ExecutableStack => (
                "makes the stacks of all threads executable",
                "-z execstack, or an assembly file without .note.GNU-stack",
                "-Wl,-z,noexecstack",
            ),
            ProcessEffect::WritableCode => (
                "has memory that is writable and executable at a time",
                "-N (--omagic), or a section of code that is also writable",
                "separate code and data: without -N and with -Wl,-z,separate-code",
            ),
            ProcessEffect::TextRelocations => (
                "has relocations in its code, which has to be made writable",
                "-z notext, and objects without -fPIC",
                "-fPIC for all objects and -Wl,-z,text",
            ),
            ProcessEffect::GlobalScope => (
                "puts its symbols before every library that is loaded later",
                "-z global (DF_1_GLOBAL)",
                "no -z global",
            ),
            ProcessEffect::Interposer => {
                ("asks to replace the symbols of other libraries", "-z interpose (DF_1_INTERPOSE)", "no -z interpose")
            }
            ProcessEffect::InitFirst => (
                "asks to be initialised before all other libraries",
                "-z initfirst (DF_1_INITFIRST)",
                "no -z initfirst",
            ),
            ProcessEffect::Auditor => (
                "names libraries that watch the loader",
                "--audit or --depaudit (DT_AUDIT, DT_DEPAUDIT)",
                "no --audit, --depaudit, -P or -p",
            ),
            ProcessEffect::Filter => (
                "stands for another library, whose definitions replace its own",
                "-f or -F (DT_AUXILIARY, DT_FILTER)",
                "no --auxiliary or --filter; name the other library with -l",
            ),
        }
    }

    /// Returns what makes a linker write it.
    #[cfg(feature = "native")]
    pub(crate) fn cause(self) -> &'static str {
        self.texts().1
    }

    /// Returns how to link without it.
    #[cfg(feature = "native")]
    pub(crate) fn remedy(self) -> &'static str {
        self.texts().2
    }
}

/// What it does, as part of a sentence.
impl fmt::Display for ProcessEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.texts().0)
    }
}
