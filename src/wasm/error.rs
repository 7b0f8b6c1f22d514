//! What can be wrong with a module, with a call and with the engine.

use std::path::PathBuf;
use std::time::Duration;

use crate::BoxError;
use crate::host::ContractError;
use crate::text::plugin_text;

/// The longest text that is taken from a module, in bytes.
pub(super) const TEXT_LIMIT: usize = 1024;

/// Why a module was refused before any of it was compiled. Offsets are in bytes from the start of the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The bytes are not a valid module, or end too early.
    #[error("not a valid WebAssembly module: {reason}, at offset {offset:#x}")]
    Malformed {
        /// Where.
        offset: usize,
        /// What the validator says.
        reason: String,
    },
    /// It is a component.
    #[error("this is a component, and the slot takes core modules: build it for wasm32-unknown-unknown")]
    Component,
    /// It uses a proposal that is off here.
    #[error("it uses a WebAssembly proposal that is off: {reason}, at offset {offset:#x}")]
    Proposal {
        /// Where.
        offset: usize,
        /// What the validator says.
        reason: String,
    },
    /// It is bigger in some way than this slot allows.
    #[error(
        "{found} {what} are more than the {limit} allowed{}, at offset {offset:#x}: raise the limit if the module is \
         trusted",
        in_function(*function)
    )]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there is; at least, if counting was given up.
        found: u64,
        /// How much there may be.
        limit: u64,
        /// Where.
        offset: usize,
        /// The function, by its index in the module, if it is about one.
        function: Option<u32>,
    },
    /// A required export is missing.
    #[error("it does not export the function `{name}` {wanted}")]
    MissingExport {
        /// The export's name.
        name: String,
        /// The signature that it should have.
        wanted: String,
    },
    /// A required export is something else.
    #[error("its export `{name}` is {found}, and should be a function {wanted}")]
    WrongExport {
        /// The export's name.
        name: String,
        /// What it is.
        found: String,
        /// The signature that it should have.
        wanted: String,
    },
    /// It imports what the host does not offer.
    #[error("it imports `{module}` `{name}`, which the host does not offer, at offset {offset:#x}")]
    UnknownImport {
        /// The import's module name.
        module: String,
        /// The import's name.
        name: String,
        /// Where.
        offset: usize,
    },
    /// It imports something that the host offers, as something else.
    #[error("it imports `{module}` `{name}` as {found}, and the host offers {offered}, at offset {offset:#x}")]
    WrongImport {
        /// The import's module name.
        module: String,
        /// The import's name.
        name: String,
        /// As what it is imported.
        found: String,
        /// What the host has.
        offered: String,
        /// Where.
        offset: usize,
    },
    /// Its `version` section says no version.
    #[error("its section `version`, at offset {offset:#x}, is not a version: {reason}")]
    Version {
        /// Where the section begins.
        offset: usize,
        /// Why.
        reason: String,
    },
    /// Its `hotslot.manifest` section cannot be read.
    #[error("its section `hotslot.manifest`, at offset {offset:#x}, cannot be read: {reason}")]
    Manifest {
        /// Where the section begins.
        offset: usize,
        /// Why.
        reason: String,
    },
    /// Its `hotslot.contract` section cannot be read.
    #[error("its section `hotslot.contract`, at offset {offset:#x}: {error}")]
    Contract {
        /// Where the section begins.
        offset: usize,
        /// Why.
        error: ContractError,
    },
    /// It implements another interface.
    #[error("it implements {}, and this slot wants `{wanted}`", named(found))]
    Interface {
        /// What it says it implements.
        found: Option<String>,
        /// What the slot wants.
        wanted: String,
    },
}

fn in_function(function: Option<u32>) -> String {
    function.map(|index| format!(" in function {index}")).unwrap_or_default()
}

fn named(interface: &Option<String>) -> String {
    interface.as_ref().map_or_else(|| "no interface that it names".to_owned(), |interface| format!("`{interface}`"))
}

impl From<wasmparser::Error> for ModuleError {
    fn from(error: wasmparser::Error) -> ModuleError {
        // Some of its messages are of several lines: in ours they would show as escapes.
        let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let (offset, reason) = (error.offset(), plugin_text(message.as_bytes(), TEXT_LIMIT));
        match error.missing_wasm_feature() {
            Some(_) => ModuleError::Proposal { offset, reason },
            None => ModuleError::Malformed { offset, reason },
        }
    }
}

/// How a call into a plugin failed.
///
/// Whatever the reason, it costs at most the instance that the call had; other calls, and the generation, go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WasmCallError {
    /// The plugin trapped: an `unreachable` (a panic, in Rust), memory out of bounds, stack overflow and the like.
    #[error("the plugin trapped{}: {reason}", site.as_ref().map(|site| format!(" in {site}")).unwrap_or_default())]
    Trapped {
        /// What happened.
        reason: String,
        /// Where: the innermost function.
        site: Option<String>,
    },
    /// The call took longer than it may.
    #[error("the plugin did not answer within {0:?}, and was stopped")]
    DeadlineExceeded(Duration),
    /// The caller did not want the answer any more.
    #[error("the caller cancelled the call")]
    Cancelled,
    /// The generation was replaced, and its `drain_timeout` is over.
    #[error("the plugin was replaced, and this call outlasted the time that is given to finish: take a new lease")]
    Retired,
    /// Too many calls are under way.
    #[error("{limit} {what} are in use: try again later, allow more, or allow a wait for one")]
    Saturated {
        /// What ran out: calls of this generation, or instances of the engine.
        what: &'static str,
        /// How many there are.
        limit: usize,
    },
    /// The plugin wanted more memory than it may have, and gave up.
    #[error("the plugin needs more than the {limit} bytes of memory that it may have")]
    OutOfMemory {
        /// The limit in bytes.
        limit: usize,
    },
    /// The plugin wanted a larger table than it may have, and gave up.
    #[error("the plugin needs more than the {limit} table elements that it may have")]
    OutOfTable {
        /// The limit in elements.
        limit: usize,
    },
    /// The bytes do not fit into the buffer that the plugin has for them.
    #[error("{len} bytes do not fit into the plugin's buffer of {capacity}")]
    InputTooLarge {
        /// How many there are.
        len: usize,
        /// How many there may be.
        capacity: usize,
    },
    /// The plugin answered with an address that is not in its memory.
    #[error("the plugin answered with {len} bytes at {ptr:#x}, which are not in its memory")]
    OutOfBounds {
        /// The address.
        ptr: u32,
        /// How many bytes should be there.
        len: u32,
    },
    /// The binder did not find what it looked for.
    #[error("the plugin does not have what the binder wants: {0}")]
    Unbound(String),
    /// There was no memory, or no address space, for an instance.
    #[error("no instance of the plugin could be made: {0}")]
    NoInstance(String),
    /// A function of the host failed while the plugin called it.
    #[error("a function of the host failed: {0}")]
    Host(String),
    /// The caller's own work around the calls failed.
    #[error("{0}")]
    Failed(#[source] BoxError),
}

impl WasmCallError {
    /// An error of the caller's own.
    pub fn failed(error: impl Into<BoxError>) -> WasmCallError {
        WasmCallError::Failed(error.into())
    }

    /// Whether this speaks against the plugin, and not against its load or its caller. Such failures count in the
    /// generation's [health](crate::FailureCounter), and can roll it back in its probation.
    pub fn is_fault(&self) -> bool {
        use WasmCallError::*;
        matches!(
            self,
            Trapped { .. }
                | DeadlineExceeded(_)
                | OutOfMemory { .. }
                | OutOfTable { .. }
                | OutOfBounds { .. }
                | Unbound(_)
        )
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The settings, or this machine, do not allow one.
    #[error("no engine: {0}")]
    Engine(String),
    /// A setting that cannot work.
    #[error("{0}")]
    Misuse(&'static str),
    /// A thread could not be started.
    #[error("no thread: {0}")]
    NoThread(#[source] std::io::Error),
    /// The folder for compiled modules cannot be used.
    #[error("{} cannot hold compiled modules: {reason}", path.display())]
    CacheDir {
        /// The folder.
        path: PathBuf,
        /// Why not, and what to do about it.
        reason: String,
    },
}
