//! How much may stay mapped of libraries whose plugins are gone, over the whole process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::{Footprint, Retained};

/// Limits how much may stay mapped, counted over the whole process, whichever slot it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Retired generations.
    pub generations: u64,
    /// The sizes of their images, summed up.
    pub bytes: u64,
    /// Bytes of thread-local storage in the loader's fixed reserve (static TLS, the initial-exec model), summed up over
    /// all libraries that are mapped. A library beyond that is refused at admission, whatever
    /// [`when_spent`](Budget::when_spent) says, as is one that does not fit into what the loader has left: about 1.6 KiB
    /// by default, for the whole process.
    pub static_tls: u64,
    /// Bytes of shared memory for libraries that have no file on a disk, summed up over all that are mapped, those that
    /// serve included. A library beyond that is refused, whatever [`when_spent`](Budget::when_spent) says: shared memory
    /// is what a container is charged for.
    ///
    /// By default libraries lie on a disk, and take none: see [`private_folder`](super::Native::private_folder).
    pub shared_memory: u64,
    /// What happens beyond generations and bytes.
    pub when_spent: OverBudget,
}

/// 256 generations or 1 GiB, whichever comes first, then an alarm; static TLS as far as the loader has any; 256 MiB of shared
/// memory.
impl Default for Budget {
    fn default() -> Budget {
        Budget {
            generations: 256,
            bytes: 1 << 30,
            static_tls: u64::MAX,
            shared_memory: 256 << 20,
            when_spent: OverBudget::Alarm,
        }
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

static RETAINED: Mutex<Retained> =
    Mutex::new(Retained { generations: 0, bytes: 0, footprint: Footprint { disk: 0, shared_memory: 0 } });

/// Returns how much of this process's memory belongs to generations that are gone and stay mapped, whichever slot they served.
pub fn retained() -> Retained {
    *RETAINED.lock()
}

/// Static TLS of the libraries that are mapped.
static STATIC_TLS: AtomicU64 = AtomicU64::new(0);

/// Static TLS of the libraries that those need, by their names, which may be mapped.
static NEEDED_STATIC_TLS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Returns how much static TLS the libraries take that are mapped, whichever slot they serve or served, and those among the
/// libraries that they need of which `is_mapped` says so.
pub(super) fn static_tls(is_mapped: impl Fn(&str) -> bool) -> u64 {
    // Asked without the lock: the loader may keep whoever asks for as long as a constructor takes.
    let needed = NEEDED_STATIC_TLS.lock().clone();
    let needed = needed.into_iter().filter(|(name, _)| is_mapped(name)).map(|(_, size)| size);
    needed.fold(STATIC_TLS.load(Ordering::Relaxed), u64::saturating_add)
}

/// Notes the static TLS of a library that will be mapped along with one that needs it.
pub(super) fn note_needed_static_tls(name: &str, size: u64) {
    NEEDED_STATIC_TLS.lock().insert(name.to_owned(), size);
}

/// Counts the static TLS of a library that was loaded.
pub(super) fn take_static_tls(size: u64) {
    STATIC_TLS.fetch_add(size, Ordering::Relaxed);
}

/// Counts the static TLS of a library that is proven to be gone.
#[cfg(target_os = "linux")]
pub(super) fn give_back_static_tls(size: u64) {
    STATIC_TLS.fetch_sub(size, Ordering::Relaxed);
}

/// Counts a library that stays mapped.
pub(super) fn count_retained(size: usize, footprint: Footprint) {
    let mut retained = RETAINED.lock();
    retained.generations += 1;
    retained.bytes += size as u64;
    retained.footprint = retained.footprint.plus(footprint);
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
