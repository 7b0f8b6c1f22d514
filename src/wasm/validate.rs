//! One pass over a module before the compiler sees it: is it valid, is it small enough, does it fit.
//!
//! A compiler can be made to take minutes and gigabytes by a few megabytes that are perfectly valid, so the limits come
//! before validation, and validation before compilation. Counts are held against their limits before anything is
//! allocated for them.

use std::collections::HashMap;

use wasmparser::{
    CompositeInnerType, FuncToValidate, FuncValidatorAllocations, FunctionBody, Operator, Parser, Payload, TypeRef,
    ValidPayload, Validator, ValidatorResources, WasmFeatures, types,
};

use super::error::ModuleError;
use super::exports::{INTERFACE_EXPORTS, STATE_EXPORTS};
use super::sections::Sections;
use super::signature::{ImportSignatures, Signature};
use crate::Manifest;
use crate::text::plugin_text;

/// The proposals that a module may use: what compilers for WebAssembly produce by default.
///
/// Off are, among others, 64-bit and multiple memories, threads, garbage collection and exceptions.
pub(super) const PROPOSALS: WasmFeatures =
    WasmFeatures::WASM2.union(WasmFeatures::EXTENDED_CONST).difference(WasmFeatures::GC_TYPES);

/// How much of everything a module may have. What is not named here, a plugin has no need for.
///
/// The defaults let ordinary plugins in, and keep the time and the memory that a compilation takes within seconds and a
/// few hundred megabytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleLimits {
    /// Bytes. 8 MiB.
    pub size: usize,
    /// Functions that it defines. 20,000.
    pub functions: u32,
    /// Bytes of one function. 256 KiB.
    pub body: usize,
    /// Blocks within blocks of one function. 256.
    pub nesting: u32,
    /// Locals of one function, its parameters included. 5,000.
    pub locals: u32,
    /// Locals times loops of one function: what the compiler's work grows with. 1,000,000.
    pub loop_locals: u64,
    /// Types. 2,000.
    pub types: u32,
    /// Parameters and results of one type. 64.
    pub arity: usize,
    /// Imports. 200.
    pub imports: u32,
    /// Exports. 1,000.
    pub exports: u32,
    /// Globals. 10,000.
    pub globals: u32,
    /// Data segments. 10,000.
    pub data_segments: u32,
    /// Element segments. 1,000.
    pub element_segments: u32,
    /// Tables; 4 are the most that an engine has room for. 4.
    pub tables: u32,
}

impl Default for ModuleLimits {
    fn default() -> ModuleLimits {
        ModuleLimits {
            size: 8 << 20,
            functions: 20_000,
            body: 256 << 10,
            nesting: 256,
            locals: 5_000,
            loop_locals: 1_000_000,
            types: 2_000,
            arity: 64,
            imports: 200,
            exports: 1_000,
            globals: 10_000,
            data_segments: 10_000,
            element_segments: 1_000,
            tables: 4,
        }
    }
}

/// What a module has to be like.
#[derive(Debug, Default)]
pub(super) struct Requirements {
    pub(super) limits: ModuleLimits,
    /// The memory that an instance may have, in bytes.
    pub(super) memory: usize,
    /// The elements that a table may have.
    pub(super) table_elements: usize,
    pub(super) exports: Vec<(String, Signature)>,
    pub(super) interface: Option<String>,
}

/// Checks a module in one pass, and returns its manifest, or what is wrong with it and where.
pub(super) fn check(
    bytes: &[u8],
    requirements: &Requirements,
    imports: &ImportSignatures,
) -> Result<Manifest, ModuleError> {
    at_most("bytes of module", bytes.len(), requirements.limits.size, 0)?;
    if Parser::is_component(bytes) {
        return Err(ModuleError::Component);
    }
    tracing::trace!(bytes = bytes.len(), "module parsed");
    let mut validator = Validator::new_with_features(PROPOSALS);
    let mut parser = Parser::new(0);
    parser.set_features(PROPOSALS);
    let mut pass =
        Pass { requirements, imports, sections: Sections::default(), functions: FuncValidatorAllocations::default() };
    for payload in parser.parse_all(bytes) {
        let payload = payload?;
        pass.measure(&payload)?;
        match validator.payload(&payload)? {
            ValidPayload::Func(function, body) => pass.function(function, &body)?,
            ValidPayload::End(types) => {
                pass.exports(types.as_ref())?;
                return pass.manifest();
            }
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
        pass.look(&payload, &validator)?;
    }
    Err(ModuleError::Malformed { offset: bytes.len(), reason: "it has no end".to_owned() })
}

struct Pass<'a> {
    requirements: &'a Requirements,
    imports: &'a ImportSignatures,
    sections: Sections,
    functions: FuncValidatorAllocations,
}

impl Pass<'_> {
    /// Holds a section against its limits, before it is read.
    fn measure(&self, payload: &Payload<'_>) -> Result<(), ModuleError> {
        let limits = &self.requirements.limits;
        match payload {
            Payload::TypeSection(section) => at_most("types", section.count(), limits.types, section.range().start),
            Payload::ImportSection(section) => {
                at_most("imports", section.count(), limits.imports, section.range().start)
            }
            Payload::FunctionSection(section) => {
                at_most("functions", section.count(), limits.functions, section.range().start)
            }
            Payload::TableSection(section) => at_most("tables", section.count(), limits.tables, section.range().start),
            Payload::MemorySection(section) => at_most("memories", section.count(), 1_u32, section.range().start),
            Payload::GlobalSection(section) => {
                at_most("globals", section.count(), limits.globals, section.range().start)
            }
            Payload::ExportSection(section) => {
                at_most("exports", section.count(), limits.exports, section.range().start)
            }
            Payload::ElementSection(section) => {
                at_most("element segments", section.count(), limits.element_segments, section.range().start)
            }
            Payload::DataSection(section) => {
                at_most("data segments", section.count(), limits.data_segments, section.range().start)
            }
            Payload::CodeSectionEntry(body) => {
                at_most("bytes of code", body.range().len(), limits.body, body.range().start)
            }
            _ => Ok(()),
        }
    }

    /// Looks into a section that is known to be valid.
    fn look(&mut self, payload: &Payload<'_>, validator: &Validator) -> Result<(), ModuleError> {
        match payload {
            Payload::TypeSection(section) => section.clone().into_iter_with_offsets().try_for_each(|group| {
                let (offset, group) = group?;
                group.types().try_for_each(|subtype| match &subtype.composite_type.inner {
                    CompositeInnerType::Func(function) => {
                        let arity = function.params().len().max(function.results().len());
                        at_most("parameters or results of a type", arity, self.requirements.limits.arity, offset)
                    }
                    _ => Ok(()),
                })
            }),
            Payload::ImportSection(section) => {
                let known = validator.types(0).expect("a module is being validated");
                for import in section.clone().into_imports_with_offsets() {
                    let (offset, import) = import?;
                    self.import(import, offset, known)?;
                }
                Ok(())
            }
            Payload::MemorySection(section) => section.clone().into_iter_with_offsets().try_for_each(|memory| {
                let (offset, memory) = memory?;
                let bytes = memory.initial.saturating_mul(1 << 16);
                at_most("bytes of memory from the start", bytes, self.requirements.memory, offset)
            }),
            Payload::TableSection(section) => section.clone().into_iter_with_offsets().try_for_each(|table| {
                let (offset, table) = table?;
                at_most("table elements from the start", table.ty.initial, self.requirements.table_elements, offset)
            }),
            Payload::CustomSection(section) => {
                self.sections.read(section.name(), section.data(), section.data_offset())
            }
            _ => Ok(()),
        }
    }

    fn import(
        &self,
        import: wasmparser::Import<'_>,
        offset: usize,
        known: types::TypesRef<'_>,
    ) -> Result<(), ModuleError> {
        let (module, name) = (shown(import.module), shown(import.name));
        let Some(offered) = self.imports.get(&(import.module.to_owned(), import.name.to_owned())) else {
            return Err(ModuleError::UnknownImport { module, name, offset });
        };
        let found = match import.ty {
            TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                let signature = signature(known, known.core_type_at_in_module(index));
                if signature == *offered {
                    return Ok(());
                }
                format!("a function {signature}")
            }
            TypeRef::Table(_) => "a table".to_owned(),
            TypeRef::Memory(_) => "a memory".to_owned(),
            TypeRef::Global(_) => "a global".to_owned(),
            TypeRef::Tag(_) => "a tag".to_owned(),
        };
        Err(ModuleError::WrongImport { module, name, found, offered: format!("a function {offered}"), offset })
    }

    /// Validates one function, and counts what makes a compiler work hard.
    fn function(
        &mut self,
        function: FuncToValidate<ValidatorResources>,
        body: &FunctionBody<'_>,
    ) -> Result<(), ModuleError> {
        let limits = &self.requirements.limits;
        let mut validator = function.into_validator(std::mem::take(&mut self.functions));
        let (index, offset) = (validator.index(), body.range().start);
        let limit = |what, found: u64, limit: u64, offset| match found > limit {
            true => Err(ModuleError::Limit { what, found, limit, offset, function: Some(index) }),
            false => Ok(()),
        };
        let mut declared = 0_u64;
        for group in body.get_locals_reader()? {
            declared += u64::from(group?.0);
            limit("locals", declared, limits.locals.into(), offset)?;
        }
        validator.read_locals(&mut body.get_binary_reader())?;
        let locals = u64::from(validator.len_locals());
        limit("locals", locals, limits.locals.into(), offset)?;

        let mut loops = 0;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            validator.op(offset, &operator)?;
            // The function itself is the outermost block.
            let nesting = validator.control_stack_height().saturating_sub(1);
            limit("nested blocks", nesting.into(), limits.nesting.into(), offset)?;
            loops += u64::from(matches!(operator, Operator::Loop { .. }));
            limit("locals times loops", loops * locals, limits.loop_locals, offset)?;
        }
        operators.finish()?;
        self.functions = validator.into_allocations();
        Ok(())
    }

    /// What the host asks for, what a schema promises, and what a contract does.
    fn exports(&self, types: types::TypesRef<'_>) -> Result<(), ModuleError> {
        let exported: HashMap<_, _> = types.core_exports().into_iter().flatten().collect();
        let promised = STATE_EXPORTS.map(|(name, signature)| (name.to_owned(), Signature::parse(signature)));
        let promised = self.sections.manifest.schema.iter().flat_map(|_| &promised);
        let interface = INTERFACE_EXPORTS.map(|(name, signature)| (name.to_owned(), Signature::parse(signature)));
        let promised = promised.chain(self.sections.manifest.contract.iter().flat_map(|_| &interface));
        for (name, wanted) in self.requirements.exports.iter().chain(promised) {
            let found = match exported.get(name.as_str()) {
                Some(types::EntityType::Func(id) | types::EntityType::FuncExact(id)) => {
                    let signature = signature(types, *id);
                    if signature == *wanted {
                        continue;
                    }
                    format!("a function {signature}")
                }
                Some(types::EntityType::Table(_)) => "a table".to_owned(),
                Some(types::EntityType::Memory(_)) => "a memory".to_owned(),
                Some(types::EntityType::Global(_)) => "a global".to_owned(),
                Some(types::EntityType::Tag(_)) => "a tag".to_owned(),
                None => return Err(ModuleError::MissingExport { name: name.clone(), wanted: wanted.to_string() }),
            };
            return Err(ModuleError::WrongExport { name: name.clone(), found, wanted: wanted.to_string() });
        }
        Ok(())
    }

    fn manifest(self) -> Result<Manifest, ModuleError> {
        let manifest = self.sections.manifest;
        match &self.requirements.interface {
            Some(wanted) if manifest.interface.as_ref() != Some(wanted) => {
                Err(ModuleError::Interface { found: manifest.interface, wanted: wanted.clone() })
            }
            _ => Ok(manifest),
        }
    }
}

fn at_most(
    what: &'static str,
    found: impl TryInto<u64>,
    limit: impl TryInto<u64>,
    offset: usize,
) -> Result<(), ModuleError> {
    let (found, limit) = (found.try_into().unwrap_or(u64::MAX), limit.try_into().unwrap_or(u64::MAX));
    if found > limit {
        return Err(ModuleError::Limit { what, found, limit, offset, function: None });
    }
    Ok(())
}

pub(super) fn signature(types: types::TypesRef<'_>, id: types::CoreTypeId) -> Signature {
    let function = types[id].unwrap_func();
    Signature::of(function.params(), function.results())
}

/// A name from the module, as it can be shown.
pub(super) fn shown(name: &str) -> String {
    plugin_text(name.as_bytes(), 256)
}
