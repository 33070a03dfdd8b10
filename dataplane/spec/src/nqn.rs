//! Every NVMe qualified name that Weft uses (NVMe Base 2.0 section 4.5: at most 223 bytes).
//!
//! | who | name |
//! | --- | --- |
//! | subsystem of a volume | `nqn.2026-11.storage.weft:volume:<volume uid>` |
//! | subsystem of a slice | `nqn.2026-11.storage.weft:slice:<slice uid>` |
//! | engine towards a drive | `nqn.2026-11.storage.weft:engine:<volume uid>:<term>:<boot>:<tag>` |
//! | inspection of a slice | `nqn.2026-11.storage.weft:inspect:<volume uid>:<term>:<tag>` |
//! | host towards an engine | `nqn.2026-11.storage.weft:host:<volume uid>:<node uuid>:<generation>:<tag>` |
//!
//! A host NQN ends in a tag, so it is a secret: [`HostNqn`] prints itself without it.

use crate::ids::{AttachGeneration, Boot, FencePair, SliceUid, Term, VolumeUid};
use crate::keys::{Key, Tag};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// What all names begin with.
pub const PREFIX: &str = "nqn.2026-11.storage.weft";

/// Name space for the UUIDs made from names of nodes (UUIDv5).
const NODE_SPACE: Uuid = Uuid::from_u128(0x7d0c_1f60_6b1e_4a53_9c58_7765_6674_6e6f);
/// Name space for host identifiers made from host NQNs (UUIDv5).
const HOST_SPACE: Uuid = Uuid::from_u128(0x7d0c_1f60_6b1e_4a53_9c58_7765_6674_6869);

/// Subsystem NQN of a volume.
pub fn volume(uid: VolumeUid) -> String {
    format!("{PREFIX}:volume:{uid}")
}

/// Subsystem NQN of a slice.
pub fn slice(uid: SliceUid) -> String {
    format!("{PREFIX}:slice:{uid}")
}

/// The volume a subsystem NQN names, if it names one.
pub fn parse_volume(nqn: &str) -> Option<VolumeUid> {
    parse_subsystem(nqn, ":volume:", volume)
}

/// The slice a subsystem NQN names, if it names one.
pub fn parse_slice(nqn: &str) -> Option<SliceUid> {
    parse_subsystem(nqn, ":slice:", slice)
}

/// NQNs are compared byte by byte (Base section 4.5): a UUID that is written in another way is
/// another name.
fn parse_subsystem<T: FromStr + Copy>(
    nqn: &str,
    kind: &str,
    name: impl Fn(T) -> String,
) -> Option<T> {
    let uid = nqn.strip_prefix(PREFIX)?.strip_prefix(kind)?.parse().ok()?;
    (name(uid) == nqn).then_some(uid)
}

/// UUIDv5 of a node's name, so that a name of any length fits in an NQN.
pub fn node_uuid(node: &str) -> Uuid {
    Uuid::new_v5(&NODE_SPACE, node.as_bytes())
}

/// A host NQN with its tag: a secret.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostNqn(String);

impl HostNqn {
    /// Wraps a name as received.
    pub fn from_wire(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// What an engine of this fence pair calls itself at a slice; `key` is the slice's key of that term.
    pub fn engine(key: &Key, volume: VolumeUid, fence: FencePair) -> Self {
        Self::tagged(
            key,
            format!("{PREFIX}:engine:{volume}:{}:{}", fence.term, fence.boot),
        )
    }

    /// What an engine calls itself while it only inspects; raises nothing.
    pub fn inspect(key: &Key, volume: VolumeUid, term: Term) -> Self {
        Self::tagged(key, format!("{PREFIX}:inspect:{volume}:{term}"))
    }

    /// What a node calls itself at an engine; `key` is the attach key of that generation.
    pub fn host(key: &Key, volume: VolumeUid, node: &str, generation: AttachGeneration) -> Self {
        Self::tagged(
            key,
            format!("{PREFIX}:host:{volume}:{}:{generation}", node_uuid(node)),
        )
    }

    fn tagged(key: &Key, stem: String) -> Self {
        let tag = key.tag(&stem).to_hex();
        Self(format!("{stem}:{tag}"))
    }

    /// The whole name, tag included: only for the wire and for documents.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Host identifier that goes with this name (UUIDv5 of the NQN; Linux refuses one
    /// identifier under two NQNs).
    pub fn host_id(&self) -> Uuid {
        Uuid::new_v5(&HOST_SPACE, self.0.as_bytes())
    }

    /// Takes the name apart as one that a drive may meet.
    pub fn parse_at_slice(&self) -> Option<SliceHost> {
        let (stem, tag) = self.0.rsplit_once(':')?;
        let tag = Tag::from_hex(tag)?;
        let mut parts = stem.strip_prefix(PREFIX)?.strip_prefix(':')?.split(':');
        let (role, volume) = (parts.next()?, parts.next()?.parse().ok()?);
        let term = Term(parts.next()?.parse().ok()?);
        let role = match role {
            "engine" => SliceRole::Engine(Boot(parts.next()?.parse().ok()?)),
            "inspect" => SliceRole::Inspect,
            _ => return None,
        };
        parts.next().is_none().then(|| SliceHost {
            volume,
            term,
            role,
            stem: stem.to_owned(),
            tag,
        })
    }
}

impl fmt::Display for HostNqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.rsplit_once(':') {
            Some((stem, _)) if stem.starts_with(PREFIX) => write!(f, "{stem}:redacted"),
            _ => f.write_str("(a name that is not Weft's)"),
        }
    }
}

impl fmt::Debug for HostNqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostNqn({self})")
    }
}

/// A host NQN at a drive, taken apart. Not trusted before [`SliceHost::proven`].
#[derive(Clone, Debug)]
pub struct SliceHost {
    /// The volume it says it serves.
    pub volume: VolumeUid,
    /// The term it says it has.
    pub term: Term,
    /// Whether it serves or only inspects.
    pub role: SliceRole,
    stem: String,
    tag: Tag,
}

/// What a host wants of a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SliceRole {
    /// I/O as the engine of this boot: raises the fence.
    Engine(Boot),
    /// Read record and state only: raises nothing.
    Inspect,
}

impl SliceHost {
    /// Whether the tag was made with the key of this slice and term.
    pub fn proven(&self, drive_key: &Key, slice: SliceUid) -> bool {
        drive_key.slice(slice, self.term).tag(&self.stem) == self.tag
    }

    /// The fence pair, if this is an engine.
    pub fn fence(&self) -> Option<FencePair> {
        match self.role {
            SliceRole::Engine(boot) => Some(FencePair {
                term: self.term,
                boot,
            }),
            SliceRole::Inspect => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_name_survives_the_wire_and_proves_itself_only_at_its_slice() {
        let drive_key = Key::random();
        let (volume, slice) = (VolumeUid::random(), SliceUid::random());
        let fence = FencePair {
            term: Term(7),
            boot: Boot(3),
        };
        let name = HostNqn::engine(&drive_key.slice(slice, fence.term), volume, fence);
        assert!(name.expose().len() <= 223);
        let seen = HostNqn::from_wire(name.expose()).parse_at_slice().unwrap();
        assert_eq!((seen.volume, seen.fence()), (volume, Some(fence)));
        assert!(seen.proven(&drive_key, slice));
        assert!(!seen.proven(&drive_key, SliceUid::random()));
        assert!(!seen.proven(&Key::random(), slice));
    }

    #[test]
    fn a_subsystem_has_one_name() {
        let uid = SliceUid(Uuid::from_u128(0xabc));
        assert_eq!(parse_slice(&slice(uid)), Some(uid));
        for other in [
            slice(uid).replace("abc", "ABC"),
            slice(uid).replace('0', ""),
        ] {
            assert_eq!(parse_slice(&other), None, "{other}");
        }
        assert_eq!(parse_volume(&slice(uid)), None);
    }

    #[test]
    fn a_changed_term_breaks_the_tag() {
        let key = Key::random();
        let slice = SliceUid::random();
        let fence = FencePair {
            term: Term(7),
            boot: Boot(3),
        };
        let name = HostNqn::engine(&key.slice(slice, fence.term), VolumeUid::random(), fence);
        let forged = HostNqn::from_wire(name.expose().replace(":7:3:", ":8:3:"));
        assert!(!forged.parse_at_slice().unwrap().proven(&key, slice));
    }

    #[test]
    fn a_printed_name_has_no_tag() {
        let name = HostNqn::host(
            &Key::random(),
            VolumeUid::random(),
            "n1",
            AttachGeneration(2),
        );
        let tag = name.expose().rsplit_once(':').unwrap().1.to_owned();
        assert!(!format!("{name} {name:?}").contains(&tag));
        assert!(name.expose().len() <= 223);
    }
}
