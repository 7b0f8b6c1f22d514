//! What serves is two things that go together: a module, and the rule file that it was set up with.

use std::sync::Arc;

use bytes::Bytes;
use hotslot::{Candidate, Digest};
use hotslot_trust::Signed;

use crate::rule_file::RuleFile;

/// A module and its rule file. Cloning shares the bytes, and comparing looks at the digests.
#[derive(Clone)]
pub struct Release {
    pub module: Module,
    pub rules: RuleFile,
}

/// The bytes of a module, and who says what they are.
#[derive(Clone)]
pub struct Module {
    bytes: Bytes,
    digest: Digest,
    signed: Option<Arc<Signed>>,
}

impl Module {
    pub fn new(bytes: impl Into<Bytes>) -> Module {
        let bytes = bytes.into();
        Module { digest: Digest::of(&bytes), bytes, signed: None }
    }

    /// The module with the manifest that came with it. Nobody has verified that it is one of it.
    pub fn with_manifest(self, signed: Option<Arc<Signed>>) -> Module {
        Module { signed, ..self }
    }

    /// Returns the manifest that came with it.
    pub fn signed(&self) -> Option<&Arc<Signed>> {
        self.signed.as_ref()
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Release {
    pub fn new(module: impl Into<Bytes>, rules: impl Into<Arc<[u8]>>) -> Release {
        Release { module: Module::new(module), rules: RuleFile::new(rules) }
    }

    /// Returns whether these are the digests of its module and its rule file.
    pub fn is_of(&self, module: Digest, rules: Digest) -> bool {
        (self.module.digest, self.rules.digest()) == (module, rules)
    }

    /// Returns what a slot loads: the module, configured with the rule file.
    pub fn candidate(&self) -> Candidate {
        Candidate::new(&self.module.bytes[..]).config(self.rules.bytes())
    }
}

impl PartialEq for Release {
    fn eq(&self, other: &Release) -> bool {
        self.is_of(other.module.digest, other.rules.digest())
    }
}
