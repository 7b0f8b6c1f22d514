//! What may serve by its signatures: announced before it is loaded, remembered before it serves, settled once it does for good.

use std::sync::Arc;

use hotslot::ErrorKind;
use hotslot_trust::Purpose;

use super::{Deployments, Refusal};
use crate::release::Release;
use crate::trust::{Trust, Untrusted, id};

impl Deployments {
    pub fn trust(&self) -> Option<&Arc<Trust>> {
        self.trust.as_ref()
    }

    /// What is new must be newer than all before, or what serves already.
    fn as_new(&self) -> Purpose {
        Purpose::Reload { serving: id(&self.served.lock().release.module) }
    }

    /// Says that something new is to be loaded.
    pub(super) fn announce_new(&self, release: &Release) {
        if let Some(trust) = &self.trust {
            trust.announce(&release.module, self.as_new());
        }
    }

    /// Says that something is to be loaded that has served before.
    pub(super) fn announce_return(&self, release: &Release) {
        if let Some(trust) = &self.trust {
            trust.announce(&release.module, Purpose::Rollback);
        }
    }

    /// Checks that what has served before was not revoked since.
    pub(super) fn may_return(&self, release: &Release) -> Result<(), Refusal> {
        self.trust.as_ref().map_or(Ok(()), |trust| trust.may_return(&release.module)).map_err(Refusal::Untrusted)
    }

    /// Checks what has served before and has to be loaded again.
    pub(super) fn check_return(&self, release: &Release) -> Result<(), Refusal> {
        let check = |trust: &Arc<Trust>| trust.check(&release.module, release.rules.bytes(), Purpose::Rollback);
        self.trust.as_ref().map_or(Ok(()), check).map_err(Refusal::Untrusted)
    }

    /// Checks that a release goes with its configuration, if it was signed with one.
    pub fn check_config(&self, release: &Release, config: &[u8]) -> Result<(), Refusal> {
        let check = |trust: &Arc<Trust>| trust.check_config(&release.module, config);
        self.trust.as_ref().map_or(Ok(()), check).map_err(Refusal::Untrusted)
    }

    /// Remembers the counter of what serves next: it is on the disk before the swap.
    pub(super) fn accept(&self, release: &Release) -> Result<(), Refusal> {
        let Some(trust) = &self.trust else { return Ok(()) };
        trust.accept(&release.module, self.as_new()).map_err(Refusal::Untrusted)?;
        // The same module with another manifest is no swap: from now on this is its manifest.
        let is_same = self.served.lock().release.module.digest() == release.module.digest();
        if is_same && release.module.signed().is_some() {
            self.archive.keep_manifest(&release.module).map_err(Refusal::Archive)?;
            let mut served = self.served.lock();
            if served.release.module.digest() == release.module.digest() {
                served.release.module = release.module.clone();
            }
        }
        Ok(())
    }

    /// Has what serves revoke what it says, if it is through its probation.
    pub(super) fn settle_what_serves(&self) {
        let Some(serving) = self.guard.slot().status().serving else { return };
        let served = {
            let served = self.served.lock();
            (served.generation == serving.generation).then(|| served.release.clone())
        };
        if let Some(release) = served.filter(|_| !serving.on_probation && serving.objection.is_none()) {
            self.settle(&release);
        }
    }

    /// Has a release that serves for good revoke what it says.
    pub fn settle(&self, release: &Release) {
        if let Some(trust) = &self.trust {
            trust.settle(&release.module);
        }
    }
}

impl Refusal {
    /// Returns why it is not trusted, if it is that.
    pub fn untrusted(&self) -> Option<&Untrusted> {
        match self {
            Refusal::Untrusted(error) => Some(error),
            Refusal::Slot(error) => {
                let ErrorKind::Refused(source) = error.kind() else { return None };
                let first: &(dyn std::error::Error + 'static) = &**source;
                let chain = std::iter::successors(Some(first), |error| error.source());
                chain.into_iter().find_map(|error| error.downcast_ref::<Untrusted>())
            }
            _ => None,
        }
    }
}
