//! Plugins that are dynamic libraries of the platform: `.so`, `.dylib`, `.dll`.
//!
//! [`Native::plugins`] takes plugins that are built with the crate `hotslot-plugin`, or follow its
//! [C ABI](hotslot_plugin::abi) by hand; [`Native::raw`] takes any library at all, with a binder of yours.
//!
//! ```no_run
//! use hotslot::native::{Native, NativePlugin, Rehearsal};
//! use hotslot::HotSlot;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     hotslot::native::rehearsal_point();
//!
//!     let backend = Native::plugins("pricer/1").rehearse(Rehearsal::default());
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
//! something else, or crash when they start. Whose code may run at all is for the
//! [`admit`](crate::Builder::admit) hook to say, which sees the bytes first; a plugin that must be contained belongs
//! into another backend.
//!
//! # Traps, and what is done about them
//!
//! | Trap | What happens | Remedy | Where |
//! |---|---|---|---|
//! | the loader caches by path, then by file | the old code again, without an error | a path and a file that never come twice; a handle that is known already is an error; the loaded descriptor must be the admitted one | `source`, `library`, `descriptor` |
//! | descriptor numbers are reused | `/proc/self/fd/7` is the old library's name | the path is spelled differently for every load | `source` |
//! | the file is overwritten or truncated while mapped | SIGSEGV, SIGBUS | a private copy: a memfd with all four seals; elsewhere a new file in a 0700 folder | `memfd`, `source` |
//! | an image that was cut short | SIGBUS inside `dlopen`, or a crash later | every segment, section and header is held against the length first | `image` |
//! | an image for another machine | "No such file or directory" | both architectures are named | `image` |
//! | lazy binding | the process exits at the first call of a missing symbol | `RTLD_NOW`, and `RTLD_LOCAL` against crosstalk | `library` |
//! | constructors run inside `dlopen` | a crash there ends the host | name, version and interface are read from the file; a [`Rehearsal`] loads it in a child process first | `descriptor`, `rehearsal` |
//! | a panic crosses the boundary | abort, even with `catch_unwind` in the host: two copies of std | it is caught inside the plugin; a plugin that aborts on panic is refused, unless [allowed](Native::allow_panic_abort) | `plugin`, `descriptor` |
//! | each side has an allocator | heap corruption | bytes are copied and given back to whom they belong | `plugin` |
//! | pointers into a library that is gone | SIGSEGV | errors are text of the host's; the instance goes before the library; what the host lends lives as long as the code | `plugin`, `unload` |
//! | `dlclose` answers 0 and unmaps nothing | a leak that nobody counts | kept mapped by default, counted, under a [`Budget`] with an alarm; [`Unload::WhenIdle`] believes only the memory map | `unload`, `maps` |
//! | threads of the plugin outlive it | the host dies when their code is unmapped | a library with a thread inside is never unmapped | `inside` |
//! | escape codes in a plugin's texts | they steer the terminal, or forge log lines | control characters are written out | `host` |
//!
//! # Platforms
//! Linux is tested. The code for macOS and Windows is type-checked for `aarch64-apple-darwin` and
//! `x86_64-pc-windows-msvc`, and has not been run: loading from a private file, reading Mach-O and PE images, and
//! rehearsals there. On both a library's file lies in the temporary folder for as long as the library is in use (on
//! Windows, for as long as it is mapped), and nothing is ever unmapped, because it could not be proven.
//!
//! A library is loaded from memory or from a folder of its own, so what it needs is found where the system looks, and
//! not beside the file that the bytes came from: `$ORIGIN` and `@loader_path` lead nowhere.

mod descriptor;
mod host;
mod image;
mod inspect;
mod library;
mod link;
mod load_file;
#[cfg(target_os = "linux")]
mod maps;
#[cfg(target_os = "linux")]
mod memfd;
mod plugin;
mod raw;
mod rehearsal;
#[cfg(target_os = "linux")]
mod threads;
mod unload;

use std::marker::PhantomData;
use std::sync::Arc;

use hotslot_plugin::Interface;
use hotslot_plugin::abi::Identity;

pub use descriptor::DescriptorError;
pub use host::Sender;
pub use image::ImageError;
pub use library::{Library, LibraryError};
pub use plugin::{CallError, NativePlugin};
pub use raw::RawNative;
pub use rehearsal::{Rehearsal, RehearsalError, rehearsal_point, rehearsal_point_with};
pub use unload::{Budget, OverBudget, Unload, retained};

pub(crate) use inspect::inspect;

use descriptor::Expected;
use host::{HostContext, Offers};
use image::Image;
use link::NativeLink;
use load_file::{Place, Source};
use rehearsal::Part;
use unload::Mapping;

use crate::host::{Config, Contract, Services};
use crate::{Admission, Artifact, Backend, BoxError, KeepAlive, LoadContext, Loaded, Manifest, Payload, Release};

/// A [`Backend`] for plugins that export a [descriptor](hotslot_plugin::abi::Descriptor): as `T`, which is the trait
/// object of a [declared interface](Native::interface), or [`NativePlugin`] for the [raw layer](Native::plugins).
pub struct Native<T: ?Sized = NativePlugin> {
    wanted: Wanted,
    allow_panic_abort: bool,
    offers: Offers,
    options: Options,
    plugin: PhantomData<fn() -> Box<T>>,
}

/// What a plugin has to implement.
#[derive(Clone, Debug)]
enum Wanted {
    /// The interface of this name, which only the host and the plugin understand.
    Named(String),
    /// A declared interface.
    Contract(Arc<Contract>),
    /// Whatever it implements.
    Any,
}

impl Native {
    /// A backend for plugins of the interface that the trait `I` declares: `Native::interface::<dyn Trait>()`.
    pub fn interface<I: Interface + ?Sized>() -> Native<I> {
        Native::wanting(Wanted::Contract(Arc::new(Contract::of::<I>())))
    }

    /// A backend for plugins in the raw layer that implement `interface`, for instance `"trader-feed/1"`; others are
    /// refused.
    pub fn plugins(interface: impl Into<String>) -> Native {
        Native::wanting(Wanted::Named(interface.into()))
    }

    /// A backend for plugins of whatever interface, in the raw layer: for tools, and for hosts that look at the
    /// [manifest](crate::Manifest) themselves.
    pub fn any() -> Native {
        Native::wanting(Wanted::Any)
    }
}

impl<T: ?Sized> Native<T> {
    fn wanting(wanted: Wanted) -> Native<T> {
        let offers = Offers { services: Some(Services::default()), ..Offers::default() };
        Native { wanted, allow_panic_abort: false, offers, options: Options::default(), plugin: PhantomData }
    }

    /// Bytes for each plugin's `create`; what they mean is up to the interface.
    pub fn config(mut self, config: impl Into<Vec<u8>>) -> Self {
        self.offers.config = Config::Fixed(config.into().into());
        self
    }

    /// The same, asked for at each load: for a configuration that changes along with the plugin.
    pub fn config_with(mut self, config: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.offers.config = Config::Asked(Arc::new(config));
        self
    }

    /// Takes what plugins send, on the threads that they send it from. Without it, messages are dropped.
    ///
    /// Text in a message is the plugin's: pass it through [`escape_untrusted`](crate::escape_untrusted) before showing it.
    pub fn on_message(mut self, take: impl Fn(&Sender, &[u8]) + Send + Sync + 'static) -> Self {
        self.offers.on_message = Some(Arc::new(take));
        self
    }

    /// Offers an interface that the host implements: plugins get it with
    /// [`Host::service`](hotslot_plugin::Host::service), and call it on their threads.
    pub fn service<S: Interface + ?Sized>(mut self, service: Arc<S>) -> Self {
        self.offers.services.get_or_insert_default().offer(service);
        self
    }

    /// Lets plugins in that abort on panic: a panic in one ends the host.
    pub fn allow_panic_abort(mut self) -> Self {
        self.allow_panic_abort = true;
        self
    }

    loading_options!();

    fn admitted(&self, bytes: &[u8]) -> Result<(Identity, Manifest), BoxError> {
        let section = Image::read(bytes)?.descriptor()?;
        let identity = descriptor::read(section)?;
        let interface = match &self.wanted {
            Wanted::Named(name) => Some(name.as_str()),
            Wanted::Contract(_) | Wanted::Any => None,
        };
        let expected = Expected { interface, allow_panic_abort: self.allow_panic_abort };
        let mut manifest = descriptor::check(&identity, &expected)?;
        let contract = descriptor::contract(section).map(Contract::parse).transpose()?;
        manifest.contract = contract.map(Arc::new);
        if let Wanted::Contract(host) = &self.wanted {
            host.numbers_in_plugin(&manifest)?;
        }
        Ok((identity, manifest))
    }

    fn loaded(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<NativePlugin>, BoxError> {
        let (identity, manifest) = self.admitted(artifact.bytes())?;
        // Asked once, so that the rehearsal is of what is then made.
        let config = self.offers.config.bytes();
        let offers = Offers { config: Config::Fixed(Arc::clone(&config)), ..self.offers.clone() };
        let part = Part::Create(config);
        let library = Arc::new(self.options.open(artifact, context, &part)?);
        let host = HostContext::new(context, &manifest, &offers);
        let keep_alive = self.options.keep_alive(library.clone(), Some(host.clone()));
        match NativePlugin::create(library, &identity, manifest, &host, context.failures.clone()) {
            Ok(plugin) => Ok(Loaded::new(plugin).keep_alive(keep_alive)),
            Err(error) => {
                self.options.give_up(keep_alive);
                Err(error)
            }
        }
    }
}

impl Backend<NativePlugin> for Native {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        Ok(self.admitted(payload.bytes())?.1.into())
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<NativePlugin>, BoxError> {
        self.loaded(artifact, context)
    }
}

impl<I: Interface + ?Sized> Backend<I> for Native<I> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        Ok(self.admitted(payload.bytes())?.1.into())
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<I>, BoxError> {
        let numbers = Contract::of::<I>().numbers_in_plugin(artifact.manifest())?;
        let loaded = self.loaded(artifact, context)?;
        Ok(loaded.map(|plugin| I::proxy(NativeLink::new(*plugin, numbers))))
    }
}

impl<T: ?Sized> Clone for Native<T> {
    fn clone(&self) -> Self {
        let Native { wanted, allow_panic_abort, offers, options, plugin } = self;
        Native {
            wanted: wanted.clone(),
            allow_panic_abort: *allow_panic_abort,
            offers: offers.clone(),
            options: options.clone(),
            plugin: *plugin,
        }
    }
}

impl<T: ?Sized> std::fmt::Debug for Native<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native").field("wanted", &self.wanted).field("options", &self.options).finish_non_exhaustive()
    }
}

/// How a library comes into the process and leaves it; the same for plugins and raw libraries.
#[derive(Clone, Debug, Default)]
struct Options {
    unload: Unload,
    budget: Budget,
    rehearsal: Option<Rehearsal>,
    place: Place,
}

impl Options {
    /// Rehearses the artifact, if that is wanted, and maps it.
    fn open(&self, artifact: &Artifact, context: &LoadContext, part: &Part) -> Result<Library, BoxError> {
        self.budget.check()?;
        if let Some(rehearsal) = &self.rehearsal {
            rehearsal.run(artifact.bytes(), part, &self.place)?;
        }
        let label = format!("{}-{}", context.slot, context.generation);
        let source = Source::new(artifact.bytes(), &label, &self.place)
            .map_err(|error| LibraryError::Source { reason: error.to_string() })?;
        // SAFETY: admission found a library for this process in these bytes. That its constructors are sound is what
        // whoever hands over a plugin vouches for; see "Trust" in the module's documentation.
        Ok(unsafe { Library::open(source, artifact.bytes().len())? })
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

/// The methods that [`Native`] and [`RawNative`] share.
macro_rules! loading_options {
    () => {
        /// What becomes of a library when its plugin is gone; by default it stays mapped.
        pub fn unload(mut self, unload: $crate::native::Unload) -> Self {
            self.options.unload = unload;
            self
        }

        /// How much may stay mapped in the process.
        pub fn budget(mut self, budget: $crate::native::Budget) -> Self {
            self.options.budget = budget;
            self
        }

        /// Loads each library in a child process first. The program has to call
        /// [`rehearsal_point`]($crate::native::rehearsal_point) at the top of `main`.
        pub fn rehearse(mut self, rehearsal: $crate::native::Rehearsal) -> Self {
            self.options.rehearsal = Some(rehearsal);
            self
        }

        /// Loads from files in private folders inside `parent`, for systems that map no code from memory or from the
        /// temporary folder. By default Linux loads from memory, and other systems from the temporary folder.
        pub fn private_folder(mut self, parent: impl Into<std::path::PathBuf>) -> Self {
            self.options.place = $crate::native::load_file::Place { memory: false, folder: parent.into() };
            self
        }
    };
}
use loading_options;
