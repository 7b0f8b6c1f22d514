//! Who was born, who lives, who died, and where: kept by the plugins themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Every plugin of one backend. Cloning gives another handle to the same book.
#[derive(Clone, Default)]
pub(crate) struct Census(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    lives: BTreeMap<u64, Life>,
    alive: usize,
    peak: usize,
    /// Generations in the order in which they were destroyed.
    order: Vec<u64>,
    running: Vec<u64>,
    running_peak: usize,
}

#[derive(Default)]
struct Life {
    /// The threads on which the plugin was dropped: one, if all is well.
    dropped_on: Vec<String>,
    anchored: bool,
    /// The same for its anchor, and whether the plugin was gone by then.
    released_on: Vec<(String, bool)>,
}

impl Census {
    pub(crate) fn born(&self, generation: u64, anchored: bool) {
        let mut book = self.book();
        assert!(!book.lives.contains_key(&generation), "generation {generation} was loaded twice");
        book.lives.insert(generation, Life { anchored, ..Life::default() });
        book.alive += 1;
        book.peak = book.peak.max(book.alive);
    }

    pub(crate) fn died(&self, generation: u64) {
        let mut book = self.book();
        book.life(generation).dropped_on.push(thread_name());
        book.alive -= 1;
        book.order.push(generation);
    }

    pub(crate) fn released(&self, generation: u64) {
        let mut book = self.book();
        let life = book.life(generation);
        let plugin_is_gone = !life.dropped_on.is_empty();
        life.released_on.push((thread_name(), plugin_is_gone));
    }

    pub(crate) fn runs(&self, generation: u64) {
        let mut book = self.book();
        assert!(!book.running.contains(&generation), "generation {generation} runs twice at once");
        book.running.push(generation);
        book.running_peak = book.running_peak.max(book.running.len());
    }

    pub(crate) fn rests(&self, generation: u64) {
        self.book().running.retain(|&other| other != generation);
    }

    /// How many plugins were ever loaded.
    pub(crate) fn loaded(&self) -> usize {
        self.book().lives.len()
    }

    /// The generations that have not been dropped.
    pub(crate) fn alive(&self) -> Vec<u64> {
        let book = self.book();
        book.lives.iter().filter(|(_, life)| life.dropped_on.is_empty()).map(|(&generation, _)| generation).collect()
    }

    /// How many were alive at once.
    pub(crate) fn peak(&self) -> usize {
        self.book().peak
    }

    /// The generations in the order in which they were destroyed.
    pub(crate) fn order(&self) -> Vec<u64> {
        self.book().order.clone()
    }

    /// The generations that run at this moment.
    pub(crate) fn running(&self) -> Vec<u64> {
        self.book().running.clone()
    }

    /// How many ran at once.
    pub(crate) fn running_peak(&self) -> usize {
        self.book().running_peak
    }

    /// Every plugin was dropped once, and its anchor released once after that, on a thread that is there for it.
    pub(crate) fn assert_all_destroyed(&self) {
        assert_eq!(self.alive(), [0; 0], "these were never destroyed");
        self.assert_destroyed_properly();
    }

    /// The same for those that are gone already.
    pub(crate) fn assert_destroyed_properly(&self) {
        for (generation, life) in &self.book().lives {
            if life.dropped_on.is_empty() {
                continue;
            }
            assert_eq!(life.dropped_on, ["hotslot-destroy"], "where generation {generation} was dropped");
            if life.anchored {
                let expected = ("hotslot-destroy".to_owned(), true);
                assert_eq!(life.released_on, [expected], "how the anchor of generation {generation} was released");
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn life(&mut self, generation: u64) -> &mut Life {
        self.lives.get_mut(&generation).expect("only who was born can die")
    }
}

fn thread_name() -> String {
    thread::current().name().unwrap_or("a thread without a name").to_owned()
}
