//! How much may stay mapped of libraries whose plugins are gone, over the whole process.

use parking_lot::Mutex;

use crate::Retained;

/// Limits how much may stay mapped, counted over the whole process, whichever slot it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Retired generations.
    pub generations: u64,
    /// The sizes of their images, summed up.
    pub bytes: u64,
    /// What happens beyond that.
    pub when_spent: OverBudget,
}

/// 256 generations or 1 GiB, whichever comes first, then an alarm.
impl Default for Budget {
    fn default() -> Budget {
        Budget { generations: 256, bytes: 1 << 30, when_spent: OverBudget::Alarm }
    }
}

/// What happens when the [`Budget`] is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverBudget {
    /// Loads go on, and every release from then on carries an alarm.
    #[default]
    Alarm,
    /// Loads are refused; the current plugin keeps serving.
    Refuse,
}

static RETAINED: Mutex<Retained> = Mutex::new(Retained { generations: 0, bytes: 0 });

/// Returns how much of this process's memory belongs to generations that are gone and stay mapped, whichever slot they served.
pub fn retained() -> Retained {
    *RETAINED.lock()
}

/// Counts a library that stays mapped.
pub(super) fn count_retained(size: usize) {
    let mut retained = RETAINED.lock();
    retained.generations += 1;
    retained.bytes += size as u64;
}

impl Budget {
    /// Refuses a load beyond the budget, if that is what the user wants.
    pub(super) fn check(&self) -> Result<(), BudgetSpent> {
        let retained = retained();
        let spent = retained.generations >= self.generations || retained.bytes >= self.bytes;
        if spent && self.when_spent == OverBudget::Refuse {
            return Err(BudgetSpent(self.complaint(retained)));
        }
        Ok(())
    }

    /// Returns the alarm, if more is retained than the budget allows.
    pub(super) fn alarm(&self) -> Option<String> {
        let retained = retained();
        let over = retained.generations > self.generations || retained.bytes > self.bytes;
        over.then(|| self.complaint(retained))
    }

    fn complaint(&self, retained: Retained) -> String {
        format!(
            "{} retired generations with {} bytes are kept mapped, and the budget is {} with {} bytes: restart the \
             process when it suits, reload less often, or raise the budget",
            retained.generations, retained.bytes, self.generations, self.bytes
        )
    }
}

/// A load would go beyond the budget.
pub(super) struct BudgetSpent(pub(super) String);
