//! What turns an artifact into a live plugin: the trait that a backend implements, and what passes through it.

mod format;

use std::sync::Arc;

pub use format::Format;

use crate::failures::FailureCounter;
use crate::{Admission, Artifact, Footprint, Payload, PluginScope, StopSignal};

/// An error of a backend, of a hook or of a plugin: whatever type it was, owned by the host.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Turns an artifact into a live plugin of type `T`.
///
/// It is object-safe: a slot holds an `Arc<dyn Backend<T>>`. Both methods are called on a thread of the slot, never
/// on a reader's; one that hangs is abandoned after the slot's `reload_timeout`, and its late result destroyed.
///
/// A complete custom backend:
///
/// ```
/// use hotslot::{Admission, Artifact, Backend, BoxError, HotSlot, LoadContext, Loaded, Manifest, Payload};
///
/// /// A plugin is a table of words, one a line; the first line is its version.
/// struct WordList;
///
/// impl Backend<Vec<String>> for WordList {
///     fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
///         let text = std::str::from_utf8(payload.bytes())?;
///         let version = text.lines().next().ok_or("the list is empty: its first line is the version")?;
///         Ok(Manifest::new("words").with_version(version.parse()?).into())
///     }
///
///     fn load(&self, artifact: &Artifact, _: &LoadContext) -> Result<Loaded<Vec<String>>, BoxError> {
///         let text = std::str::from_utf8(artifact.bytes())?;
///         Ok(Loaded::new(text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()))
///     }
/// }
///
/// let slot = HotSlot::builder(WordList).name("blocked-words").open(b"1.0.0\nfoo")?;
/// assert_eq!(*slot.load(), ["foo"]);
/// slot.reload(b"1.1.0\nfoo\nbar")?;
/// assert_eq!(slot.load().len(), 2);
/// # Ok::<(), hotslot::Error>(())
/// ```
pub trait Backend<T: ?Sized>: Send + Sync + 'static {
    /// Reads the manifest from the bytes and refuses what could not be loaded. Must not run any of them.
    ///
    /// What was found on the way and is needed again at the load goes along as evidence.
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError>;

    /// Makes a live plugin of an artifact that [`admit`](Backend::admit) let in.
    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<T>, BoxError>;

    /// Returns whether code of its plugins may leave destructors of thread-locals behind in the threads that it ran on, as
    /// code in dynamic libraries does. Then those threads of the slot end after their work, so that the code can be
    /// unmapped; otherwise they are used again. True by default, which is always right.
    fn taints_threads(&self) -> bool {
        true
    }
}

impl<T: ?Sized, B: Backend<T> + ?Sized> Backend<T> for Arc<B> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        (**self).admit(payload)
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<T>, BoxError> {
        (**self).load(artifact, context)
    }

    fn taints_threads(&self) -> bool {
        (**self).taints_threads()
    }
}

impl<T: ?Sized, B: Backend<T> + ?Sized> Backend<T> for Box<B>
where
    Box<B>: 'static,
{
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        (**self).admit(payload)
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<T>, BoxError> {
        (**self).load(artifact, context)
    }

    fn taints_threads(&self) -> bool {
        (**self).taints_threads()
    }
}

/// What a backend learns of the generation that it is loading.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadContext {
    /// The number that the generation will have.
    pub generation: u64,
    /// The name of the slot.
    pub slot: Arc<str>,
    /// The generation's stop signal: raised when it is no longer current, lowered if a rollback brings it back. During
    /// [`load`](Backend::load) it says that the slot no longer waits for the result.
    pub stop: StopSignal,
    /// Where a backend reports calls that failed; during probation they can cause a rollback.
    pub failures: FailureCounter,
    /// Marks what the plugin calls in the host: see [`PluginScope`].
    pub scope: PluginScope,
}

/// A live plugin, and what has to outlive it.
pub struct Loaded<T: ?Sized> {
    pub(crate) plugin: Box<T>,
    pub(crate) keep_alive: Option<Box<dyn KeepAlive>>,
}

impl<T> Loaded<T> {
    /// Wraps a plugin that owns all it needs.
    pub fn new(plugin: T) -> Loaded<T> {
        Loaded::boxed(Box::new(plugin))
    }
}

impl<T: ?Sized> Loaded<T> {
    /// Wraps a boxed plugin that owns all it needs: for trait objects.
    pub fn boxed(plugin: Box<T>) -> Loaded<T> {
        Loaded { plugin, keep_alive: None }
    }

    /// Adds what the plugin's code or memory lives in. It is released after the plugin has been dropped, and after
    /// the thread that dropped it has ended.
    pub fn keep_alive(mut self, keep_alive: impl KeepAlive) -> Loaded<T> {
        self.keep_alive = Some(Box::new(keep_alive));
        self
    }

    /// Makes another type of the plugin; what it lives in goes along. So a backend can wrap another one, and plugins
    /// of different kinds can take turns in a slot for a trait object.
    ///
    /// What `f` returns has to own the plugin that it was given, if that has something to keep alive: when the new box is dropped,
    /// the code of the old one may be unmapped.
    ///
    /// ```
    /// # use hotslot::Loaded;
    /// let loaded: Loaded<u32> = Loaded::new(42);
    /// let shown = loaded.map::<dyn ToString>(|number| number);
    /// # let _ = shown;
    /// ```
    pub fn map<U: ?Sized>(self, f: impl FnOnce(Box<T>) -> Box<U>) -> Loaded<U> {
        let Loaded { plugin, keep_alive } = self;
        Loaded { plugin: f(plugin), keep_alive }
    }
}

/// What a plugin lives in, a mapped library for instance.
///
/// One that is dropped without having been released must do what is safe: see the backend.
pub trait KeepAlive: Send + Sync + 'static {
    /// Returns what it takes, if that is known. Asked once, when the generation has been loaded.
    fn footprint(&self) -> Option<Footprint> {
        None
    }

    /// Gives it back, if that is safe, and says what became of it. Called on a thread of the slot's reaper.
    fn release(self: Box<Self>) -> Release;
}

/// What became of what a plugin lived in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Release {
    /// All memory was given back.
    Freed,
    /// It stays in memory for the life of the process.
    Retained {
        /// Why.
        reason: String,
        /// Set if more is kept now than the backend's budget allows: what to do about it.
        alarm: Option<String>,
    },
}
