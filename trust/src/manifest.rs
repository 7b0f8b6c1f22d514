//! What a signature is over.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::time::Time;
use crate::{Digest, KeyId, NotTrusted};

/// The format that this version writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// What an artifact is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A plugin: a module or a library.
    #[default]
    Plugin,
    /// Data that a plugin works with, a rule file for instance.
    Rules,
}

/// States what an artifact is, for which slot, and since when it replaces others.
///
/// Written as JSON. The signature is over the bytes of the document as they are: nobody has to write it the same way again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub(crate) format: u32,
    #[serde(default)]
    pub(crate) subject: Subject,
    pub(crate) slot: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<String>,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rules_digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config_digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    pub(crate) counter: u64,
    #[serde(default)]
    pub(crate) min_counter: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_before: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<Time>,
    pub(crate) key: KeyId,
}

impl Manifest {
    /// Describes `artifact`, a plugin for the slot of this name. `key` is the key whose counter it has, one of those that
    /// will sign.
    pub fn new(slot: impl Into<String>, artifact: &[u8], key: KeyId) -> Self {
        Self {
            format: FORMAT,
            subject: Subject::Plugin,
            slot: slot.into(),
            interface: None,
            digest: Digest::of(artifact),
            size: artifact.len() as u64,
            rules_digest: None,
            config_digest: None,
            version: None,
            counter: 0,
            min_counter: 0,
            not_before: None,
            expires: None,
            key,
        }
    }

    /// Says what the artifact is. [`Subject::Plugin`] if it is not called.
    pub fn subject(self, subject: Subject) -> Self {
        Self { subject, ..self }
    }

    /// Names the interface that the plugin serves. A host that expects one refuses another, and none.
    pub fn interface(self, interface: impl Into<String>) -> Self {
        Self { interface: Some(interface.into()), ..self }
    }

    /// Ties the plugin to rules: it is accepted with these only.
    pub fn rules(self, rules: &[u8]) -> Self {
        Self { rules_digest: Some(Digest::of(rules)), ..self }
    }

    /// Ties the plugin to a configuration: it is accepted with this one only.
    pub fn config(self, config: &[u8]) -> Self {
        Self { config_digest: Some(Digest::of(config)), ..self }
    }

    /// Says which version it is, for people.
    pub fn version(self, version: impl Into<String>) -> Self {
        Self { version: Some(version.into()), ..self }
    }

    /// Sets the counter, which must be higher than in every manifest of this key and slot before. 0 if it is not called.
    pub fn counter(self, counter: u64) -> Self {
        Self { counter, ..self }
    }

    /// Revokes everything below this counter: once this manifest was accepted, nobody goes back to it.
    pub fn min_counter(self, min_counter: u64) -> Self {
        Self { min_counter, ..self }
    }

    /// Sets when the manifest begins to hold. Always if it is not called.
    pub fn not_before(self, time: SystemTime) -> Self {
        Self { not_before: Some(Time(time)), ..self }
    }

    /// Sets when it ceases to hold. Never if it is not called.
    pub fn expires(self, time: SystemTime) -> Self {
        Self { expires: Some(Time(time)), ..self }
    }

    /// Checks that a document is a manifest of this artifact: before somebody signs what somebody else has written.
    ///
    /// # Errors
    /// [`NotTrusted::Malformed`] and [`NotTrusted::WrongDigest`].
    pub fn describes(document: &[u8], artifact: &[u8]) -> Result<Self, NotTrusted> {
        let manifest: Self =
            serde_json::from_slice(document).map_err(|error| NotTrusted::Malformed(error.to_string()))?;
        let (signed, found) = (manifest.digest, Digest::of(artifact));
        if signed != found {
            return Err(NotTrusted::WrongDigest { part: "artifact", signed, found });
        }
        Ok(manifest)
    }

    /// Returns the document to be signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest is JSON");
        bytes.push(b'\n');
        bytes
    }
}

/// A manifest and the signatures over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The manifest, byte for byte as it was signed.
    #[serde(with = "text")]
    pub manifest: Vec<u8>,
    /// The contents of `.minisig` files.
    pub signatures: Vec<String>,
}

impl Signed {
    /// Takes a manifest and the text of its `.minisig` file, which may hold the signatures of several keys, one after the
    /// other.
    pub fn new(manifest: Vec<u8>, minisig: &str) -> Self {
        Self { manifest, signatures: split_signatures(minisig) }
    }
}

/// Splits a text with the signatures of several keys, one after the other, four lines each.
pub fn split_signatures(minisig: &str) -> Vec<String> {
    let lines: Vec<&str> = minisig.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.chunks(4).map(|signature| signature.join("\n") + "\n").collect()
}

/// A manifest is text; one that is not is no manifest, and is kept as it can be.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(deserializer).map(String::into_bytes)
    }
}
