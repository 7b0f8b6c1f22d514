//! `cargo hotslot keygen`: makes a key pair that signs plugins.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use hotslot_trust::sign::{KeyPair, SignError};

use crate::files::{read_text, shown};
use crate::{Failure, Outcome};

#[derive(Args)]
pub(crate) struct Keygen {
    /// Where the pair goes: NAME.pub, and NAME.key, which is to be kept secret
    #[arg(value_name = "NAME", default_value = "hotslot")]
    name: PathBuf,
    #[command(flatten)]
    password: Password,
}

/// How the password of a secret key is given. Asked for on the terminal if not.
#[derive(Args)]
pub(crate) struct Password {
    /// The secret key has no password: for a server's own key
    #[arg(long, conflicts_with = "password_file")]
    no_password: bool,
    /// A file whose first line is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Keygen {
    pub(crate) fn run(&self) -> Outcome {
        let with = |extension: &str| {
            let mut name = self.name.clone().into_os_string();
            name.push(extension);
            PathBuf::from(name)
        };
        let (public, secret) = (with(".pub"), with(".key"));
        let made = match self.password.new_one()? {
            None => KeyPair::generate().and_then(|pair| Ok((pair.secret_file()?, pair))),
            Some(password) => KeyPair::generate_encrypted(password).map(|(pair, file)| (file, pair)),
        };
        let (file, pair) = made.map_err(|error| Failure::Misuse(error.to_string()))?;
        create(&secret, &file, true)?;
        create(
            &public,
            &format!("untrusted comment: hotslot public key {}\n{}\n", pair.public().id(), pair.public()),
            false,
        )?;
        Ok(format!(
            "{} signs, and {} is what others need to verify: key {}\n",
            shown(&secret),
            shown(&public),
            pair.public().id()
        ))
    }
}

impl Password {
    fn new_one(&self) -> Result<Option<String>, Failure> {
        if let Some(given) = self.given()? {
            return Ok(given);
        }
        let password = ask("Password of the new key: ")?;
        if password != ask("Once more: ")? {
            return Err(Failure::Misuse("the passwords differ".to_owned()));
        }
        Ok(Some(password))
    }

    /// Returns `Some(None)` for no password, and nothing if it is to be asked for.
    fn given(&self) -> Result<Option<Option<String>>, Failure> {
        if self.no_password {
            return Ok(Some(None));
        }
        let Some(file) = &self.password_file else { return Ok(None) };
        Ok(Some(Some(read_text(file)?.lines().next().unwrap_or_default().to_owned())))
    }

    /// Reads the secret key in this file.
    pub(crate) fn open(&self, key: &Path) -> Result<KeyPair, Failure> {
        let file = read_text(key)?;
        let failed = |error: SignError| Failure::Misuse(format!("{}: {error}", shown(key)));
        match self.given()? {
            Some(password) => KeyPair::read(&file, password).map_err(failed),
            // One without a password is known by being readable.
            None => match KeyPair::read(&file, None) {
                Ok(pair) => Ok(pair),
                Err(_) => {
                    let password = ask(&format!("Password of {}: ", shown(key)))?;
                    KeyPair::read(&file, Some(password)).map_err(failed)
                }
            },
        }
    }
}

fn ask(prompt: &str) -> Result<String, Failure> {
    let remedy = "give --password-file or --no-password where there is no terminal";
    rpassword::prompt_password(prompt).map_err(|error| Failure::Misuse(format!("no password: {error}; {remedy}")))
}

/// Creates a file that must not exist yet: a key that is overwritten is lost.
fn create(path: &Path, contents: &str, secret: bool) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secret {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = secret;
    let written = options.open(path).and_then(|mut file| file.write_all(contents.as_bytes()));
    written.map_err(|error| Failure::Misuse(format!("{}: {error}", shown(path))))
}
