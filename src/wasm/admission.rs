//! Admits modules, and remembers those that it admitted: the same bytes are not checked again.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::signature::HostImports;
use super::validate::{Requirements, check};
use crate::host::{Contract, MethodNumbers};
use crate::{BoxError, Digest, Manifest};

/// How many modules are remembered.
const MODULES: usize = 64;

/// What admission found in a module, for the load.
#[derive(Clone)]
pub(super) struct Evidence {
    /// Of the module that was admitted.
    pub(super) digest: Digest,
    /// Where the module has the methods of the declared interface; empty if none is declared.
    pub(super) methods: MethodNumbers,
}

/// Admits modules that meet the requirements of one backend.
#[derive(Default)]
pub(super) struct Admitter {
    requirements: Requirements,
    /// The declared interface that a module's contract has to fit.
    contract: Option<Contract>,
    /// What it admitted, the latest last.
    known: Mutex<VecDeque<(Manifest, Evidence)>>,
}

impl Admitter {
    /// Changes what is required. What was admitted before is forgotten.
    pub(super) fn require(&mut self, change: impl FnOnce(&mut Requirements)) {
        change(&mut self.requirements);
        self.known = Mutex::default();
    }

    /// Requires that modules fit the contract of a declared interface.
    pub(super) fn require_contract(&mut self, contract: Contract) {
        self.contract = Some(contract);
        self.known = Mutex::default();
    }

    pub(super) fn requirements(&self) -> &Requirements {
        &self.requirements
    }

    /// Checks a module, unless it is known by its digest: parses it once, and compares the contracts once. `imports` says
    /// what the host offers.
    pub(super) fn admit(
        &self,
        bytes: &[u8],
        digest: Digest,
        imports: impl FnOnce() -> HostImports,
    ) -> Result<(Manifest, Evidence), BoxError> {
        if let Some(known) = self.known.lock().iter().find(|(_, evidence)| evidence.digest == digest) {
            return Ok(known.clone());
        }
        let manifest = check(bytes, &self.requirements, &imports())?;
        let methods = self.contract.as_ref().map(|host| host.methods_in_manifest(&manifest)).transpose()?;
        let admitted = (manifest, Evidence { digest, methods: methods.unwrap_or_default() });
        let mut known = self.known.lock();
        if known.len() == MODULES {
            known.pop_front();
        }
        known.push_back(admitted.clone());
        Ok(admitted)
    }
}
