//! `cargo hotslot sign`: writes a plugin's manifest and the signatures over it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use hotslot_trust::{KeyId, Manifest, PublicKey, Subject};

use crate::files::{read, read_text, shown, write};
use crate::keygen::Password;
use crate::{Failure, Outcome};

#[derive(Args)]
pub(crate) struct Sign {
    /// The plugin, or the rule file
    file: PathBuf,
    /// The secret key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Add a signature to the manifest that is there, instead of writing a new one
    #[arg(long, conflicts_with_all = ["slot", "counter", "min_counter", "interface", "plugin_version", "rules", "config", "expires", "subject", "counts_with"])]
    add: bool,
    /// The slot that it is for
    #[arg(long, value_name = "NAME", required_unless_present = "add")]
    slot: Option<String>,
    /// What it is
    #[arg(long, value_enum, default_value_t = Kind::Plugin)]
    subject: Kind,
    /// Its counter, higher than any before; the time in seconds, which only grows, unless given
    #[arg(long, value_name = "NUMBER")]
    counter: Option<u64>,
    /// Revoke everything below this counter
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    min_counter: u64,
    /// The public key whose counter it has, if others sign, too; that of --key unless given
    #[arg(long, value_name = "FILE")]
    counts_with: Option<PathBuf>,
    /// The interface that it serves; what the plugin says of itself unless given
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Its version, for people; what the plugin says of itself unless given
    #[arg(long, value_name = "VERSION")]
    plugin_version: Option<String>,
    /// The rule file that it goes with, and with no other
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The configuration that it goes with, and with no other
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long the signature holds, for instance `90d`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    #[command(flatten)]
    password: Password,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    Plugin,
    Rules,
}

impl From<Kind> for Subject {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Plugin => Self::Plugin,
            Kind::Rules => Self::Rules,
        }
    }
}

/// Returns where the manifest of a file lies, and the signatures over it.
pub(crate) fn beside(file: &Path) -> (PathBuf, PathBuf) {
    let with = |extension: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    (with(".manifest"), with(".manifest.minisig"))
}

impl Sign {
    pub(crate) fn run(&self) -> Outcome {
        let (manifest_path, signature_path) = beside(&self.file);
        let key = self.password.open(&self.key)?;
        let (manifest, before) = if self.add {
            let bytes = read(&manifest_path)?;
            // Whoever signs second vouches for the same artifact, not for whatever lies there.
            let described = Manifest::describes(&bytes, &read(&self.file)?);
            described.map_err(|error| Failure::Refused(format!("{}: {error}", shown(&manifest_path))))?;
            (bytes, read_text(&signature_path)?)
        } else {
            (self.manifest(key.public().id())?.to_bytes(), String::new())
        };
        let signature = key.sign(&manifest).map_err(|error| Failure::Misuse(error.to_string()))?;
        if !self.add {
            write(&manifest_path, &manifest)?;
        }
        write(&signature_path, (before + &signature).as_bytes())?;
        let id = key.public().id();
        Ok(format!("{} and {}: signed with key {id}\n", shown(&manifest_path), shown(&signature_path)))
    }

    fn manifest(&self, key: KeyId) -> Result<Manifest, Failure> {
        let now = SystemTime::now();
        let counts_with = match &self.counts_with {
            Some(file) => public_key(file)?.id(),
            None => key,
        };
        let seconds = || now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let slot = self.slot.clone().expect("clap asks for it");
        let artifact = read(&self.file)?;
        let counter = self.counter.unwrap_or_else(seconds);
        if self.min_counter > counter {
            let least = self.min_counter;
            let problem =
                format!("--min-counter {least} is above the counter {counter}, and would revoke this one itself");
            return Err(Failure::Misuse(problem));
        }
        let mut manifest = Manifest::new(slot, &artifact, counts_with)
            .subject(self.subject.into())
            .counter(counter)
            .min_counter(self.min_counter);
        // Nothing of it runs: what a plugin says of itself lies in its bytes.
        let said = match self.subject {
            Kind::Plugin => hotslot::inspect(&artifact).ok().and_then(|found| found.manifest),
            Kind::Rules => None,
        };
        let (interface, version) = said.map_or((None, None), |said| (said.interface, said.version));
        if let Some(interface) = self.interface.clone().or(interface) {
            manifest = manifest.interface(interface);
        }
        if let Some(version) = self.plugin_version.clone().or(version.map(|version| version.to_string())) {
            manifest = manifest.version(version);
        }
        if let Some(rules) = &self.rules {
            manifest = manifest.rules(&read(rules)?);
        }
        if let Some(config) = &self.config {
            manifest = manifest.config(&read(config)?);
        }
        if let Some(expires) = self.expires {
            manifest = manifest.expires(now + expires);
        }
        Ok(manifest)
    }
}

/// Reads a public key.
pub(crate) fn public_key(file: &Path) -> Result<PublicKey, Failure> {
    read_text(file)?.parse().map_err(|error| Failure::Misuse(format!("{}: {error}", shown(file))))
}
