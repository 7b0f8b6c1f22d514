//! Plugins that are dynamic libraries of the platform: `.so`, `.dylib`, `.dll`.
//!
//! [`Native::interface`] and [`Native::named_interface`] take plugins that are built with the crate `hotslot-plugin`, or follow its
//! [C ABI](hotslot_plugin::abi) by hand; [`Native::raw`] takes any library at all, with a binder of yours.
//!
//! ```no_run
//! use hotslot::native::{Native, NativePlugin, Rehearsal, Trust};
//! use hotslot::HotSlot;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     hotslot::native::rehearsal_point();
//!
//!     // SAFETY: only libraries that we built for this program are handed to it.
//!     let trust = unsafe { Trust::assume() };
//!     let backend = Native::named_interface("pricer/1", trust).rehearse(Rehearsal::default());
//!     let slot: HotSlot<NativePlugin> = HotSlot::builder(backend).open(std::fs::read("libpricer.so")?)?;
//!     let answer = slot.load().call(1, b"SOLUSDC")?;
//!     slot.reload(std::fs::read("libpricer.so")?)?;
//!     # let _ = answer;
//!     Ok(())
//! }
//! ```
//!
//! # Trust
//! A library can do whatever the process can. What is refused here are accidents: files that are cut short, built for
//! something else, or crash when they start. Whose code may run at all is for the host to say, which vouches for it with
//! [`Trust`], and for its [`admit`](crate::Builder::admit) hook, which sees the bytes first; a plugin that must be contained
//! belongs into another backend.
//!
//! # Traps, and what is done about them
//!
//! | Trap | What happens | Remedy | Where |
//! |---|---|---|---|
//! | the loader caches by path, then by file | the old code again, without an error | a path and a file that never come twice; a handle that is known already is an error; the loaded descriptor must be the admitted one | `load_file`, `library`, `descriptor` |
//! | descriptor numbers are reused | `/proc/self/fd/7` is the old library's name | the path is spelled differently for every load | `memfd` |
//! | the file is overwritten or truncated while mapped | SIGSEGV, SIGBUS | a private copy: a new file, for reading only, in a 0700 folder; without a folder, a memfd with all four seals | `load_file`, `process_dir`, `memfd` |
//! | those who look from outside open the names of the map | `/proc/self/fd/7` is *their* descriptor: gdb hangs; backtraces have no names | the file stays for as long as it is mapped; a memfd stays open, and its path names this process | `load_file`, `memfd` |
//! | files stay behind when a process is killed | the disk fills up | the folder is locked; the next process removes those that nobody has locked | `process_dir` |
//! | a forked process has the same number, as the first one of a PID namespace | it removes files that are in use | processes are told apart by a page that the kernel clears in forked ones | `process_dir`, `load_file` |
//! | the folder is mounted `noexec`, or full | "failed to map segment", SIGBUS when pages are written back | it is tried before; the space is taken before it is written to; another folder, or memory | `process_dir`, `load_file` |
//! | what memfds and tmpfs hold is charged as shared memory, and not shown as resident | the container is killed, although the process looks small | files on a disk come first; memory has a [`Budget`] in bytes; [`usage`] and each generation's [`Footprint`](crate::Footprint) say what is taken | `load_file`, `copies` |
//! | an image that was cut short | SIGBUS inside `dlopen`, or a crash later | every segment, section and header is checked against the length first | `image` |
//! | an image for another machine | "No such file or directory" | both architectures are named | `image` |
//! | a file that never loads: debug symbols, a program, an object, a linker script | an error that names something else, or a crash | it is refused by what it is | `image` |
//! | headers and tables that the loader believes: two headers of a kind, segments in disorder, hash tables, lists and sizes that cannot be | an assertion or a signal ends the process, a look-up never ends, memory of others is mapped over or written to | read as the loader reads them, and refused | `image` |
//! | symbols with versions of a library that was taken off the list of needed ones (`patchelf --remove-needed`) | the loader asserts that it is there, and ends the process | refused by name | `image`, `link` |
//! | symbols that are unified over the process (`STB_GNU_UNIQUE`) | a new generation uses the data of an old one, laid out otherwise | refused by name, unless [allowed](Dangerous::allow_unique_symbols) | `image`, `link` |
//! | headers that change the process: executable stacks, `-z global`, `-z interpose`, text relocations | they outlive the plugin | refused by name, unless [allowed](Dangerous::allow_effect) | `image`, `link` |
//! | a needed library is mapped already, and has changed on disk | the new plugin runs with the old helper | refused, unless [allowed](Dangerous::allow_changed_libraries) | `linkmap`, `link` |
//! | the host has a symbol that the plugin bundles, or a library that comes with it | the host's definition is used | listed and logged; data of another size is refused, unless [allowed](Dangerous::allow_replaced_data) | `linkmap`, `link` |
//! | shadow stacks are on, and a library was not compiled for them | they are turned off for the process, or it does not load | refused by name, unless [allowed](Dangerous::allow_unprotected) | `image`, `protections`, `link` |
//! | static TLS runs out | no library that needs any is ever loaded again | measured and counted; refused before, with the remedy | `static_tls`, `budget`, `link` |
//! | null or wild pointers in a descriptor, lengths that cannot be | SIGSEGV | refused after relocation, before `create` | `entries`, `plugin` |
//! | a table of functions that is not that of the contract beside it | one method is called in the place of another | refused at admission | `descriptor` |
//! | lazy binding | the process exits at the first call of a missing symbol | `RTLD_NOW`, and `RTLD_LOCAL` against crosstalk; the error says who has to provide the symbol | `library`, `hints` |
//! | constructors run inside `dlopen` | a crash there ends the host | name, version and interface are read from the file; a [`Rehearsal`] loads it in a child process first, by default if the program [can](can_rehearse) | `descriptor`, `rehearsal` |
//! | a library is sound alone, and not beside what is mapped: both enter a name in a shared registry | the process ends, although a rehearsal has passed | the rehearsal first loads the mapped libraries that share a needed library, directly or through others, or a unified symbol with it, in their order | `shared`, `rehearsal` |
//! | constructors hold the dynamic linker's lock | no thread can start, and `exit` hangs | a rehearsal refuses slow ones; leases, deadlines and other slots do not need the lock; `exit` is cut short | `rehearsal`, `exit` |
//! | a panic crosses the boundary | abort, even with `catch_unwind` in the host: two copies of std | it is caught inside the plugin; a plugin that aborts on panic is refused, unless [allowed](Dangerous::allow_panic_abort) | `plugin`, `descriptor` |
//! | a serde type whose fields changed on one side | a value is read as another one | the contract describes types down to the field; refused by type and field | `host::contract`, `host::difference` |
//! | the plugin has its own copies of `log` and `tracing` | what it logs there is lost | [`hotslot_plugin::abi::HostApi::event`], to which `hotslot_plugin::log::init` forwards; without thread-locals that have destructors | `host` |
//! | each side has an allocator | heap corruption | bytes are copied and given back to whom they belong | `plugin` |
//! | pointers into a library that is gone | SIGSEGV | errors are text of the host's; the instance goes before the library; what the host lends lives as long as the code | `plugin`, `unload` |
//! | `dlclose` answers 0 and unmaps nothing | a leak that nobody counts | kept mapped by default, counted, under a [`Budget`] with an alarm; [`Unload::WhenIdle`] believes only the memory map | `unload`, `budget`, `maps` |
//! | threads of the plugin outlive it | the host dies when their code is unmapped | a library with a thread inside is never unmapped | `threads` |
//! | escape codes in a plugin's texts | terminal control characters, forged log lines | they are escaped | `host::plugin_text` |
//!
//! # Platforms
//! Linux is tested. The code for macOS and Windows is type-checked for `aarch64-apple-darwin` and
//! `x86_64-pc-windows-msvc`, and has not been run: loading from a private file, reading Mach-O and PE images, and
//! rehearsals there. On both nothing is ever unmapped, because it could not be proven. On Windows the folder with
//! the files stays behind when the process ends.
//!
//! A library is loaded from a private folder or from memory, so what it needs is found where the system looks, and
//! not beside the file that the bytes came from: `$ORIGIN` and `@loader_path` lead nowhere.
//!
//! What an image asks of the loader is read from ELF images, and from others as far as they have a counterpart; what it meets in the process is known on Linux with glibc, and
//! what is left of the static TLS only on x86-64 there. See [the guide](crate::guide::libraries).

mod budget;
mod copies;
mod descriptor;
mod entries;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod exit;
mod hints;
mod host;
mod image;
mod inspect;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod ld_cache;
mod library;
mod link;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod linkmap;
mod load_file;
#[cfg(target_os = "linux")]
mod maps;
#[cfg(target_os = "linux")]
mod memfd;
mod plugin;
mod process_dir;
mod processor;
mod protections;
mod raw;
mod rehearsal;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod search;
#[cfg(target_os = "linux")]
mod segments;
mod shared;
mod static_tls;
#[cfg(target_os = "linux")]
mod threads;
mod trust;
mod unload;

use std::marker::PhantomData;
use std::sync::Arc;

use hotslot_plugin::Interface;
use hotslot_plugin::abi::Identity;

pub use crate::child::rehearsal_point;
pub use budget::{Budget, OverBudget, retained};
pub use copies::{Resident, Usage, resident, usage};
pub use descriptor::DescriptorError;
pub use image::ImageError;
pub use library::{Library, LibraryError};
pub use link::LinkError;
pub use plugin::NativePlugin;
pub use raw::{DangerousRaw, RawNative};
pub(crate) use rehearsal::rehearsal_role;
pub use rehearsal::{Rehearsal, RehearsalError, can_rehearse, rehearsal_point_with};
pub use trust::Trust;
pub use unload::Unload;

pub(crate) use inspect::inspect;

use descriptor::Expectation;
use host::HostContext;
use image::{Facts, Image};
use link::Allowances;
use load_file::{Label, Place, Source};
use plugin::NativeInterface;
use rehearsal::Part;
use unload::Mapping;

use crate::host::{Contract, InterfaceLink, MethodNumbers, Offers, offer_methods};
use crate::{
    Admission, Artifact, Backend, BoxError, Digest, KeepAlive, LoadContext, Loaded, Manifest, Payload, Release,
};

/// The methods that [`Native`] and [`RawNative`] share.
macro_rules! loading_options {
    () => {
        /// Sets what becomes of a library when its plugin is gone; by default it stays mapped.
        pub fn unload(mut self, unload: $crate::native::Unload) -> Self {
            self.options.unload = unload;
            self
        }

        /// Sets how much may stay mapped in the process.
        pub fn budget(mut self, budget: $crate::native::Budget) -> Self {
            self.options.budget = budget;
            self
        }

        /// Loads each library in a child process first, within these limits. The program has to call
        /// [`rehearsal_point`]($crate::native::rehearsal_point) at the top of `main`.
        ///
        /// By default a program that does so rehearses with [`Rehearsal::default`]($crate::native::Rehearsal), and one that
        /// does not is warned of that in its log, once; see [`can_rehearse`]($crate::native::can_rehearse).
        pub fn rehearse(mut self, rehearsal: $crate::native::Rehearsal) -> Self {
            self.options.rehearsal = $crate::native::rehearsal::Policy::Always(rehearsal);
            self
        }

        /// Loads libraries into this process straight away.
        pub fn without_rehearsal(mut self) -> Self {
            self.options.rehearsal = $crate::native::rehearsal::Policy::Never;
            self
        }

        /// Loads from files in a private folder inside `parent`, which has to exist, and nowhere else. It must allow code to
        /// be mapped (not be mounted `noexec`), and no other user may be able to rename what is in it.
        ///
        /// By default the private folder is made in the first of these that will do: the temporary folder, `/var/tmp` and
        /// `$XDG_RUNTIME_DIR`; those on a disk come first. If none will do, or all are full, Linux loads from sealed
        /// memory, within [`Budget::shared_memory`]($crate::native::Budget::shared_memory), and says so in the log, once.
        ///
        /// A file stays for as long as its library is mapped, and the folder until the process exits; one that is killed
        /// leaves it to the next. See [the guide]($crate::guide::debugging).
        pub fn private_folder(mut self, parent: impl Into<std::path::PathBuf>) -> Self {
            self.options.place = $crate::native::load_file::Place::Inside(parent.into());
            self
        }
    };
}
use loading_options;

/// The settings that [`Dangerous`] and [`DangerousRaw`] share.
macro_rules! linking_allowances {
    ($backend:ty) => {
        /// Admits images with symbols that the loader unifies over the whole process (`STB_GNU_UNIQUE`): all generations
        /// share the first one's variables, which must have the same layout in all of them.
        pub fn allow_unique_symbols(mut self) -> $backend {
            self.0.options.allowed.unique_symbols = true;
            self.0
        }

        /// Admits images that need a library which is mapped already from a file that has changed since: the loader takes
        /// what is mapped. Each one is put into the log as a warning.
        pub fn allow_changed_libraries(mut self) -> $backend {
            self.0.options.allowed.changed_libraries = true;
            self.0
        }

        /// Admits images with a variable for which the process has a definition of another size: the image's code then
        /// reads and writes beyond the end of that one.
        pub fn allow_replaced_data(mut self) -> $backend {
            self.0.options.allowed.replaced_data = true;
            self.0
        }

        /// Admits images that were not compiled for a protection that is on in this process. The loader then turns that off for
        /// the whole process, or refuses them, as it was told (`GLIBC_TUNABLES`).
        pub fn allow_unprotected(mut self) -> $backend {
            self.0.options.allowed.unprotected = true;
            self.0
        }

        /// Admits images whose headers do this to the whole process. It is not undone when the plugin is replaced.
        pub fn allow_effect(mut self, effect: $crate::ProcessEffect) -> $backend {
            self.0.options.allowed.effects.push(effect);
            self.0
        }
    };
}
use linking_allowances;

/// A [`Backend`] for plugins that export a [descriptor](hotslot_plugin::abi::Descriptor): as `T`, which is the trait
/// object of a [declared interface](Native::interface), or a [`NativePlugin`] for interfaces that only
/// [have a name](Native::named_interface).
pub struct Native<T: ?Sized = NativePlugin> {
    requirement: Requirement,
    allow_panic_abort: bool,
    offers: Offers,
    options: Options,
    plugin: PhantomData<fn() -> Box<T>>,
}

/// Which interface a plugin has to implement.
#[derive(Clone, Debug)]
enum Requirement {
    /// The one of this name, which only the host and the plugin understand.
    Named(String),
    /// A declared one.
    Contract(Arc<Contract>),
    /// Any.
    Any,
}

impl Native {
    /// Makes a backend for plugins of the interface that the trait `I` declares: `Native::interface::<dyn Trait>(trust)`.
    pub fn interface<I: Interface + ?Sized>(trust: Trust) -> Native<I> {
        Native::requiring(Requirement::Contract(Arc::new(Contract::of::<I>())), trust)
    }

    /// Makes a backend for plugins that say that they implement `interface`, for instance `"trader-feed/1"`; others are
    /// refused. What passes through their [calls](NativePlugin::call) is up to host and plugin.
    pub fn named_interface(interface: impl Into<String>, trust: Trust) -> Native {
        Native::requiring(Requirement::Named(interface.into()), trust)
    }

    /// Makes a backend for plugins of whatever interface: for tools, and for hosts that look at the
    /// [manifest](crate::Manifest) themselves.
    pub fn any_interface(trust: Trust) -> Native {
        Native::requiring(Requirement::Any, trust)
    }
}

/// What admission found in an image, for the load of the same bytes.
struct Evidence<T: ?Sized> {
    digest: Digest,
    identity: Identity,
    facts: Facts,
    /// Where the plugin has the methods of the host's interface, if that is a declared one.
    methods: Option<MethodNumbers>,
    /// The numbers are those of this type's methods.
    plugin: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized + 'static> Native<T> {
    /// The trust is what makes the load sound that such a backend does.
    fn requiring(requirement: Requirement, _: Trust) -> Native<T> {
        link::note_mapped();
        Native {
            requirement,
            allow_panic_abort: false,
            offers: Offers::new(),
            options: Options::default(),
            plugin: PhantomData,
        }
    }

    offer_methods!();
    loading_options!();

    /// Opens the settings that give up a protection.
    pub fn dangerous(self) -> Dangerous<T> {
        Dangerous(self)
    }

    /// Reads and checks an image, without running any of it.
    fn examine(&self, bytes: &[u8], digest: Digest) -> Result<(Manifest, Evidence<T>), BoxError> {
        let image = Image::read(bytes)?;
        let section = image.descriptor()?;
        let identity = descriptor::read(section)?;
        let interface = match &self.requirement {
            Requirement::Named(name) => Some(name.as_str()),
            Requirement::Contract(_) | Requirement::Any => None,
        };
        let expected = Expectation { interface, allow_panic_abort: self.allow_panic_abort };
        let mut manifest = descriptor::check(&identity, &expected)?;
        let contract = descriptor::contract(section).map(Contract::parse).transpose()?;
        manifest.contract = contract.map(Arc::new);
        let methods = match &self.requirement {
            Requirement::Contract(host) => Some(host.methods_in_manifest(&manifest)?),
            Requirement::Named(_) | Requirement::Any => None,
        };
        if let (Some(_), Some(contract)) = (&methods, &manifest.contract) {
            descriptor::check_functions(&identity, contract.methods.len())?;
        }
        self.options.check(&image)?;
        let facts = image.facts().for_load();
        Ok((manifest, Evidence { digest, identity, facts, methods, plugin: PhantomData }))
    }

    fn admitted(&self, payload: &Payload) -> Result<Admission, BoxError> {
        let (manifest, evidence) = self.examine(payload.bytes(), payload.digest())?;
        Ok(Admission::new(manifest).with_evidence(evidence))
    }

    /// Loads an artifact and makes its plugin, of which `finish` makes what the slot gets.
    fn loaded<R: ?Sized>(
        &self,
        artifact: &Artifact,
        context: &LoadContext,
        finish: impl FnOnce(NativePlugin, &Evidence<T>) -> Result<Box<R>, BoxError>,
    ) -> Result<Loaded<R>, BoxError> {
        let found;
        let evidence = match artifact.evidence::<Evidence<T>>().filter(|it| it.digest == artifact.digest()) {
            Some(evidence) => evidence,
            // Whoever wraps this backend may have put the artifact together anew, without the evidence.
            None => {
                found = self.examine(artifact.bytes(), artifact.digest())?.1;
                &found
            }
        };
        let host = self.offers.host_for(artifact, context);
        // The rehearsal is of what is then made.
        let part = Part::Create(Arc::clone(host.config()));
        let library = Arc::new(self.options.open(artifact, &evidence.facts, context, &part)?);
        let host = HostContext::new(host, &context.stop);
        let keep_alive = self.options.keep_alive(library.clone(), Some(host.clone()));
        let (identity, manifest) = (&evidence.identity, artifact.manifest().clone());
        let plugin = NativePlugin::create(library, identity, manifest, &host, context.failures.clone());
        match plugin.and_then(|plugin| finish(plugin, evidence)) {
            Ok(plugin) => Ok(Loaded::boxed(plugin).keep_alive(keep_alive)),
            Err(error) => {
                self.options.give_up(keep_alive);
                Err(error)
            }
        }
    }
}

/// The settings of a [`Native`] that give up a protection. See [`Native::dangerous`].
#[derive(Debug)]
pub struct Dangerous<T: ?Sized>(Native<T>);

impl<T: ?Sized> Dangerous<T> {
    /// Admits plugins that abort on panic: a panic in one ends the host.
    pub fn allow_panic_abort(self) -> Native<T> {
        Native { allow_panic_abort: true, ..self.0 }
    }

    linking_allowances!(Native<T>);
}

impl Backend<NativePlugin> for Native {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        self.admitted(payload)
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<NativePlugin>, BoxError> {
        self.loaded(artifact, context, |plugin, _| Ok(Box::new(plugin)))
    }
}

impl<I: Interface + ?Sized> Backend<I> for Native<I> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        self.admitted(payload)
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<I>, BoxError> {
        self.loaded(artifact, context, |plugin, evidence| {
            let methods = evidence.methods.clone().unwrap_or_default();
            Ok(I::proxy(InterfaceLink::new(NativeInterface::new(plugin, &methods)?, methods, context)))
        })
    }
}

impl<T: ?Sized> Clone for Native<T> {
    fn clone(&self) -> Self {
        let Native { requirement, allow_panic_abort, offers, options, plugin } = self;
        Native {
            requirement: requirement.clone(),
            allow_panic_abort: *allow_panic_abort,
            offers: offers.clone(),
            options: options.clone(),
            plugin: *plugin,
        }
    }
}

impl<T: ?Sized> std::fmt::Debug for Native<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native")
            .field("requirement", &self.requirement)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// How a library comes into the process and leaves it; the same for plugins and raw libraries.
#[derive(Clone, Debug, Default)]
struct Options {
    unload: Unload,
    budget: Budget,
    rehearsal: rehearsal::Policy,
    place: Place,
    allowed: Allowances,
}

impl Options {
    /// Refuses an image that must not be linked into this process.
    fn check(&self, image: &Image<'_>) -> Result<(), LinkError> {
        link::check(image, &self.allowed, &self.budget)
    }

    /// Rehearses the artifact, if that is wanted, and maps it.
    fn open(
        &self,
        artifact: &Artifact,
        facts: &Facts,
        context: &LoadContext,
        part: &Part,
    ) -> Result<Library, BoxError> {
        self.budget.check().map_err(LibraryError::from)?;
        let label = Label::new(&context.slot, context.generation, artifact);
        let source = Source::new(artifact.bytes(), &label, &self.place, self.budget.shared_memory);
        let source = source.map_err(LibraryError::from)?;
        let rehearsed = rehearsal::Rehearsed { artifact: artifact.bytes(), beside: &shared::beside(facts), part };
        self.rehearsal.rehearse(&rehearsed, &source)?;
        // SAFETY: admission found a library for this process in these bytes. That its constructors are sound is what the
        // host vouched for, with `Trust` or by calling `raw`.
        let mut library = unsafe { Library::open(source, artifact.bytes().len(), facts)? };
        library.meets_others(shared::note(facts, artifact));
        Ok(library)
    }

    fn keep_alive(&self, library: Arc<Library>, host: Option<Arc<HostContext>>) -> Mapping {
        Mapping::new(library, host, self.unload, self.budget)
    }

    /// Releases a library whose plugin did not come to life.
    fn give_up(&self, keep_alive: Mapping) {
        if let Release::Retained { alarm: Some(alarm), .. } = Box::new(keep_alive).release() {
            tracing::warn!("{alarm}");
        }
    }
}
