//! Signing, for the tools of those who publish.

use std::io::Cursor;

use crate::{BadKey, PublicKey};

/// What stands above the key in its file.
const COMMENT: Option<&str> = Some("hotslot: keep this secret");

/// A key pair that signs.
pub struct KeyPair {
    public: PublicKey,
    secret: minisign::SecretKey,
}

/// Why a key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// Minisign refused: a wrong password, a damaged file.
    #[error("{0}")]
    Minisign(String),
    /// The public key is none.
    #[error(transparent)]
    BadKey(#[from] BadKey),
}

impl From<minisign::PError> for SignError {
    fn from(error: minisign::PError) -> Self {
        Self::Minisign(error.to_string())
    }
}

impl KeyPair {
    /// Makes a new pair from the system's randomness.
    ///
    /// # Errors
    /// [`SignError::Minisign`] if there is none.
    pub fn generate() -> Result<Self, SignError> {
        Self::from_secret(minisign::KeyPair::generate_unencrypted_keypair()?.sk)
    }

    /// Makes a new pair, and the contents of a file that holds its secret half under a password. Takes seconds and 1 GiB
    /// of memory, so that guessing the password does, too.
    ///
    /// # Errors
    /// [`SignError::Minisign`] if there is no randomness or no memory.
    pub fn generate_encrypted(password: String) -> Result<(Self, String), SignError> {
        let pair = minisign::KeyPair::generate_encrypted_keypair(Some(password.clone()))?;
        let file = pair.sk.to_box(COMMENT)?.into_string();
        Ok((Self::read(&file, Some(password))?, file))
    }

    /// Reads a secret key from the contents of a file: one that minisign wrote under a password, or one of this crate.
    /// Those that minisign writes without a password (`-W`) are not read.
    ///
    /// # Errors
    /// [`SignError::Minisign`] for another file, or for a wrong password.
    pub fn read(secret_file: &str, password: Option<String>) -> Result<Self, SignError> {
        let stored = minisign::SecretKeyBox::from_string(secret_file)?;
        let secret = match password {
            Some(password) => stored.into_secret_key(Some(password))?,
            None => stored.into_unencrypted_secret_key()?,
        };
        Self::from_secret(secret)
    }

    fn from_secret(secret: minisign::SecretKey) -> Result<Self, SignError> {
        let public = minisign::PublicKey::from_secret_key(&secret)?.to_base64().parse()?;
        Ok(Self { public, secret })
    }

    /// Returns the contents of a file that holds the secret half without a password: for a server's own key, and only
    /// where nobody else can read it.
    ///
    /// # Errors
    /// [`SignError::Minisign`] if it could not be written.
    pub fn secret_file(&self) -> Result<String, SignError> {
        Ok(self.secret.to_box(COMMENT)?.into_string())
    }

    /// Returns the public half.
    pub fn public(&self) -> PublicKey {
        self.public.clone()
    }

    /// Signs `bytes`, prehashed, and returns the contents of a `.minisig` file.
    ///
    /// # Errors
    /// [`SignError::Minisign`] if it could not be signed.
    pub fn sign(&self, bytes: &[u8]) -> Result<String, SignError> {
        let signature = minisign::sign(None, &self.secret, Cursor::new(bytes), None, Some("signature of hotslot"))?;
        Ok(signature.into_string())
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}
