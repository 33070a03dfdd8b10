//! Whether a medium may be used: what is found on it, and what the document allows.

use crate::superblock::{Copies, Geometry, SMALLEST, Superblock};
use uuid::Uuid;
use weft_block::{AlignedBuf, BLOCK, DiskError, Medium};
use weft_spec::drive::{Adoption, DriveDocument};

const MIB: usize = 1 << 20;

/// What is on a medium.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// A Weft drive.
    Drive(Superblock),
    /// First and last MiB are zeros.
    Blank,
    /// Something else, and what it looks like.
    Foreign(String),
}

/// What to do with a medium.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Serve it.
    Open(Superblock),
    /// Make it a drive.
    Format(Geometry),
    /// Touch nothing, and tell a person.
    Refuse(Refused),
}

/// Why a medium is not used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// PascalCase.
    pub reason: &'static str,
    /// What was found and what to do.
    pub message: String,
}

/// Marks that other owners leave: offset, bytes, whose.
const SIGNATURES: [(usize, &[u8], &str); 14] = [
    (0x438, &[0x53, 0xef], "an ext2, ext3 or ext4 file system"),
    (0, b"XFSB", "an XFS file system"),
    (0x10040, b"_BHRfS_M", "a Btrfs file system"),
    (0x400, &[0x10, 0x20, 0xf5, 0xf2], "an F2FS file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (0, b"LUKS\xba\xbe", "a LUKS container"),
    (0x218, b"LVM2 001", "an LVM physical volume"),
    (0x18, b"LVM2 001", "an LVM physical volume"),
    (0xff6, b"SWAPSPACE2", "swap space"),
    (0x1000, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of an MD array"),
    (0x8001, b"CD001", "an ISO 9660 image"),
    (0x1018, &[0xc6, 0x85, 0x73, 0xf6], "a bcache device"),
    (512, b"EFI PART", "a GPT partition table"),
    (
        510,
        &[0x55, 0xaa],
        "an MBR partition table or a FAT file system",
    ),
];

/// Looks at a medium. Changes nothing.
pub fn look(medium: &dyn Medium) -> Result<Found, DiskError> {
    match Superblock::read(medium)? {
        Copies::Good(superblock) => return Ok(Found::Drive(superblock)),
        Copies::OtherFormat(format) => {
            let text = format!(
                "a Weft drive of on-disk format {format}, which this program does not know"
            );
            return Ok(Found::Foreign(text));
        }
        Copies::Damaged => {
            return Ok(Found::Foreign(
                "a Weft drive whose superblocks are both damaged".into(),
            ));
        }
        Copies::None => {}
    }
    let ends = (medium.size() as usize).min(MIB) / BLOCK as usize * BLOCK as usize;
    let mut first = AlignedBuf::zeroed(ends);
    medium.read_at(0, &mut first)?;
    if let Some(what) = signature(&first) {
        return Ok(Found::Foreign(what.into()));
    }
    let mut last = AlignedBuf::zeroed(ends);
    medium.read_at(medium.size() - ends as u64, &mut last)?;
    let used = |bytes: &[u8]| bytes.iter().position(|byte| *byte != 0);
    Ok(match (used(&first), used(&last)) {
        (None, None) => Found::Blank,
        (Some(at), _) => Found::Foreign(format!("unknown data (byte {at} is not zero)")),
        (None, Some(at)) => {
            let at = medium.size() - ends as u64 + at as u64;
            Found::Foreign(format!("unknown data near its end (byte {at} is not zero)"))
        }
    })
}

fn signature(first: &[u8]) -> Option<&'static str> {
    let mut found = SIGNATURES
        .iter()
        .filter(|(at, mark, _)| first.get(*at..at + mark.len()) == Some(mark));
    found.next().map(|(_, _, what)| *what)
}

/// Decides from what was found and what the document says.
pub fn decide(found: Found, size: u64, document: &DriveDocument) -> Decision {
    let name = &document.name;
    let refuse = |reason, message| Decision::Refuse(Refused { reason, message });
    match found {
        Found::Drive(there) if there.cluster != document.cluster => refuse(
            "IdentityMismatch",
            format!(
                "the medium of drive {name} is drive {} of another cluster ({}); nothing was changed. Name \
                 another medium, or wipe this one (wipefs --all, then zero its first and last MiB) if its \
                 data is not needed",
                there.drive, there.cluster
            ),
        ),
        Found::Drive(there) if there.drive != document.drive => refuse(
            "IdentityMismatch",
            format!(
                "the medium of drive {name} is drive {} of this cluster, not {}; nothing was changed. Name \
                 another medium, or make the Drive with spec.uid {} to adopt it",
                there.drive, document.drive, there.drive
            ),
        ),
        Found::Drive(there) => Decision::Open(there),
        Found::Blank if document.adoption == Adoption::IfBlank => match Geometry::of(size) {
            Some(geometry) => Decision::Format(geometry),
            None => refuse(
                "MediumTooSmall",
                format!("the medium of drive {name} has {size} bytes; the least is {SMALLEST}"),
            ),
        },
        Found::Blank => refuse(
            "NotAdopted",
            format!(
                "the medium of drive {name} is blank and the drive's adoption is {:?}; nothing was changed. \
                 Set adoption to IfBlank to have it formatted",
                document.adoption
            ),
        ),
        Found::Foreign(what) => refuse(
            "ForeignData",
            format!(
                "the medium of drive {name} holds {what}; nothing was changed. Name another medium, or wipe \
                 this one (wipefs --all, then zero its first and last MiB) if its data is not needed"
            ),
        ),
    }
}

/// Makes a blank medium a drive: its superblock is all there is to write, since the tables of a
/// drive without a length are made at the first opening.
pub fn format(
    medium: &dyn Medium,
    geometry: Geometry,
    document: &DriveDocument,
) -> Result<Superblock, DiskError> {
    let mut blank = Superblock::new(document.drive, document.cluster, geometry);
    // What another life of this medium left in its log is of another epoch.
    blank.log.epoch = Uuid::new_v4().as_u64_pair().0;
    // Both copies, so that neither place holds anything else.
    blank.write_next(medium)?.write_next(medium)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_block::{MemoryDisk, Write};
    use weft_spec::DOCUMENT_VERSION;
    use weft_spec::drive::Medium as Place;
    use weft_spec::ids::DocumentGeneration;
    use weft_spec::ids::{ClusterUid, DriveUid};
    use weft_spec::keys::Key;

    fn document(adoption: Adoption) -> DriveDocument {
        DriveDocument {
            version: DOCUMENT_VERSION,
            generation: DocumentGeneration(1),
            cluster: ClusterUid::random(),
            drive: DriveUid::random(),
            name: "d0".into(),
            medium: Place::Device {
                path: "/medium".into(),
            },
            adoption,
            port: 0,
            key: Key::random(),
            slices: vec![],
            control: None,
        }
    }

    fn refusal(found: Found, document: &DriveDocument) -> Refused {
        match decide(found, SMALLEST, document) {
            Decision::Refuse(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_blank_medium_is_formatted_only_on_the_explicit_word() {
        let medium = MemoryDisk::new(SMALLEST);
        assert_eq!(look(&medium).unwrap(), Found::Blank);
        assert!(matches!(
            decide(Found::Blank, SMALLEST, &document(Adoption::IfBlank)),
            Decision::Format(_)
        ));
        for adoption in [Adoption::Never, Adoption::Adopt] {
            assert_eq!(
                refusal(Found::Blank, &document(adoption)).reason,
                "NotAdopted"
            );
        }
    }

    #[test]
    fn foreign_data_is_named_and_never_touched() {
        for (at, mark, what) in SIGNATURES {
            let mut bytes = vec![0; SMALLEST as usize];
            bytes[at..at + mark.len()].copy_from_slice(mark);
            let found = look(&MemoryDisk::from_bytes(bytes)).unwrap();
            for adoption in [Adoption::Never, Adoption::IfBlank, Adoption::Adopt] {
                let refused = refusal(found.clone(), &document(adoption));
                assert_eq!(refused.reason, "ForeignData");
                assert!(refused.message.contains(what), "{}", refused.message);
            }
        }
    }

    #[test]
    fn data_at_the_end_alone_is_foreign() {
        let medium = MemoryDisk::new(SMALLEST);
        medium
            .write_at(SMALLEST - 4096, &[1; 4096], Write::Cached)
            .unwrap();
        assert!(matches!(look(&medium).unwrap(), Found::Foreign(what) if what.contains("end")));
    }

    #[test]
    fn a_formatted_drive_is_found_again_and_another_identity_is_refused() {
        let medium = MemoryDisk::new(SMALLEST);
        let mine = document(Adoption::IfBlank);
        let superblock = format(&medium, Geometry::of(SMALLEST).unwrap(), &mine).unwrap();
        let found = look(&medium).unwrap();
        assert_eq!(found, Found::Drive(superblock.clone()));
        let never = DriveDocument {
            adoption: Adoption::Never,
            ..mine.clone()
        };
        assert_eq!(
            decide(found.clone(), SMALLEST, &never),
            Decision::Open(superblock)
        );
        let other = DriveDocument {
            drive: DriveUid::random(),
            ..mine.clone()
        };
        assert_eq!(refusal(found.clone(), &other).reason, "IdentityMismatch");
        assert!(
            refusal(found.clone(), &other)
                .message
                .contains(&mine.drive.to_string())
        );
        let away = DriveDocument {
            cluster: ClusterUid::random(),
            ..mine
        };
        assert_eq!(refusal(found, &away).reason, "IdentityMismatch");
    }

    #[test]
    fn too_small_a_medium_is_told_the_least() {
        let decision = decide(Found::Blank, 1 << 20, &document(Adoption::IfBlank));
        assert!(
            matches!(decision, Decision::Refuse(refused) if refused.reason == "MediumTooSmall")
        );
    }
}
