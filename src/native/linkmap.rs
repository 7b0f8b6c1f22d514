//! What this process has mapped already, as the loader sees it when it binds a new image: which libraries it takes for
//! the needed ones, whether those are still what lies on disk, and which symbols are defined already.
//!
//! Nothing is loaded here. The loader is asked with `RTLD_NOLOAD`, so names match as they will: by path, by the name that
//! a library was asked for, by `DT_SONAME`, by file.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use super::copies;
use super::image::{Facts, Image, Symbol};
use super::maps::{MappedFile, Maps};
use super::search::{Paths, Search, in_folders};
use super::segments::segments;
use crate::{Interposition, LibraryChange, MappedLibrary, NeededLibrary, Replaced, escape_untrusted};

/// Returns whether a file or `DT_SONAME` belongs to the C and C++ runtime. Updates of the system replace its files under
/// every process, its symbols carry versions, and programs wrap its functions on purpose: an allocator, a sanitizer.
pub(super) fn is_runtime(name: &str) -> bool {
    const RUNTIME: [&str; 11] = [
        "libc.so.6",
        "libm.so.6",
        "libpthread.so.0",
        "libdl.so.2",
        "librt.so.1",
        "libutil.so.1",
        "libresolv.so.2",
        "libanl.so.1",
        "libmvec.so.1",
        "libgcc_s.so.1",
        "libstdc++.so.6",
    ];
    let is = |known: &&str| name.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    RUNTIME.iter().any(is) || name.starts_with("ld-linux") || name.starts_with("ld64.so.")
}

/// Files of mapped libraries as they were when they were first seen mapped, by address and inode.
static SEEN: LazyLock<Mutex<HashMap<(usize, u64), Stamp>>> = LazyLock::new(Mutex::default);

/// What changes with a file's content.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &std::fs::Metadata) -> Stamp {
        Stamp {
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Notes the files of what is mapped now: only what was seen before can be seen to have been rewritten.
pub(super) fn note_mapped() {
    let Ok(maps) = Maps::read() else { return };
    let mut seen = SEEN.lock();
    let mut mapped = HashSet::new();
    for file in maps.files() {
        mapped.insert((file.start, file.inode));
        if seen.contains_key(&(file.start, file.inode)) {
            continue;
        }
        if let Ok(found) = std::fs::metadata(file.path)
            && found.ino() == file.inode
        {
            seen.insert((file.start, file.inode), Stamp::of(&found));
        }
    }
    // What was unmapped may come again at the same address.
    seen.retain(|key, _| mapped.contains(key));
}

/// Says what an image meets in this process: the libraries that it needs, and the symbols of it, and of those that come with it,
/// that this process has already.
pub(super) fn surroundings(facts: &Facts) -> (Vec<NeededLibrary>, Vec<Interposition>) {
    let (needed, brought) = needed(facts);
    let mut interposed = interposed(facts);
    for (library, facts) in brought {
        interposed.extend(replaced_data(&library, &facts));
    }
    (needed, interposed)
}

/// Says for every library that an image needs, and for what those need in turn, what this process has mapped under its name,
/// or else which file it would map, and what is in that.
fn needed(facts: &Facts) -> (Vec<NeededLibrary>, Vec<(String, Facts)>) {
    let mut found: Vec<NeededLibrary> = Vec::new();
    let mut brought = Vec::new();
    let mut known: HashSet<String> = HashSet::new();
    let search = LazyCell::new(|| Search::new(search_folders()));
    let mut queue = VecDeque::from(wanted(None, facts, None, &[]));
    while let Some(Wanted { name, by, paths }) = queue.pop_front() {
        if !known.insert(name.clone()) || found.len() >= MOST_LIBRARIES {
            continue;
        }
        let mut library = NeededLibrary::new(escape_untrusted(&name).into_owned());
        library.needed_by = by;
        let handle = Handle::of(&name);
        library.mapped = handle.as_ref().and_then(|handle| mapped(handle, &name, paths.named()));
        let file = match &library.mapped {
            Some(mapped) => Some(PathBuf::from(&mapped.path)),
            None if handle.is_none() => search.find(&name, &paths).map(|(file, through)| {
                library.file = Some(escape_untrusted(&file.to_string_lossy()).into_owned());
                library.found_through = Some(through);
                file
            }),
            None => None,
        };
        // What the runtime needs is the runtime.
        if let Some(file) = file.filter(|_| !is_runtime(&name))
            && let Some(facts) = facts_of(&file)
        {
            queue.extend(wanted(Some(&library.name), &facts, file.parent(), &paths.inherited));
            if library.mapped.is_none() {
                library.effects.clone_from(&facts.effects);
                library.protections.clone_from(&facts.properties.protections);
                library.static_tls = facts.static_tls;
                brought.push((library.name.clone(), facts));
            }
        }
        found.push(library);
    }
    (found, brought)
}

/// Returns names and files of the libraries that an image needs, through others as well, but for the runtime.
pub(super) fn reached(facts: &Facts) -> Vec<String> {
    let (needed, _) = needed(facts);
    let others = needed.into_iter().filter(|library| !is_runtime(&library.name));
    others
        .flat_map(|NeededLibrary { name, mapped, file, .. }| [Some(name), mapped.map(|mapped| mapped.path), file])
        .flatten()
        .collect()
}

/// Whether the loader has something under this name.
pub(super) fn is_mapped(name: &str) -> bool {
    Handle::of(name).is_some()
}

/// A library that is still to be looked at.
struct Wanted {
    name: String,
    by: Option<String>,
    paths: Arc<Paths>,
}

/// Lists what an image needs, with where to look for it: it lies in `folder`, and is needed by images with the paths `inherited`.
fn wanted(by: Option<&str>, facts: &Facts, folder: Option<&Path>, inherited: &[String]) -> Vec<Wanted> {
    let expand = |entries: &[String]| entries.iter().map(|entry| expanded(entry, folder)).collect::<Vec<_>>();
    // If it has the one, its other one is not looked at, and not passed on either.
    let own = facts.own_path.as_deref().map(expand);
    let nearest = if own.is_some() { Vec::new() } else { expand(&facts.inherited_path) };
    let inherited = nearest.into_iter().chain(inherited.iter().cloned()).collect();
    let paths = Arc::new(Paths { inherited, own, no_default_folders: facts.no_default_folders });
    let each = |name: &String| Wanted { name: name.clone(), by: by.map(str::to_owned), paths: Arc::clone(&paths) };
    facts.needed.iter().map(each).collect()
}

/// More libraries than these are not followed.
const MOST_LIBRARIES: usize = 1000;

/// Larger files are not read.
const LARGEST_LIBRARY: u64 = 1 << 30;

/// Replaces the token for the folder of the library that a search path belongs to; a plugin has none.
fn expanded(entry: &str, folder: Option<&Path>) -> String {
    match folder.and_then(Path::to_str) {
        Some(folder) => entry.replace("${ORIGIN}", folder).replace("$ORIGIN", folder),
        None => entry.to_owned(),
    }
}

/// Reads what a library asks of the loader.
fn facts_of(file: &Path) -> Option<Facts> {
    let size = std::fs::metadata(file).ok().filter(|found| found.is_file())?.len();
    // What the kernel makes up has no size, and may never end.
    let bytes = (1..=LARGEST_LIBRARY).contains(&size).then(|| std::fs::read(file).ok()).flatten()?;
    Some(Image::read(&bytes).ok()?.facts().clone())
}

/// The folders in which the loader looks for what an image needs that names none itself: the program's, those of the environment,
/// and the system's.
fn search_folders() -> Vec<String> {
    // Every process has it, and it names no folders.
    Handle::of("libc.so.6").and_then(|libc| libc.search_folders()).unwrap_or_default()
}

/// Describes what is mapped under `name`.
fn mapped(handle: &Handle, name: &str, search_path: &[String]) -> Option<MappedLibrary> {
    let (path, section) = handle.path_and_dynamic_section()?;
    if is_runtime(name) {
        // Nothing would follow from it.
        return Some(MappedLibrary { path: escape_untrusted(&path).into_owned(), change: None });
    }
    let maps = Maps::read().ok()?;
    let file = maps.file_at(section)?;
    if copies::is_copy(file_name(file.path)) {
        let path = escape_untrusted(file.path).into_owned();
        return Some(MappedLibrary { path, change: Some(LibraryChange::Generation) });
    }
    // A relative path may mean another file by now, and one to a descriptor another one.
    let by_name = path.starts_with('/') && !path.starts_with("/proc/");
    let path = if by_name { path } else { file.path.to_owned() };
    let change = change(&path, &file).or_else(|| elsewhere(name, &path, search_path));
    Some(MappedLibrary { path: escape_untrusted(&path).into_owned(), change })
}

/// Compares the file at `path` with the one that is mapped.
fn change(path: &str, mapped: &MappedFile<'_>) -> Option<LibraryChange> {
    let now = match File::open(path) {
        Ok(now) => now,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(LibraryChange::Removed),
        // What cannot be read cannot be compared, and not be loaded by anybody else.
        Err(_) => return None,
    };
    if !is_same_file(&now, mapped).ok()? {
        return Some(LibraryChange::Replaced);
    }
    let stamp = Stamp::of(&now.metadata().ok()?);
    let seen = SEEN.lock().get(&(mapped.start, mapped.inode)).copied();
    seen.is_some_and(|seen| seen != stamp).then_some(LibraryChange::Rewritten)
}

/// Maps a page of `file` and compares how the memory map shows it with `mapped`: on layered and copy-on-write file systems
/// it shows other device and inode numbers than `stat` gives.
fn is_same_file(file: &File, mapped: &MappedFile<'_>) -> io::Result<bool> {
    // SAFETY: the kernel chooses the place, so no existing mapping is touched; it is never accessed.
    let page = unsafe { libc::mmap(ptr::null_mut(), 1, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let maps = Maps::read();
    // SAFETY: this is the mapping that was just made, and nothing refers to it.
    unsafe { libc::munmap(page, 1) };
    let maps = maps?;
    let Some(now) = maps.file_at(page as usize) else { return Err(io::ErrorKind::NotFound.into()) };
    Ok((now.device, now.inode) == (mapped.device, mapped.inode))
}

/// Looks where the image's own search path leads: the loader does not follow it if it has the name already.
fn elsewhere(name: &str, mapped: &str, search_path: &[String]) -> Option<LibraryChange> {
    let found = if name.contains('/') { None } else { in_folders(name, search_path) }?;
    let (here, there) = (std::fs::metadata(mapped).ok()?, std::fs::metadata(&found).ok()?);
    let is_same = (here.dev(), here.ino()) == (there.dev(), there.ino())
        || (here.size() == there.size() && std::fs::read(mapped).ok()? == std::fs::read(&found).ok()?);
    let path = escape_untrusted(&found.to_string_lossy()).into_owned();
    (!is_same).then_some(LibraryChange::Elsewhere { path })
}

/// Says which of the symbols that an image looks up this process defines in the place of what the image was linked with.
fn interposed(facts: &Facts) -> Vec<Interposition> {
    let needed: Vec<(&String, Handle)> =
        facts.needed.iter().filter_map(|name| Some((name, Handle::of(name)?))).collect();
    // They are at the front of the list, which is long where many generations are kept.
    let named = needed.iter().filter(|(name, _)| is_runtime(name)).count();
    let runtime = segments(|path| path.to_str().is_ok_and(|path| is_runtime(file_name(path))), named);
    let found = facts.bound.iter().filter_map(|symbol| {
        let name = CString::new(&*symbol.name).ok()?;
        let address = lookup(libc::RTLD_DEFAULT, &name)?;
        // Most of what is looked up, and functions move between its libraries.
        if !symbol.is_defined && runtime.iter().any(|segment| segment.range.contains(&(address as usize))) {
            return None;
        }
        let global = Definition::at(address)?;
        // One that the image does not name.
        if !symbol.is_defined && is_runtime(file_name(&global.file)) {
            return None;
        }
        let replaces = if symbol.is_defined { own(symbol, &global) } else { others(symbol, &name, &global, &needed)? };
        Some(Interposition::new(
            escape_untrusted(&symbol.name).into_owned(),
            escape_untrusted(&global.file).into_owned(),
            replaces,
        ))
    });
    found.collect()
}

/// Says which variables of a library that is to be mapped have another size in this process, whose are used.
fn replaced_data(library: &str, facts: &Facts) -> Vec<Interposition> {
    let other_size = |name: &str, size: u64, definition: Definition| {
        let host_size = definition.size.filter(|host_size| size > 0 && *host_size > 0 && *host_size != size)?;
        let replaces = Replaced::NeededData { library: library.to_owned(), size, host_size };
        let by = escape_untrusted(&definition.file).into_owned();
        Some(Interposition::new(escape_untrusted(name).into_owned(), by, replaces))
    };
    let data = facts.bound.iter().filter(|symbol| symbol.is_defined && symbol.is_data);
    let global = data.filter_map(|symbol| {
        let definition = Definition::of(libc::RTLD_DEFAULT, &CString::new(&*symbol.name).ok()?)?;
        other_size(&symbol.name, symbol.size, definition)
    });
    let mut found: Vec<Interposition> = global.collect();
    if facts.unique_symbols.is_empty() {
        return found;
    }
    let Ok(maps) = Maps::read() else { return found };
    let mut paths: Vec<&str> = maps.files().map(|file| file.path).collect();
    paths.dedup();
    let handles: Vec<Handle> = paths.iter().filter_map(|path| Handle::of(path)).collect();
    for (name, size) in facts.unique_symbols.iter().zip(&facts.unique_sizes) {
        let Ok(symbol) = CString::new(&**name) else { continue };
        let scopes = handles.iter().map(|handle| handle.0).chain([libc::RTLD_DEFAULT]);
        let mut unified = scopes.filter_map(|scope| Definition::of(scope, &symbol)).filter(|it| it.is_unique);
        found.extend(unified.next().and_then(|definition| other_size(name, *size, definition)));
    }
    found
}

/// Says what becomes of a definition of the image's own.
fn own(symbol: &Symbol, global: &Definition) -> Replaced {
    match global.size {
        Some(host_size) if symbol.is_data && host_size != symbol.size && symbol.size > 0 && host_size > 0 => {
            Replaced::OwnData { size: symbol.size, host_size }
        }
        _ if symbol.is_weak => Replaced::OwnWeak,
        _ => Replaced::Own,
    }
}

/// Says whether one of the needed libraries has a definition that is not used.
fn others(symbol: &Symbol, name: &CStr, global: &Definition, needed: &[(&String, Handle)]) -> Option<Replaced> {
    let is_global = |handle: &Handle| handle.path_and_dynamic_section().is_some_and(|(path, _)| path == global.file);
    if needed.iter().any(|(_, handle)| is_global(handle)) {
        return None;
    }
    if let Some(library) = &symbol.library {
        return Some(Replaced::Needed { library: escape_untrusted(library).into_owned() });
    }
    let defines = |handle: &Handle| Definition::of(handle.0, name).is_some_and(|it| it.address != global.address);
    let (library, _) = needed.iter().find(|(_, handle)| defines(handle))?;
    Some(Replaced::Needed { library: escape_untrusted(library).into_owned() })
}

/// Returns a library of this process, by any name that the loader knows it by, that defines `symbol`.
pub(super) fn definer(symbol: &str) -> Option<String> {
    let name = CString::new(symbol).ok()?;
    let maps = Maps::read().ok()?;
    let mut paths: Vec<&str> = maps.files().map(|file| file.path).filter(|path| path.contains(".so")).collect();
    paths.dedup();
    paths.into_iter().find_map(|path| {
        let definition = Definition::of(Handle::of(path)?.0, &name)?;
        Some(escape_untrusted(&definition.file).into_owned())
    })
}

/// Looks a symbol up, in the global scope or by an open handle.
pub(super) fn lookup(scope: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the scope is the global one or an open handle, and the name is a terminated string.
    let address = unsafe { libc::dlsym(scope, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// Returns the last part of a path.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Where the loader finds a symbol.
struct Definition {
    address: usize,
    file: String,
    /// What its symbol table says, if it is there.
    size: Option<u64>,
    /// Whether the loader binds it once for the whole process.
    is_unique: bool,
}

impl Definition {
    /// Looks a symbol up, in all that is global or in a library and what that needs.
    fn of(scope: *mut c_void, name: &CStr) -> Option<Definition> {
        Definition::at(lookup(scope, name)?)
    }

    /// Says what lies at the address of a symbol.
    fn at(address: *mut c_void) -> Option<Definition> {
        let mut found = libc::Dl_info {
            dli_fname: ptr::null(),
            dli_fbase: ptr::null_mut(),
            dli_sname: ptr::null(),
            dli_saddr: ptr::null_mut(),
        };
        let mut entry: *mut c_void = ptr::null_mut();
        // SAFETY: both places live for the call; with this request the loader writes a pointer to a symbol there.
        let known = unsafe { libc::dladdr1(address, &raw mut found, &raw mut entry, RTLD_DL_SYMENT) };
        if known == 0 || found.dli_fname.is_null() {
            return None;
        }
        // SAFETY: the loader's own string, which lives as long as the library that defines the symbol.
        let file = unsafe { CStr::from_ptr(found.dli_fname) }.to_string_lossy().into_owned();
        let is_exact = found.dli_saddr == address && !entry.is_null();
        // SAFETY: a symbol of a mapped library's symbol table, which is never written to.
        let symbol = is_exact.then(|| unsafe { entry.cast::<ElfSymbol>().read() });
        Some(Definition {
            address: address as usize,
            file,
            size: symbol.as_ref().map(Size::size),
            is_unique: symbol.is_some_and(|symbol| symbol.st_info >> 4 == STB_GNU_UNIQUE),
        })
    }
}

/// From dlfcn.h; the libc crate does not have it.
const RTLD_DL_SYMENT: c_int = 1;
/// From elf.h.
const STB_GNU_UNIQUE: u8 = 10;

#[cfg(target_pointer_width = "64")]
type ElfSymbol = libc::Elf64_Sym;
#[cfg(target_pointer_width = "32")]
type ElfSymbol = libc::Elf32_Sym;

trait Size {
    fn size(&self) -> u64;
}

impl Size for ElfSymbol {
    fn size(&self) -> u64 {
        // Wider than it is on some targets.
        #[allow(clippy::useless_conversion)]
        u64::from(self.st_size)
    }
}

/// A library that is mapped, held for as long as this lives.
struct Handle(*mut c_void);

impl Handle {
    /// Asks the loader for a library that it has already.
    fn of(name: &str) -> Option<Handle> {
        // Tokens mean another folder in a plugin than here.
        if name.is_empty() || name.contains('$') {
            return None;
        }
        let name = CString::new(name).ok()?;
        // SAFETY: with `RTLD_NOLOAD` nothing is loaded and no code runs; the name is a terminated string.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if handle.is_null() { None } else { Some(Handle(handle)) }
    }

    fn path_and_dynamic_section(&self) -> Option<(String, usize)> {
        /// The part of link.h's `struct link_map` that is the same everywhere.
        #[repr(C)]
        struct LinkMap {
            base: usize,
            name: *const c_char,
            dynamic: *const c_void,
        }
        let mut map: *const LinkMap = ptr::null();
        // SAFETY: the handle is open, and with this request the loader writes a pointer to a link map there.
        let found = unsafe { libc::dlinfo(self.0, libc::RTLD_DI_LINKMAP, (&raw mut map).cast()) };
        if found != 0 || map.is_null() {
            return None;
        }
        // SAFETY: the link map of a library that this handle keeps mapped; these fields do not change.
        let map = unsafe { &*map };
        // SAFETY: the loader's own string, which lives as long as the link map.
        let name = unsafe { CStr::from_ptr(map.name) };
        Some((OsStr::from_bytes(name.to_bytes()).to_string_lossy().into_owned(), map.dynamic as usize))
    }
}

impl Handle {
    /// Asks the loader where it looks for what this library needs.
    fn search_folders(&self) -> Option<Vec<String>> {
        // From dlfcn.h; the libc crate has neither these nor the types.
        const RTLD_DI_SERINFO: c_int = 4;
        const RTLD_DI_SERINFOSIZE: c_int = 5;
        #[repr(C)]
        #[derive(Clone, Copy)]
        struct Head {
            size: usize,
            count: c_uint,
        }
        #[repr(C)]
        struct Folder {
            name: *const c_char,
            flags: c_uint,
        }
        let mut head = Head { size: 0, count: 0 };
        // SAFETY: the handle is open, and with this request the loader writes a head there.
        if unsafe { libc::dlinfo(self.0, RTLD_DI_SERINFOSIZE, (&raw mut head).cast()) } != 0 {
            return None;
        }
        // In words, so that it is aligned as the loader's type is.
        let mut room = vec![0_usize; head.size.div_ceil(size_of::<usize>()).max(2)];
        let list: *mut Head = room.as_mut_ptr().cast();
        // SAFETY: there is room for a head, aligned as it needs to be.
        unsafe { list.write(head) };
        // SAFETY: the handle is open, and the room has the size that the loader asked for, and says so.
        if unsafe { libc::dlinfo(self.0, RTLD_DI_SERINFO, list.cast()) } != 0 {
            return None;
        }
        // SAFETY: the loader has filled the room: behind the head, so many folders, as many as it said that there were.
        let folders = unsafe {
            let first = list.byte_add(std::mem::offset_of!(Head, count) + size_of::<usize>()).cast::<Folder>();
            std::slice::from_raw_parts(first, head.count as usize)
        };
        // SAFETY: each name is a terminated string in the same room, which lives until the end of this function.
        let name = |folder: &Folder| unsafe { CStr::from_ptr(folder.name) }.to_string_lossy().into_owned();
        Some(folders.iter().map(name).collect())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: gives back the reference that `of` took, once.
        unsafe { libc::dlclose(self.0) };
    }
}
