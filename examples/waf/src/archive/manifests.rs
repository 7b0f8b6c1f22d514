//! The manifests of archived modules, with their signatures: what a start verifies them by.

use std::sync::Arc;

use hotslot::BoxError;
use hotslot_trust::Signed;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::Archive;
use crate::release::Module;

impl Archive {
    /// Returns the manifest with which a module was last kept. One that cannot be read is none: who needs one refuses then.
    pub(super) fn manifest(&self, digest: &str) -> Option<Arc<Signed>> {
        match self.get(&path(digest)) {
            Ok(bytes) => {
                let read = serde_json::from_slice(&bytes).map(Arc::new);
                read.inspect_err(|error| tracing::error!(digest, %error, "a manifest in the archive cannot be read"))
                    .ok()
            }
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => {
                tracing::error!(digest, %error, "a manifest in the archive cannot be read");
                None
            }
        }
    }

    /// Keeps the manifest of a module, in the place of an earlier one: the same module may be signed anew.
    pub fn keep_manifest(&self, module: &Module) -> Result<(), BoxError> {
        let Some(signed) = module.signed() else { return Ok(()) };
        let digest = module.digest().to_string();
        if self.manifest(&digest).as_ref() == Some(signed) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&**signed)?;
        let kept = self.runtime.block_on(self.store.put(&path(&digest), bytes.into()));
        kept.map_err(|error| format!("the archive cannot keep this manifest: {error}"))?;
        Ok(())
    }

    /// Returns the manifests of what has served, as far as the list goes back.
    pub fn served_manifests(&self) -> Vec<Arc<Signed>> {
        let modules = {
            let list = self.list.lock();
            let of_releases = list.releases.iter().map(|entry| entry.module.clone());
            of_releases.chain(list.modules.iter().cloned()).collect::<std::collections::BTreeSet<_>>()
        };
        modules.iter().filter_map(|module| self.manifest(module)).collect()
    }
}

fn path(digest: &str) -> Path {
    Path::from(format!("manifests/{digest}.json"))
}
