//! The errors of modules, of calls and of the engine.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use crate::BoxError;
use crate::host::ContractError;
use crate::nesting::Refusal;
use crate::text::plugin_text;

/// The longest text that is taken from a module, in bytes.
pub(super) const TEXT_LIMIT: usize = 1024;

/// The reason for which a module was refused before any of it was compiled. Offsets are in bytes from the start of the
/// module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The bytes are not a valid module, or are truncated.
    #[error("not a valid WebAssembly module: {reason}, at offset {offset:#x}")]
    Malformed {
        /// Where.
        offset: usize,
        /// What the validator says.
        reason: String,
    },
    /// It is a component.
    #[error("this is a component, and the slot loads core modules: build it for wasm32-unknown-unknown")]
    Component,
    /// It uses a WebAssembly proposal that is not enabled.
    #[error("it uses a WebAssembly proposal that is not enabled: {reason}, at offset {offset:#x}")]
    Proposal {
        /// Where.
        offset: usize,
        /// What the validator says.
        reason: String,
    },
    /// It exceeds one of the [limits](super::ModuleLimits).
    #[error(
        "{found} {what} are more than the {limit} allowed{}, at offset {offset:#x}: raise the limit if the module is \
         trusted",
        in_function(*function)
    )]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there is, at least: counting stops at the limit.
        found: u64,
        /// How much there may be.
        limit: u64,
        /// Where.
        offset: usize,
        /// The index of the function, if it is about one.
        function: Option<u32>,
    },
    /// It is a program, and not a library.
    #[error(
        "it is a command (it exports `_start`) and not a library: in Rust build a `cdylib`, in C and C++ use \
         -mexec-model=reactor or --no-entry"
    )]
    Command,
    /// It exports no memory, which the host has to read and write.
    #[error("it exports no memory, and {reason}: export it, under any name")]
    NoMemory {
        /// What it is needed for.
        reason: String,
    },
    /// A required export is missing.
    #[error("it does not export the function `{name}` {wanted}")]
    MissingExport {
        /// The export's name.
        name: String,
        /// The signature that it should have.
        wanted: String,
    },
    /// A required export is not a function of the required signature.
    #[error("its export `{name}` is {found}, and should be a function {wanted}")]
    WrongExport {
        /// The export's name.
        name: String,
        /// What it is.
        found: String,
        /// The signature that it should have.
        wanted: String,
    },
    /// It imports something that the host does not offer.
    #[error(
        "it imports `{module}` `{name}`, which the host does not offer, at offset {offset:#x}{}",
        hint(module, name).map(|hint| format!(": {hint}")).unwrap_or_default()
    )]
    UnknownImport {
        /// The import's module name.
        module: String,
        /// The import's name.
        name: String,
        /// Where.
        offset: usize,
    },
    /// It imports something that the host offers with another type.
    #[error("it imports `{module}` `{name}` as {found}, and the host offers {offered}, at offset {offset:#x}")]
    WrongImport {
        /// The import's module name.
        module: String,
        /// The import's name.
        name: String,
        /// The type of the import.
        found: String,
        /// What the host offers.
        offered: String,
        /// Where.
        offset: usize,
    },
    /// It imports several things that the host does not offer, or offers with another type.
    #[error("{} of its imports do not fit:{}", imports.len(), listed(imports))]
    Imports {
        /// The error of each of them, in the module's order: [`UnknownImport`](ModuleError::UnknownImport) or
        /// [`WrongImport`](ModuleError::WrongImport).
        imports: Vec<ModuleError>,
    },
    /// Its `version` section is not a version.
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
    #[error("it implements {}, and this slot requires `{wanted}`", named(found))]
    Interface {
        /// The interface in its manifest.
        found: Option<String>,
        /// The interface that the slot requires.
        wanted: String,
    },
}

/// Says what an import of a known family comes from, and what to do about it.
fn hint(module: &str, name: &str) -> Option<&'static str> {
    Some(match (module, name) {
        ("wasi_snapshot_preview1" | "wasi_unstable", _) => {
            "it is built for WASI; build it for wasm32-unknown-unknown, or link an implementation with `WasmBackend::link`"
        }
        ("wasi", "thread-spawn") => "it is built with threads, which are not enabled; build it without",
        (module, _) if module.starts_with("wasi:") => {
            "it is part of a component for WASI; build a core module for wasm32-unknown-unknown"
        }
        ("GOT.mem" | "GOT.func", _)
        | ("env", "__memory_base" | "__table_base" | "__stack_pointer" | "memory_base" | "table_base") => {
            "it is a side module (position-independent code); link it statically, without -shared or SIDE_MODULE"
        }
        ("env", "abort" | "seed" | "trace") | ("index", _) => {
            "AssemblyScript's runtime calls it; compile with --use abort= (or a function of your own), or link it with \
             `WasmBackend::link`"
        }
        ("env", "memory") => {
            "it imports its memory; link it without --import-memory, and export the memory instead, or offer one with \
             `WasmBackend::offer_memory`"
        }
        ("env", "__indirect_function_table") => {
            "it imports its table; link it without --import-table, or offer one with `WasmBackend::offer_table`"
        }
        ("gojs" | "go", _) | ("env", "runtime.ticks" | "runtime.sleepTicks" | "syscall/js.valueGet") => {
            "Go's runtime for JavaScript calls it; build with GOOS=wasip1 -buildmode=c-shared or TinyGo's wasm-unknown \
             target"
        }
        ("__wbindgen_placeholder__" | "__wbindgen_externref_xform__" | "wbg" | "__wbindgen_anyref_xform__", _) => {
            "wasm-bindgen's glue for JavaScript calls it; build without wasm-bindgen and the crates that need it (js-sys, \
             web-sys, or getrandom and uuid with their JavaScript features)"
        }
        ("env", name)
            if name.starts_with("emscripten_") || name.starts_with("invoke_") || name.starts_with("_emscripten_") =>
        {
            "Emscripten's runtime for JavaScript calls it; build with -sSTANDALONE_WASM, or with clang for \
             wasm32-unknown-unknown"
        }
        ("env", _) => {
            "an `extern` function that nothing defines ends up there (in C and C++ one that is declared and not linked, in \
             Rust an `extern \"C\"` block); link what defines it, or offer it with `WasmBackend::link`"
        }
        _ => return None,
    })
}

/// Lists imports, those of one kind with their hint once.
fn listed(imports: &[ModuleError]) -> String {
    /// More than anyone reads.
    const SHOWN: usize = 50;
    let mut text = String::new();
    let mut hints: Vec<(&str, Vec<String>)> = Vec::new();
    for import in imports.iter().take(SHOWN) {
        match import {
            ModuleError::UnknownImport { module, name, .. } => {
                let (hint, import) = (hint(module, name).unwrap_or_default(), format!("`{module}` `{name}`"));
                match hints.iter_mut().find(|(known, _)| *known == hint) {
                    Some((_, imports)) => imports.push(import),
                    None => hints.push((hint, vec![import])),
                }
            }
            other => text += &format!(" {other};"),
        }
    }
    for (hint, imports) in hints {
        let hint = if hint.is_empty() { String::new() } else { format!(" ({hint})") };
        text += &format!(" the host does not offer {}{hint};", imports.join(", "));
    }
    match imports.len().saturating_sub(SHOWN) {
        0 => text.pop().map_or(String::new(), |_| text),
        more => text + &format!(" and {more} more"),
    }
}

fn in_function(function: Option<u32>) -> String {
    function.map(|index| format!(" in function {index}")).unwrap_or_default()
}

fn named(interface: &Option<String>) -> String {
    interface.as_ref().map_or_else(|| "no interface that it names".to_owned(), |interface| format!("`{interface}`"))
}

impl From<wasmparser::Error> for ModuleError {
    fn from(error: wasmparser::Error) -> ModuleError {
        // Some messages have several lines, which would show as escapes.
        let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let (offset, reason) = (error.offset(), plugin_text(message.as_bytes(), TEXT_LIMIT));
        match error.missing_wasm_feature() {
            Some(_) => ModuleError::Proposal { offset, reason },
            None => ModuleError::Malformed { offset, reason },
        }
    }
}

/// The reason for which a call into a plugin failed.
///
/// It costs at most the instance that the call had: other calls, and the generation, are not affected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WasmCallError {
    /// The plugin trapped: an `unreachable` (a panic, in Rust), memory out of bounds, stack overflow and the like.
    #[error("the plugin trapped{}: {reason}", site.as_ref().map(|site| format!(" in {site}")).unwrap_or_default())]
    Trapped {
        /// What happened.
        reason: String,
        /// The innermost function.
        site: Option<String>,
        /// The functions that were being called, from the innermost, by their names if the module has them.
        frames: Vec<String>,
    },
    /// The call exceeded its deadline.
    #[error("the plugin did not answer within {0:?}, and was stopped")]
    DeadlineExceeded(Duration),
    /// The caller cancelled the call.
    #[error("the caller cancelled the call")]
    Cancelled,
    /// The generation was replaced, and its `drain_timeout` is over.
    #[error("the plugin was replaced, and this call outlasted the drain timeout: take a new lease")]
    Retired,
    /// Too many calls are in flight.
    #[error("all {limit} {what} are in use{holders}: try again later, allow more, or set `max_wait`")]
    Saturated {
        /// What ran out: calls of this generation, or instances of the engine.
        what: &'static str,
        /// How many there are.
        limit: usize,
        /// Who has the engine's instances, as text.
        holders: String,
    },
    /// The plugin needed more memory than its limit, and trapped.
    #[error("the plugin needs more memory than its limit of {limit} bytes")]
    OutOfMemory {
        /// The limit in bytes.
        limit: usize,
    },
    /// The plugin needed a larger table than its limit, and trapped.
    #[error("the plugin needs a larger table than its limit of {limit} elements")]
    OutOfTable {
        /// The limit in elements.
        limit: usize,
    },
    /// The memory of all instances of the engine is used up, and the plugin could not go on without more.
    #[error(
        "the plugin needs more than is left of the engine's {limit} bytes for all instances{holders}: try again later, or \
         raise `EngineBuilder::memory_budget`"
    )]
    OverBudget {
        /// The budget in bytes.
        limit: u64,
        /// Who has it, as text.
        holders: String,
    },
    /// The bytes do not fit into the plugin's buffer.
    #[error("{len} bytes do not fit into the plugin's buffer of {capacity}")]
    InputTooLarge {
        /// How many there are.
        len: usize,
        /// How many there may be.
        capacity: usize,
    },
    /// The plugin gave an address that is not in its memory.
    #[error("the plugin gave {len} bytes at {ptr:#x}, which are not in its memory")]
    OutOfBounds {
        /// The address.
        ptr: u32,
        /// How many bytes should be there.
        len: u32,
    },
    /// The plugin's answer is longer than its limit.
    #[error("the plugin's answer of {len} bytes is longer than the {limit} allowed: see `CallLimits::answer`")]
    AnswerTooLarge {
        /// How many there are.
        len: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The plugin lacks an export that the host looked up.
    #[error("the plugin cannot be bound: {0}")]
    Unbound(String),
    /// There was not enough memory, or address space, for an instance.
    #[error("could not make an instance of the plugin: {0}")]
    NoInstance(String),
    /// The call was made inside of too many others, or the plugin failed because one that it made through the host was.
    #[error("calls are nested too deeply: {0}")]
    NestedTooDeep(String),
    /// The calling thread's stack is too small for the call. It was not made, because an overflow would end the process.
    #[error(
        "the calling thread has {left} bytes of stack left, and the call may need {needed}: call from a thread with a \
         larger stack, from inside of fewer calls, or lower `EngineBuilder::stack`"
    )]
    StackTooSmall {
        /// Bytes that are left.
        left: usize,
        /// Bytes that may be needed: the engine's [stack](super::EngineBuilder::stack), and 128 KiB for the host.
        needed: usize,
    },
    /// A function of the host failed while the plugin called it, or could not make anything of what the plugin gave it.
    #[error("a function of the host failed: {0}")]
    Host(HostFailure),
    /// The plugin could not be created for this call, or did not take the state that others had taken.
    #[error("{0}")]
    NotCreated(String),
    /// The caller's closure failed.
    #[error("{0}")]
    Failed(#[source] BoxError),
}

/// The reason for which a function of the host failed. It derefs to its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFailure {
    pub(super) text: String,
    pub(super) is_misuse: bool,
}

impl HostFailure {
    /// Returns whether the plugin is to blame: it gave an address outside of its memory, a text that is not UTF-8, or
    /// something else that the function could not take.
    pub fn is_misuse(&self) -> bool {
        self.is_misuse
    }
}

impl Deref for HostFailure {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for HostFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a plugin gave to a function of the host that it should not have.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misuse(pub(super) String);

impl Misuse {
    /// Ends the call as the plugin's fault.
    pub(super) fn error(text: impl Into<String>) -> wasmtime::Error {
        wasmtime::Error::new(Misuse(text.into()))
    }
}

impl From<Refusal> for WasmCallError {
    fn from(refusal: Refusal) -> WasmCallError {
        match refusal {
            Refusal::Stack { left, needed } => WasmCallError::StackTooSmall { left, needed },
            refusal => WasmCallError::NestedTooDeep(refusal.to_string()),
        }
    }
}

impl WasmCallError {
    /// Makes an error of the caller's own, for the closure that [`WasmPlugin::call`](super::WasmPlugin::call) takes.
    pub fn failed(error: impl Into<BoxError>) -> WasmCallError {
        WasmCallError::Failed(error.into())
    }

    /// Returns whether the plugin is at fault, rather than its load or its caller. Such failures are counted by the
    /// generation's [failure counter](crate::FailureCounter), and can cause a rollback during probation.
    pub fn is_fault(&self) -> bool {
        use WasmCallError::*;
        matches!(self, Host(failure) if failure.is_misuse)
            || matches!(
                self,
                Trapped { .. }
                    | DeadlineExceeded(_)
                    | OutOfMemory { .. }
                    | OutOfTable { .. }
                    | OutOfBounds { .. }
                    | AnswerTooLarge { .. }
                    | Unbound(_)
                    | NotCreated(_)
            )
    }
}

/// The reason for which a module was not compiled in a [child](super::EngineBuilder::compile_in_child).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Address space ran out.
    #[error("compiling it takes more than the {limit} bytes of address space allowed: see `CompileLimits::memory`")]
    OutOfMemory {
        /// The limit in bytes.
        limit: u64,
    },
    /// Processor time ran out.
    #[error("compiling it takes more than {limit:?} of processor time: see `CompileLimits::cpu`")]
    OutOfProcessorTime {
        /// The limit.
        limit: Duration,
    },
    /// It was not compiled in time.
    #[error("it was not compiled after {deadline:?}: see `CompileLimits::deadline`")]
    TooLate {
        /// The deadline.
        deadline: Duration,
    },
    /// The code is too large.
    #[error("its code is longer than the {limit} bytes allowed: see `CompileLimits::output`")]
    OutputTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Nobody waited for the result any more, and the child was killed.
    #[error("its compilation was ended, because the attempt was over or its generation gone")]
    Abandoned,
    /// The compiler refuses the module.
    #[error("the compiler refuses it: {message}")]
    Refused {
        /// Why.
        message: String,
    },
    /// The child ended before it had finished.
    #[error("the child that compiled it {ended}{output}")]
    Died {
        /// How: by which signal, or with which exit code.
        ended: String,
        /// What it printed last.
        output: String,
    },
    /// The code that the child returned is not for this engine.
    #[error("the code from the child cannot be loaded: {0}")]
    Unusable(String),
    /// The child could not be started.
    #[error("the child process for a compilation could not be started: {0}")]
    Start(#[source] std::io::Error),
    /// The child was not this program, or went another way.
    #[error(
        "the child {ended} without coming to hotslot::rehearsal_point(){output}: call it before anything else in main"
    )]
    NotReached {
        /// How it ended.
        ended: String,
        /// What it printed last.
        output: String,
    },
    /// The program did not say where a child does its work.
    #[error("a compilation in a child starts this program again: call hotslot::rehearsal_point() first thing in main")]
    NoRehearsalPoint,
    /// The program has more rights than the user who started it.
    #[error(
        "a program with raised privileges does not take what it does from its environment: it cannot compile in a child"
    )]
    Privileged,
    /// Limits of a child are enforced on Linux only.
    #[error("modules can be compiled in a child on Linux only")]
    Unsupported,
}

/// The reason for which an engine did not start, or a function could not be linked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// WebAssembly's engine refuses the settings, the machine, or a function that is linked.
    #[error("the engine refuses: {0}")]
    Engine(String),
    /// A setting that cannot work.
    #[error("{0}")]
    Misuse(&'static str),
    /// A thread could not be spawned.
    #[error("could not spawn a thread: {0}")]
    NoThread(#[source] std::io::Error),
    /// It is to [compile in a child](super::EngineBuilder::compile_in_child), and the first one could not.
    #[error("modules cannot be compiled in a child: {0}")]
    NoChild(#[from] CompileError),
    /// The directory for compiled modules cannot be used.
    #[error("{} cannot be the cache directory: {reason}", path.display())]
    CacheDir {
        /// The directory.
        path: PathBuf,
        /// Why not, and what to do about it.
        reason: String,
    },
}
