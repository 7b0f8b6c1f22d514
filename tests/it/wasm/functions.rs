//! What an edit costs: functions of earlier modules are compiled code already. FAULTS 35, 36.
//!
//! Exact counts are those of one thread and of modules whose last function is the exported one: the compiler looks functions
//! up under a second key after what leads into an exported one, which is said, and tested, where it happens.

use std::fs;
use std::path::{Path, PathBuf};

use hotslot::wasm::{Engine, EngineBuilder, Func, WasmCallError, WasmPlugin};
use hotslot::{HotSlot, VersionRule};
use tempfile::TempDir;

use super::compile;
use crate::support::eventually;

/// How many functions a module has besides those that are called.
const FUNCTIONS: u32 = 40;

/// A module of functions that call each other. Each answers something else, and adds it to what the next one answers.
#[derive(Clone)]
struct Text {
    /// What comes before the functions.
    before: String,
    /// What comes after them.
    after: String,
    bodies: Vec<String>,
}

impl Text {
    fn new() -> Text {
        let body = |number: u32| format!("(i32.mul (local.get 0) (i32.const {}))", number + 1_000);
        Text { before: String::new(), after: String::new(), bodies: (0..FUNCTIONS).map(body).collect() }
    }

    /// Makes one function longer, and its answer larger by `by`.
    fn edit(&mut self, number: usize, by: u32) {
        let body = &mut self.bodies[number];
        *body = format!("(i32.add (i32.const {by}) {body})");
    }

    fn bytes(&self) -> Vec<u8> {
        let functions = self.bodies.iter().enumerate().map(|(number, body)| {
            let next = match number + 1 < self.bodies.len() {
                true => format!("(call $f{} (local.get 0))", number + 1),
                false => "(i32.const 0)".to_owned(),
            };
            format!("(func $f{number} (param i32) (result i32) (i32.add {body} {next}))")
        });
        let functions: String = functions.collect();
        compile(&format!(
            r#"(module {} (memory (export "memory") 1)
              {functions}
              {}
              (func (export "sum") (param i32) (result i32) (call $f0 (local.get 0))))"#,
            self.before, self.after
        ))
    }
}

type Plugin = WasmPlugin<Func<u32, u32>>;

fn slot(engine: &Engine, bytes: Vec<u8>) -> HotSlot<Plugin> {
    let bind = |binder: &mut hotslot::wasm::Binder<'_>| -> Result<_, WasmCallError> { binder.func("sum") };
    HotSlot::builder(engine.bind(bind)).version_rule(VersionRule::Any).open(bytes).unwrap()
}

fn sum(slot: &HotSlot<Plugin>, of: u32) -> u32 {
    slot.load().call(|sum, call| call.run(sum, of)).unwrap()
}

/// What the unedited module answers to 1.
fn plain() -> u32 {
    (0..FUNCTIONS).map(|number| number + 1_000).sum()
}

/// Returns how many functions were compiled and reused since `before`.
fn since(engine: &Engine, before: (u64, u64)) -> (u64, u64) {
    let now = counts(engine);
    (now.0 - before.0, now.1 - before.1)
}

fn counts(engine: &Engine) -> (u64, u64) {
    let status = engine.status();
    (status.functions_compiled, status.functions_reused)
}

fn builder() -> EngineBuilder {
    Engine::builder().max_instances(8).compile_threads(1)
}

/// The packs of functions in a folder.
fn packs(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|it| it == "functions")).collect()
}

#[test]
fn an_edit_of_one_function_compiles_that_function_alone() {
    let engine = builder().build().unwrap();
    let mut text = Text::new();
    let slot = slot(&engine, text.bytes());
    assert_eq!(sum(&slot, 1), plain());
    let (all, _) = counts(&engine);
    assert!(all > u64::from(FUNCTIONS));
    let mut expected = plain();
    // The functions behind it are somewhere else in the file, and calls lead to other offsets.
    for (number, by) in [(0, 5), (20, 300), (39, 70_000), (20, 7)] {
        let before = counts(&engine);
        text.edit(number, by);
        slot.reload(text.bytes()).unwrap();
        expected += by;
        assert_eq!(sum(&slot, 1), expected);
        assert_eq!(since(&engine, before), (1, all - 1), "function {number}");
    }
    let status = engine.status();
    assert_eq!((status.compiled, status.found_in_memory), (5, 0), "all of them were new modules");
}

#[test]
fn functions_that_come_and_go_leave_the_others_as_they_are() {
    let engine = builder().build().unwrap();
    let mut text = Text::new();
    let slot = slot(&engine, text.bytes());
    // A function in front of all, which gives each another number.
    let before = counts(&engine);
    text.bodies.insert(0, "(i32.const 77)".to_owned());
    slot.reload(text.bytes()).unwrap();
    assert_eq!(sum(&slot, 1), plain() + 77);
    assert_eq!(since(&engine, before).0, 1);
    // A section that is no code, and a removed function: nothing is compiled.
    let before = counts(&engine);
    text.before = r#"(@custom "note" "about nothing")"#.to_owned();
    text.bodies.remove(0);
    slot.reload(text.bytes()).unwrap();
    assert_eq!(sum(&slot, 1), plain());
    assert_eq!(since(&engine, before).0, 0);
}

#[test]
fn what_an_edit_changes_elsewhere_is_compiled_too() {
    let engine = builder().build().unwrap();
    let mut text = Text::new();
    text.before = "(global $count (mut i32) (i32.const 1))".to_owned();
    for number in [3, 4] {
        text.bodies[number] = format!("(i32.mul (global.get $count) (i32.const {number}))");
    }
    let slot = slot(&engine, text.bytes());
    let answer = sum(&slot, 1);
    // The global is another one of the instance's now, for the two functions that read it.
    let before = counts(&engine);
    text.before.insert_str(0, "(global $other (mut i32) (i32.const 5))");
    slot.reload(text.bytes()).unwrap();
    assert_eq!(sum(&slot, 1), answer);
    assert_eq!(since(&engine, before).0, 2);
}

/// The compiler's own state gives functions behind exported ones a second key: see src/wasm/function_cache.rs.
#[test]
fn functions_behind_exported_ones_are_compiled_twice_at_the_most() {
    let engine = builder().build().unwrap();
    let mut text = Text::new();
    text.after = [5, 11, 30].map(|number| format!("(export \"f{number}\" (func $f{number}))")).concat();
    let slot = slot(&engine, text.bytes());
    let all = counts(&engine).0 + counts(&engine).1;
    let rounds = 2 * u64::from(FUNCTIONS);
    for round in 0..rounds {
        text.edit(39, 1);
        slot.reload(text.bytes()).unwrap();
        let before = counts(&engine);
        // The same functions, as another module.
        text.before = format!(r#"(@custom "note" "{round}")"#);
        slot.reload(text.bytes()).unwrap();
        let (compiled, reused) = since(&engine, before);
        assert_eq!(compiled + reused, all);
        assert!(compiled <= 3, "one behind each of them: {compiled}");
    }
    assert_eq!(sum(&slot, 1), plain() + rounds as u32);
    // The edits, and each function once more.
    assert!(counts(&engine).0 <= 2 * all + 2 * rounds, "{}", counts(&engine).0);
}

#[test]
fn slots_that_compile_at_once_share_what_they_compile() {
    const SLOTS: u32 = 6;
    let engine = builder().build().unwrap();
    let first = slot(&engine, Text::new().bytes());
    let (all, _) = counts(&engine);
    let before = counts(&engine);
    std::thread::scope(|scope| {
        for number in 0..SLOTS {
            let engine = &engine;
            scope.spawn(move || {
                let slot = slot(engine, Text::new().bytes());
                let mut text = Text::new();
                for round in 1..=4 {
                    text.edit(number as usize, 100 * number + round);
                    slot.reload(text.bytes()).unwrap();
                    assert_eq!(sum(&slot, 1), plain() + round * 100 * number + round * (round + 1) / 2);
                }
            });
        }
    });
    // Each edit; and a function that follows on what another slot's thread has just done, under its second key.
    let (compiled, reused) = since(&engine, before);
    let (edits, looked_up) = (u64::from(SLOTS) * 4, u64::from(SLOTS) * 4 * all);
    assert_eq!(compiled + reused, looked_up);
    assert!(compiled >= edits && compiled <= edits + looked_up / 4, "{compiled}");
    assert_eq!(sum(&first, 1), plain());
}

#[test]
fn what_is_kept_of_functions_is_bounded_and_can_be_turned_off() {
    let engine = builder().function_cache_limit(4 << 10).build().unwrap();
    let (mut text, mut other) = (Text::new(), Text::new());
    let one = slot(&engine, text.bytes());
    for round in 0..5 {
        text.edit(round, 1);
        one.reload(text.bytes()).unwrap();
        let status = engine.status();
        assert!(status.function_memory > 0 && status.function_memory <= 4 << 10, "{}", status.function_memory);
    }
    assert_eq!(sum(&one, 1), plain() + 5);
    let off = builder().function_cache_limit(0).build().unwrap();
    let slot = slot(&off, other.bytes());
    other.edit(0, 1);
    slot.reload(other.bytes()).unwrap();
    let status = off.status();
    assert_eq!((status.functions_compiled, status.functions_reused, status.function_memory), (0, 0, 0));
    assert_eq!((status.compiled, sum(&slot, 1)), (2, plain() + 1));
}

/// Compiles the module with a folder, and waits until its functions are there.
fn filled(folder: &Path) -> Text {
    let text = Text::new();
    let engine = builder().cache_dir(folder).build().unwrap();
    slot(&engine, text.bytes());
    eventually("the functions are written", || packs(folder).len() == 1);
    text
}

#[test]
fn an_edit_after_a_restart_compiles_what_it_changed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    let mut text = filled(&path);
    text.edit(17, 4);
    let engine = builder().cache_dir(&path).build().unwrap();
    let slot = slot(&engine, text.bytes());
    assert_eq!(sum(&slot, 1), plain() + 4);
    let status = engine.status();
    assert_eq!((status.compiled, status.functions_compiled, status.entries_skipped), (1, 1, 0));
    assert!(status.functions_reused >= u64::from(FUNCTIONS));
    // One that is set up differently has code of its own.
    text.edit(17, 1);
    let differently = builder().cache_dir(&path).on_demand().build().unwrap();
    assert_eq!(sum(&self::slot(&differently, text.bytes()), 1), plain() + 5);
    assert!(differently.status().functions_compiled > u64::from(FUNCTIONS));
}

/// Damages the one pack of a folder; it must be skipped, counted and removed, and its functions compiled.
#[track_caller]
fn damaged(damage: impl FnOnce(&Path)) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    let mut text = filled(&path);
    let pack = packs(&path).remove(0);
    damage(&pack);
    text.edit(3, 9);
    let engine = builder().cache_dir(&path).build().unwrap();
    let slot = slot(&engine, text.bytes());
    assert_eq!(sum(&slot, 1), plain() + 9);
    let status = engine.status();
    assert_eq!(status.entries_skipped, 1);
    assert!(status.functions_compiled > u64::from(FUNCTIONS));
    eventually("they are written anew", || packs(&path).iter().any(|it| *it != pack));
    assert!(!pack.exists());
}

#[test]
fn a_pack_of_functions_that_was_changed_is_skipped_wherever_the_change_is() {
    for part in 0..8 {
        damaged(|pack| {
            let mut bytes = fs::read(pack).unwrap();
            let index = (bytes.len() - 1) * part / 7;
            bytes[index] ^= 1;
            fs::write(pack, bytes).unwrap();
        });
    }
}

#[test]
fn a_pack_of_functions_that_was_cut_short_or_lengthened_is_skipped() {
    for part in 0..4 {
        damaged(|pack| {
            let bytes = fs::read(pack).unwrap();
            fs::write(pack, &bytes[..(bytes.len() - 1) * part / 3]).unwrap();
        });
    }
    damaged(|pack| fs::write(pack, [fs::read(pack).unwrap(), vec![0; 36]].concat()).unwrap());
}

/// Genuine, by another key; and genuine, by the same key, as something else.
#[test]
fn a_pack_of_functions_from_elsewhere_and_a_module_under_its_name_are_skipped() {
    let elsewhere = TempDir::new().unwrap();
    let path = elsewhere.path().join("compiled");
    filled(&path);
    damaged(|pack| assert!(fs::copy(&packs(&path)[0], pack).unwrap() > 0));
    damaged(|pack| fs::remove_file(pack.with_file_name("key")).unwrap());
    damaged(|pack| {
        let files = fs::read_dir(pack.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        let module = files.into_iter().find(|path| path.extension().is_some_and(|it| it == "module")).unwrap();
        assert!(fs::copy(module, pack).unwrap() > 0);
    });
}

#[test]
fn the_folder_does_not_fill_with_packs_of_functions() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    let mut text = filled(&path);
    let engine = builder().cache_dir(&path).build().unwrap();
    let slot = slot(&engine, text.bytes());
    for round in 1..=40 {
        let (known, before) = (packs(&path), engine.status().functions_compiled);
        text.edit(round as usize % 40, round);
        slot.reload(text.bytes()).unwrap();
        assert_eq!(engine.status().functions_compiled, before + 1);
        eventually("the edit is written", || packs(&path).iter().any(|pack| !known.contains(pack)));
        assert!(packs(&path).len() <= 17 + 1, "{}", packs(&path).len());
    }
    let written: u32 = (1..=40).sum();
    assert_eq!(sum(&slot, 1), plain() + written);
    // Nothing was lost with the packs that were replaced.
    text.edit(0, 1);
    let restarted = builder().cache_dir(&path).build().unwrap();
    assert_eq!(sum(&self::slot(&restarted, text.bytes()), 1), plain() + written + 1);
    assert_eq!((restarted.status().functions_compiled, restarted.status().entries_skipped), (1, 0));
}

#[test]
fn packs_of_functions_count_towards_the_limit_of_the_folder() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    let mut text = filled(&path);
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let limit = 2 * fs::read_dir(&path).unwrap().map(|entry| size(&entry.unwrap().path())).sum::<u64>();
    let engine = builder().cache_dir(&path).disk_cache_limit(limit).build().unwrap();
    let slot = slot(&engine, text.bytes());
    for round in 0..10 {
        let known = packs(&path);
        text.edit(round, 1);
        slot.reload(text.bytes()).unwrap();
        eventually("the edit is written", || packs(&path).iter().any(|pack| !known.contains(pack)));
    }
    // What is written last looks after the limit; a file may be there before that.
    eventually("the rest is removed", || {
        let files = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
        files.filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum::<u64>() <= limit + 32
    });
}

#[test]
fn a_folder_that_is_gone_does_not_keep_functions_from_being_reused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("compiled");
    let engine = builder().cache_dir(&path).build().unwrap();
    fs::remove_dir_all(&path).unwrap();
    let mut text = Text::new();
    let slot = slot(&engine, text.bytes());
    let before = counts(&engine);
    text.edit(1, 2);
    slot.reload(text.bytes()).unwrap();
    assert_eq!((since(&engine, before).0, sum(&slot, 1)), (1, plain() + 2));
}
