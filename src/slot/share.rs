//! Which of the callers a staged generation is served to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{ArtifactId, ErrorKind};

/// Checks that a number is a share.
pub(super) fn check(share: f64) -> Result<(), ErrorKind> {
    match (0.0..=1.0).contains(&share) {
        true => Ok(()),
        false => Err(ErrorKind::Misuse(format!("a share is a number from 0 to 1, and {share} is not"))),
    }
}

/// A share of all keys, from none to all.
///
/// A key is hashed, together with the plugin's identity, to a point between 0 and 1, and belongs to the share if that lies
/// below it. So a key stays in a share that grows; processes that have the same plugin on trial agree; and it is not always
/// the same keys that get what is new.
pub(super) struct Share {
    /// As a fraction of 2^64; the highest number stands for all of it.
    bound: AtomicU64,
    id: ArtifactId,
}

impl Share {
    /// No key at all.
    pub(super) fn new(id: ArtifactId) -> Share {
        Share { bound: AtomicU64::new(0), id }
    }

    /// From 0 to 1.
    pub(super) fn get(&self) -> f64 {
        self.bound.load(Relaxed) as f64 / 2_f64.powi(64)
    }

    /// `share` is from 0 to 1; what lies outside is taken for the nearer one.
    pub(super) fn set(&self, share: f64) {
        // The conversion saturates.
        self.bound.store((share * 2_f64.powi(64)) as u64, Relaxed);
    }

    /// Whether the holder of a key is among them.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match self.bound.load(Relaxed) {
            0 => false,
            u64::MAX => true,
            bound => self.point(key) < bound,
        }
    }

    fn point(&self, key: &[u8]) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.id.digest.as_bytes());
        if let Some(config) = &self.id.config_digest {
            hasher.update(config.as_bytes());
        }
        hasher.update(key);
        let mut point = [0; 8];
        hasher.finalize_xof().fill(&mut point);
        u64::from_le_bytes(point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn share(bytes: &[u8], share: f64) -> Share {
        let new = Share::new(ArtifactId { digest: Digest::of(bytes), config_digest: None });
        new.set(share);
        new
    }

    fn count(share: &Share) -> usize {
        (0..10_000_u32).filter(|key| share.contains(&key.to_le_bytes())).count()
    }

    #[test]
    fn a_key_stays_in_a_share_that_grows() {
        let parts = (0..=20).map(|step| share(b"plugin", f64::from(step) / 20.0));
        for key in (0..1_000_u32).map(u32::to_le_bytes) {
            let inside: Vec<_> = parts.clone().map(|part| part.contains(&key)).collect();
            assert!(inside.is_sorted(), "{key:?}: {inside:?}");
        }
    }

    #[test]
    fn a_share_has_about_as_many_keys_as_it_says() {
        assert_eq!((count(&share(b"plugin", 0.0)), count(&share(b"plugin", 1.0))), (0, 10_000));
        // Six standard deviations.
        for (part, off) in [(0.05, 131.0), (0.5, 300.0)] {
            let found = count(&share(b"plugin", part)) as f64;
            assert!((found - part * 10_000.0).abs() < off, "{found} of 10,000 with a share of {part}");
        }
    }

    #[test]
    fn another_plugin_has_other_keys() {
        let (one, other) = (share(b"plugin", 0.5), share(b"another", 0.5));
        let in_both =
            (0..10_000_u32).map(u32::to_le_bytes).filter(|key| one.contains(key) && other.contains(key)).count();
        assert!((2_200..2_800).contains(&in_both), "{in_both} of 10,000");
    }
}
