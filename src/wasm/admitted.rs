//! Modules that passed the checks before: the same bytes pass again, so a known module is admitted by its digest.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::{BoxError, Digest, Manifest};

/// How many modules are remembered.
const MODULES: usize = 64;

/// The modules that one backend admitted, the latest one last. A backend that is told another limit begins anew, so the
/// answer does not change.
#[derive(Default)]
pub(super) struct Admitted(Mutex<VecDeque<(Digest, Manifest)>>);

impl Admitted {
    /// The manifest of a module that is known, or what `check` makes of one that is not.
    pub(super) fn or_check(
        &self,
        bytes: &[u8],
        check: impl FnOnce() -> Result<Manifest, BoxError>,
    ) -> Result<Manifest, BoxError> {
        let digest = Digest::of(bytes);
        if let Some((_, manifest)) = self.0.lock().iter().find(|(known, _)| *known == digest) {
            return Ok(manifest.clone());
        }
        let manifest = check()?;
        let mut known = self.0.lock();
        if known.len() == MODULES {
            known.pop_front();
        }
        known.push_back((digest, manifest.clone()));
        Ok(manifest)
    }
}
