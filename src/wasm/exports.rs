//! What a module exports: the functions that its sections promise, and where they are once it is compiled.

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::{Module, ModuleExport};

/// What a module of a declared interface exports: its contract promises it.
pub(super) const INTERFACE_EXPORTS: [(&str, &str); 5] = [
    ("hotslot_create", "(i32) -> i64"),
    ("hotslot_room", "(i32) -> i32"),
    ("hotslot_invoke", "(i32, i32) -> i32"),
    ("hotslot_give", "(i32) -> i32"),
    ("hotslot_run", "() -> i64"),
];

/// What a module whose manifest names a schema exports, to save and restore its state.
pub(super) const STATE_EXPORTS: [(&str, &str); 3] =
    [("hotslot_alloc", "(i32) -> i32"), ("hotslot_save", "() -> i64"), ("hotslot_restore", "(i32, i32, i32) -> i64")];

/// The function that sets up an instance of a reactor, as WASI's toolchains call a library.
pub(super) const INITIALIZE: &str = "_initialize";
/// The function that is told that an instance continues from a snapshot.
pub(super) const RESUME: (&str, &str) = ("hotslot_resume", "() -> i64");
/// The function that is the whole of a command, as WASI's toolchains call a program.
pub(super) const START: &str = "_start";

/// Where a module's exports are, looked up by name once per module.
pub(super) struct ExportIndex {
    all: HashMap<Box<str>, ModuleExport>,
    /// The name of the module's memory: it has at most one.
    pub(super) memory: Option<Arc<str>>,
}

impl ExportIndex {
    pub(super) fn of(module: &Module) -> ExportIndex {
        let memory = module.exports().find(|export| export.ty().memory().is_some());
        let exports = module.exports();
        ExportIndex {
            memory: memory.map(|export| export.name().into()),
            all: exports
                .filter_map(|export| Some((export.name().into(), module.get_export_index(export.name())?)))
                .collect(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&ModuleExport> {
        self.all.get(name)
    }
}
