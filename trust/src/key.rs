//! Public keys, and signatures under them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use ct_codecs::{Base64, Decoder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What names a key: the digest of the key itself.
///
/// Minisign has an identifier of eight random bytes beside each key. Anybody can make another key with the same one, so it
/// names nothing here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The public half of a key, as the second line of a `minisign.pub` has it.
#[derive(Clone)]
pub struct PublicKey {
    text: String,
    id: KeyId,
    key: minisign_verify::PublicKey,
}

/// Returned for a text that is no public key of minisign.
#[derive(Debug, thiserror::Error)]
#[error("not a minisign public key: pass the line that starts with RW, or the file that contains it")]
pub struct BadKey;

impl PublicKey {
    /// Returns what names the key.
    pub fn id(&self) -> KeyId {
        self.id.clone()
    }

    /// Reports whether `signature`, a whole `.minisig` file, is one of this key over `bytes`.
    ///
    /// Only the prehashed format counts; minisign makes no other since version 0.10.
    pub(crate) fn has_signed(&self, bytes: &[u8], signature: &str) -> bool {
        let Ok(signature) = minisign_verify::Signature::decode(signature) else { return false };
        self.key.verify(bytes, &signature, false).is_ok()
    }
}

/// Reads the line with the key, or the file with its comment above.
impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).ok_or(BadKey)?;
        let key = minisign_verify::PublicKey::from_base64(line).map_err(|_| BadKey)?;
        // Two bytes of algorithm, eight of minisign's number, and the key: the number is anybody's choice.
        let raw = Base64::decode_to_vec(line, None).map_err(|_| BadKey)?;
        let id = blake3::hash(raw.get(10..).ok_or(BadKey)?).to_hex()[..16].to_owned();
        Ok(Self { text: line.to_owned(), id: KeyId(id), key })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.text).finish()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
