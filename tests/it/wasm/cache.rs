//! Modules that are known already: in memory, and in a folder. FAULTS 35, 36.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hotslot::wasm::{DiskCacheStatus, Engine, EngineBuilder, EngineError};
use hotslot::{Candidate, HotSlot};
use tempfile::TempDir;

use super::{answer, backend, engine, module};

fn builder(folder: &Path) -> EngineBuilder {
    Engine::builder().max_instances(4).cache_dir(folder)
}

/// A process of its own, as far as engines can tell: compiles or finds the module, and calls it.
fn run(builder: EngineBuilder, bytes: &[u8], expected: u32) -> Engine {
    let engine = builder.build().unwrap();
    let slot = HotSlot::builder(backend(&engine)).open(bytes).unwrap();
    assert_eq!(answer(&slot.load()).unwrap(), expected);
    engine
}

/// The compiled modules in a folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut entries: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "module")).collect();
    entries.sort();
    entries
}

#[test]
fn a_module_that_comes_back_is_not_compiled_again() {
    let engine = engine();
    let slot = HotSlot::builder(backend(&engine)).open(module("1.0.0", 1)).unwrap();
    slot.reload(module("1.1.0", 2)).unwrap();
    for _ in 0..5 {
        slot.reload(Candidate::new(module("1.1.0", 2)).force()).unwrap();
    }
    let other = HotSlot::builder(backend(&engine)).open(module("1.0.0", 1)).unwrap();
    assert_eq!(answer(&other.load()).unwrap(), 1);
    let status = engine.status();
    assert_eq!((status.compiled, status.found_in_memory, status.found_on_disk), (2, 6, 0));
}

#[test]
fn what_is_kept_in_memory_is_bounded() {
    let engine = Engine::builder().max_instances(4).memory_cache_limit(0).build().unwrap();
    let slot = HotSlot::builder(backend(&engine)).open(module("1.0.0", 1)).unwrap();
    slot.reload(Candidate::new(module("1.0.0", 1)).force()).unwrap();
    assert_eq!((engine.status().compiled, engine.status().found_in_memory), (2, 0));
}

#[test]
fn a_known_module_is_found_in_the_folder_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/compiled");
    let bytes = module("1.0.0", 1);
    assert_eq!(run(builder(&path), &bytes, 1).status().compiled, 1);
    assert_eq!(entries(&path).len(), 1);
    let status = run(builder(&path), &bytes, 1).status();
    assert_eq!((status.compiled, status.found_on_disk, status.entries_skipped), (0, 1, 0));
    // An engine that is set up differently has entries of its own.
    let status = run(builder(&path).on_demand(), &bytes, 1).status();
    assert_eq!((status.compiled, status.entries_skipped), (1, 0));
    assert_eq!(entries(&path).len(), 2);
}

/// Damages the one entry of a folder; it must be skipped, counted, compiled again and written anew.
#[track_caller]
fn damaged(damage: impl FnOnce(&Path)) {
    let folder = TempDir::new().unwrap();
    let (path, bytes) = (folder.path().join("compiled"), module("1.0.0", 1));
    run(builder(&path), &bytes, 1);
    damage(&entries(&path)[0]);
    let status = run(builder(&path), &bytes, 1).status();
    assert_eq!((status.compiled, status.found_on_disk, status.entries_skipped), (1, 0, 1));
    let status = run(builder(&path), &bytes, 1).status();
    assert_eq!((status.compiled, status.found_on_disk), (0, 1), "it was written anew");
}

#[test]
fn an_entry_that_was_changed_is_skipped_wherever_the_change_is() {
    for part in 0..8 {
        damaged(|entry| {
            let mut bytes = fs::read(entry).unwrap();
            let index = (bytes.len() - 1) * part / 7;
            bytes[index] ^= 1;
            fs::write(entry, bytes).unwrap();
        });
    }
}

#[test]
fn an_entry_that_was_cut_short_is_skipped() {
    for part in 0..4 {
        damaged(|entry| {
            let bytes = fs::read(entry).unwrap();
            fs::write(entry, &bytes[..(bytes.len() - 1) * part / 3]).unwrap();
        });
    }
}

#[test]
fn an_entry_without_a_mac_is_skipped() {
    damaged(|entry| {
        let bytes = fs::read(entry).unwrap();
        fs::write(entry, &bytes[32..]).unwrap();
    });
}

/// An entry that another process's key vouches for.
#[test]
fn an_entry_from_elsewhere_is_skipped() {
    let (folder, bytes) = (TempDir::new().unwrap(), module("1.0.0", 1));
    let elsewhere = folder.path().join("elsewhere");
    run(builder(&elsewhere), &bytes, 1);
    damaged(|entry| assert!(fs::copy(&entries(&elsewhere)[0], entry).unwrap() > 0));
}

/// A genuine entry under another module's name would be another program.
#[test]
fn an_entry_under_another_name_is_skipped() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    let (one, two) = (module("1.0.0", 1), module("1.0.0", 2));
    run(builder(&path), &one, 1);
    let genuine = entries(&path)[0].clone();
    run(builder(&path), &two, 2);
    let other = entries(&path).into_iter().find(|entry| *entry != genuine).unwrap();
    fs::copy(genuine, other).unwrap();
    let status = run(builder(&path), &two, 2).status();
    assert_eq!((status.compiled, status.entries_skipped), (1, 1));
}

#[test]
fn a_key_that_is_lost_or_damaged_costs_a_compilation() {
    let folder = TempDir::new().unwrap();
    let (path, bytes) = (folder.path().join("compiled"), module("1.0.0", 1));
    // Functions, which would be skipped and counted, too, if they are written by then, are in `functions`.
    let builder = |folder: &Path| builder(folder).function_cache_limit(0);
    run(builder(&path), &bytes, 1);
    let key = path.join("key");
    for damage in [|key: &Path| fs::remove_file(key).unwrap(), |key: &Path| fs::write(key, "short").unwrap()] {
        damage(&key);
        assert_eq!(run(builder(&path), &bytes, 1).status().entries_skipped, 1);
        assert_eq!(run(builder(&path), &bytes, 1).status().found_on_disk, 1);
    }
}

#[test]
fn the_folder_does_not_grow_beyond_its_limit() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    // Without functions, which count, too: see `functions`.
    run(builder(&path).function_cache_limit(0), &module("1.0.0", 0), 0);
    let size = fs::metadata(&entries(&path)[0]).unwrap().len();
    for answer in 1..5 {
        let small = builder(&path).disk_cache_limit(2 * size + size / 2).function_cache_limit(0);
        run(small, &module("1.0.0", answer), answer);
        assert_eq!(entries(&path).len(), 2);
    }
    // The last one is still there; and nothing that was only begun.
    assert_eq!(run(builder(&path), &module("1.0.0", 4), 4).status().found_on_disk, 1);
    let others = fs::read_dir(&path).unwrap().count() - entries(&path).len();
    assert_eq!(others, 1, "the key");
}

#[test]
fn what_a_killed_process_had_only_begun_is_removed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    run(builder(&path), &module("1.0.0", 0), 0);
    let (old, young) = (path.join("1-0.new"), path.join("1-1.new"));
    for file in [&old, &young] {
        fs::write(file, "half").unwrap();
    }
    let yesterday = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    fs::File::options().write(true).open(&old).unwrap().set_modified(yesterday).unwrap();
    run(builder(&path), &module("1.0.0", 1), 1);
    assert!(!old.exists() && young.exists(), "the young one may be somebody's");
}

#[test]
fn a_folder_that_cannot_be_written_any_more_does_not_fail_a_load() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    let engine = builder(&path).build().unwrap();
    fs::remove_dir_all(&path).unwrap();
    let slot = HotSlot::builder(backend(&engine)).open(module("1.0.0", 1)).unwrap();
    assert_eq!(answer(&slot.load()).unwrap(), 1);
    // Too large for the folder: the same.
    run(builder(&path).disk_cache_limit(10), &module("1.0.0", 1), 1);
    assert_eq!(entries(&path).len(), 0);
}

#[cfg(unix)]
#[test]
fn a_folder_that_others_can_get_at_is_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let parent = TempDir::new().unwrap();
    let path = parent.path().join("compiled");
    run(builder(&path), &module("1.0.0", 1), 1);
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(path.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = |path: &Path, reason: &str| {
        let error = builder(path).build().unwrap_err();
        assert!(matches!(error, EngineError::CacheDir { .. }) && error.to_string().contains(reason), "{error}");
    };
    mode(&path, 0o750);
    refused(&path, "mode 750");
    mode(&path, 0o700);
    mode(&path.join("key"), 0o640);
    refused(&path, "the key");
    mode(&path.join("key"), 0o600);
    let link = parent.path().join("link");
    symlink(&path, &link).unwrap();
    refused(&link, "not a folder itself");
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    refused(&file, "");
    builder(&path).build().unwrap();
}

/// Uses the cache in a folder as a process of its own does, and says what became of it.
#[test]
#[ignore = "runs inside of another test"]
fn a_process_of_its_own() {
    let folder = std::env::var_os("FOLDER").expect("the outer test names it");
    let engine = run(builder(Path::new(&folder)), &module("1.0.0", 1), 1);
    println!("STATUS {:?}", engine.status());
}

/// Runs [`a_process_of_its_own`] where `mount` has prepared `$FOLDER`; `None` where nothing can be mounted.
#[cfg(target_os = "linux")]
fn mounted(folder: &Path, mount: &str) -> Option<String> {
    let myself = std::env::current_exe().unwrap();
    let run = r#" || exit 77; exec "$0" --exact wasm::cache::a_process_of_its_own --ignored --nocapture"#;
    let script = format!("{mount}{run}");
    let inside = std::process::Command::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .arg(myself)
        .env("FOLDER", folder)
        .output();
    let Ok(output) = inside else {
        eprintln!("skipped: there is no program unshare");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || text.contains("unshare failed") {
        eprintln!("skipped: nothing can be mounted here: {text}");
        return None;
    }
    assert!(output.status.success(), "{text}");
    text.lines().find(|line| line.contains("STATUS ")).map(str::to_owned)
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_or_is_full_costs_at_most_the_cache() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    run(builder(&path), &module("1.0.0", 1), 1);
    // Good entries, mounted for reading only: they are used.
    let read_only = r#"mount --bind "$FOLDER" "$FOLDER" && mount -o remount,ro,bind "$FOLDER""#;
    if let Some(status) = mounted(&path, read_only) {
        assert!(status.contains("compiled: 0,") && status.contains("found_on_disk: 1"), "{status}");
    }
    // No entries, and a key: nothing is written.
    fs::remove_file(&entries(&path)[0]).unwrap();
    if let Some(status) = mounted(&path, read_only) {
        assert!(status.contains("NotWritable(ReadOnlyFilesystem)"), "{status}");
    }
    // Nothing at all, for reading only; and full, before and after the key is written.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let tmpfs = r#"mount -t tmpfs -o size=SIZE,mode=700 tmpfs "$FOLDER""#;
    let ro = format!(r#"{} && mount -o remount,ro "$FOLDER""#, tmpfs.replace("SIZE", "1m"));
    if let Some(status) = mounted(&empty, &ro) {
        assert!(status.contains("Unavailable(ReadOnlyFilesystem)"), "{status}");
    }
    let full = format!(r#"{} && {{ head -c 100000 /dev/zero > "$FOLDER/fill"; true; }}"#, tmpfs.replace("SIZE", "8k"));
    if let Some(status) = mounted(&empty, &full) {
        assert!(status.contains("Unavailable(StorageFull)"), "{status}");
    }
    if let Some(status) = mounted(&empty, &tmpfs.replace("SIZE", "8k")) {
        assert!(status.contains("NotWritable(StorageFull)"), "{status}");
    }
}

#[test]
fn what_others_left_in_the_folder_stays_and_is_not_in_the_way() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    run(builder(&path), &module("1.0.0", 0), 0);
    // The names that a process of the same number would have had.
    let theirs: Vec<_> = (0..50).map(|count| path.join(format!("{}-{count}.new", std::process::id()))).collect();
    theirs.iter().for_each(|file| fs::write(file, "theirs").unwrap());
    fs::create_dir(path.join("folder.module")).unwrap();
    fs::create_dir(path.join("folder.new")).unwrap();
    std::thread::scope(|scope| {
        for answer in 1..5 {
            let path = &path;
            scope.spawn(move || run(builder(path).disk_cache_limit(1 << 20), &module("1.0.0", answer), answer));
        }
    });
    for answer in 0..5 {
        let status = run(builder(&path), &module("1.0.0", answer), answer).status();
        assert_eq!((status.found_on_disk, status.disk_cache), (1, DiskCacheStatus::Working), "{answer}");
    }
    assert!(theirs.iter().all(|file| file.exists()));
}
