//! Judges what an image asks of the loader, before the loader sees it: what would be shared between generations, change the
//! whole process, or bind to something else than it was linked with.

use super::budget::{self, Budget};
use super::image::{Facts, Image};
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use super::linkmap;
use super::{processor, protections, static_tls};
use crate::{
    Interposition, LibraryChange, Linkage, NeededLibrary, ProcessEffect, Protection, Replaced, escape_untrusted,
};

/// Why an image must not be linked into this process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Symbols that the loader binds once for the whole process, whatever it is told: every generation would use the
    /// variables of the first one, laid out as the first one has them.
    #[error(
        "the loader unifies {symbol}{} over the whole process (STB_GNU_UNIQUE), so that this version would use the data of \
         another one: compile the C++ in the plugin with -fno-gnu-unique (for cc-rs: \
         build.flag_if_supported(\"-fno-gnu-unique\")), or accept it with dangerous().allow_unique_symbols()",
        and_others(*others)
    )]
    UniqueSymbols {
        /// One of them, as the linker sees it.
        symbol: String,
        /// How many more there are.
        others: usize,
    },
    /// Headers that change the whole process.
    #[error("the image changes the whole process: {}", each_effect(effects))]
    ProcessEffects {
        /// What they do, all that is not allowed.
        effects: Vec<ProcessEffect>,
    },
    /// Headers of a library that the plugin needs, and that is not mapped yet, which change the whole process.
    #[error("the plugin needs {name} ({path}), and {}", each_effect(effects))]
    NeededEffects {
        /// The name that the plugin, or another library, gives.
        name: String,
        /// The file.
        path: String,
        /// What its headers do, all that is not allowed.
        effects: Vec<ProcessEffect>,
    },
    /// Data of the plugin, or of a library that it needs, for which the process has a definition of another size.
    #[error(
        "the variable `{symbol}` of {} has {size} bytes, and the loader would replace it by the one of {host_size} bytes \
         in {by}: hide it (-fvisibility=hidden, static; -fno-gnu-unique for C++), link with -Wl,-Bsymbolic, or accept it with \
         dangerous().allow_replaced_data()",
        library.as_deref().unwrap_or("the plugin")
    )]
    ReplacedData {
        /// The library that the plugin needs, whose variable it is; `None` if it is the plugin's own.
        library: Option<String>,
        /// The variable.
        symbol: String,
        /// Its size in the plugin.
        size: u64,
        /// Its size in the process.
        host_size: u64,
        /// The file that defines it.
        by: String,
    },
    /// A library that the plugin needs is mapped already, and is not what lies on disk.
    #[error(
        "the plugin needs {name}{}, the loader has that mapped already from {path}, and {change}: the plugin would get the \
         old one. Restart the host, give the new library another name and DT_SONAME, link it into the plugin, or \
         accept it with dangerous().allow_changed_libraries()",
        by.as_ref().map(|by| format!(" (through {by})")).unwrap_or_default()
    )]
    ChangedLibrary {
        /// The name that the plugin gives.
        name: String,
        /// The library that needs it; `None` if the plugin itself does.
        by: Option<String>,
        /// Where the mapped one is from.
        path: String,
        /// What has changed.
        change: LibraryChange,
    },
    /// Versions of a library's symbols, where nobody names the library as needed: the loader ends the process.
    #[error(
        "the plugin has symbols with versions of {library}, and neither it nor a library that it needs names that: the loader \
         would end the process. It was changed after it was linked (patchelf --remove-needed or --replace-needed, for \
         instance): link it anew, or name {library} as needed again"
    )]
    VersionsWithoutLibrary {
        /// The library, as the list of versions names it.
        library: String,
    },
    /// A protection of the control flow is on in this process, and the image, or a library that it brings, was not compiled for
    /// it: the loader would turn it off for the whole process, or refuse to load it.
    #[error(
        "{protection} are on in this process, and {} is not marked for them, so that loading it would turn them off for the \
         whole process: compile all of it with {}, or accept it with dangerous().allow_unprotected()",
        library.as_deref().unwrap_or("the plugin"),
        protection.flag()
    )]
    Unprotected {
        /// The file of the library that the plugin needs; `None` if it is the plugin itself.
        library: Option<String>,
        /// What would be turned off.
        protection: Protection,
    },
    /// Code for a processor that this one is not: the loader refuses it.
    #[error(
        "the plugin needs a processor of the level {level}, and this one is below: compile it without -march={level}"
    )]
    Processor {
        /// The level, as compilers call it.
        level: &'static str,
    },
    /// More thread-local storage of the initial-exec model than the loader has left, for good.
    #[error(
        "the plugin, with what it needs, takes {size} bytes of the loader's fixed reserve for thread-local storage (static TLS), and {free} are \
         left, which do not come back while libraries stay mapped: {}",
        static_tls::REMEDY
    )]
    StaticTls {
        /// How much it takes.
        size: u64,
        /// How much is left.
        free: u64,
    },
    /// More thread-local storage of the initial-exec model than the [`Budget`] allows.
    #[error(
        "with this plugin, plugins take {taken} bytes of the loader's fixed reserve for thread-local storage (static TLS), \
         and the budget is {budget}: raise it, or {}",
        static_tls::REMEDY
    )]
    StaticTlsBudget {
        /// What would be taken.
        taken: u64,
        /// The budget.
        budget: u64,
    },
}

fn and_others(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " and one other symbol".to_owned(),
        more => format!(" and {more} other symbols"),
    }
}

fn each_effect(effects: &[ProcessEffect]) -> String {
    let each = effects.iter().map(|effect| {
        let (cause, remedy) = (effect.cause(), effect.remedy());
        format!(
            "it {effect}, because of {cause}: link it with {remedy}, or accept it with \
             dangerous().allow_effect(ProcessEffect::{effect:?})"
        )
    });
    each.collect::<Vec<_>>().join("; ")
}

/// What is admitted although it gives up a protection.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowances {
    pub(super) unique_symbols: bool,
    pub(super) changed_libraries: bool,
    pub(super) replaced_data: bool,
    pub(super) unprotected: bool,
    pub(super) effects: Vec<ProcessEffect>,
}

impl Allowances {
    /// Returns those of the effects that are not allowed.
    fn not_among(&self, effects: &[ProcessEffect]) -> Vec<ProcessEffect> {
        effects.iter().filter(|effect| !self.effects.contains(effect)).copied().collect()
    }
}

/// Says what an image asks of the loader, and what that meets in this process if it is for this process.
pub(super) fn describe(image: &Image<'_>, for_this_process: bool) -> Linkage {
    let facts = image.facts();
    let shown = |texts: &[String]| texts.iter().map(|text| escape_untrusted(text).into_owned()).collect();
    let (needed, interposed) = if for_this_process { surroundings(facts) } else { (named(facts), Vec::new()) };
    note_needed(facts);
    Linkage {
        soname: facts.soname.as_deref().map(|name| escape_untrusted(name).into_owned()),
        needed,
        search_path: shown(&facts.search_path),
        unique_symbols: shown(&facts.unique_symbols),
        static_tls: facts.static_tls,
        effects: facts.effects.clone(),
        protections: facts.properties.protections.clone(),
        remarks: remarks(facts),
        interposed,
    }
}

fn remarks(facts: &Facts) -> Vec<String> {
    let needs = |level| format!("it needs a processor of the level {level}");
    let level = processor::highest(facts.properties.processor).map(needs);
    // Some name libraries.
    facts.remarks.iter().map(|remark| escape_untrusted(remark).into_owned()).chain(level).collect()
}

/// Lists the libraries that an image names.
fn named(facts: &Facts) -> Vec<NeededLibrary> {
    facts.needed.iter().map(|name| NeededLibrary::new(escape_untrusted(name).into_owned())).collect()
}

/// Says what an image meets in this process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn surroundings(facts: &Facts) -> (Vec<NeededLibrary>, Vec<Interposition>) {
    linkmap::surroundings(facts)
}

/// Says nothing of this process: it is not known what the loader has.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn surroundings(facts: &Facts) -> (Vec<NeededLibrary>, Vec<Interposition>) {
    (named(facts), Vec::new())
}

/// Remembers what is mapped now, to tell later what has been rewritten since.
pub(super) fn note_mapped() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    linkmap::note_mapped();
}

/// Remembers what is mapped now, if it matters to an image: the map is long where many generations are kept.
pub(super) fn note_needed(facts: &Facts) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if facts.needed.iter().any(|name| !linkmap::is_runtime(name)) {
        linkmap::note_mapped();
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = facts;
}

/// Refuses an image that must not be linked into this process.
pub(super) fn check(image: &Image<'_>, allowed: &Allowances, budget: &Budget) -> Result<(), LinkError> {
    let facts = image.facts();
    if let [symbol, others @ ..] = &facts.unique_symbols[..]
        && !allowed.unique_symbols
    {
        return Err(LinkError::UniqueSymbols { symbol: escape_untrusted(symbol).into_owned(), others: others.len() });
    }
    let effects = allowed.not_among(&facts.effects);
    if !effects.is_empty() {
        return Err(LinkError::ProcessEffects { effects });
    }
    if let Some(level) = processor::missing(facts.properties.processor) {
        return Err(LinkError::Processor { level });
    }
    let linkage = describe(image, true);
    if !allowed.unprotected {
        check_protections(&linkage, &protections::of_this_process())?;
    }
    for library in &linkage.needed {
        check_needed(library, allowed)?;
    }
    check_versioned(facts, &linkage)?;
    let needed = linkage.needed.iter().filter(|library| library.static_tls > 0);
    let size = needed.clone().map(|library| library.static_tls).fold(facts.static_tls, u64::saturating_add);
    check_static_tls(size, budget)?;
    check_interposed(&linkage, allowed)?;
    needed.for_each(|library| budget::note_needed_static_tls(&library.name, library.static_tls));
    Ok(())
}

/// Refuses what the loader would turn a protection of the process off for.
fn check_protections(linkage: &Linkage, on: &[Protection]) -> Result<(), LinkError> {
    let brought = linkage.needed.iter().filter_map(|library| Some((library.file.clone()?, &library.protections)));
    let all = std::iter::once((None, &linkage.protections)).chain(brought.map(|(file, marks)| (Some(file), marks)));
    for (library, marks) in all {
        if let Some(protection) = on.iter().find(|protection| !marks.contains(protection)) {
            return Err(LinkError::Unprotected { library, protection: *protection });
        }
    }
    Ok(())
}

fn check_static_tls(size: u64, budget: &Budget) -> Result<(), LinkError> {
    if size == 0 {
        return Ok(());
    }
    // Without a limit nobody has to be asked.
    let taken = if budget.static_tls == u64::MAX { 0 } else { budget::static_tls(is_mapped).saturating_add(size) };
    if taken > budget.static_tls {
        return Err(LinkError::StaticTlsBudget { taken, budget: budget.static_tls });
    }
    match static_tls::free() {
        Some(free) if free < size => Err(LinkError::StaticTls { size, free }),
        _ => Ok(()),
    }
}

fn check_needed(library: &NeededLibrary, allowed: &Allowances) -> Result<(), LinkError> {
    let effects = allowed.not_among(&library.effects);
    if !effects.is_empty() {
        let path = library.file.clone().unwrap_or_default();
        return Err(LinkError::NeededEffects { name: library.name.clone(), path, effects });
    }
    let Some(mapped) = &library.mapped else { return Ok(()) };
    let Some(change) = &mapped.change else { return Ok(()) };
    let error = LinkError::ChangedLibrary {
        name: library.name.clone(),
        by: library.needed_by.clone(),
        path: mapped.path.clone(),
        change: change.clone(),
    };
    if allowed.changed_libraries {
        tracing::warn!("{error}");
        return Ok(());
    }
    Err(error)
}

/// Refuses versions of a library that the loader will not have by that name.
fn check_versioned(facts: &Facts, linkage: &Linkage) -> Result<(), LinkError> {
    // Whatever is behind a name that leads to nothing here may need it.
    if linkage.needed.iter().any(|needed| needed.mapped.is_none() && needed.file.is_none()) {
        return Ok(());
    }
    for library in &facts.versioned {
        let name = escape_untrusted(library);
        let is_named = linkage.needed.iter().any(|needed| needed.name == name);
        if !is_named && !is_mapped(library) {
            return Err(LinkError::VersionsWithoutLibrary { library: name.into_owned() });
        }
    }
    Ok(())
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_mapped(library: &str) -> bool {
    linkmap::is_mapped(library)
}

/// It is not known what the loader has.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn is_mapped(_: &str) -> bool {
    true
}

/// Refuses data of another size, and puts the rest into the log, in one line.
fn check_interposed(linkage: &Linkage, allowed: &Allowances) -> Result<(), LinkError> {
    let mut unexpected = Vec::new();
    for found in &linkage.interposed {
        match &found.replaces {
            Replaced::OwnData { size, host_size } if !allowed.replaced_data => {
                let (symbol, by) = (found.symbol.clone(), found.by.clone());
                return Err(LinkError::ReplacedData { library: None, symbol, size: *size, host_size: *host_size, by });
            }
            Replaced::NeededData { library, size, host_size } if !allowed.replaced_data => {
                let (library, symbol, by) = (Some(library.clone()), found.symbol.clone(), found.by.clone());
                return Err(LinkError::ReplacedData { library, symbol, size: *size, host_size: *host_size, by });
            }
            Replaced::Own | Replaced::OwnData { .. } | Replaced::NeededData { .. } => unexpected.push(found),
            #[cfg(all(target_os = "linux", target_env = "gnu"))]
            Replaced::Needed { library } if !linkmap::is_runtime(library) => unexpected.push(found),
            // Meant to give way, or to be wrapped.
            _ => {}
        }
    }
    if let [first, ..] = &unexpected[..] {
        let names: Vec<&str> = unexpected.iter().take(5).map(|found| &*found.symbol).collect();
        tracing::warn!(
            symbols = unexpected.len(),
            by = first.by,
            "the plugin will use the definitions of the process in the place of its own or its libraries' for {}: hide \
             those of the plugin (-fvisibility=hidden), or link it with -Wl,-Bsymbolic",
            names.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{LinkError, Linkage, NeededLibrary, Protection, check_protections};

    /// What no process here has on: the real thing is in `tests/it/native/linking/protections.rs`, for machines that have it.
    #[test]
    fn what_lacks_a_protection_that_is_on_is_refused_by_name() {
        const ON: [Protection; 1] = [Protection::ShadowStack];
        let mut linkage = Linkage { protections: vec![Protection::IndirectBranchTracking], ..Linkage::default() };
        assert_eq!(check_protections(&linkage, &[]), Ok(()), "it is off");
        let error = check_protections(&linkage, &ON).unwrap_err();
        assert_eq!(error, LinkError::Unprotected { library: None, protection: Protection::ShadowStack });
        let text = error.to_string();
        assert!(
            ["shadow stacks", "-fcf-protection", "allow_unprotected"].iter().all(|word| text.contains(word)),
            "{text}"
        );

        linkage.protections.push(Protection::ShadowStack);
        assert_eq!(check_protections(&linkage, &ON), Ok(()));
        let mut helper = NeededLibrary::new("libhelper.so".to_owned());
        linkage.needed.push(helper.clone());
        assert_eq!(check_protections(&linkage, &ON), Ok(()), "what is mapped already was judged by the loader");
        helper.file = Some("/opt/libhelper.so".to_owned());
        linkage.needed.push(helper);
        let error = check_protections(&linkage, &ON).unwrap_err();
        assert!(error.to_string().contains("/opt/libhelper.so is not marked"), "{error}");
    }
}
