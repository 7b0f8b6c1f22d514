//! What an ELF image asks of the loader, in one pass over program headers, dynamic section, symbols and relocations.
//!
//! All of it is found as the loader finds it: through the program headers, by virtual address. Sections are for linkers
//! and debuggers, may be missing, and may say something else. Every offset is checked, and no read is wider than the bytes.

use object::elf;

use super::properties::{self, Properties};
use super::versions::{self, Needs};
use super::view::{Header, View};
use super::{hash, layout};
use crate::ProcessEffect;

/// What was found.
#[derive(Clone, Debug, Default)]
pub(in crate::native) struct Facts {
    pub(in crate::native) soname: Option<String>,
    pub(in crate::native) needed: Vec<String>,
    /// The libraries of which it needs versions of symbols; by rights, they are among those that it needs.
    pub(in crate::native) versioned: Vec<String>,
    /// As it is listed: everything that the image says.
    pub(in crate::native) search_path: Vec<String>,
    /// The part that the loader looks at first, also for what the needed libraries need (`DT_RPATH`).
    pub(in crate::native) inherited_path: Vec<String>,
    /// The part that it looks at after `LD_LIBRARY_PATH`, for the image alone (`DT_RUNPATH`); if there is one, the other one does not
    /// count.
    pub(in crate::native) own_path: Option<Vec<String>>,
    /// Whether the folders of the system are left out.
    pub(in crate::native) no_default_folders: bool,
    pub(in crate::native) properties: Properties,
    pub(in crate::native) unique_symbols: Vec<String>,
    /// How many bytes each of them has, in their order; empty where that is not read.
    pub(in crate::native) unique_sizes: Vec<u64>,
    pub(in crate::native) effects: Vec<ProcessEffect>,
    pub(in crate::native) remarks: Vec<String>,
    /// How many bytes of thread-local storage it needs in the loader's fixed reserve.
    pub(in crate::native) static_tls: u64,
    /// The symbols that relocations look up by name.
    pub(in crate::native) bound: Vec<Symbol>,
    /// Why `dlopen` would refuse it, whatever is in it.
    pub(in crate::native) never_loads: Option<NeverLoads>,
}

impl Facts {
    /// Returns what a load needs of it: the symbols, of which there may be many, were for admission.
    pub(in crate::native) fn for_load(&self) -> Facts {
        let Facts { needed, search_path, inherited_path, own_path, unique_symbols, static_tls, properties, .. } = self;
        Facts {
            needed: needed.clone(),
            search_path: search_path.clone(),
            inherited_path: inherited_path.clone(),
            own_path: own_path.clone(),
            no_default_folders: self.no_default_folders,
            unique_symbols: unique_symbols.clone(),
            static_tls: *static_tls,
            properties: properties.clone(),
            ..Facts::default()
        }
    }
}

/// A symbol that the loader looks up to bind the image, in all that is global before the image itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::native) struct Symbol {
    pub(in crate::native) name: String,
    pub(in crate::native) size: u64,
    pub(in crate::native) is_data: bool,
    pub(in crate::native) is_weak: bool,
    pub(in crate::native) is_defined: bool,
    /// The library whose version of it was linked with.
    pub(in crate::native) library: Option<String>,
}

/// What a file is that has the form of a shared library, and never loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::native) enum NeverLoads {
    /// Nothing but debug symbols: what a loader would map is not there.
    DebugSymbols,
    /// A position-independent program.
    Program,
    /// Linked without a dynamic section.
    Static,
    /// Linked with `-z nodlopen`.
    NoOpen,
}

/// Reads an image of type `ET_DYN`. The error says what is damaged, as part of a sentence.
pub(super) fn read(bytes: &[u8]) -> Result<Facts, &'static str> {
    let view = View::new(bytes).ok_or("its ELF header cannot be read")?;
    let mut facts = Facts::default();
    let headers = view.program_headers().ok_or("its program headers cannot be read")?;
    let dynamic = headers.iter().find(|header| header.kind == elf::PT_DYNAMIC.0);
    // objcopy --only-keep-debug keeps the program headers and sets sizes to 0; eu-strip keeps them whole, and only the
    // section table says that there is nothing behind them.
    if dynamic.is_some_and(|header| header.file_size == 0 && header.size > 0) || view.dynamic_section_is_empty() {
        facts.never_loads = Some(NeverLoads::DebugSymbols);
        return Ok(facts);
    }
    let Some(dynamic) = dynamic else {
        facts.never_loads = Some(NeverLoads::Static);
        return Ok(facts);
    };
    layout::check(&headers)?;
    let memory = Memory { view, headers: &headers };
    let table = memory.at(dynamic.address).and_then(|bytes| Table::read(&bytes));
    let table = table.ok_or("its dynamic section cannot be read")?;
    let image = Mapped { memory, table: &table };
    image.beliefs()?;
    image.segments(&mut facts);
    facts.properties = image.properties();
    image.dynamic(&mut facts)?;
    image.symbols(&mut facts)?;
    Ok(facts)
}

/// The longest name that is kept of a symbol.
const NAME_LIMIT: usize = 1024;
/// The longest name of a library or a folder: no path is longer, and the loader has each on the stack of whoever loads.
const PATH_LIMIT: usize = 4096;
/// More libraries than any image needs.
const MOST_LIBRARIES: usize = 1000;
/// More folders than any search path has.
const MOST_FOLDERS: usize = 1000;

/// The dynamic section.
struct Table(Vec<(i64, u64)>);

impl Table {
    /// Reads it as the loader does, which knows no other end than the entry that says so.
    fn read(bytes: &View<'_>) -> Option<Table> {
        let size = bytes.by_class(16, 8);
        let mut entries = Vec::new();
        for entry in bytes.entries(0, size, bytes.bytes.len() / size)? {
            let tag = entry.word(0)?;
            let tag = if bytes.wide { tag as i64 } else { i64::from(tag as u32 as i32) };
            if tag == elf::DT_NULL.0 {
                return Some(Table(entries));
            }
            entries.push((tag, entry.word(size / 2)?));
        }
        None
    }

    fn all(&self, tag: elf::DynamicTag) -> impl Iterator<Item = u64> {
        self.0.iter().filter(move |entry| entry.0 == tag.0).map(|entry| entry.1)
    }

    /// The last one counts, as for the loader.
    fn get(&self, tag: elf::DynamicTag) -> Option<u64> {
        self.all(tag).last()
    }

    fn has(&self, tag: elf::DynamicTag) -> bool {
        self.get(tag).is_some()
    }
}

/// What is mapped of an image.
#[derive(Clone, Copy)]
struct Memory<'a> {
    view: View<'a>,
    headers: &'a [Header],
}

impl<'a> Memory<'a> {
    fn loaded(&self) -> impl Iterator<Item = &'a Header> {
        self.headers.iter().filter(|header| header.kind == elf::PT_LOAD.0)
    }

    /// What the loader maps of the file from `address` to the end of its segment.
    fn at(&self, address: u64) -> Option<View<'a>> {
        let mut holding = self.loaded().filter_map(|header| {
            let offset = address.checked_sub(header.address).filter(|offset| *offset < header.file_size)?;
            let start = usize::try_from(header.offset.checked_add(offset)?).ok()?;
            let end = usize::try_from(header.offset.checked_add(header.file_size)?).ok()?;
            self.view.bytes.get(start..end)
        });
        holding.next().map(|bytes| self.view.over(bytes))
    }

    /// Whether there is code of the image at `address`.
    fn is_code(&self, address: u64) -> bool {
        let holds = |header: &&Header| (header.address..header.address.saturating_add(header.size)).contains(&address);
        self.loaded().find(holds).is_some_and(|header| header.has(elf::PF_X))
    }

    /// Whether so many bytes from `address` on are the image's, in the file or not.
    fn holds(&self, address: u64, size: u64) -> bool {
        let Some(end) = address.checked_add(size) else { return false };
        self.loaded().any(|header| header.address <= address && end <= header.address.saturating_add(header.size))
    }
}

/// An image with what is needed to read it by address.
struct Mapped<'a> {
    memory: Memory<'a>,
    table: &'a Table,
}

impl<'a> Mapped<'a> {
    /// Checks what the loader asserts, or writes and jumps to, without a look.
    fn beliefs(&self) -> Result<(), &'static str> {
        let (table, memory) = (self.table, self.memory);
        let view = memory.view;
        for (list, entry, size) in [
            (elf::DT_RELA, elf::DT_RELAENT, view.by_class(24, 12)),
            (elf::DT_REL, elf::DT_RELENT, view.by_class(16, 8)),
            (elf::DT_RELR, elf::DT_RELRENT, view.by_class(8, 4)),
        ] {
            if table.has(list) && table.get(entry) != Some(size as u64) {
                return Err("its relocations have another size than the loader's");
            }
        }
        let explicit = Relocations::of(view.machine().unwrap_or_default()).map(|kinds| kinds.with_addends);
        let form = |explicit| if explicit { elf::DT_RELA.0 } else { elf::DT_REL.0 } as u64;
        if let (Some(found), Some(explicit)) = (table.get(elf::DT_PLTREL), explicit)
            && found != form(explicit)
        {
            return Err("its relocations of functions have another form than its machine's");
        }
        for (list, size) in [
            (elf::DT_RELA, elf::DT_RELASZ),
            (elf::DT_REL, elf::DT_RELSZ),
            (elf::DT_RELR, elf::DT_RELRSZ),
            (elf::DT_PLTREL, elf::DT_JMPREL),
            (elf::DT_PLTREL, elf::DT_PLTRELSZ),
            (elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ),
            (elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ),
            (elf::DT_VERNEED, elf::DT_VERSYM),
            (elf::DT_VERDEF, elf::DT_VERSYM),
        ] {
            if table.has(list) && !table.has(size) {
                return Err("a part of its dynamic section is missing that the loader takes for there");
            }
        }
        let counts = [
            (elf::DT_RELACOUNT, elf::DT_RELASZ, view.by_class(24, 12)),
            (elf::DT_RELCOUNT, elf::DT_RELSZ, view.by_class(16, 8)),
        ];
        for (count, bytes, size) in counts {
            if table.get(count).is_some_and(|count| count > table.get(bytes).unwrap_or(0) / size as u64) {
                return Err("it counts more relocations than it has");
            }
        }
        // Where functions have descriptors, those are data.
        let has_descriptors = view.machine() == Some(elf::EM_PPC64.0);
        let is_code = |address| memory.is_code(address) || (has_descriptors && memory.holds(address, 1));
        if [elf::DT_INIT, elf::DT_FINI].into_iter().filter_map(|tag| table.get(tag)).any(|it| !is_code(it)) {
            return Err("a function that is called when it is loaded or unloaded lies outside of its code");
        }
        for (list, size) in [(elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ), (elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ)] {
            let size = table.get(size).unwrap_or(0);
            if table.get(list).is_some_and(|list| size > 0 && !memory.holds(list, size)) {
                return Err("a list of functions that are called when it is loaded or unloaded lies outside of it");
            }
        }
        let storage = memory.headers.iter().find(|header| header.kind == elf::PT_TLS.0 && header.file_size > 0);
        if storage.is_some_and(|it| memory.at(it.address).is_none_or(|there| (there.bytes.len() as u64) < it.file_size))
        {
            return Err("the initial values of its thread-local storage lie outside of it");
        }
        self.relative()
    }

    /// Checks that the addresses in the packed list of relocations, which the loader adds to, are the image's.
    fn relative(&self) -> Result<(), &'static str> {
        let Some(address) = self.table.get(elf::DT_RELR) else { return Ok(()) };
        let (view, damaged) = (self.memory.view, "its packed relocations cannot be read");
        let word = view.by_class(8, 4) as u64;
        let count = self.table.get(elf::DT_RELRSZ).unwrap_or(0) / word;
        let count = usize::try_from(count).map_err(|_| damaged)?;
        if count == 0 {
            return Ok(());
        }
        let list = self.memory.at(address).ok_or(damaged)?;
        // Source: "SHT_RELR sections", Generic ABI: an even entry is an address, an odd one a bit for each of the words behind it.
        let mut next = None;
        for entry in list.entries(0, word as usize, count).ok_or(damaged)? {
            let entry = entry.word(0).ok_or(damaged)?;
            let (first, last, behind) = if entry & 1 == 0 {
                (entry, entry, entry.checked_add(word))
            } else {
                let first: u64 = next.ok_or(damaged)?;
                let place = |bit: u64| first.checked_add((bit - 1) * word).ok_or(damaged);
                let (lowest, highest) = ((entry & !1).trailing_zeros(), 63 - entry.leading_zeros());
                let behind = first.checked_add((word * 8 - 1) * word);
                if entry == 1 {
                    next = behind;
                    continue;
                }
                (place(lowest.into())?, place(highest.into())?, behind)
            };
            if !self.memory.holds(first, word) || !self.memory.holds(last, word) {
                return Err("a relocation changes what is not the image's");
            }
            next = behind;
        }
        Ok(())
    }

    /// The beginning of a string of the string table.
    fn text(&self, strings: &View<'_>, offset: u64) -> Option<String> {
        let bytes = strings.bytes.get(usize::try_from(offset).ok()?..)?;
        let kept = &bytes[..bytes.len().min(NAME_LIMIT)];
        // What goes on behind that ends with the table.
        let end = kept.iter().position(|byte| *byte == 0).or((bytes.last() == Some(&0)).then_some(kept.len()))?;
        Some(String::from_utf8_lossy(&kept[..end]).into_owned())
    }

    /// A whole string of the string table, unless it is longer than `most`.
    fn whole_text(&self, strings: &View<'_>, offset: u64, most: usize) -> Option<String> {
        let bytes = strings.bytes.get(usize::try_from(offset).ok()?..)?;
        let end = bytes.iter().take(most.saturating_add(1)).position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn strings(&self) -> Option<View<'a>> {
        let strings = self.memory.at(self.table.get(elf::DT_STRTAB)?)?;
        let size = usize::try_from(self.table.get(elf::DT_STRSZ)?).ok()?;
        strings.bytes.get(..size).map(|bytes| strings.over(bytes))
    }

    fn segments(&self, facts: &mut Facts) {
        let stack = self.memory.headers.iter().find(|header| header.kind == elf::PT_GNU_STACK.0);
        match stack {
            Some(header) if header.has(elf::PF_X) => facts.effects.push(ProcessEffect::ExecutableStack),
            // Without the header the loader assumes what the architecture began with.
            None => facts.effects.push(ProcessEffect::ExecutableStack),
            Some(_) => {}
        }
        if self.memory.loaded().any(|header| header.has(elf::PF_W | elf::PF_X)) {
            facts.effects.push(ProcessEffect::WritableCode);
        }
    }

    /// What the notes of the image say that it was built for.
    fn properties(&self) -> Properties {
        let Some(machine) = self.memory.view.machine() else { return Properties::default() };
        // In the loader's order: it goes through the headers from their end.
        let notes = self.memory.headers.iter().rev().filter_map(|header| {
            let mapped = self.memory.at(header.address)?;
            let size = usize::try_from(header.size).ok()?.min(mapped.bytes.len());
            Some((header, mapped.over(&mapped.bytes[..size])))
        });
        properties::read(machine, notes)
    }

    fn dynamic(&self, facts: &mut Facts) -> Result<(), &'static str> {
        let table = self.table;
        let strings = self.strings().ok_or("its dynamic string table cannot be read")?;
        let within = |most| {
            move |offset| {
                let text = self.whole_text(&strings, offset, most);
                text.ok_or("a string of its dynamic section cannot be read, or is longer than any path")
            }
        };
        let text = within(PATH_LIMIT);
        facts.soname = table.get(elf::DT_SONAME).map(text).transpose()?;
        facts.needed = table.all(elf::DT_NEEDED).map(text).collect::<Result<_, _>>()?;
        if facts.needed.len() > MOST_LIBRARIES {
            return Err("it needs more than 1000 libraries");
        }
        let folders = |tag| {
            let Some(list) = table.get(tag).map(within(MOST_FOLDERS * PATH_LIMIT)).transpose()? else {
                return Ok(Vec::new());
            };
            // Nothing between two colons is the working directory; nothing at all is no folder.
            let folders = list.split(':').filter(|_| !list.is_empty());
            let folders = folders.map(|folder| if folder.is_empty() { "." } else { folder });
            if folders.clone().count() > MOST_FOLDERS || folders.clone().any(|folder| folder.len() > PATH_LIMIT) {
                return Err("its search path has more than 1000 folders, or one that is longer than any path");
            }
            Ok::<Vec<String>, &'static str>(folders.map(str::to_owned).collect())
        };
        facts.inherited_path = folders(elf::DT_RPATH)?;
        facts.own_path = if table.has(elf::DT_RUNPATH) { Some(folders(elf::DT_RUNPATH)?) } else { None };
        facts.search_path = facts.inherited_path.iter().chain(facts.own_path.iter().flatten()).cloned().collect();

        let flags = table.get(elf::DT_FLAGS).unwrap_or(0);
        let more = table.get(elf::DT_FLAGS_1).unwrap_or(0);
        let is_set = |flag: elf::DynamicFlags1| more & flag.0 != 0;
        facts.no_default_folders = is_set(elf::DF_1_NODEFLIB);
        if table.has(elf::DT_TEXTREL) || flags & elf::DF_TEXTREL.0 != 0 {
            facts.effects.push(ProcessEffect::TextRelocations);
        }
        for (flag, effect) in [
            (elf::DF_1_GLOBAL, ProcessEffect::GlobalScope),
            (elf::DF_1_INTERPOSE, ProcessEffect::Interposer),
            (elf::DF_1_INITFIRST, ProcessEffect::InitFirst),
        ] {
            if is_set(flag) {
                facts.effects.push(effect);
            }
        }
        if table.has(elf::DT_AUDIT) || table.has(elf::DT_DEPAUDIT) {
            facts.effects.push(ProcessEffect::Auditor);
        }
        if table.has(elf::DT_FILTER) || table.has(elf::DT_AUXILIARY) {
            facts.effects.push(ProcessEffect::Filter);
        }

        let is_interpreted = self.memory.headers.iter().any(|header| header.kind == elf::PT_INTERP.0);
        // Linkers older than the flag mark programs, and only them, with a place for the debugger. A library may have an
        // interpreter: the C library prints its version if it is started.
        if is_set(elf::DF_1_PIE) || (is_interpreted && table.has(elf::DT_DEBUG)) {
            facts.never_loads = Some(NeverLoads::Program);
        } else if is_set(elf::DF_1_NOOPEN) {
            facts.never_loads = Some(NeverLoads::NoOpen);
        }

        let mut remark = |text: String| facts.remarks.push(text);
        if is_set(elf::DF_1_NODELETE) {
            remark("it cannot be unmapped (-z nodelete)".to_owned());
        }
        if is_set(elf::DF_1_NODEFLIB) {
            remark("its libraries are not looked for in the default folders (-z nodefaultlib)".to_owned());
        }
        if is_set(elf::DF_1_NODUMP) {
            remark("it asks not to be part of dumps (-z nodump)".to_owned());
        }
        if table.has(elf::DT_SYMBOLIC) || flags & elf::DF_SYMBOLIC.0 != 0 {
            remark("it prefers its own symbols (-Bsymbolic)".to_owned());
        }
        if table.has(elf::DT_PREINIT_ARRAY) {
            remark("it has functions for before its initialisation, which are not run in a library".to_owned());
        }
        Ok(())
    }

    fn symbols(&self, facts: &mut Facts) -> Result<(), &'static str> {
        let (size, table) = (self.memory.view.by_class(24, 16), self.table.get(elf::DT_SYMTAB));
        let Some(symbols) = table.and_then(|table| self.memory.at(table)) else {
            return Err("its dynamic symbol table cannot be read");
        };
        let strings = self.strings().ok_or("its dynamic string table cannot be read")?;
        let read = |index: u32| RawSymbol::read(&symbols, usize::try_from(index).ok()?.checked_mul(size)?);

        let hashed = self.hashed_symbols()?;
        for symbol in (1..hashed).map(read) {
            let symbol = symbol.ok_or("its dynamic symbol table cannot be read")?;
            if symbol.bind == elf::STB_GNU_UNIQUE.0 && symbol.is_defined() {
                facts
                    .unique_symbols
                    .push(self.text(&strings, symbol.name).ok_or("the name of a symbol cannot be read")?);
                facts.unique_sizes.push(symbol.size);
            }
        }

        let versions = self.versions()?;
        let named = versions.needs.libraries().map(|name| self.text(&strings, name.into()));
        facts.versioned = named.collect::<Option<_>>().ok_or("the name of a library cannot be read")?;
        if !(1..hashed).all(|symbol| versions.knows(symbol)) {
            return Err("a symbol has a version that the image does not know");
        }

        let Some(kinds) = self.memory.view.machine().and_then(Relocations::of) else { return Ok(()) };
        let (mut bound, mut resolvers, mut own_tls) = (std::collections::BTreeSet::new(), 0_u64, false);
        for (index, kind) in self.relocations()? {
            let symbol =
                if index == 0 { None } else { Some(read(index).ok_or("a relocation's symbol cannot be read")?) };
            let is_own = symbol.as_ref().is_none_or(RawSymbol::is_defined);
            own_tls |= kinds.static_tls.contains(&kind) && is_own;
            let resolver = symbol.as_ref().is_some_and(|it| it.kind == elf::STT_GNU_IFUNC.0 && it.is_defined());
            resolvers += u64::from(kind == kinds.resolver || resolver);
            if index != 0 {
                bound.insert(index);
            }
        }
        // A symbol may be looked up and be in no hash table: all undefined ones.
        for index in bound {
            let symbol = read(index).ok_or("its dynamic symbol table cannot be read")?;
            if !versions.knows(index) {
                return Err("a symbol has a version that the image does not know");
            }
            if symbol.bind == elf::STB_LOCAL.0 || (symbol.is_defined() && !symbol.can_be_replaced()) {
                continue;
            }
            facts.bound.push(Symbol {
                name: self.text(&strings, symbol.name).ok_or("the name of a symbol cannot be read")?,
                size: symbol.size,
                is_data: matches!(symbol.kind, kind if kind == elf::STT_OBJECT.0 || kind == elf::STT_TLS.0),
                is_weak: symbol.bind == elf::STB_WEAK.0,
                is_defined: symbol.is_defined(),
                library: if symbol.is_defined() {
                    None
                } else {
                    versions.library(index).and_then(|name| self.text(&strings, name.into()))
                },
            });
        }
        let storage = self.memory.headers.iter().find(|header| header.kind == elf::PT_TLS.0);
        // The loader also needs room for what the first byte is off its alignment.
        let room = |header: &Header| header.size.saturating_add(header.address % header.align.max(1));
        facts.static_tls = storage.filter(|_| own_tls).map_or(0, room);
        if resolvers > 0 {
            let text =
                format!("it runs code of its own while it is relocated, before its constructors ({resolvers} IFUNC)");
            facts.remarks.push(text);
        }
        Ok(())
    }

    /// How many symbols the hash table reaches: that of GNU's form if there are two, as for the loader.
    fn hashed_symbols(&self) -> Result<u32, &'static str> {
        let damaged = "its symbol hash table cannot be read";
        let (table, read): (_, fn(&View<'_>) -> _) =
            match (self.table.get(elf::DT_GNU_HASH), self.table.get(elf::DT_HASH)) {
                (Some(table), _) => (table, hash::gnu),
                // On Alpha and 64-bit S/390 its entries are wider.
                (None, Some(table)) => (table, hash::sysv),
                (None, None) => return Ok(0),
            };
        read(&self.memory.at(table).ok_or(damaged)?).ok_or(damaged)
    }

    /// The symbol and the type of every relocation.
    fn relocations(&self) -> Result<Vec<(u32, u32)>, &'static str> {
        let damaged = "its relocations cannot be read";
        let explicit = self.table.get(elf::DT_PLTREL) == Some(elf::DT_RELA.0 as u64);
        let mut found = Vec::new();
        let kinds = self.memory.view.machine().and_then(Relocations::of);
        for (address, size, relative, with_addend) in [
            (elf::DT_RELA, elf::DT_RELASZ, Some(elf::DT_RELACOUNT), true),
            (elf::DT_REL, elf::DT_RELSZ, Some(elf::DT_RELCOUNT), false),
            (elf::DT_JMPREL, elf::DT_PLTRELSZ, None, explicit),
        ] {
            let (Some(address), Some(size)) = (self.table.get(address), self.table.get(size)) else { continue };
            if size == 0 {
                continue;
            }
            let entry = if with_addend { self.memory.view.by_class(24, 12) } else { self.memory.view.by_class(16, 8) };
            let count = usize::try_from(size).map_err(|_| damaged)? / entry;
            let table = self.memory.at(address).ok_or(damaged)?;
            let relative = usize::try_from(relative.and_then(|tag| self.table.get(tag)).unwrap_or(0)).unwrap_or(count);
            for (index, entry) in table.entries(0, entry, count).ok_or(damaged)?.enumerate() {
                let info = entry.word(self.memory.view.by_class(8, 4)).ok_or(damaged)?;
                let place = entry.word(0).ok_or(damaged)?;
                let (symbol, kind) = if self.memory.view.wide {
                    ((info >> 32) as u32, info as u32)
                } else {
                    ((info >> 8) as u32, info as u32 & 0xff)
                };
                // Of those that are counted, the loader asserts the type, or does not look at it.
                if index < relative && kinds.as_ref().is_some_and(|kinds| kinds.relative != kind) {
                    return Err("it counts a relocation as relative that is none");
                }
                // One of type 0 does nothing.
                let width = kinds.as_ref().map_or(1, |kinds| kinds.width(kind, self.memory.view));
                if kind != 0 && !self.memory.holds(place, width) {
                    return Err("a relocation changes what is not the image's");
                }
                found.push((symbol, kind));
            }
        }
        Ok(found)
    }

    fn versions(&self) -> Result<Versions<'a>, &'static str> {
        let damaged = "its list of versions cannot be read";
        let list = |tag| self.table.get(tag).map(|address| self.memory.at(address).ok_or(damaged)).transpose();
        let needs = list(elf::DT_VERNEED)?.map(|it| Needs::read(&it).ok_or(damaged)).transpose()?.unwrap_or_default();
        let defined = list(elf::DT_VERDEF)?.map(|it| versions::highest_defined(&it).ok_or(damaged)).transpose()?;
        let highest = needs.highest().max(defined.unwrap_or(0));
        Ok(Versions { of: list(elf::DT_VERSYM)?, needs, highest })
    }
}

struct Versions<'a> {
    of: Option<View<'a>>,
    needs: Needs,
    highest: u16,
}

impl Versions<'_> {
    fn number(&self, symbol: u32) -> Option<u16> {
        Some(self.of?.half((symbol as usize).checked_mul(2)?)? & 0x7fff)
    }

    /// Whether the version of a symbol is one for which the loader has a place: without any, it does not look.
    fn knows(&self, symbol: u32) -> bool {
        self.of.is_none() || self.highest == 0 || self.number(symbol).is_some_and(|number| number <= self.highest)
    }

    /// Where the name of the library is among the strings to which the version of a symbol belongs.
    fn library(&self, symbol: u32) -> Option<u32> {
        self.needs.library(self.number(symbol)?)
    }
}

/// A symbol as it is written.
struct RawSymbol {
    name: u64,
    bind: u8,
    kind: u8,
    visibility: u8,
    section: u16,
    size: u64,
}

impl RawSymbol {
    fn read(table: &View<'_>, at: usize) -> Option<RawSymbol> {
        let byte = |wide, narrow| table.bytes.get(at.checked_add(table.by_class(wide, narrow))?).copied();
        let info = byte(4, 12)?;
        Some(RawSymbol {
            name: u64::from(table.number(at)?),
            bind: info >> 4,
            kind: info & 0xf,
            visibility: byte(5, 13)? & 3,
            section: table.half(at.checked_add(table.by_class(6, 14))?)?,
            size: table.word(at.checked_add(table.by_class(16, 8))?)?,
        })
    }

    fn is_defined(&self) -> bool {
        self.section != elf::SHN_UNDEF.0
    }

    /// Whether the loader looks for it elsewhere before it takes this one.
    fn can_be_replaced(&self) -> bool {
        self.visibility == elf::STV_DEFAULT.0
    }
}

/// The relocation types of an architecture that matter here.
struct Relocations {
    /// Offsets from the thread pointer, which only storage in the fixed reserve has.
    static_tls: &'static [u32],
    /// Calls a function of the image for the value.
    resolver: u32,
    /// Adds where the image lies.
    relative: u32,
    /// Those that write four bytes on a machine whose addresses have eight.
    narrow: &'static [u32],
    /// Whether relocations of functions have addends of their own.
    with_addends: bool,
}

impl Relocations {
    fn of(machine: u16) -> Option<Relocations> {
        let (static_tls, resolver, relative): (&[u32], _, _) = match elf::Machine(machine) {
            elf::EM_X86_64 => (
                &[elf::R_X86_64_TPOFF64.0, elf::R_X86_64_TPOFF32.0],
                elf::R_X86_64_IRELATIVE.0,
                elf::R_X86_64_RELATIVE.0,
            ),
            elf::EM_386 => {
                (&[elf::R_386_TLS_TPOFF.0, elf::R_386_TLS_TPOFF32.0], elf::R_386_IRELATIVE.0, elf::R_386_RELATIVE.0)
            }
            elf::EM_AARCH64 => (&[elf::R_AARCH64_TLS_TPREL.0], elf::R_AARCH64_IRELATIVE.0, elf::R_AARCH64_RELATIVE.0),
            elf::EM_ARM => (&[elf::R_ARM_TLS_TPOFF32.0], elf::R_ARM_IRELATIVE.0, elf::R_ARM_RELATIVE.0),
            elf::EM_RISCV => (
                &[elf::R_RISCV_TLS_TPREL64.0, elf::R_RISCV_TLS_TPREL32.0],
                elf::R_RISCV_IRELATIVE.0,
                elf::R_RISCV_RELATIVE.0,
            ),
            elf::EM_PPC64 => (&[elf::R_PPC64_TPREL64.0], elf::R_PPC64_IRELATIVE.0, elf::R_PPC64_RELATIVE.0),
            elf::EM_S390 => (&[elf::R_390_TLS_TPOFF.0], elf::R_390_IRELATIVE.0, elf::R_390_RELATIVE.0),
            elf::EM_LOONGARCH => (
                &[elf::R_LARCH_TLS_TPREL64.0, elf::R_LARCH_TLS_TPREL32.0],
                elf::R_LARCH_IRELATIVE.0,
                elf::R_LARCH_RELATIVE.0,
            ),
            _ => return None,
        };
        let with_addends = !matches!(elf::Machine(machine), elf::EM_386 | elf::EM_ARM);
        let narrow: &[u32] = match elf::Machine(machine) {
            elf::EM_X86_64 => &[elf::R_X86_64_PC32.0, elf::R_X86_64_32.0, elf::R_X86_64_32S.0, elf::R_X86_64_TPOFF32.0],
            _ => &[],
        };
        Some(Relocations { static_tls, resolver, relative, narrow, with_addends })
    }

    /// How many bytes one of this type writes at least.
    fn width(&self, kind: u32, view: View<'_>) -> u64 {
        if self.narrow.contains(&kind) { 4 } else { view.by_class(8, 4) as u64 }
    }
}
