//! What a Mach-O image asks of the loader: its load commands, the kinds of its sections, and its weak definitions.
//!
//! Damage in these tables is the loader's to report: reading ends there, and what was read holds.

use object::macho;
use object::read::macho::{LoadCommandVariant, MachHeader, MachOFile, Nlist, Section, Segment};

use super::elf::Facts;
use crate::ProcessEffect;

/// Reads what `file` asks of the loader.
pub(super) fn read<'data, M: MachHeader>(file: &MachOFile<'data, M>) -> Facts {
    let (mut facts, mut sections) = (Facts::default(), Sections::default());
    commands(file, &mut facts, &mut sections);
    let flags = file.macho_header().flags(file.endian());
    let has = |flag: macho::FileFlags| flags.0 & flag.0 != 0;
    if has(macho::MH_FORCE_FLAT) || !has(macho::MH_TWOLEVEL) {
        let text = "its symbols are looked up in all that is loaded, and not in the library that it was linked with (flat namespace)";
        facts.remarks.push(text.to_owned());
    }
    if sections.initializers > 0 {
        facts
            .remarks
            .push(format!("it runs code of its own when it is loaded ({} initializers)", sections.initializers));
    }
    if sections.terminators > 0 {
        facts
            .remarks
            .push(format!("it runs code of its own when it is unloaded ({} terminators)", sections.terminators));
    }
    if sections.has_thread_locals {
        facts
            .remarks
            .push("it has thread-local variables, and is not unmapped by the system (S_THREAD_LOCAL)".to_owned());
    }
    weak_definitions(file, &sections, &mut facts);
    facts
}

/// What is known of all sections.
#[derive(Default)]
struct Sections {
    initializers: u64,
    terminators: u64,
    has_thread_locals: bool,
    /// By the numbers that symbols give, less one.
    holds_code: Vec<bool>,
}

fn commands<M: MachHeader>(file: &MachOFile<'_, M>, facts: &mut Facts, sections: &mut Sections) {
    let endian = file.endian();
    let Ok(mut commands) = file.macho_load_commands() else { return };
    while let Ok(Some(command)) = commands.next() {
        let text = |bytes: object::Result<&[u8]>| bytes.ok().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        match command.variant() {
            Ok(LoadCommandVariant::IdDylib(id)) => facts.soname = text(command.string(endian, id.dylib.name)),
            Ok(LoadCommandVariant::Rpath(path)) => facts.search_path.extend(text(command.string(endian, path.path))),
            Ok(LoadCommandVariant::Dylib(library)) => {
                let Some(name) = text(command.string(endian, library.dylib.name)) else { continue };
                let remark = match command.cmd() {
                    macho::LC_LOAD_WEAK_DYLIB => Some("it does without, if there is none (weak)"),
                    macho::LC_LAZY_LOAD_DYLIB => Some("it is loaded when it is first used (lazy)"),
                    macho::LC_REEXPORT_DYLIB => Some("its symbols count as the image's own (re-exported)"),
                    _ => None,
                };
                facts.remarks.extend(remark.map(|remark| format!("{name}: {remark}")));
                if !facts.needed.contains(&name) {
                    facts.needed.push(name);
                }
            }
            _ => {
                if let Ok(Some((segment, data))) = M::Segment::from_command(command) {
                    segment_facts::<M>(segment, data, endian, facts, sections);
                }
            }
        }
    }
}

fn segment_facts<M: MachHeader>(
    segment: &M::Segment,
    data: &[u8],
    endian: M::Endian,
    facts: &mut Facts,
    sections: &mut Sections,
) {
    let protection = segment.initprot(endian).0;
    let both = macho::VM_PROT_WRITE.0 | macho::VM_PROT_EXECUTE.0;
    if protection & both == both && !facts.effects.contains(&ProcessEffect::WritableCode) {
        facts.effects.push(ProcessEffect::WritableCode);
    }
    for section in segment.sections(endian, data).unwrap_or_default() {
        let flags = section.flags(endian);
        let entries = |size: u64| section.size(endian).into() / size;
        match flags.typ() {
            macho::S_MOD_INIT_FUNC_POINTERS => sections.initializers += entries(u64::from(M::pointer_size())),
            // Distances of four bytes in the place of pointers.
            macho::S_INIT_FUNC_OFFSETS => sections.initializers += entries(4),
            macho::S_MOD_TERM_FUNC_POINTERS => sections.terminators += entries(u64::from(M::pointer_size())),
            macho::S_INTERPOSING if !facts.effects.contains(&ProcessEffect::Interposer) => {
                facts.effects.push(ProcessEffect::Interposer);
            }
            macho::S_THREAD_LOCAL_REGULAR
            | macho::S_THREAD_LOCAL_ZEROFILL
            | macho::S_THREAD_LOCAL_VARIABLES
            | macho::S_THREAD_LOCAL_INIT_FUNCTION_POINTERS => sections.has_thread_locals = true,
            _ => {}
        }
        let code = macho::S_ATTR_PURE_INSTRUCTIONS.0 | macho::S_ATTR_SOME_INSTRUCTIONS.0;
        sections.holds_code.push(flags.0 & code != 0);
    }
}

/// Weak definitions of data: the loader takes the first one of all images, as with `STB_GNU_UNIQUE`. Those of functions do the same
/// wherever they are.
fn weak_definitions<M: MachHeader>(file: &MachOFile<'_, M>, sections: &Sections, facts: &mut Facts) {
    let (endian, symbols) = (file.endian(), file.macho_symbol_table());
    for symbol in symbols.iter() {
        let kind = symbol.n_type().0;
        let is_seen = kind & macho::N_EXT.0 != 0 && kind & macho::N_PEXT.0 == 0;
        let is_weak = symbol.n_desc(endian).0 & macho::N_WEAK_DEF.0 != 0;
        let section = usize::from(symbol.n_sect()).checked_sub(1);
        let is_data = section.and_then(|at| sections.holds_code.get(at)).is_some_and(|holds_code| !holds_code);
        if symbol.is_definition() && is_seen && is_weak && is_data {
            let Ok(name) = symbol.name(endian, symbols.strings()) else { return };
            let name = name.strip_prefix(b"_").unwrap_or(name);
            facts.unique_symbols.push(String::from_utf8_lossy(name).into_owned());
        }
    }
}
