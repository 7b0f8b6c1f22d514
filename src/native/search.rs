//! Where the loader finds a library that it does not have yet.
//!
//! Its order: the folders that the needing image names (`DT_RPATH`, and those of the images that need it, and of the program,
//! unless the image has `DT_RUNPATH`), `LD_LIBRARY_PATH` as it was at the start, `DT_RUNPATH`, its cache, the folders of the system. In
//! each folder the subfolders for this processor come first. What is for another machine is passed over. Subfolders for
//! processors from before levels, which glibc dropped in 2.37, are not looked at.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::ld_cache::LdCache;
use super::processor;
use crate::FoundThrough;

const CACHE: &str = "/etc/ld.so.cache";
/// A larger cache is not read.
const LARGEST_CACHE: u64 = 64 << 20;

/// Where one image says that its libraries are.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    /// Its `DT_RPATH`, and those of the images that need it, the nearest first.
    pub(super) inherited: Vec<String>,
    /// Its `DT_RUNPATH`, if it has one: the others do not count then.
    pub(super) own: Option<Vec<String>>,
    pub(super) no_default_folders: bool,
}

impl Paths {
    /// All folders that the image names, in the order in which they are looked at.
    pub(super) fn named(&self) -> &[String] {
        self.own.as_deref().unwrap_or(&self.inherited)
    }
}

/// What is the same for all images of a process.
pub(super) struct Search {
    /// The program's `DT_RPATH` and `LD_LIBRARY_PATH`, with which of them it is.
    pub(super) process: Vec<(String, FoundThrough)>,
    pub(super) default: Vec<String>,
    cache: Vec<u8>,
}

impl Search {
    /// `folders` are all that the loader looks at for an image that names none.
    pub(super) fn new(folders: Vec<String>) -> Search {
        let (process, default) = split(&folders);
        let environment = at_start("LD_LIBRARY_PATH");
        let through = |folder: String| {
            let is_named = environment.iter().any(|named| *named == folder || (named.is_empty() && folder == "."));
            let through = if is_named { FoundThrough::Environment } else { FoundThrough::SearchPath };
            (folder, through)
        };
        Search { process: process.into_iter().map(through).collect(), default, cache: read_cache().unwrap_or_default() }
    }

    /// Finds a library that an image with these paths needs.
    pub(super) fn find(&self, name: &str, paths: &Paths) -> Option<(PathBuf, FoundThrough)> {
        if name.contains('/') {
            let path = absolute(Path::new(name))?;
            return is_for_this_process(&path).then_some((path, FoundThrough::Name));
        }
        if paths.own.is_none()
            && let Some(found) = in_folders(name, &paths.inherited)
        {
            return Some((found, FoundThrough::SearchPath));
        }
        let of_process = self.process.iter().filter(|(_, through)| {
            // What the program inherits to others does not count where they have paths of their own.
            paths.own.is_none() || *through == FoundThrough::Environment
        });
        for (folder, through) in of_process {
            if let Some(found) = in_folders(name, std::slice::from_ref(folder)) {
                return Some((found, *through));
            }
        }
        if let Some(own) = &paths.own
            && let Some(found) = in_folders(name, own)
        {
            return Some((found, FoundThrough::SearchPath));
        }
        if let Some(found) = self.cached(name, paths.no_default_folders) {
            return Some((found, FoundThrough::Cache));
        }
        if paths.no_default_folders {
            return None;
        }
        in_folders(name, &self.default).map(|found| (found, FoundThrough::DefaultFolder))
    }

    /// The loader takes the entry for the best level that this processor has, or else the first one that is for all.
    fn cached(&self, name: &str, no_default_folders: bool) -> Option<PathBuf> {
        let cache = LdCache::read(&self.cache)?;
        let entries: Vec<_> = cache
            .find(name)
            .filter(|entry| {
                let folder = Path::new(entry.path).parent().and_then(Path::to_str);
                !no_default_folders || !self.default.iter().any(|default| Some(&**default) == folder)
            })
            .filter(|entry| entry.path.starts_with('/') && is_for_this_process(Path::new(entry.path)))
            .collect();
        let best = processor::levels().find_map(|level| entries.iter().find(|entry| entry.level == Some(level)));
        let best = best.or_else(|| entries.iter().find(|entry| entry.level.is_none()))?;
        Some(PathBuf::from(best.path))
    }
}

/// Finds a library in those folders that do not depend on who looks.
pub(super) fn in_folders(name: &str, folders: &[String]) -> Option<PathBuf> {
    folders.iter().filter_map(|folder| absolute(Path::new(folder))).find_map(|folder| {
        let subfolders = processor::levels().map(|level| folder.join("glibc-hwcaps").join(level));
        subfolders.chain([folder.to_owned()]).map(|folder| folder.join(name)).find(|path| is_for_this_process(path))
    })
}

/// Puts the working directory before a path, as it is now; `None` if there are tokens left in it that mean something else to the
/// library that it is from.
fn absolute(path: &Path) -> Option<PathBuf> {
    let is_plain = !path.as_os_str().as_encoded_bytes().contains(&b'$');
    if is_plain { std::path::absolute(path).ok() } else { None }
}

/// Tells the folders of the system, which come last, from what the process was given.
fn split(folders: &[String]) -> (Vec<String>, Vec<String>) {
    let is_default = |folder: &str| {
        let known = ["/lib", "/usr/lib"].iter().find_map(|known| folder.strip_prefix(known).map(|rest| (known, rest)));
        known.is_some_and(|(_, rest)| {
            matches!(rest.trim_end_matches('/'), "" | "64" | "32" | "x32") || rest.contains("-linux-gnu")
        })
    };
    let mut at = folders.len();
    // Each is there once; what comes before, even if it is one of them, was named.
    while at > 0 && is_default(&folders[at - 1]) && !folders[at..].contains(&folders[at - 1]) {
        at -= 1;
    }
    let (process, default) = folders.split_at(at);
    let tidied = |folders: &[String]| folders.iter().map(|folder| tidied(folder)).collect();
    (tidied(process), tidied(default))
}

/// Without a slash at the end.
fn tidied(folder: &str) -> String {
    if folder.len() > 1 { folder.trim_end_matches('/').to_owned() } else { folder.to_owned() }
}

/// The folders in a variable of the environment that the process was started with; later changes mean nothing to the loader.
fn at_start(variable: &str) -> Vec<String> {
    let environment = std::fs::read("/proc/self/environ").unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let value = variables.find_map(|entry| Some(entry.strip_prefix(variable)?.strip_prefix('=')?.to_owned()));
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let origin = program.parent().and_then(Path::to_str).unwrap_or_default();
    let expanded = |folder: &str| tidied(&folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin));
    value.unwrap_or_default().split([':', ';']).map(expanded).collect()
}

fn read_cache() -> Option<Vec<u8>> {
    let file = File::open(CACHE).ok()?;
    let mut bytes = Vec::new();
    file.take(LARGEST_CACHE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Whether a file is an image of this process's kind; the loader looks on if it is not.
fn is_for_this_process(path: &Path) -> bool {
    /// Class, byte order, and machine of an image.
    fn kind(path: &Path) -> Option<[u8; 4]> {
        // Opening something else, a pipe for instance, might wait.
        if !std::fs::metadata(path).ok()?.is_file() {
            return None;
        }
        let mut header = [0; 20];
        File::open(path).ok()?.read_exact(&mut header).ok()?;
        header.starts_with(b"\x7fELF").then_some([header[4], header[5], header[18], header[19]])
    }
    static OWN: std::sync::OnceLock<Option<[u8; 4]>> = std::sync::OnceLock::new();
    let own = OWN.get_or_init(|| kind(Path::new("/proc/self/exe")));
    own.is_none_or(|own| kind(path) == Some(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(folders: &[&str]) -> Vec<String> {
        folders.iter().map(|folder| (*folder).to_owned()).collect()
    }

    #[test]
    fn folders_of_the_system_are_told_from_those_that_were_named() {
        for (folders, named) in [
            (&["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"][..], 0),
            (&["/lib64", "/usr/lib64"], 0),
            (&["/lib64/", "/usr/lib64/", "/lib/", "/usr/lib/"], 0),
            (&["/opt/a", "/opt/b", "/lib64", "/usr/lib64"], 2),
            (&["/usr/lib", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"], 1),
            (&["/usr/lib64/private", "/lib64", "/usr/lib64"], 1),
            (&[], 0),
        ] {
            let (process, default) = split(&owned(folders));
            assert_eq!((process.len(), default.len()), (named, folders.len() - named), "{folders:?}");
        }
    }

    #[test]
    fn only_images_for_this_process_count() {
        assert!(is_for_this_process(&std::env::current_exe().unwrap()));
        for other in ["/proc/self/status", "/", "/dev/null", "/nowhere", CACHE] {
            assert!(!is_for_this_process(Path::new(other)), "{other}");
        }
    }
}
