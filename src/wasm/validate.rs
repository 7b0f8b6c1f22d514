//! Validates a module before it is compiled, in one pass: well-formed, within limits, with the right imports and exports.
//!
//! A few megabytes of perfectly valid code can make a compiler take minutes and gigabytes, so limits come before
//! validation, and validation before compilation. Counts are checked against their limits before anything is allocated
//! for them.

use std::collections::HashMap;

use wasmparser::{
    CompositeInnerType, FuncToValidate, FuncValidatorAllocations, FunctionBody, ModuleArity, Parser, Payload, TypeRef,
    ValidPayload, Validator, ValidatorResources, WasmFeatures, types,
};

use super::effort::{Effort, Initialisation};
use super::error::ModuleError;
use super::exports::{INITIALIZE, INTERFACE_EXPORTS, RESUME, START, STATE_EXPORTS};
use super::module_limits::ModuleLimits;
use super::sections::Sections;
use super::signature::{HostImports, Offered, Signature};
use crate::Manifest;
use crate::text::plugin_text;

/// The proposals that a module may use: those that compilers use by default.
///
/// Not enabled are, among others, 64-bit and multiple memories, threads, garbage collection and exceptions.
pub(super) const PROPOSALS: WasmFeatures =
    WasmFeatures::WASM2.union(WasmFeatures::EXTENDED_CONST).difference(WasmFeatures::GC_TYPES);

/// What a backend requires of a module.
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
pub(super) fn check(bytes: &[u8], requirements: &Requirements, imports: &HostImports) -> Result<Manifest, ModuleError> {
    at_most("bytes of module", bytes.len(), requirements.limits.size, 0)?;
    if Parser::is_component(bytes) {
        return Err(ModuleError::Component);
    }
    tracing::trace!(bytes = bytes.len(), "module parsed");
    let mut validator = Validator::new_with_features(PROPOSALS);
    let mut parser = Parser::new(0);
    parser.set_features(PROPOSALS);
    let mut pass = Pass {
        requirements,
        imports,
        sections: Sections::default(),
        functions: FuncValidatorAllocations::default(),
        effort: Effort::default(),
        initialisation: Initialisation::default(),
        has_memory: false,
        imports_memory: false,
    };
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
    imports: &'a HostImports,
    sections: Sections,
    functions: FuncValidatorAllocations,
    effort: Effort,
    initialisation: Initialisation,
    /// It defines a memory.
    has_memory: bool,
    /// It imports the host's.
    imports_memory: bool,
}

impl Pass<'_> {
    /// Checks a section against its limits, before it is read.
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

    /// Inspects a section that is known to be valid.
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
                let mut unfit = Vec::new();
                for import in section.clone().into_imports_with_offsets() {
                    let (offset, import) = import?;
                    unfit.extend(self.import(import, offset, known).err());
                }
                match unfit.len() {
                    0 => Ok(()),
                    1 => Err(unfit.remove(0)),
                    _ => Err(ModuleError::Imports { imports: unfit }),
                }
            }
            Payload::MemorySection(section) => section.clone().into_iter_with_offsets().try_for_each(|memory| {
                let (offset, memory) = memory?;
                self.has_memory = true;
                let bytes = memory.initial.saturating_mul(1 << 16);
                at_most("bytes of memory from the start", bytes, self.requirements.memory, offset)
            }),
            Payload::TableSection(section) => section.clone().into_iter_with_offsets().try_for_each(|table| {
                let (offset, table) = table?;
                if let wasmparser::TableInit::Expr(expression) = &table.init {
                    self.initialisation.expression(expression)?;
                    self.initialisation.check(&self.requirements.limits, offset)?;
                }
                at_most("table elements from the start", table.ty.initial, self.requirements.table_elements, offset)
            }),
            Payload::GlobalSection(section) => section.clone().into_iter_with_offsets().try_for_each(|global| {
                let (offset, global) = global?;
                self.initialisation.expression(&global.init_expr)?;
                self.initialisation.check(&self.requirements.limits, offset)
            }),
            Payload::ElementSection(section) => section.clone().into_iter_with_offsets().try_for_each(|segment| {
                let (offset, segment) = segment?;
                self.initialisation.segment(segment)?;
                self.initialisation.check(&self.requirements.limits, offset)
            }),
            Payload::DataSection(section) => section.clone().into_iter_with_offsets().try_for_each(|segment| {
                let (offset, segment) = segment?;
                if let wasmparser::DataKind::Active { offset_expr, .. } = &segment.kind {
                    self.initialisation.expression(offset_expr)?;
                    self.initialisation.check(&self.requirements.limits, offset)?;
                }
                Ok(())
            }),
            Payload::CustomSection(section) => {
                self.sections.read(section.name(), section.data(), section.data_offset())
            }
            _ => Ok(()),
        }
    }

    fn import(
        &mut self,
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
                Offered::Function(signature(known, known.core_type_at_in_module(index)))
            }
            TypeRef::Memory(ty) => Offered::Memory { minimum: ty.initial, maximum: ty.maximum },
            TypeRef::Table(ty) if ty.element_type == wasmparser::RefType::FUNCREF => {
                Offered::Table { minimum: ty.initial, maximum: ty.maximum }
            }
            TypeRef::Global(ty) => Offered::Global { ty: ty.content_type.to_string(), is_mutable: ty.mutable },
            TypeRef::Table(_) | TypeRef::Tag(_) => {
                let found = if matches!(import.ty, TypeRef::Tag(_)) { "a tag" } else { "a table of other references" };
                let (found, offered) = (found.to_owned(), offered.to_string());
                return Err(ModuleError::WrongImport { module, name, found, offered, offset });
            }
        };
        if !offered.fits(&found) {
            let (found, offered) = (found.to_string(), offered.to_string());
            return Err(ModuleError::WrongImport { module, name, found, offered, offset });
        }
        match offered {
            Offered::Memory { minimum, .. } => {
                self.imports_memory = true;
                let bytes = minimum.saturating_mul(1 << 16);
                at_most("bytes of memory from the start", bytes, self.requirements.memory, offset)
            }
            Offered::Table { minimum, .. } => {
                at_most("table elements from the start", *minimum, self.requirements.table_elements, offset)
            }
            Offered::Function(_) | Offered::Global { .. } => Ok(()),
        }
    }

    /// Validates one function, and counts what makes its compilation expensive.
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

        let arity = validator.get_control_frame(0).and_then(|frame| validator.block_type_arity(frame.block_type));
        let (params, results) = arity.unwrap_or_default();
        let mut effort = Effort::of_function(u64::from(params) + u64::from(results));
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            effort.count(&operator, &validator);
            validator.op(offset, &operator)?;
            // The function itself is the outermost block.
            let nesting = validator.control_stack_height().saturating_sub(1);
            limit("nested blocks", nesting.into(), limits.nesting.into(), offset)?;
            limit("operands on the stack", validator.operand_stack_height().into(), limits.operands.into(), offset)?;
            limit("locals times loops", effort.loops * locals, limits.loop_locals, offset)?;
            effort.check_function(limits, offset, index)?;
        }
        operators.finish()?;
        self.effort.add(&effort);
        self.effort.check_total(limits, offset)?;
        self.functions = validator.into_allocations();
        Ok(())
    }

    /// Checks for the exports that the backend requires, and those that a schema and a contract promise.
    fn exports(&self, types: types::TypesRef<'_>) -> Result<(), ModuleError> {
        let exported: HashMap<_, _> = types.core_exports().into_iter().flatten().collect();
        let is_function =
            |name| matches!(exported.get(name), Some(types::EntityType::Func(_) | types::EntityType::FuncExact(_)));
        if is_function(START) && !self.requirements.exports.iter().any(|(name, _)| name == START) {
            return Err(ModuleError::Command);
        }
        if !self.imports_memory
            && !exported.values().any(|item| matches!(item, types::EntityType::Memory(_)))
            && let Some(reason) = self.needs_memory(types)
        {
            return Err(ModuleError::NoMemory { reason });
        }
        let promised = STATE_EXPORTS.map(|(name, signature)| (name.to_owned(), Signature::parse(signature)));
        let promised = self.sections.manifest.schema.iter().flat_map(|_| &promised);
        let interface = INTERFACE_EXPORTS.map(|(name, signature)| (name.to_owned(), Signature::parse(signature)));
        let promised = promised.chain(self.sections.manifest.contract.iter().flat_map(|_| &interface));
        let optional =
            [(INITIALIZE, "()"), RESUME].map(|(name, signature)| (name.to_owned(), Signature::parse(signature)));
        let promised = promised.chain(optional.iter().filter(|(name, _)| exported.contains_key(name.as_str())));
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

    /// Returns for what the host has to reach the module's memory, if it is known to.
    fn needs_memory(&self, types: types::TypesRef<'_>) -> Option<String> {
        let is_interface = |name: &str| INTERFACE_EXPORTS.iter().any(|(known, _)| *known == name);
        if self.sections.manifest.contract.is_some()
            || self.requirements.exports.iter().any(|(name, _)| is_interface(name))
        {
            return Some("calls of an interface go through it".to_owned());
        }
        if !self.has_memory {
            // What it exports or imports besides, it cannot use.
            return None;
        }
        if self.sections.manifest.schema.is_some() {
            return Some("its state goes through it".to_owned());
        }
        let mut imports = types.core_imports().into_iter().flatten();
        let reads = |name| matches!(name, "log" | "event" | "send" | "panicked" | "service" | "invoke");
        let (_, name, _) = imports.find(|(module, name, _)| *module == "hotslot" && reads(*name))?;
        Some(format!("the import `hotslot` `{name}` reads it"))
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

/// Makes a name from the module safe to print.
pub(super) fn shown(name: &str) -> String {
    plugin_text(name.as_bytes(), 256)
}
