//! What the names of needed libraries lead to: the listing says what the loader finds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hotslot::FoundThrough::{Cache, DefaultFolder, Environment, Name, SearchPath};
use hotslot::{FoundThrough, NeededLibrary};

use super::super::process::in_a_process;
use super::{TemporaryFolder, build, build_at};

const LEAF: &str = "int leaf(void) { return 2; }";
const USER: &str = "int leaf(void); int answer(void) { return leaf(); }";

/// Folders with libraries of the same name.
struct Folders(TemporaryFolder);

impl Folders {
    fn new() -> Folders {
        Folders(TemporaryFolder::new())
    }

    /// A folder in which libleaf.so lies, perhaps in a subfolder for a processor.
    fn with_leaf(&self, name: &str) -> PathBuf {
        let folder = self.0.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        build_at(&folder.join("libleaf.so"), "cc", LEAF, &["-Wl,-soname,libleaf.so"]).expect("a C compiler is needed");
        folder
    }

    /// A plugin that needs libleaf.so, linked with these flags.
    fn plugin(&self, flags: &[&str]) -> Vec<u8> {
        let linked = self.with_leaf("linked");
        let folder = format!("-L{}", linked.display());
        build("cc", USER, &[&[&*folder, "-lleaf"], flags].concat()).unwrap()
    }
}

fn leaf(bytes: &[u8]) -> NeededLibrary {
    let needed = hotslot::inspect(bytes).unwrap().linkage.unwrap().needed;
    needed.into_iter().find(|library| library.name.ends_with("libleaf.so")).expect("it is listed")
}

#[track_caller]
fn leads_to(bytes: &[u8], folder: &Path, through: FoundThrough) {
    let found = leaf(bytes);
    assert_eq!(found.file.as_deref(), folder.join("libleaf.so").to_str(), "{found:?}");
    assert_eq!(found.found_through, Some(through));
}

#[test]
fn a_search_path_leads_to_a_library_of_this_machine() {
    let folders = Folders::new();
    let (wrong, right) = (folders.0.path().join("wrong"), folders.with_leaf("right"));
    fs::create_dir(&wrong).unwrap();
    fs::write(wrong.join("libleaf.so"), "GROUP ( right )").unwrap();
    for tags in ["-Wl,--enable-new-dtags", "-Wl,--disable-new-dtags"] {
        let path = format!("-Wl,-rpath,{}:{}", wrong.display(), right.display());
        leads_to(&folders.plugin(&[tags, &path]), &right, SearchPath);
    }
    let nowhere = leaf(&folders.plugin(&[]));
    assert_eq!((nowhere.file, nowhere.found_through), (None, None));
}

#[test]
fn a_name_with_a_slash_is_a_path() {
    let folders = Folders::new();
    let folder = folders.with_leaf("named");
    let path = folder.join("libleaf.so");
    build_at(&path, "cc", LEAF, &[&format!("-Wl,-soname,{}", path.display())]).unwrap();
    let bytes = build("cc", USER, &[path.to_str().unwrap()]).unwrap();
    leads_to(&bytes, &folder, Name);
}

/// What the library for this processor is, beside the one for all.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_folder_for_this_processor_comes_first() {
    if !std::arch::is_x86_feature_detected!("sse4.2") {
        return println!("skipped: a processor of the first level");
    }
    let folders = Folders::new();
    let all = folders.with_leaf("all");
    let second = folders.with_leaf("all/glibc-hwcaps/x86-64-v2");
    folders.with_leaf("all/glibc-hwcaps/x86-64-v9");
    let path = format!("-Wl,-rpath,{}", all.display());
    leads_to(&folders.plugin(&[&path]), &second, SearchPath);
}

/// `DT_RPATH` is inherited and comes before the environment, `DT_RUNPATH` is not, and comes after it.
#[test]
fn what_a_library_needs_is_looked_for_where_the_loader_does() {
    let folders = Folders::new();
    let (near, far) = (folders.with_leaf("near"), folders.with_leaf("far"));
    let middle = folders.0.path().join("middle");
    fs::create_dir(&middle).unwrap();
    let leaf_in = |folder: &Path| format!("-L{}", folder.display());
    let text = "int leaf(void); int middle(void) { return leaf(); }";
    build_at(&middle.join("libmiddle.so"), "cc", text, &[&leaf_in(&near), "-lleaf"]).unwrap();
    let user = "int middle(void); int answer(void) { return middle(); }";
    let plugin = |tags: &str| {
        let path = format!("-Wl,-rpath,{}:{}", middle.display(), far.display());
        let link = format!("-Wl,-rpath-link,{}", far.display());
        build("cc", user, &[&leaf_in(&middle), "-lmiddle", &path, &link, tags]).unwrap()
    };
    leads_to(&plugin("-Wl,--disable-new-dtags"), &far, SearchPath);
    let own = leaf(&plugin("-Wl,--enable-new-dtags"));
    assert_eq!((own.file, own.needed_by.as_deref()), (None, Some("libmiddle.so")), "it is not inherited");
}

/// A child of this test with another environment, and with another cache if there is one.
fn with_environment(test: &str, variables: &[(&str, &Path)], before: &str) -> Option<String> {
    let script = format!("{before} exec \"$0\" --exact native::linking::resolution::{test} --ignored --nocapture");
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]).arg(std::env::current_exe().unwrap()).envs(variables.iter().copied());
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.code() == Some(77) || text.contains("unshare:") {
        println!("skipped: no mounts of one's own here: {text}");
        return None;
    }
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    Some(text)
}

/// Looks at the plugin in `PLUGIN`, prints what it leads to, and loads it.
#[test]
#[ignore = "a part of other tests"]
fn what_the_plugin_leads_to() {
    let plugin = fs::read(std::env::var_os("PLUGIN").unwrap()).unwrap();
    let found = leaf(&plugin);
    println!("FOUND {:?} {}", found.found_through, found.file.unwrap_or_default());
    let slot = hotslot::HotSlot::builder(super::answers()).open(&plugin);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().find(|line| line.ends_with("libleaf.so")).and_then(|line| line.split_whitespace().nth(5));
    println!("LOADED {} {}", slot.is_ok(), mapped.unwrap_or_default());
}

/// What was found, and what the loader mapped then.
#[track_caller]
fn found_and_loaded(
    folders: &Folders,
    plugin: &[u8],
    variables: &[(&str, &Path)],
    before: &str,
) -> Option<(String, String)> {
    let path = folders.0.path().join("plugin.so");
    fs::write(&path, plugin).unwrap();
    let variables = [variables, &[("PLUGIN", &*path)]].concat();
    let text = with_environment("what_the_plugin_leads_to", &variables, before)?;
    let line =
        |mark: &str| text.lines().find_map(|line| Some(line.split_once(mark)?.1.to_owned())).expect("it says so");
    Some((line("FOUND "), line("LOADED ")))
}

#[test]
fn the_environment_comes_between_the_two_search_paths() {
    let folders = Folders::new();
    let (own, environment) = (folders.with_leaf("own"), folders.with_leaf("environment"));
    let path = format!("-Wl,-rpath,{}", own.display());
    for (tags, through, folder) in
        [("-Wl,--disable-new-dtags", SearchPath, &own), ("-Wl,--enable-new-dtags", Environment, &environment)]
    {
        let plugin = folders.plugin(&[&path, tags]);
        let Some((found, loaded)) = found_and_loaded(&folders, &plugin, &[("LD_LIBRARY_PATH", &environment)], "")
        else {
            return;
        };
        let file = folder.join("libleaf.so");
        assert_eq!(found, format!("{:?} {}", Some(through), file.display()));
        assert_eq!(loaded, format!("true {}", file.display()), "the loader agrees");
    }
}

/// A cache that ldconfig wrote, in the place of the system's.
#[test]
fn the_loaders_cache_leads_to_folders_that_nobody_names() {
    let folders = Folders::new();
    let cached = folders.with_leaf("cached");
    let path = |name: &str| folders.0.path().join(name);
    fs::write(path("conf"), format!("{}\n", cached.display())).unwrap();
    let ldconfig = ["/sbin/ldconfig", "ldconfig"].into_iter().find_map(|program| {
        let arguments = [path("conf"), path("cache")];
        Command::new(program).arg("-X").arg("-f").arg(&arguments[0]).arg("-C").arg(&arguments[1]).output().ok()
    });
    let Some(output) = ldconfig else { return println!("skipped: no ldconfig here") };
    assert!(path("cache").is_file(), "{}", String::from_utf8_lossy(&output.stderr));

    let before = format!("mount --bind '{}' /etc/ld.so.cache || exit 77;", path("cache").display());
    let plugin = folders.plugin(&[]);
    let Some((found, loaded)) = found_and_loaded(&folders, &plugin, &[], &before) else { return };
    let file = cached.join("libleaf.so");
    assert_eq!(found, format!("{:?} {}", Some(Cache), file.display()));
    assert_eq!(loaded, format!("true {}", file.display()), "the loader agrees");

    // A cache of any bytes leads nowhere, and harms nobody; the loader itself believes none either.
    for damage in [&b"glibc-ld.so.cache1.1\xff\xff\xff\xff\xff\xff\xff\xff\x02"[..], b"", b"nonsense"] {
        fs::write(path("cache"), damage).unwrap();
        let (found, loaded) = found_and_loaded(&folders, &plugin, &[], &before).expect("it could be mounted before");
        assert_eq!((&*found, &*loaded), ("None ", "false "));
    }
}

/// Real libraries of the system: what `ldd` says that they lead to.
#[test]
fn libraries_of_the_system_are_found_where_the_loader_finds_them() {
    let Some(end) = in_a_process(|| {
        let (mut compared, mut differ) = (0, Vec::new());
        let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
        let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let files =
            files.map(|entry| entry.path()).filter(|path| path.to_str().is_some_and(|path| path.contains(".so")));
        for file in files.take(150) {
            let Ok(bytes) = fs::read(&file) else { continue };
            let Ok(Some(linkage)) = hotslot::inspect(&bytes).map(|found| found.linkage) else { continue };
            let Ok(output) = Command::new("ldd").arg(&file).output() else { return println!("skipped: no ldd here") };
            let listed = String::from_utf8_lossy(&output.stdout).into_owned();
            for library in linkage.needed.iter().filter(|library| library.mapped.is_none()) {
                let line =
                    listed.lines().find_map(|line| line.trim().strip_prefix(&*library.name)?.strip_prefix(" => "));
                let Some(line) = line else { continue };
                let expected = line.split(" (").next().filter(|path| path.starts_with('/'));
                compared += 1;
                let same = |one: &str, other: &str| fs::canonicalize(one).ok() == fs::canonicalize(other).ok();
                match (expected, library.file.as_deref()) {
                    (Some(one), Some(other)) if same(one, other) => {}
                    (None, None) => {}
                    (one, other) => {
                        differ.push(format!("{}: {}: {one:?}, not {other:?}", file.display(), library.name))
                    }
                }
                assert!(matches!(library.found_through, None | Some(Cache | DefaultFolder | SearchPath)));
            }
        }
        assert!(differ.is_empty(), "{differ:?}");
        assert!(compared > 0, "nothing was compared");
        println!("{compared} names compared");
    }) else {
        return;
    };
    assert!(end.status.success(), "{}", end.output);
}
