//! Who made what serves. A module comes with a signed manifest; a root says whose signatures count, and a ledger in the data
//! folder which manifests are too old.
//!
//! Everything that is loaded passes [`admit`](Trust::admit), the slot's hook: it sees the bytes that will run, whatever has
//! become of the file that they came from. Whoever has something loaded [announces](Trust::announce) it with its manifest
//! before, and has the counter [remembered](Trust::accept) before it serves.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use hotslot::host::Interface;
use hotslot::{Artifact, BoxError, Digest, escape_untrusted};
use hotslot_trust::{Ledger, LedgerError, NotTrusted, Purpose, Recovery, Root, Signed, Subject, Verified};
use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use waf_interface::Waf;

use crate::config::Config;
use crate::release::{Module, Release};

/// How large a manifest, and the text with its signatures, may be.
pub const MOST_MANIFEST: usize = 64 << 10;
/// So many announced modules are remembered: more than are loaded at any time.
const ANNOUNCED: usize = 256;

/// Why something was refused, as a label.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    reason: &'static str,
}

/// Counts refusals by their reasons.
pub type Refusals = Family<Reason, Counter>;

/// Why something must not serve here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Untrusted {
    /// It came without a manifest.
    #[error(
        "it came without a manifest, and nothing unsigned is taken here: sign it (`cargo hotslot sign FILE --key KEY --slot \
         {slot}`), and send FILE.manifest and FILE.manifest.minisig with it"
    )]
    Unsigned {
        /// What it would have to be signed for.
        slot: String,
    },
    /// Its manifest does not hold, or not for it.
    #[error(transparent)]
    Manifest(#[from] NotTrusted),
    /// Its manifest is too old, or could not be remembered.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Untrusted {
    /// Returns a short name for it: for programs, and as a label.
    pub fn reason(&self) -> &'static str {
        match self {
            Untrusted::Unsigned { .. } => "unsigned",
            Untrusted::Manifest(error) => match error {
                NotTrusted::RootExpired { .. } => "root_expired",
                NotTrusted::TooFewSignatures { .. } => "too_few_signatures",
                NotTrusted::ForeignCounter(_) => "foreign_counter",
                NotTrusted::WrongSubject { .. } => "wrong_subject",
                NotTrusted::WrongSlot { .. } => "wrong_slot",
                NotTrusted::WrongInterface { .. } => "wrong_interface",
                NotTrusted::WrongDigest { .. } => "wrong_digest",
                NotTrusted::TooEarly { .. } => "too_early",
                NotTrusted::Expired { .. } => "expired",
                _ => "malformed",
            },
            Untrusted::Ledger(LedgerError::Replayed { .. }) => "replayed",
            Untrusted::Ledger(LedgerError::Revoked { .. }) => "revoked",
            Untrusted::Ledger(_) => "ledger",
        }
    }

    /// Returns whether it may be otherwise later: the disk is full, for instance.
    pub fn is_transient(&self) -> bool {
        self.reason() == "ledger"
    }

    /// Returns whether it was good once: it is older than what was accepted since, or was revoked.
    pub fn is_outdated(&self) -> bool {
        ["replayed", "revoked"].contains(&self.reason())
    }
}

/// What is known of keys and manifests.
pub struct Trust {
    slot: String,
    required: bool,
    file: PathBuf,
    root: RwLock<Root>,
    ledger: Mutex<Ledger>,
    announced: Mutex<VecDeque<Announced>>,
    refusals: Refusals,
}

/// A module that is about to be loaded.
struct Announced {
    digest: Digest,
    signed: Option<Arc<Signed>>,
    purpose: Purpose,
}

impl Trust {
    /// Reads the root that `config` names, and the ledger in `folder`, and makes up for what the ledger lacks from the manifests of what
    /// has `served`. `None` if there is no root, and anything is taken.
    pub fn open(
        config: &Config,
        folder: &Path,
        slot: &str,
        in_fleet: bool,
        served: impl IntoIterator<Item = Arc<Signed>>,
    ) -> Result<Option<Trust>, BoxError> {
        let required = config.trust.is_required(in_fleet);
        let Some(file) = &config.trust.root else {
            return if required { Err(no_root(slot, in_fleet).into()) } else { Ok(None) };
        };
        let root = read_root(file)?;
        if let Err(error) = root.check_expiry(SystemTime::now()) {
            tracing::error!(%error, file = %file.display(), "nothing that is signed can be verified");
        }
        let folder = folder.join("trust");
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        // Whatever the time is: what has expired since has served all the same.
        let served = served.into_iter().filter_map(|signed| root.recall(&signed, Subject::Plugin, slot).ok());
        let served: Vec<Verified> = served.collect();
        let opened = Ledger::open(folder.join("ledger.json"), &root, &served);
        let (ledger, recovery) = opened.map_err(|error| format!("root in [waf.trust]: {error}"))?;
        if recovery == Recovery::Rebuilt {
            tracing::error!(
                file = %folder.join("ledger.json").display(),
                "the ledger was lost, and made anew from the archive: what was accepted and is not there could be replayed"
            );
        }
        tracing::info!(root = root.version(), required, "signatures are checked");
        Ok(Some(Trust {
            slot: slot.to_owned(),
            required,
            file: file.clone(),
            root: RwLock::new(root),
            ledger: Mutex::new(ledger),
            announced: Mutex::default(),
            refusals: Family::default(),
        }))
    }

    /// Counts what was refused.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Counts it among what others refuse.
    pub fn counting(self, refusals: Refusals) -> Trust {
        Trust { refusals, ..self }
    }

    /// Reads the root again, without taking it up.
    pub fn read_root(&self) -> Result<Root, BoxError> {
        let (root, now) = (read_root(&self.file)?, self.root.read().version());
        if root.version() < now {
            let problem = LedgerError::OldRoot { given: root.version(), followed: now };
            return Err(format!("{}: {problem}", self.file.display()).into());
        }
        Ok(root)
    }

    /// Goes by another root from now on. What serves goes on serving; what is loaded next has to be signed by its keys.
    pub fn follow(&self, root: Root) -> Result<(), LedgerError> {
        let mut current = self.root.write();
        self.ledger.lock().follow(&root)?;
        *current = root;
        Ok(())
    }

    /// Says what is about to be loaded, and what for.
    pub fn announce(&self, module: &Module, purpose: Purpose) {
        let mut announced = self.announced.lock();
        announced.retain(|other| other.digest != module.digest());
        if announced.len() == ANNOUNCED {
            announced.pop_front();
        }
        announced.push_back(Announced { digest: module.digest(), signed: module.signed().cloned(), purpose });
    }

    /// The slot's hook: looks at the bytes that will run, and at the rule file that they will run with.
    pub fn admit(&self, artifact: &Artifact) -> Result<(), Untrusted> {
        let found = {
            let announced = self.announced.lock();
            let found = announced.iter().find(|announced| announced.digest == artifact.digest());
            found.map(|found| (found.signed.clone(), found.purpose))
        };
        let (signed, purpose) = found.unwrap_or((None, Purpose::Rollback));
        let rules = artifact.config().map(|rules| &rules[..]);
        self.judge(signed.as_deref(), artifact.bytes(), rules, purpose)
    }

    /// Checks a module and its rule file without loading them.
    pub fn check(&self, module: &Module, rules: &[u8], purpose: Purpose) -> Result<(), Untrusted> {
        self.judge(module.signed().map(|signed| &**signed), module.bytes(), Some(rules), purpose)
    }

    /// Checks that a module goes with a configuration, if it was signed with one.
    pub fn check_config(&self, module: &Module, config: &[u8]) -> Result<(), Untrusted> {
        let Some(signed) = module.signed() else { return Ok(()) };
        let recalled = self.recall(signed);
        if !self.required && recalled.is_err() {
            return Ok(());
        }
        self.counted(recalled.and_then(|verified| Ok(verified.with_config(Some(config)).map(drop)?)))
    }

    fn judge(
        &self,
        signed: Option<&Signed>,
        module: &[u8],
        rules: Option<&[u8]>,
        purpose: Purpose,
    ) -> Result<(), Untrusted> {
        let judged = match signed {
            None if self.required => Err(Untrusted::Unsigned { slot: self.slot.clone() }),
            None => return Ok(()),
            Some(signed) => self.verify(signed, module, rules, purpose).and_then(|verified| {
                self.ledger.lock().check(&verified, purpose)?;
                Ok(())
            }),
        };
        // Where anything is taken, what comes back needs no signature either.
        if !self.required && purpose == Purpose::Rollback && judged.is_err() {
            return Ok(());
        }
        self.counted(judged)
    }

    fn verify(
        &self,
        signed: &Signed,
        module: &[u8],
        rules: Option<&[u8]>,
        purpose: Purpose,
    ) -> Result<Verified, Untrusted> {
        let verified = self.in_time(signed, purpose)?.of_artifact(module)?;
        Ok(verified.for_interface(<dyn Waf as Interface>::ID)?.with_rules(rules)?)
    }

    /// Verifies a manifest at this time. That of what serves already was verified when it began to: no rule has to wait until
    /// somebody signs the same module anew.
    fn in_time(&self, signed: &Signed, purpose: Purpose) -> Result<Verified, Untrusted> {
        let root = self.root.read();
        let is_serving = |verified: &Verified| purpose == Purpose::Reload { serving: Some(verified.id()) };
        let recalled = root.recall(signed, Subject::Plugin, &self.slot)?;
        if is_serving(&recalled) {
            return Ok(recalled);
        }
        Ok(root.verify_manifest(signed, Subject::Plugin, &self.slot, SystemTime::now())?)
    }

    fn recall(&self, signed: &Signed) -> Result<Verified, Untrusted> {
        Ok(self.root.read().recall(signed, Subject::Plugin, &self.slot)?)
    }

    /// Checks that what is loaded already may serve again: it was verified when it was loaded, and may have been revoked since.
    pub fn may_return(&self, module: &Module) -> Result<(), Untrusted> {
        if !self.required {
            return Ok(());
        }
        let judged = match module.signed() {
            None => Err(Untrusted::Unsigned { slot: self.slot.clone() }),
            Some(signed) => self.recall(signed).and_then(|verified| {
                self.ledger.lock().check(&verified, Purpose::Rollback)?;
                Ok(())
            }),
        };
        self.counted(judged)
    }

    /// Remembers the counter of what is about to serve. It is on the disk when this returns.
    pub fn accept(&self, module: &Module, purpose: Purpose) -> Result<(), Untrusted> {
        let accepted = match module.signed() {
            None if self.required => Err(Untrusted::Unsigned { slot: self.slot.clone() }),
            None => return Ok(()),
            // It may not have been loaded for this: what serves already is not loaded again.
            Some(signed) => self.remembered(signed, purpose).and_then(|verified| {
                self.ledger.lock().accept(&verified, purpose)?;
                Ok(())
            }),
        };
        if !self.required && purpose == Purpose::Rollback && accepted.is_err() {
            return Ok(());
        }
        self.counted(accepted)
    }

    fn remembered(&self, signed: &Signed, purpose: Purpose) -> Result<Verified, Untrusted> {
        match purpose {
            Purpose::Rollback => self.recall(signed),
            Purpose::Reload { .. } => self.in_time(signed, purpose),
        }
    }

    /// Takes up what others have settled on: its counter, and what it revokes.
    pub fn learn(&self, module: &Module) {
        let Some(verified) = module.signed().and_then(|signed| self.recall(signed).ok()) else { return };
        let mut ledger = self.ledger.lock();
        let learned = ledger.accept(&verified, Purpose::Rollback).and_then(|()| ledger.settle(&verified));
        if let Err(error) = learned {
            tracing::error!(%error, "what the fleet serves is not remembered yet");
        }
    }

    /// Remembers that a module serves for good. From now on it revokes what its manifest says.
    pub fn settle(&self, module: &Module) {
        let Some(verified) = module.signed().and_then(|signed| self.recall(signed).ok()) else { return };
        if let Err(error) = self.ledger.lock().settle(&verified) {
            tracing::error!(%error, "what serves for good is not remembered yet");
        }
    }

    fn counted(&self, judged: Result<(), Untrusted>) -> Result<(), Untrusted> {
        judged.inspect_err(|error| {
            self.refusals.get_or_create(&Reason { reason: error.reason() }).inc();
            let text = escape_untrusted(&error.to_string()).into_owned();
            tracing::warn!(reason = error.reason(), error = text, "not trusted");
        })
    }
}

/// What a module's manifest is called in the ledger, if it has one.
pub fn id(module: &Module) -> Option<hotslot_trust::Digest> {
    module.signed().map(|signed| hotslot_trust::Digest::of(&signed.manifest))
}

/// Reads the manifest that lies beside a file, with its signatures: what `cargo hotslot sign` writes.
pub fn beside(file: &Path) -> Option<Arc<Signed>> {
    let with = |extension: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    let manifest = std::fs::read(with(".manifest")).ok()?;
    let signatures = std::fs::read_to_string(with(".manifest.minisig")).unwrap_or_default();
    (manifest.len() <= MOST_MANIFEST && signatures.len() <= MOST_MANIFEST)
        .then(|| Arc::new(Signed::new(manifest, &signatures)))
}

/// Puts together what a form has in its fields `manifest` and `signatures`.
pub fn of_form(manifest: Option<&[u8]>, signatures: Option<&[u8]>) -> Result<Option<Arc<Signed>>, &'static str> {
    match (manifest, signatures) {
        (None, None) => Ok(None),
        (Some(manifest), Some(signatures)) => {
            if manifest.len() > MOST_MANIFEST || signatures.len() > MOST_MANIFEST {
                return Err("a manifest, and the text with its signatures, have at most 64 KiB each");
            }
            let signatures = std::str::from_utf8(signatures).map_err(|_| "the signatures are no text")?;
            std::str::from_utf8(manifest).map_err(|_| "the manifest is no text")?;
            Ok(Some(Arc::new(Signed::new(manifest.to_vec(), signatures))))
        }
        _ => Err("the fields manifest and signatures go together: FILE.manifest and FILE.manifest.minisig"),
    }
}

/// Checks what a start would check of a module that the configuration names, and changes nothing.
pub fn try_out(config: &Config, slot: &str, file: &Path, in_fleet: bool, release: &Release) -> Result<(), BoxError> {
    let required = config.trust.is_required(in_fleet);
    let Some(root) = &config.trust.root else {
        return if required { Err(no_root(slot, in_fleet).into()) } else { Ok(()) };
    };
    let (root, module) = (read_root(root)?, &release.module);
    let named = |error: Untrusted| format!("{}: {error}", file.display());
    match beside(file) {
        None if required => Err(named(Untrusted::Unsigned { slot: slot.to_owned() }).into()),
        None => Ok(()),
        Some(signed) => {
            let verified = root.verify(&signed, Subject::Plugin, slot, module.bytes(), SystemTime::now());
            let verified = verified.and_then(|verified| verified.for_interface(<dyn Waf as Interface>::ID));
            let verified = verified.and_then(|verified| verified.with_rules(Some(release.rules.bytes())));
            verified.map(drop).map_err(|error| named(error.into()).into())
        }
    }
}

fn read_root(file: &Path) -> Result<Root, BoxError> {
    let named = |error: &dyn std::fmt::Display| format!("root in [waf.trust]: {}: {error}", file.display());
    let bytes = std::fs::read(file).map_err(|error| named(&error))?;
    Root::trusted(&bytes).map_err(|error| named(&error).into())
}

/// What to do where a root is needed and none is set.
fn no_root(slot: &str, in_fleet: bool) -> String {
    let why = if in_fleet { "whoever is in a fleet takes nothing unsigned" } else { "required = true" };
    format!(
        "root in [waf.trust] is not set, and {why}. Make a key and a root (`cargo hotslot keygen NAME`, `cargo hotslot trust init \
         --key NAME.pub`), set root = \"root.json\", and sign what is to serve (`cargo hotslot sign FILE --key NAME.key --slot \
         {slot}`). Or set required = false in [waf.trust], and anything is taken from whoever has the token"
    )
}
