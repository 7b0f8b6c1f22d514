//! What inspecting a request may cost.
//!
//! Every detector is linear in what it reads, but some bytes are dearer than others: behind each `if ` half a kilobyte may be
//! read as a condition. So the cost is counted while it arises, in steps, and a request that has used up its budget is not
//! looked at any further. The engine then says so, as the rule `limits-work`.

use std::cell::Cell;

/// The budget of one request. A step is about what it takes to read a byte and compare it with something.
#[derive(Debug)]
pub(crate) struct Work {
    budget: u64,
    /// `None` once more was asked for than there was.
    left: Cell<Option<u64>>,
}

impl Work {
    pub(crate) fn new(budget: u64) -> Work {
        Work { budget, left: Cell::new(Some(budget)) }
    }

    /// Takes steps out of the budget. `false` if there are not so many left, and from then on.
    pub(crate) fn spend(&self, steps: usize) -> bool {
        self.left.set(self.left.get().and_then(|left| left.checked_sub(steps as u64)));
        !self.is_spent()
    }

    /// Returns whether something was not looked at for lack of budget.
    pub(crate) fn is_spent(&self) -> bool {
        self.left.get().is_none()
    }

    /// Returns the steps so far.
    pub(crate) fn done(&self) -> u64 {
        self.budget - self.left.get().unwrap_or(0)
    }
}

#[cfg(test)]
#[test]
fn a_budget_that_was_overdrawn_stays_spent() {
    let work = Work::new(10);
    assert!(work.spend(10) && !work.is_spent());
    assert_eq!(work.done(), 10);
    assert!(!work.spend(1) && !work.spend(0) && work.is_spent());
}
