//! Compiled functions in memory: a module that differs from an earlier one in a function compiles that one.
//!
//! The compiler asks here for every function that it has translated, before it optimises it. The key is a SHA-256 over all
//! that the function's code is made from: its instructions and signature, what it reads of the instance and where, the
//! settings of the compiler, and the processor. What follows from the function's place in the module is not in it (its number
//! and those of the functions that it calls, its offset in the file), and is filled in when the code is reused. So an edit
//! changes the keys of the functions that it changed, and of those in whose code something else is another number now: the
//! address of data that moved, the index of a global or of a type, or, after another import, where anything is in an instance.
//!
//! A key can have more in it than it should. Cranelift 0.135 works on one function after the other in the same place, and does not
//! clear that of its table of exceptions (`DataFlowGraph::clear`). What leads into a function from outside has one; it is in the keys
//! of what is looked up after it on the same thread, and changes when one of those is compiled. So a function behind an
//! exported one can be compiled under a second key. That happens once for each, and becomes rare after a few edits.
//!
//! Whoever has a function looked up here runs what comes back. So nothing is in here but what this process's compiler
//! returned for the key, and what a [pack](super::function_packs) with a MAC says that it did.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::CacheStore;

use crate::lock::Mutex;

pub(super) const KEY: usize = 32;
/// The compiler's hash of what a function's code is made from.
pub(super) type Key = [u8; KEY];
/// What a function takes beside its code and its key, in bytes, roughly: two nodes and two counts.
const OVERHEAD: usize = 128;

/// Compiled functions, within a limit of bytes. Those that were used last stay.
pub(super) struct FunctionCache {
    state: Mutex<State>,
    /// Bytes.
    pub(super) limit: usize,
    reused: AtomicU64,
    compiled: AtomicU64,
}

#[derive(Default)]
struct State {
    functions: HashMap<Key, Function>,
    /// The functions in the order of their last use.
    by_use: BTreeMap<i64, Key>,
    /// The number of the last use, and that of the first.
    last: i64,
    first: i64,
    bytes: usize,
}

struct Function {
    code: Arc<[u8]>,
    last_use: i64,
    /// Whether it is in a pack, or was to be.
    is_saved: bool,
}

impl FunctionCache {
    pub(super) fn new(limit: usize) -> FunctionCache {
        FunctionCache { state: Mutex::default(), limit, reused: AtomicU64::new(0), compiled: AtomicU64::new(0) }
    }

    /// Returns how many functions were found here.
    pub(super) fn reused(&self) -> u64 {
        self.reused.load(Ordering::Relaxed)
    }

    /// Returns how many functions were not, and were compiled.
    pub(super) fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// Returns the bytes that the functions take.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Adds a function from a pack, as one that was used before all that are here: packs are read from the newest on. Returns
    /// `false` if there is no room left for it.
    pub(super) fn fill(&self, key: Key, code: &[u8]) -> bool {
        let mut state = self.state.lock();
        if state.functions.contains_key(&key) {
            return true;
        }
        let has_room = state.bytes.saturating_add(cost(code)) <= self.limit;
        if has_room {
            state.first -= 1;
            let first = state.first;
            state.add(key, code, first, true);
        }
        has_room
    }

    /// Returns the functions that are in no pack yet, and takes them for saved from now on.
    pub(super) fn take_unsaved(&self) -> Vec<(Key, Arc<[u8]>)> {
        let mut state = self.state.lock();
        let unsaved = state.functions.iter_mut().filter(|(_, function)| !function.is_saved);
        unsaved.map(|(key, function)| (*key, function.take())).collect()
    }

    /// Returns the functions that were used last, of so many bytes together, and takes them for saved from now on.
    pub(super) fn take_latest(&self, mut bytes: usize) -> Vec<(Key, Arc<[u8]>)> {
        let state = &mut *self.state.lock();
        let mut latest = Vec::new();
        for key in state.by_use.values().rev() {
            let Some(function) = state.functions.get_mut(key) else { continue };
            let Some(left) = bytes.checked_sub(cost(&function.code)) else { break };
            bytes = left;
            latest.push((*key, function.take()));
        }
        latest
    }
}

impl CacheStore for FunctionCache {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let code = self.state.lock().find(key.try_into().ok()?)?;
        self.reused.fetch_add(1, Ordering::Relaxed);
        Some(Cow::Owned(code.to_vec()))
    }

    fn insert(&self, key: &[u8], code: Vec<u8>) -> bool {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        let Ok(key) = key.try_into() else { return false };
        if cost(&code) > self.limit {
            return false;
        }
        let mut state = self.state.lock();
        state.remove(&key);
        let last = state.next();
        state.add(key, &code, last, false);
        while state.bytes > self.limit {
            let Some((_, oldest)) = state.by_use.first_key_value() else { break };
            let oldest = *oldest;
            state.remove(&oldest);
        }
        true
    }
}

impl State {
    fn find(&mut self, key: Key) -> Option<Arc<[u8]>> {
        let now = self.next();
        let function = self.functions.get_mut(&key)?;
        self.by_use.remove(&function.last_use);
        function.last_use = now;
        self.by_use.insert(now, key);
        Some(Arc::clone(&function.code))
    }

    /// Returns the number of the next use.
    fn next(&mut self) -> i64 {
        self.last += 1;
        self.last
    }

    fn add(&mut self, key: Key, code: &[u8], last_use: i64, is_saved: bool) {
        self.by_use.insert(last_use, key);
        self.functions.insert(key, Function { code: code.into(), last_use, is_saved });
        self.bytes += cost(code);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(function) = self.functions.remove(key) {
            self.by_use.remove(&function.last_use);
            self.bytes -= cost(&function.code);
        }
    }
}

impl Function {
    fn take(&mut self) -> Arc<[u8]> {
        self.is_saved = true;
        Arc::clone(&self.code)
    }
}

fn cost(code: &[u8]) -> usize {
    code.len() + KEY + OVERHEAD
}

impl fmt::Debug for FunctionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionCache")
            .field("bytes", &self.bytes())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wasmtime::{CacheStore, Config, Engine, Module};

    use super::{FunctionCache, KEY, cost};

    /// Functions that differ, call each other, trap, and have branches that go through tables.
    fn module(functions: u32, edited: Option<u32>) -> Vec<u8> {
        let function = |number: u32| {
            let edit =
                if edited == Some(number) { "(local.set 0 (i32.mul (local.get 0) (i32.const 77777)))" } else { "" };
            let next = (number + 1) % functions;
            format!(
                "(func $f{number} (param i32) (result i32) {edit}
                   (if (i32.eqz (local.get 0)) (then (return (i32.const {number}))))
                   (block (block (block (br_table 0 1 2 (i32.rem_u (local.get 0) (i32.const 3))))
                     (i32.store (i32.const {number}) (local.get 0))) (f64.store (i32.const 8) (f64.const {number}.5)))
                   (i32.div_s (call $f{next} (i32.sub (local.get 0) (i32.const 1))) (i32.const 3)))"
            )
        };
        let all: String = (0..functions).map(function).collect();
        // The last one is exported, so that no function comes after what has a table of exceptions.
        let text = format!(r#"(module (memory 1) {all} (export "f" (func $f{})))"#, functions - 1);
        wat::parse_str(text).unwrap()
    }

    fn engine(cache: Option<&Arc<FunctionCache>>) -> Engine {
        let mut config = Config::new();
        config.parallel_compilation(false);
        if let Some(cache) = cache {
            config.enable_incremental_compilation(Arc::clone(cache) as Arc<dyn CacheStore>).unwrap();
        }
        Engine::new(&config).unwrap()
    }

    #[test]
    fn code_of_which_parts_were_reused_is_byte_for_byte_what_the_compiler_makes() {
        let cache = Arc::new(FunctionCache::new(1 << 20));
        let (caching, plain) = (engine(Some(&cache)), engine(None));
        for edited in [None, Some(0), Some(7), Some(19), None] {
            let bytes = module(20, edited);
            let reused = Module::from_binary(&caching, &bytes).unwrap().serialize().unwrap();
            assert!(reused == Module::from_binary(&plain, &bytes).unwrap().serialize().unwrap(), "{edited:?}");
        }
        // The edited one of each, and nothing of the last.
        assert_eq!(cache.compiled() - first_count(), 3);
    }

    /// How many functions the unedited module has, trampolines included.
    fn first_count() -> u64 {
        let cache = Arc::new(FunctionCache::new(1 << 20));
        Module::from_binary(&engine(Some(&cache)), &module(20, None)).unwrap();
        cache.compiled()
    }

    #[test]
    fn the_least_recently_used_functions_go_when_there_is_no_room() {
        let size = cost(&[0; 100]);
        let cache = FunctionCache::new(3 * size);
        for number in 0..3 {
            assert!(cache.insert(&[number; KEY], vec![number; 100]));
        }
        assert!(cache.get(&[0; KEY]).is_some());
        assert!(cache.insert(&[3; KEY], vec![3; 100]));
        assert_eq!([0, 1, 2, 3].map(|number| cache.get(&[number; KEY]).is_some()), [true, false, true, true]);
        assert_eq!(cache.bytes(), 3 * size);
        // One that is larger than all there is displaces nothing, nor does one from a pack.
        assert!(!cache.insert(&[4; KEY], vec![4; 3 * size]));
        assert!(!cache.fill([5; KEY], &[5; 100]) && cache.fill([3; KEY], &[5; 100]));
        assert_eq!((cache.get(&[5; KEY]), cache.bytes()), (None, 3 * size));
        let latest: Vec<_> = cache.take_latest(2 * size + 1).iter().map(|(key, _)| key[0]).collect();
        assert_eq!(latest, [3, 2], "those that were looked up last, the last one first");
        // The same key again takes the place of what was there.
        assert!(cache.insert(&[3; KEY], vec![9; 50]));
        assert_eq!((cache.get(&[3; KEY]).unwrap()[0], cache.bytes()), (9, 3 * size - 50));
        assert!(cache.get(b"short").is_none() && !cache.insert(b"short", vec![1]));
    }

    /// Packs are read from the newest on, and one that is read later takes no place from them.
    #[test]
    fn what_came_from_a_pack_that_was_read_later_goes_first() {
        let cache = FunctionCache::new(4 * cost(&[0; 100]));
        assert!(cache.insert(&[9; KEY], vec![9; 100]), "compiled before they were read");
        assert!((0..3).all(|number| cache.fill([number; KEY], &[number; 100])));
        assert_eq!(cache.take_latest(usize::MAX).iter().map(|(key, _)| key[0]).collect::<Vec<_>>(), [9, 0, 1, 2]);
        assert!(cache.insert(&[10; KEY], vec![10; 100]) && cache.insert(&[11; KEY], vec![11; 100]));
        assert_eq!([0, 1, 2, 9].map(|number| cache.get(&[number; KEY]).is_some()), [true, false, false, true]);
    }

    #[test]
    fn threads_that_compile_at_once_find_whole_functions() {
        let cache = FunctionCache::new(20 * cost(&[0; 64]));
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let cache = &cache;
                scope.spawn(move || {
                    for round in 0..2_000_u32 {
                        let number = (round as u8).wrapping_mul(thread | 1) % 40;
                        match cache.get(&[number; KEY]) {
                            Some(code) => assert!(code.len() == 64 && code.iter().all(|byte| *byte == number)),
                            None => assert!(cache.insert(&[number; KEY], vec![number; 64])),
                        }
                    }
                });
            }
        });
        assert!(cache.bytes() <= cache.limit && cache.reused() > 0 && cache.compiled() >= 40);
    }
}
