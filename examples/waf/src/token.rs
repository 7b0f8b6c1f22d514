//! The secret of the admin API: set, or drawn at the first start and kept where only the node's user can read it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use hotslot::BoxError;

use crate::config::{AdminToken, Token};

/// The token, if one is asked for, and whether it is new.
pub fn open(set: Option<AdminToken>, data: &Path) -> Result<(Option<Token>, bool), BoxError> {
    match set {
        Some(AdminToken::None) => Ok((None, false)),
        Some(AdminToken::Secret(token)) => Ok((Some(token), false)),
        None => stored(data).map(|(token, is_new)| (Some(token), is_new)),
    }
}

/// The token that is kept in a folder, drawn if there is none yet, and whether it is new.
pub fn stored(data: &Path) -> Result<(Token, bool), BoxError> {
    let path = data.join("token");
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(&path) {
        Ok(mut file) => {
            let token = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
            file.write_all(token.as_bytes()).and_then(|()| file.sync_all()).map_err(named)?;
            Ok((Token(token), true))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read(&path).map(|token| (token, false)),
        Err(error) => Err(named(error).into()),
    }
}

fn read(path: &Path) -> Result<Token, BoxError> {
    let named = |problem: &str| format!("{}: {problem}: remove it, and a new token will be made", path.display());
    let mut text = String::new();
    let mut file = std::fs::File::open(path).map_err(|error| named(&error.to_string()))?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions());
        if mode & 0o077 != 0 {
            return Err(named("others can read it").into());
        }
    }
    file.read_to_string(&mut text).map_err(|error| named(&error.to_string()))?;
    match text.trim() {
        token if token.len() >= 16 => Ok(Token(token.to_owned())),
        _ => Err(named("it holds no token").into()),
    }
}
