//! Keys, and the 128-bit tags that end each host NQN until in-band authentication lands
//! (design section 4, step 6).
//!
//! ```text
//! drive key  = HMAC-SHA256(master, "weft drive"  ‖ drive uid)            operator, drive
//! slice key  = HMAC-SHA256(drive key, "weft slice" ‖ slice uid ‖ term)   drive, engine of that term
//! attach key = HMAC-SHA256(master, "weft attach" ‖ volume uid ‖ generation)  operator
//! tag        = first 16 bytes of HMAC-SHA256(key, the NQN before the tag)
//! ```

use crate::ids::{AttachGeneration, DriveUid, SliceUid, Term, VolumeUid};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use std::fmt;

/// A 256-bit key. Never printed: `Debug` shows only that one is there.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

impl Key {
    /// From raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new random key (two version 4 UUIDs hashed: 244 random bits).
    pub fn random() -> Self {
        let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        Self(mac(a.as_bytes(), &[b.as_bytes()]))
    }

    /// Parses 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0u8; 32];
        decode_hex(text, &mut bytes).then_some(Self(bytes))
    }

    /// As 64 hexadecimal digits, for a document.
    pub fn to_hex(&self) -> String {
        encode_hex(&self.0)
    }

    /// The key of one drive, made from the operator's master key.
    pub fn drive(&self, drive: DriveUid) -> Self {
        Self(mac(&self.0, &[b"weft drive", drive.0.as_bytes()]))
    }

    /// The key of one slice in one term, made from the drive's key.
    pub fn slice(&self, slice: SliceUid, term: Term) -> Self {
        Self(mac(
            &self.0,
            &[b"weft slice", slice.0.as_bytes(), &term.0.to_be_bytes()],
        ))
    }

    /// The key of one attachment generation, made from the operator's master key.
    pub fn attach(&self, volume: VolumeUid, generation: AttachGeneration) -> Self {
        Self(mac(
            &self.0,
            &[
                b"weft attach",
                volume.0.as_bytes(),
                &generation.0.to_be_bytes(),
            ],
        ))
    }

    /// The tag of an NQN stem.
    pub fn tag(&self, stem: &str) -> Tag {
        let mut tag = [0u8; 16];
        tag.copy_from_slice(&mac(&self.0, &[stem.as_bytes()])[..16]);
        Tag(tag)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom("a key is 64 hexadecimal digits"))
    }
}

/// A 128-bit tag; compared in constant time.
#[derive(Clone, Copy)]
pub struct Tag([u8; 16]);

impl Tag {
    /// Parses 32 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0u8; 16];
        decode_hex(text, &mut bytes).then_some(Self(bytes))
    }

    /// As 32 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        encode_hex(&self.0)
    }
}

impl PartialEq for Tag {
    fn eq(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .fold(0u8, |acc, (a, b)| acc | (a ^ b))
            == 0
    }
}
impl Eq for Tag {}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tag(redacted)")
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn decode_hex(text: &str, into: &mut [u8]) -> bool {
    if text.len() != into.len() * 2 || !text.is_ascii() {
        return false;
    }
    into.iter_mut().enumerate().all(|(i, byte)| {
        u8::from_str_radix(&text[2 * i..2 * i + 2], 16)
            .map(|value| *byte = value)
            .is_ok()
    })
}
