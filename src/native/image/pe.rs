//! What a PE image asks of the loader: the tables of its data directories, and the flags of its headers.
//!
//! Damage in these tables is the loader's to report: reading ends there, and what was read holds.

use object::LittleEndian as LE;
use object::pe;
use object::read::pe::{ExportTarget, ImageNtHeaders, ImageOptionalHeader, PeFile};

use super::elf::Facts;
use crate::{ProcessEffect, Protection};

/// More entries of a table than these are not read.
const MOST: usize = 4096;

/// Reads what `file` asks of the loader.
pub(super) fn read<P: ImageNtHeaders>(file: &PeFile<'_, P>) -> Facts {
    let mut facts = Facts::default();
    imports(file, &mut facts);
    delayed_imports(file, &mut facts);
    exports(file, &mut facts);
    let header = file.nt_headers().optional_header();
    let flags = header.dll_characteristics().0;
    if flags & pe::IMAGE_DLLCHARACTERISTICS_GUARD_CF.0 != 0 {
        facts.properties.protections.push(Protection::ControlFlowGuard);
    }
    let both = pe::IMAGE_SCN_MEM_WRITE.0 | pe::IMAGE_SCN_MEM_EXECUTE.0;
    if file.section_table().iter().any(|section| section.characteristics.get(LE).0 & both == both) {
        facts.effects.push(ProcessEffect::WritableCode);
    }
    if flags & pe::IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE.0 == 0 {
        facts.remarks.push("it asks for a fixed address (no /DYNAMICBASE)".to_owned());
    }
    if header.address_of_entry_point() != 0 {
        facts
            .remarks
            .push("it runs code of its own when it is loaded, and for every thread that starts (DllMain)".to_owned());
    }
    let callbacks = callbacks(file).unwrap_or(0);
    if callbacks > 0 {
        facts.remarks.push(format!(
            "it runs code of its own before that, and for every thread that starts ({callbacks} TLS callbacks)"
        ));
    }
    facts
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn note(needed: &mut Vec<String>, library: String) {
    // Windows does not tell cases apart.
    if needed.iter().all(|known| !known.eq_ignore_ascii_case(&library)) {
        needed.push(library);
    }
}

fn imports<P: ImageNtHeaders>(file: &PeFile<'_, P>, facts: &mut Facts) {
    let Ok(Some(table)) = file.import_table() else { return };
    let Ok(mut descriptors) = table.descriptors() else { return };
    for _ in 0..MOST {
        let Ok(Some(descriptor)) = descriptors.next() else { return };
        let Ok(library) = table.name(descriptor.name.get(LE)) else { return };
        note(&mut facts.needed, name(library));
    }
}

fn delayed_imports<P: ImageNtHeaders>(file: &PeFile<'_, P>, facts: &mut Facts) {
    let Ok(Some(table)) = file.delay_load_import_table() else { return };
    let Ok(mut descriptors) = table.descriptors() else { return };
    for _ in 0..MOST {
        let Ok(Some(descriptor)) = descriptors.next() else { return };
        let Ok(library) = table.name(descriptor.dll_name_rva.get(LE)) else { return };
        let library = name(library);
        facts.remarks.push(format!("{library}: it is loaded when it is first used (delay-loaded)"));
        note(&mut facts.needed, library);
    }
}

/// Its own name, and the libraries to which it only passes on.
fn exports<P: ImageNtHeaders>(file: &PeFile<'_, P>, facts: &mut Facts) {
    let Ok(Some(table)) = file.export_table() else { return };
    facts.soname = table.name_from_pointer(table.directory().name.get(LE)).ok().map(name);
    let mut passed_on = Vec::new();
    for export in table.exports().into_iter().flatten().take(MOST) {
        let target = match export.target {
            ExportTarget::ForwardByOrdinal(library, _) | ExportTarget::ForwardByName(library, _) => library,
            ExportTarget::Address(_) => continue,
        };
        note(&mut passed_on, name(target));
    }
    let remark = |library| format!("{library}: some of its exports are that library's (forwarded)");
    facts.remarks.extend(passed_on.into_iter().map(remark));
}

/// How many functions run for each thread, by the directory of thread-local storage.
fn callbacks<P: ImageNtHeaders>(file: &PeFile<'_, P>) -> Option<usize> {
    let headers = file.nt_headers();
    let (wide, base) = (headers.is_type_64(), headers.optional_header().image_base());
    let word = |bytes: &[u8], at: usize| -> Option<u64> {
        let end = at.checked_add(if wide { 8 } else { 4 })?;
        let bytes = bytes.get(at..end)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let (address, _) = file.data_directory(pe::IMAGE_DIRECTORY_ENTRY_TLS)?.address_range();
    let at = |address: u32| file.section_table().pe_data_at(file.data(), address);
    // The fourth word of the directory: the address, in memory, of a list that ends with a zero.
    let list = word(at(address).filter(|_| address != 0)?, if wide { 24 } else { 12 })?;
    let list = at(u32::try_from(list.checked_sub(base)?).ok()?)?;
    let size = if wide { 8 } else { 4 };
    Some((0..MOST).take_while(|index| word(list, index * size).is_some_and(|callback| callback != 0)).count())
}
