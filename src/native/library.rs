//! A library that is mapped into this process, and the proof that it is the one that was asked for.

use std::collections::HashSet;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::LazyLock;

use libloading::Error as LoaderError;
#[cfg(unix)]
use libloading::os::unix as os;
#[cfg(windows)]
use libloading::os::windows as os;
use parking_lot::Mutex;

use super::budget;
use super::budget::BudgetSpent;
use super::hints;
use super::image::Facts;
use super::link;
use super::load_file::{Source, SourceError};
use super::shared;
use crate::Footprint;
use crate::host::plugin_text;
use crate::workers;

/// Why a library could not be loaded, or does not have what was asked of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// There is no place from which the bytes could be loaded.
    #[error(
        "the plugin's bytes cannot be put where the loader can open them: {reason}; choose another folder with \
         private_folder"
    )]
    Source {
        /// What the system said.
        reason: String,
    },
    /// The folder that libraries are to be loaded from is full.
    #[error(
        "{folder} has no room for the {needed} bytes of the plugin: make some there, or choose another folder with \
         private_folder"
    )]
    NoSpace {
        /// The folder.
        folder: String,
        /// The size of the plugin's file.
        needed: u64,
    },
    /// The library would have to be loaded from memory, and libraries may not take that much of it.
    #[error(
        "the plugin would have to be loaded from memory ({reason}). It needs {needed} bytes, libraries have {used} already, \
         and the budget is {budget}: choose a folder on a disk with private_folder, restart the process when it suits, or \
         raise Budget::shared_memory"
    )]
    SharedMemorySpent {
        /// The size of the plugin's file.
        needed: u64,
        /// What copies of libraries take already.
        used: u64,
        /// [`Budget::shared_memory`](super::Budget::shared_memory).
        budget: u64,
        /// Why it is not loaded from a disk.
        reason: String,
    },
    /// The loader refused it.
    #[error("the loader refused the plugin: {reason}{hint}")]
    Refused {
        /// What the loader said.
        reason: String,
        /// What to do about it, if that is known.
        hint: String,
    },
    /// The loader gave a library that it had already instead of loading this one.
    #[error(
        "the loader returned a library that is loaded already instead of this one: do not load these bytes elsewhere \
         in the process"
    )]
    Stale,
    /// A symbol that is not there.
    #[error("the library has no `{name}`: {reason}")]
    MissingSymbol {
        /// The symbol.
        name: String,
        /// What the loader said.
        reason: String,
    },
    /// More generations are kept mapped than the budget allows.
    #[error("{0}")]
    BudgetSpent(String),
}

impl From<BudgetSpent> for LibraryError {
    fn from(BudgetSpent(complaint): BudgetSpent) -> LibraryError {
        LibraryError::BudgetSpent(complaint)
    }
}

impl From<SourceError> for LibraryError {
    fn from(error: SourceError) -> LibraryError {
        match error {
            SourceError::NoSpace { folder, needed } => {
                LibraryError::NoSpace { folder: folder.display().to_string(), needed }
            }
            SourceError::MemorySpent { spent, folders } => LibraryError::SharedMemorySpent {
                needed: spent.needed,
                used: spent.used,
                budget: spent.limit,
                reason: folders,
            },
            SourceError::Unusable(reason) => LibraryError::Source { reason },
        }
    }
}

/// A loaded library, as a [raw](super::Native::raw) binder sees it.
///
/// Dropping it leaves it mapped, which is always safe; see [`Unload`](super::Unload).
pub struct Library {
    os: ManuallyDrop<os::Library>,
    size: usize,
    /// What it takes of the loader's reserve.
    #[cfg(target_os = "linux")]
    static_tls: u64,
    closed: bool,
    /// Goes once the library is proven to be unmapped.
    source: ManuallyDrop<Source>,
    /// Set if a library that is loaded later may meet it.
    place: Option<shared::Place>,
}

/// The handles of the libraries that this module opened and did not close.
static OPEN: LazyLock<Mutex<HashSet<usize>>> = LazyLock::new(Mutex::default);

impl Library {
    /// Loads `source`, an image of `size` bytes, of which admission found out `facts`.
    ///
    /// # Safety
    /// This runs the library's constructors: they must be sound to run here and now.
    pub(super) unsafe fn open(source: Source, size: usize, facts: &Facts) -> Result<Library, LibraryError> {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        super::exit::guard();
        // SAFETY: the constructors are sound to run here and now, which this function demands.
        let opened = workers::load(|| unsafe { open(&source) });
        let opened = opened.map_err(|error| refused(&error, &source, facts))?;
        let handle = opened.into_raw();
        // SAFETY: the handle was taken out of a library one line above.
        let opened = ManuallyDrop::new(unsafe { os::Library::from_raw(handle) });
        if !OPEN.lock().insert(handle as usize) {
            // The reference that this call added goes; the library stays as it was.
            drop(ManuallyDrop::into_inner(opened));
            return Err(LibraryError::Stale);
        }
        budget::take_static_tls(facts.static_tls);
        // What it needs was mapped along with it.
        link::note_needed(facts);
        Ok(Library {
            os: opened,
            size,
            #[cfg(target_os = "linux")]
            static_tls: facts.static_tls,
            closed: false,
            source: ManuallyDrop::new(source),
            place: None,
        })
    }

    /// Returns the address of a function or variable, as the pointer-sized type `T`: `unsafe extern "C" fn(…)`, `*const X`.
    ///
    /// # Errors
    /// If the library has no such symbol, or `T` has not the size of a pointer.
    ///
    /// # Safety
    /// `T` must be the symbol's type, and must not be used after the library was unmapped: put it into the value that
    /// the binder returns, which the slot drops before.
    pub unsafe fn get<T: Copy>(&self, name: &str) -> Result<T, LibraryError> {
        let missing = |reason: String| LibraryError::MissingSymbol { name: name.to_owned(), reason };
        // SAFETY: `T` is the symbol's type, which this function demands.
        let symbol = unsafe { self.os.get::<T>(name.as_bytes()) }.map_err(|error| missing(reason(&error)))?;
        let address: *mut c_void = symbol.as_raw_ptr();
        if address.is_null() {
            return Err(missing("its address is null".to_owned()));
        }
        // SAFETY: libloading refused a `T` of another size than a pointer; the caller promises that it is the type.
        Ok(unsafe { std::mem::transmute_copy::<*mut c_void, T>(&address) })
    }

    /// Notes that other libraries may meet it.
    pub(super) fn meets_others(&mut self, place: Option<shared::Place>) {
        self.place = place;
    }

    /// Returns where it stands among those that others may meet.
    #[cfg(target_os = "linux")]
    pub(super) fn place(&self) -> Option<shared::Place> {
        self.place
    }

    /// Returns how many bytes the image has.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns what the copy takes that it is mapped from.
    pub(super) fn footprint(&self) -> Footprint {
        self.source.footprint()
    }

    /// Returns how much it takes of the loader's reserve for thread-local storage.
    #[cfg(target_os = "linux")]
    pub(super) fn static_tls(&self) -> u64 {
        self.static_tls
    }

    /// Returns the name of the mapping in the process's memory map.
    #[cfg(target_os = "linux")]
    pub(super) fn name(&self) -> &str {
        self.source.name()
    }

    /// Tells the loader that the library is not needed; what the loader makes of it is another question. The copy that it is
    /// mapped from comes back: it has to stay for as long as the library does.
    ///
    /// # Safety
    /// No code of the library may be running or be called afterwards, its destructors apart, which run now.
    #[cfg(target_os = "linux")]
    pub(super) unsafe fn close(mut self) -> (Result<(), LibraryError>, Source) {
        // SAFETY: `closed` is set and `self` consumed, so nobody takes them again.
        let (opened, source) = unsafe { (ManuallyDrop::take(&mut self.os), ManuallyDrop::take(&mut self.source)) };
        self.closed = true;
        let handle = opened.into_raw();
        // A later library may get the same handle; a path or file of this one never comes again.
        OPEN.lock().remove(&(handle as usize));
        // SAFETY: the handle was taken out of a library just above.
        let closed = unsafe { os::Library::from_raw(handle) }.close();
        (closed.map_err(|error| LibraryError::Refused { reason: reason(&error), hint: String::new() }), source)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        if !self.closed {
            budget::count_retained(self.size, self.footprint());
        }
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("name", &self.source.name()).field("size", &self.size).finish_non_exhaustive()
    }
}

/// Resolves every symbol now: a missing one is an error here rather than the end of the process at the first call.
/// Symbols stay local, so that one generation never binds to another's.
///
/// # Safety
/// The library's constructors must be sound to run here and now.
#[cfg(unix)]
unsafe fn open(source: &Source) -> Result<os::Library, LoaderError> {
    // SAFETY: the constructors are sound to run here and now, which this function demands.
    unsafe { os::Library::open(Some(source.path()), os::RTLD_NOW | os::RTLD_LOCAL) }
}

/// Looks for the libraries that it needs beside it and in the default places, never in the current folder.
///
/// # Safety
/// The library's constructors must be sound to run here and now.
#[cfg(windows)]
unsafe fn open(source: &Source) -> Result<os::Library, LoaderError> {
    let flags = os::LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | os::LOAD_LIBRARY_SEARCH_DEFAULT_DIRS;
    // SAFETY: the constructors are sound to run here and now, which this function demands.
    unsafe { os::Library::load_with_flags(source.path(), flags) }
}

/// Translates the loader's refusal of a library whose path means nothing to a person.
fn refused(error: &LoaderError, source: &Source, facts: &Facts) -> LibraryError {
    let reason = reason(error).replace(&*source.path().to_string_lossy(), "the plugin");
    let hint = hints::of(&reason, Some(facts));
    LibraryError::Refused { reason, hint }
}

/// Returns the text behind a loader's error: the outer one only names the function.
fn reason(error: &LoaderError) -> String {
    let error = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    plugin_text(error.as_bytes(), 4096)
}
