//! `cargo hotslot trust`: makes and follows the document that says which keys count.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, ValueEnum};
use hotslot_trust::{PublicKey, Role, Root, split_signatures};

use crate::files::{read, read_text, shown, write};
use crate::keygen::Password;
use crate::sign::public_key;
use crate::{Failure, Outcome};

#[derive(Args)]
pub(crate) struct Trust {
    #[command(subcommand)]
    command: TrustCommand,
}

#[derive(Subcommand)]
enum TrustCommand {
    /// Makes the first root, in which each key may sign everything
    Init(Init),
    /// Makes the next root: adds and removes keys, sets thresholds and the expiry, and signs it
    Rotate(Rotate),
    /// Verifies that a root may follow another, and prints it
    Follow(Follow),
    /// Prints a root
    Show(Show),
}

#[derive(Args)]
struct Init {
    /// A public key; may be given several times
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// How long the root holds
    #[arg(long, value_name = "DURATION", default_value = "1y", value_parser = humantime::parse_duration)]
    expires: Duration,
    /// Where it goes
    #[arg(long, value_name = "FILE", default_value = "root.json")]
    out: PathBuf,
}

#[derive(Args)]
struct Rotate {
    /// The root that is trusted now
    root: PathBuf,
    /// A public key to add, and its roles: `new.pub=release` or `ci.pub=release,rules`; all roles unless given
    #[arg(long, value_name = "FILE[=ROLES]", value_parser = addition)]
    add: Vec<Addition>,
    /// A key to remove, by its name or by its file
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// How many keys of a role must sign: `release=2`
    #[arg(long, value_name = "ROLE=NUMBER", value_parser = threshold)]
    threshold: Vec<(RoleName, usize)>,
    /// How long the next root holds
    #[arg(long, value_name = "DURATION", default_value = "1y", value_parser = humantime::parse_duration)]
    expires: Duration,
    /// A secret key that signs it: enough of the trusted root and of the next one
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// Where it goes; the signatures go beside it, to FILE.minisig
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    password: Password,
}

#[derive(Args)]
struct Follow {
    /// The root that is trusted now
    root: PathBuf,
    /// The next one, with its signatures beside it
    next: PathBuf,
}

#[derive(Args)]
struct Show {
    /// The root
    root: PathBuf,
}

#[derive(Clone)]
struct Addition {
    file: PathBuf,
    roles: Vec<RoleName>,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleName {
    Root,
    Release,
    Rules,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Root => Self::Root,
            RoleName::Release => Self::Release,
            RoleName::Rules => Self::Rules,
        }
    }
}

const ALL: [RoleName; 3] = [RoleName::Root, RoleName::Release, RoleName::Rules];

fn addition(text: &str) -> Result<Addition, String> {
    let (file, roles) = match text.rsplit_once('=') {
        None => (text, ALL.to_vec()),
        Some((file, roles)) => {
            (file, roles.split(',').map(|role| RoleName::from_str(role, true)).collect::<Result<_, _>>()?)
        }
    };
    Ok(Addition { file: file.into(), roles })
}

fn threshold(text: &str) -> Result<(RoleName, usize), String> {
    let (role, number) = text.split_once('=').ok_or("expected ROLE=NUMBER, for instance release=2")?;
    Ok((RoleName::from_str(role, true)?, number.parse().map_err(|_| format!("{number:?} is not a number"))?))
}

impl Trust {
    pub(crate) fn run(&self) -> Outcome {
        match &self.command {
            TrustCommand::Init(command) => command.run(),
            TrustCommand::Rotate(command) => command.run(),
            TrustCommand::Follow(command) => command.run(),
            TrustCommand::Show(command) => Ok(show(&trusted(&command.root)?)),
        }
    }
}

impl Init {
    fn run(&self) -> Outcome {
        let keys = self.keys.iter().map(|file| public_key(file)).collect::<Result<Vec<PublicKey>, _>>()?;
        let root = Root::first(&keys, SystemTime::now() + self.expires);
        if self.out.exists() {
            let problem = "there is one already, and hosts that trust it will not follow a new one: `trust rotate` makes its \
                           successor. To begin anew, move it away";
            return Err(Failure::Misuse(format!("{}: {problem}", shown(&self.out))));
        }
        write(&self.out, &root.to_bytes())?;
        Ok(format!("{}: {}", shown(&self.out), show(&root)))
    }
}

impl Rotate {
    fn run(&self) -> Outcome {
        let trusted = trusted(&self.root)?;
        let mut next = trusted.successor(SystemTime::now() + self.expires);
        for name in &self.remove {
            let file = Path::new(name);
            let name = if file.exists() { public_key(file)?.id().to_string() } else { name.clone() };
            let key = trusted.all_keys().map(|(key, _)| key.id()).find(|id| id.to_string() == name);
            let key = key.ok_or_else(|| Failure::Misuse(format!("{} has no key {name}", shown(&self.root))))?;
            next = next.without(&key);
        }
        for Addition { file, roles } in &self.add {
            let key = public_key(file)?;
            next = next.without(&key.id()).key(key, roles.iter().map(|role| Role::from(*role)));
        }
        for (role, keys) in &self.threshold {
            next = next.threshold((*role).into(), *keys);
        }
        let bytes = next.to_bytes();
        let mut signatures = Vec::new();
        for key in &self.keys {
            let signature = self.password.open(key)?.sign(&bytes);
            signatures.push(signature.map_err(|error| Failure::Misuse(error.to_string()))?);
        }
        // Nothing is written that no host would follow.
        let next = trusted.follow(&bytes, &signatures).map_err(|error| Failure::Misuse(error.to_string()))?;
        write(&self.out, &bytes)?;
        write(&signatures_of(&self.out), signatures.concat().as_bytes())?;
        Ok(format!("{}: {}", shown(&self.out), show(&next)))
    }
}

impl Follow {
    fn run(&self) -> Outcome {
        let signatures = split_signatures(&read_text(&signatures_of(&self.next))?);
        let next = trusted(&self.root)?.follow(&read(&self.next)?, &signatures);
        let next = next.map_err(|error| Failure::Refused(format!("{}: {error}", shown(&self.next))))?;
        next.check_expiry(SystemTime::now()).map_err(|error| Failure::Refused(error.to_string()))?;
        Ok(format!("ok: {}", show(&next)))
    }
}

fn signatures_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

/// Reads a root that is trusted because the caller names it.
pub(crate) fn trusted(file: &Path) -> Result<Root, Failure> {
    Root::trusted(&read(file)?).map_err(|error| Failure::Misuse(format!("{}: {error}", shown(file))))
}

fn show(root: &Root) -> String {
    let mut text = format!("root {}, until {}\n", root.version(), humantime::format_rfc3339_seconds(root.expires()));
    for role in ALL.map(Role::from) {
        let name = format!("{role:?}").to_lowercase();
        let keys: Vec<_> = root.keys(role).map(|key| key.to_string()).collect();
        text += &format!(
            "  {name}: {} of {}\n",
            root.threshold_of(role),
            if keys.is_empty() { "none".into() } else { keys.join(", ") }
        );
    }
    text
}
