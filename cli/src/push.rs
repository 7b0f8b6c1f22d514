//! `cargo hotslot push`: puts a signed plugin where others fetch it.

use std::path::PathBuf;

use clap::Args;

use crate::Outcome;
use crate::remote::{Access, Bundle, Place, Rollout};

#[derive(Args)]
pub(crate) struct Push {
    /// The plugin; its manifest and the signatures lie beside it
    file: PathBuf,
    /// Where to: https://ORCHESTRATOR, which rolls it out, oci://REGISTRY/NAME:TAG or s3://BUCKET/KEY
    #[arg(value_name = "PLACE")]
    place: Place,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    rollout: Rollout,
}

impl Push {
    pub(crate) fn run(&self) -> Outcome {
        self.place.push(&Bundle::read(&self.file)?, &self.access, &self.rollout)
    }
}
