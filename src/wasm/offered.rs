//! Memories, tables and globals of the host that modules can import. Each instance gets its own.

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::{
    Extern, ExternType, Global, GlobalType, Instance, Linker, Memory, MemoryType, Module, Mutability, Ref, RefType,
    Store, Table, TableType, V128, Val, ValType,
};

use super::host::StoreData;
use super::signature::Offered;

/// What is offered, by module and name.
#[derive(Clone, Default)]
pub(super) struct HostItems(HashMap<(String, String), HostItem>);

/// What is made for each instance that imports it.
#[derive(Clone, Copy)]
pub(super) enum HostItem {
    /// Pages of 64 KiB.
    Memory {
        minimum: u32,
        maximum: Option<u32>,
    },
    /// Elements, all null.
    Table {
        minimum: u32,
        maximum: Option<u32>,
    },
    Global {
        value: Number,
        is_mutable: bool,
    },
}

/// The value of a global that belongs to no store.
#[derive(Clone, Copy)]
pub(super) enum Number {
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
    V128(u128),
}

impl Number {
    /// Returns nothing for a reference.
    pub(super) fn of(value: Val) -> Option<Number> {
        Some(match value {
            Val::I32(value) => Number::I32(value),
            Val::I64(value) => Number::I64(value),
            Val::F32(bits) => Number::F32(bits),
            Val::F64(bits) => Number::F64(bits),
            Val::V128(value) => Number::V128(value.as_u128()),
            _ => return None,
        })
    }

    fn value(self) -> (ValType, Val) {
        match self {
            Number::I32(value) => (ValType::I32, Val::I32(value)),
            Number::I64(value) => (ValType::I64, Val::I64(value)),
            Number::F32(bits) => (ValType::F32, Val::F32(bits)),
            Number::F64(bits) => (ValType::F64, Val::F64(bits)),
            Number::V128(value) => (ValType::V128, Val::V128(V128::from(value))),
        }
    }
}

impl HostItem {
    fn make(self, store: &mut Store<StoreData>) -> wasmtime::Result<Extern> {
        Ok(match self {
            HostItem::Memory { minimum, maximum } => Memory::new(store, MemoryType::new(minimum, maximum))?.into(),
            HostItem::Table { minimum, maximum } => {
                let ty = TableType::new(RefType::FUNCREF, minimum, maximum);
                Table::new(store, ty, Ref::Func(None))?.into()
            }
            HostItem::Global { value, is_mutable } => {
                let (ty, value) = value.value();
                let mutability = if is_mutable { Mutability::Var } else { Mutability::Const };
                Global::new(store, GlobalType::new(ty, mutability), value)?.into()
            }
        })
    }

    /// Describes it for admission.
    fn offered(self) -> Offered {
        match self {
            HostItem::Memory { minimum, maximum } => {
                Offered::Memory { minimum: minimum.into(), maximum: maximum.map(u64::from) }
            }
            HostItem::Table { minimum, maximum } => {
                Offered::Table { minimum: minimum.into(), maximum: maximum.map(u64::from) }
            }
            HostItem::Global { value, is_mutable } => Offered::Global { ty: value.value().0.to_string(), is_mutable },
        }
    }
}

impl HostItems {
    pub(super) fn insert(&mut self, module: String, name: String, item: HostItem) {
        self.0.insert((module, name), item);
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.keys()
    }

    pub(super) fn offered(&self) -> impl Iterator<Item = ((String, String), Offered)> {
        self.0.iter().map(|(name, item)| (name.clone(), item.offered()))
    }
}

/// A module that imports some of them, so that each instance is linked anew.
pub(super) struct LinkedEach {
    module: Module,
    linker: Linker<StoreData>,
    items: Arc<HostItems>,
}

impl LinkedEach {
    /// Returns nothing for a module that imports functions only.
    pub(super) fn of(module: &Module, linker: &Linker<StoreData>, items: &Arc<HostItems>) -> Option<LinkedEach> {
        let needs_it = module.imports().any(|import| !matches!(import.ty(), ExternType::Func(_)));
        let each = || LinkedEach { module: module.clone(), linker: linker.clone(), items: Arc::clone(items) };
        needs_it.then(each)
    }

    pub(super) fn module(&self) -> &Module {
        &self.module
    }

    /// Makes what the module imports, and an instance. The store learns of the memory, which `start` may use already.
    pub(super) fn instantiate(&self, store: &mut Store<StoreData>) -> wasmtime::Result<Instance> {
        // What is imported twice is the same thing twice.
        let mut made: HashMap<(&str, &str), Extern> = HashMap::new();
        let mut imports = Vec::new();
        for import in self.module.imports() {
            let name = (import.module(), import.name());
            let item = match (made.get(&name), self.items.0.get(&(name.0.to_owned(), name.1.to_owned()))) {
                (Some(item), _) => item.clone(),
                (None, Some(item)) => item.make(store)?,
                (None, None) => self.linker.get_by_import(&mut *store, &import).ok_or_else(|| {
                    wasmtime::Error::msg(format!("`{}` `{}` is not offered", import.module(), import.name()))
                })?,
            };
            if let Extern::Memory(memory) = &item {
                store.data_mut().memory = Some(*memory);
            }
            made.insert(name, item.clone());
            imports.push(item);
        }
        Instance::new(store, &self.module, &imports)
    }
}
