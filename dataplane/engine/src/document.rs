//! The engine's one document: read at the start, replaced by newer ones while it runs.

use std::path::Path;
use weft_block::BLOCK;
use weft_spec::DOCUMENT_VERSION;
use weft_spec::engine::{EngineDocument, SliceMember, Stack};
use weft_spec::ids::DocumentGeneration;

/// Why a document is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DocumentError {
    /// Written by another release.
    #[error("document version {found} is not {DOCUMENT_VERSION}, the one this engine understands")]
    Version {
        /// What it says.
        found: u32,
    },
    /// Meant for another pod.
    #[error("the document is for {field} {found}, this engine serves {own}")]
    NotMine {
        /// Which identity differs.
        field: &'static str,
        /// What the document says.
        found: String,
        /// What this engine is.
        own: String,
    },
    /// Not newer than what was accepted already.
    #[error("document generation {found} is not newer than {accepted}, which was accepted already")]
    NotNewer {
        /// Of the document.
        found: DocumentGeneration,
        /// The greatest known.
        accepted: DocumentGeneration,
    },
    /// Changes what only a new engine can change.
    #[error("{field} cannot change while the engine runs: start a new term for it")]
    Fixed {
        /// What changed.
        field: &'static str,
    },
    /// A volume never shrinks.
    #[error(
        "{found} bytes are fewer than the {present} that the volume has: a volume never shrinks, put a size of \
         {present} or more"
    )]
    Smaller {
        /// Of the document.
        found: u64,
        /// Of the present document.
        present: u64,
    },
    /// Not a whole number of blocks.
    #[error("{0} bytes are no size for a volume: it has to be a multiple of {BLOCK}")]
    Unaligned(u64),
    /// The engine met a newer pair.
    #[error("this engine is parked: a newer one owns the volume")]
    Parked,
}

/// What the first document could not be read for.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No file, or not readable.
    #[error("cannot read the document {path}")]
    File {
        /// Where it was looked for.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not an engine's document.
    #[error("the document {path} is not an engine's document")]
    Json {
        /// Where it is.
        path: String,
        /// Why; names the field, not its value.
        source: serde_json::Error,
    },
    /// Not one for this program.
    #[error(transparent)]
    Refused(#[from] DocumentError),
}

/// Reads the document that the process starts with.
pub fn read(path: &Path) -> Result<EngineDocument, ReadError> {
    let name = || path.display().to_string();
    let text = std::fs::read(path).map_err(|source| ReadError::File {
        path: name(),
        source,
    })?;
    let document: EngineDocument =
        serde_json::from_slice(&text).map_err(|source| ReadError::Json {
            path: name(),
            source,
        })?;
    check_version(&document)?;
    Ok(document)
}

/// The slice that the volume is made of, if that is all.
pub fn only_slice(document: &EngineDocument) -> Option<&SliceMember> {
    match &document.stack {
        Stack::Slice(member) => Some(member),
        Stack::Mirror(_) => None,
    }
}

/// How a document that was put relates to the present one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It replaces the present one.
    Newer,
    /// It is the present one: the answer was lost and is given again.
    Same,
}

/// Judges a document that was put. `known` is the greatest generation that the slices have
/// recorded, which may be ahead of `present` right after a start.
pub fn judge(
    present: &EngineDocument,
    known: DocumentGeneration,
    put: &EngineDocument,
) -> Result<Verdict, DocumentError> {
    check_version(put)?;
    let own = [
        (
            "cluster",
            present.cluster.to_string(),
            put.cluster.to_string(),
        ),
        ("volume", present.volume.to_string(), put.volume.to_string()),
        ("term", present.term.to_string(), put.term.to_string()),
    ];
    for (field, own, found) in own {
        if own != found {
            return Err(DocumentError::NotMine { field, found, own });
        }
    }
    if put == present {
        return Ok(Verdict::Same);
    }
    if put.generation <= present.generation || put.generation < known {
        return Err(DocumentError::NotNewer {
            found: put.generation,
            accepted: present.generation.max(known),
        });
    }
    if put.size < present.size {
        let (found, present) = (put.size, present.size);
        return Err(DocumentError::Smaller { found, present });
    }
    if !put.size.is_multiple_of(BLOCK) {
        return Err(DocumentError::Unaligned(put.size));
    }
    let slices = |same: fn(&SliceMember, &SliceMember) -> bool| match (&present.stack, &put.stack) {
        (Stack::Slice(old), Stack::Slice(new)) => same(old, new),
        // Which slices there are is for the membership to follow.
        (Stack::Mirror(_), Stack::Mirror(_)) => true,
        _ => false,
    };
    let fixed = [
        (
            "the slice",
            slices(|old, new| old.slice == new.slice && old.drive == new.drive),
        ),
        ("the slice's key", slices(|old, new| old.key == new.key)),
        ("the port", present.port == put.port),
    ];
    match fixed.into_iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(DocumentError::Fixed { field }),
        None => Ok(Verdict::Newer),
    }
}

fn check_version(document: &EngineDocument) -> Result<(), DocumentError> {
    if document.version == DOCUMENT_VERSION {
        Ok(())
    } else {
        Err(DocumentError::Version {
            found: document.version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::document;
    use weft_spec::ids::{SliceUid, Term, VolumeUid};

    type Change = fn(&mut EngineDocument);

    #[test]
    fn a_document_is_judged_by_identity_generation_and_what_may_change() {
        let present = document(5);
        let table: [(&str, Change, Result<Verdict, &str>); 12] = [
            ("the same", |d| d.generation.0 = 5, Ok(Verdict::Same)),
            ("newer", |_| {}, Ok(Verdict::Newer)),
            ("older", |d| d.generation.0 = 4, Err("not newer")),
            (
                "other content, same generation",
                |d| {
                    d.generation.0 = 5;
                    d.hosts.clear()
                },
                Err("not newer"),
            ),
            (
                "other volume",
                |d| d.volume = VolumeUid::random(),
                Err("for volume"),
            ),
            ("other term", |d| d.term = Term(8), Err("for term")),
            ("other version", |d| d.version = 2, Err("version 2")),
            ("a larger size", |d| d.size += 4096, Ok(Verdict::Newer)),
            (
                "a smaller size",
                |d| d.size -= 4096,
                Err("a volume never shrinks"),
            ),
            (
                "a size that is no number of blocks",
                |d| d.size += 512,
                Err("multiple of 4096"),
            ),
            ("other port", |d| d.port += 1, Err("the port cannot change")),
            (
                "other slice",
                |d| {
                    if let Stack::Slice(m) = &mut d.stack {
                        m.slice = SliceUid::random();
                    }
                },
                Err("the slice cannot change"),
            ),
        ];
        for (case, change, expected) in table {
            let mut put = document(6);
            change(&mut put);
            match (judge(&present, DocumentGeneration(0), &put), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{case}"),
                (Err(error), Err(text)) => {
                    assert!(error.to_string().contains(text), "{case}: {error}")
                }
                (found, _) => panic!("{case}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_document_older_than_what_the_slice_has_recorded_is_refused() {
        let judged = judge(&document(5), DocumentGeneration(8), &document(7));
        assert!(
            matches!(judged, Err(DocumentError::NotNewer { .. })),
            "{judged:?}"
        );
        assert_eq!(
            judge(&document(5), DocumentGeneration(8), &document(8)),
            Ok(Verdict::Newer)
        );
    }
}
