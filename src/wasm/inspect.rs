//! Describes a module without admitting it: manifest, imports and exports.

use wasmparser::types::{EntityType, TypesRef};
use wasmparser::{Parser, Payload, ValidPayload, Validator};

use super::error::ModuleError;
use super::sections::Sections;
use super::validate::{PROPOSALS, shown, signature};
use crate::{Inspection, Manifest};

pub(crate) fn inspect(bytes: &[u8]) -> Result<Inspection, ModuleError> {
    if Parser::is_component(bytes) {
        return Err(ModuleError::Component);
    }
    let mut validator = Validator::new_with_features(PROPOSALS);
    let mut parser = Parser::new(0);
    parser.set_features(PROPOSALS);
    let mut sections = Sections::default();
    for payload in parser.parse_all(bytes) {
        let payload = payload?;
        // Admission validates the bodies of functions.
        if let ValidPayload::End(types) = validator.payload(&payload)? {
            let types = types.as_ref();
            let imports = types.core_imports().into_iter().flatten();
            let exports = types.core_exports().into_iter().flatten();
            let manifest = sections.manifest;
            return Ok(Inspection {
                linkage: None,
                format: "WebAssembly",
                architecture: "wasm32".to_owned(),
                manifest: (manifest != Manifest::default()).then_some(manifest),
                imports: imports
                    .map(|(module, name, ty)| item(types, &format!("{}.{}", shown(module), shown(name)), &ty))
                    .collect(),
                exports: exports.map(|(name, ty)| item(types, &shown(name), &ty)).collect(),
            });
        }
        if let Payload::CustomSection(section) = &payload {
            sections.read(section.name(), section.data(), section.data_offset())?;
        }
    }
    Err(ModuleError::Malformed { offset: bytes.len(), reason: "it has no end".to_owned() })
}

fn item(types: TypesRef<'_>, name: &str, ty: &EntityType) -> String {
    match ty {
        EntityType::Func(id) | EntityType::FuncExact(id) => format!("{name}{}", signature(types, *id)),
        EntityType::Table(_) => format!("{name}: table"),
        EntityType::Memory(_) => format!("{name}: memory"),
        EntityType::Global(_) => format!("{name}: global"),
        EntityType::Tag(_) => format!("{name}: tag"),
    }
}
