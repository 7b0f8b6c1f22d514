//! What one instance has of its engine's memory, given back with the instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::engine::{Engine, OverBudget};

pub(super) struct Account {
    engine: Engine,
    /// What all instances of the generation have.
    generation: Arc<AtomicU64>,
    taken: u64,
    /// The last growth, which may fail after it was granted.
    last: u64,
}

impl Account {
    pub(super) fn new(engine: &Engine, generation: &Arc<AtomicU64>) -> Account {
        Account { engine: engine.clone(), generation: Arc::clone(generation), taken: 0, last: 0 }
    }

    /// Takes bytes of the engine's memory. What it took to save others' states is added to `saving`.
    pub(super) fn take(&mut self, bytes: u64, saving: &mut Duration) -> Result<(), OverBudget> {
        self.last = 0;
        self.engine.take_memory(bytes, saving)?;
        self.generation.fetch_add(bytes, Ordering::Relaxed);
        self.taken += bytes;
        self.last = bytes;
        Ok(())
    }

    /// Gives the last growth back: the system had not enough.
    pub(super) fn undo(&mut self) {
        let bytes = std::mem::take(&mut self.last);
        self.give(bytes);
    }

    fn give(&mut self, bytes: u64) {
        self.taken -= bytes;
        self.generation.fetch_sub(bytes, Ordering::Relaxed);
        self.engine.give_memory(bytes);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.give(self.taken);
    }
}
