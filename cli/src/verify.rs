//! `cargo hotslot verify`: verifies a plugin against its manifest, its signatures and a root.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use hotslot::escape_untrusted;
use hotslot_trust::{NotTrusted, Signed};

use crate::files::{read, read_text, refused, shown};
use crate::sign::{Kind, beside};
use crate::trust::trusted;
use crate::{Failure, Outcome};

#[derive(Args)]
pub(crate) struct Verify {
    /// The plugin, or the rule file; its manifest and the signatures lie beside it
    file: PathBuf,
    /// The root that says which keys count
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The slot that it is for
    #[arg(long, value_name = "NAME")]
    slot: String,
    /// What it is to be
    #[arg(long, value_enum, default_value_t = Kind::Plugin)]
    subject: Kind,
    /// The interface of the slot
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// The rule file that it would go with
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The configuration that it would go with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Verify {
    pub(crate) fn run(&self) -> Outcome {
        let root = trusted(&self.root)?;
        let (manifest, signatures) = beside(&self.file);
        let signed = Signed::new(read(&manifest)?, &read_text(&signatures)?);
        let bytes = read(&self.file)?;
        let optional = |file: &Option<PathBuf>| file.as_deref().map(read).transpose();
        let (rules, config) = (optional(&self.rules)?, optional(&self.config)?);
        let verified = root
            .verify(&signed, self.subject.into(), &self.slot, &bytes, SystemTime::now())
            .and_then(|verified| verified.with(rules.as_deref(), config.as_deref()))
            .and_then(|verified| match &self.interface {
                Some(interface) => verified.for_interface(interface),
                None => Ok(verified),
            })
            .map_err(|error: NotTrusted| -> Failure { refused(&self.file, &error.into()) })?;
        let signers: Vec<_> = verified.signers().map(ToString::to_string).collect();
        let version = verified.version().map(|version| format!(" {}", escape_untrusted(version))).unwrap_or_default();
        Ok(format!(
            "ok: {}{version} for the slot {}, counter {}, signed by {} of root {}\n",
            shown(&self.file),
            escape_untrusted(verified.slot()),
            verified.counter(),
            signers.join(", "),
            root.version()
        ))
    }
}
