//! `cargo hotslot pull`: fetches a plugin with its manifest and its signatures.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use hotslot::escape_untrusted;
use hotslot_trust::{NotTrusted, Signed, Subject};

use crate::files::{refused, shown};
use crate::remote::{Access, Place};
use crate::trust::trusted;
use crate::{Failure, Outcome};

#[derive(Args)]
pub(crate) struct Pull {
    /// Where from: https://ORCHESTRATOR (what its fleet serves), oci://REGISTRY/NAME:TAG or s3://BUCKET/KEY
    #[arg(value_name = "PLACE")]
    place: Place,
    /// Where it goes; its manifest and the signatures go beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The root that says which keys count: nothing is written that they have not signed
    #[arg(long, value_name = "FILE", requires = "slot")]
    root: Option<PathBuf>,
    /// The slot that it is for
    #[arg(long, value_name = "NAME", requires = "root")]
    slot: Option<String>,
    #[command(flatten)]
    access: Access,
}

impl Pull {
    pub(crate) fn run(&self) -> Outcome {
        let root = self.root.as_deref().map(trusted).transpose()?;
        let bundle = self.place.pull(&self.access)?;
        let signed = Signed::new(bundle.manifest.clone(), &bundle.signatures);
        let said = match (&root, &self.slot) {
            (Some(root), Some(slot)) => {
                let verified = root.verify(&signed, Subject::Plugin, slot, &bundle.plugin, SystemTime::now());
                let verified =
                    verified.map_err(|error: NotTrusted| -> Failure { refused(&self.out, &error.into()) })?;
                let signers: Vec<_> = verified.signers().map(ToString::to_string).collect();
                let counter = verified.counter();
                format!("for the slot {}, counter {counter}, signed by {}", escape_untrusted(slot), signers.join(", "))
            }
            _ => "its digest is that of its manifest; who signed that was not verified, for want of --root and --slot"
                .to_owned(),
        };
        bundle.write(&self.out)?;
        Ok(format!("{}: {said}\n", shown(&self.out)))
    }
}
