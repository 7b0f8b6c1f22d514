//! The memory of all instances of an engine, counted as it grows.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that can be taken, and are given back.
pub(super) struct MemoryBudget {
    limit: u64,
    used: AtomicU64,
}

impl MemoryBudget {
    pub(super) fn new(limit: u64) -> MemoryBudget {
        MemoryBudget { limit, used: AtomicU64::new(0) }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes bytes, if so many are left.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryBudget;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let budget = MemoryBudget::new(10);
        assert!(budget.take(7) && !budget.take(4) && budget.take(3) && !budget.take(u64::MAX));
        budget.give(7);
        assert_eq!(budget.used(), 3);
        assert!(budget.take(7) && !budget.take(1));
    }
}
