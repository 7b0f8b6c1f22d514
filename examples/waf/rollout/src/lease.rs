//! Who leads: a lease that needs no clock in common.
//!
//! The lease is a document without an expiry. Its holder writes it anew from time to time, which changes its revision; who
//! wants to take over waits until the revision has stood still for long enough *on its own clock*. So nobody compares the
//! clocks of two machines, and a clock that is set never matters.
//!
//! One case needs no waiting: a process that knows that the holder has ended, because that was itself before a restart. What such
//! a holder has sent may still arrive; that is as harmless as what a slow one sends. But a process that ends again and again would
//! keep the lease for ever, and lead never: each start would spare it the standstill for which others wait. So the lease says that
//! it was taken in this way, and one that was is not taken in this way again, unless its holder has led for [`STEADY`].
//!
//! Two leaders at once are possible for a moment, and harmless: writes name the revision that they replace, and documents
//! carry the term of who wrote them.

use serde::{Deserialize, Serialize};

use crate::{Millis, Revision};

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who leads: a name that no other process has, and that the same process does not have after a restart.
    pub holder: String,
    /// Counts the changes of leaders, and documents carry it.
    pub term: u64,
    /// Counts the holder's renewals.
    pub beat: u64,
    /// Whether the holder took it from itself before a restart, without waiting.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
}

/// How long a holder that did not wait has to lead until it may end and not wait again: longer than the bake times of most plans,
/// which a new leader grants anew.
const STEADY: Millis = 600_000;

/// How long a lease holds.
///
/// The holder must have stopped before somebody else may start: `give_up` is less than `take_over`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTiming {
    /// How often the holder renews it.
    pub renew: Millis,
    /// How long the holder may lead after the last renewal that it has seen confirmed.
    pub give_up: Millis,
    /// How long the revision must have stood still before somebody else takes over.
    pub take_over: Millis,
}

/// Renews every 5 s, gives up after 10, takes over after 15: the change of a leader in a cluster of three NATS servers
/// takes 4.5 to 6.2 s, and shorter leases would change hands with it.
impl Default for LeaseTiming {
    fn default() -> Self {
        Self { renew: 5_000, give_up: 10_000, take_over: 15_000 }
    }
}

/// Keeps one process's view of the lease.
#[derive(Debug)]
pub(crate) struct Keeper {
    me: String,
    /// Holders that have ended, for sure.
    ended: Vec<String>,
    timing: LeaseTiming,
    seen: Option<Seen>,
    /// The last attempts to write, by beat: a renewal counts from when it was sent, and only once it was read back.
    sent: Option<(Lease, Millis)>,
    confirmed: Option<(u64, Millis)>,
}

#[derive(Debug)]
struct Seen {
    /// `None`: there is no lease.
    current: Option<(Revision, Lease)>,
    since: Millis,
}

impl Keeper {
    pub(crate) fn new(me: String, timing: LeaseTiming) -> Self {
        Self { me, ended: Vec::new(), timing, seen: None, sent: None, confirmed: None }
    }

    pub(crate) fn have_ended(&mut self, holders: Vec<String>) {
        self.ended = holders;
    }

    /// Takes note of what the store says.
    pub(crate) fn read(&mut self, now: Millis, current: Option<(Revision, Lease)>) {
        let sent = self.sent.as_ref().filter(|(lease, _)| current.as_ref().is_some_and(|(_, read)| read == lease));
        if let Some((lease, at)) = sent {
            self.confirmed = Some((lease.term, *at));
        }
        if self.seen.as_ref().is_none_or(|seen| seen.current != current) {
            self.seen = Some(Seen { current, since: now });
        }
    }

    /// Returns the lease that should be written, and the revision that it replaces. `term_above` is the highest term that
    /// is known from elsewhere.
    pub(crate) fn tick(&mut self, now: Millis, term_above: u64) -> Option<(Option<Revision>, Lease)> {
        let seen = self.seen.as_ref()?;
        let mine = seen.current.as_ref().filter(|(_, lease)| lease.holder == self.me);
        let resumes = |lease: &Lease| {
            let is_steady = lease.beat.saturating_mul(self.timing.renew) >= STEADY;
            self.ended.contains(&lease.holder) && (is_steady || !lease.resumed)
        };
        let due = match (&seen.current, mine) {
            (None, _) => true,
            (Some(_), Some(_)) => self.sent.as_ref().is_none_or(|(_, at)| now >= at.saturating_add(self.timing.renew)),
            (Some((_, lease)), None) if resumes(lease) => {
                // Once, and then again when it was not stored: a revision that has changed is somebody's.
                self.sent.as_ref().is_none_or(|(_, at)| now >= at.saturating_add(self.timing.renew))
            }
            (Some(_), None) => now >= seen.since.saturating_add(self.timing.take_over),
        };
        if !due {
            return None;
        }
        let read_term = seen.current.as_ref().map_or(0, |(_, lease)| lease.term);
        let lease = match mine {
            // A lease that is below a term known from elsewhere is taken anew: documents of its term would be ignored.
            Some((_, lease)) if lease.term >= term_above => {
                Lease { beat: lease.beat.saturating_add(1), ..lease.clone() }
            }
            _ => Lease {
                holder: self.me.clone(),
                term: read_term.max(term_above).saturating_add(1),
                beat: 0,
                resumed: match (mine, &seen.current) {
                    (Some((_, mine)), _) => mine.resumed,
                    // Who has waited as long as anybody else has not taken it from others.
                    (None, Some((_, lease))) => {
                        resumes(lease) && now < seen.since.saturating_add(self.timing.take_over)
                    }
                    (None, None) => false,
                },
            },
        };
        self.sent = Some((lease.clone(), now));
        Some((seen.current.as_ref().map(|(revision, _)| *revision), lease))
    }

    /// Returns the term in which this process leads now.
    pub(crate) fn term(&self, now: Millis) -> Option<u64> {
        let (term, at) = self.confirmed?;
        let lease = self.seen.as_ref()?.current.as_ref().map(|(_, lease)| lease)?;
        (lease.holder == self.me && lease.term == term && now < at.saturating_add(self.timing.give_up)).then_some(term)
    }

    /// Returns who holds the lease, as far as is known.
    pub(crate) fn holder(&self) -> Option<&Lease> {
        self.seen.as_ref()?.current.as_ref().map(|(_, lease)| lease)
    }
}
