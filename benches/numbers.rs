//! A backend whose plugins cost nothing, so that only the slot is measured.

use hotslot::{Admission, Artifact, Backend, BoxError, LoadContext, Loaded, Manifest, Payload};

/// Makes of each artifact the number of its bytes.
pub(crate) struct Numbers;

impl Backend<u64> for Numbers {
    fn admit(&self, _: &Payload) -> Result<Admission, BoxError> {
        Ok(Manifest::new("number").into())
    }

    fn load(&self, artifact: &Artifact, _: &LoadContext) -> Result<Loaded<u64>, BoxError> {
        Ok(Loaded::new(artifact.bytes().len() as u64))
    }
}
