//! Identities and ordering numbers.
//!
//! UUIDs are Weft's own (design section 2, Identity), never Kubernetes' `metadata.uid`.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

macro_rules! uid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random (version 4) identity.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
            /// First eight hexadecimal digits: the part used in names of pods.
            pub fn short(&self) -> String {
                self.0.simple().to_string()[..8].to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uid!(
    /// The cluster, kept in `Fabric`'s `spec.uid` and written on every drive.
    ClusterUid
);
uid!(
    /// A drive; written in its superblock.
    DriveUid
);
uid!(
    /// A volume; also its NGUID and UUID on the wire.
    VolumeUid
);
uid!(
    /// The piece of one drive given to one volume. Allocated once, never used again.
    SliceUid
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Raised by the operator each time a pod is made for a volume; one pod per term, ever.
    Term
);
number!(
    /// Raised by each start of the engine's process within one term.
    Boot
);
number!(
    /// Grows with each document written for one pod's owner (volume or drive).
    DocumentGeneration
);
number!(
    /// Grows each time the right of a node to use a volume is given anew.
    AttachGeneration
);

/// The fence: (term, boot), compared in this order (design section 5).
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
)]
pub struct FencePair {
    /// The operator's number.
    pub term: Term,
    /// The process's number within the term.
    pub boot: Boot,
}

impl fmt::Display for FencePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.boot)
    }
}
