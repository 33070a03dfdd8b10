//! Reading the one document, and saying what is wrong with it.

use weft_spec::DOCUMENT_VERSION;
use weft_spec::drive::DriveDocument;

/// Why a document is not taken.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or a field is wrong or lacks.
    #[error("the drive document cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another version.
    #[error(
        "the drive document has version {found}, this program knows {DOCUMENT_VERSION}: use a program of the operator's release"
    )]
    Version {
        /// What it says, if anything.
        found: String,
    },
    /// Zero.
    #[error("the drive document names {0} as 0; give it a value")]
    Zero(&'static str),
}

/// Reads a document. Fields that this program does not know are passed over, so that a newer
/// operator may add some.
pub fn read(bytes: &[u8]) -> Result<DriveDocument, DocumentError> {
    let raw: serde_json::Value = serde_json::from_slice(bytes)?;
    match raw.get("version") {
        Some(version) if version.as_u64() == Some(DOCUMENT_VERSION.into()) => {}
        other => {
            let found = other.map_or_else(|| "none".to_owned(), ToString::to_string);
            return Err(DocumentError::Version { found });
        }
    }
    let document: DriveDocument = serde_json::from_value(raw)?;
    if document.port == 0 {
        return Err(DocumentError::Zero("port"));
    }
    if document.generation.0 == 0 {
        return Err(DocumentError::Zero("generation"));
    }
    Ok(document)
}

/// Why `next` cannot take the place of `now` in a running process; none if it can.
pub fn conflict(now: &DriveDocument, next: &DriveDocument, open: bool) -> Option<String> {
    if (next.drive, next.cluster) != (now.drive, now.cluster) {
        return Some(format!(
            "this is drive {} of cluster {}",
            now.drive, now.cluster
        ));
    }
    if next.generation < now.generation {
        let (next, now) = (next.generation, now.generation);
        return Some(format!(
            "document generation {next} is older than the accepted {now}"
        ));
    }
    if next.generation == now.generation && next != now {
        return Some(format!(
            "another document of generation {} was accepted",
            now.generation
        ));
    }
    let fixed = [
        ("medium", open && next.medium != now.medium),
        ("port", open && next.port != now.port),
        ("control", next.control != now.control),
    ];
    let changed = fixed.iter().find(|(_, changed)| *changed);
    changed.map(|(field, _)| {
        format!("{field} cannot change while the process runs: make the pod again")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: &str) -> String {
        format!(
            r#"{{"version": {version}, "generation": 3, "cluster": "00000000-0000-4000-8000-000000000001",
            "drive": "00000000-0000-4000-8000-000000000002", "name": "d0", "medium": {{"file": {{"path": "/d0",
            "size": 67108864}}}}, "adoption": "IfBlank", "port": 4421, "key": "{}", "comes": "later"}}"#,
            "ab".repeat(32)
        )
    }

    #[test]
    fn a_document_with_unknown_fields_is_read() {
        assert_eq!(read(text("1").as_bytes()).unwrap().name, "d0");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = read(text("9").as_bytes()).unwrap_err().to_string();
        assert!(
            wrong.contains("version 9") && wrong.contains("release"),
            "{wrong}"
        );
        let wrong = read(text("1").replace(r#""port": 4421, "#, "").as_bytes()).unwrap_err();
        assert!(wrong.to_string().contains("port"), "{wrong}");
        assert!(matches!(read(b"{"), Err(DocumentError::Malformed(_))));
        assert!(matches!(read(b"{}"), Err(DocumentError::Version { .. })));
        let zero = text("1").replace("4421", "0");
        assert!(matches!(
            read(zero.as_bytes()),
            Err(DocumentError::Zero("port"))
        ));
    }

    #[test]
    fn only_a_newer_document_of_the_same_drive_takes_its_place() {
        let now = read(text("1").as_bytes()).unwrap();
        assert_eq!(conflict(&now, &now, true), None);
        let mut next = now.clone();
        next.generation.0 = 4;
        next.name = "other".into();
        assert_eq!(conflict(&now, &next, true), None);
        assert!(conflict(&next, &now, true).unwrap().contains("older"));
        next.port = 1;
        assert!(conflict(&now, &next, true).unwrap().contains("port"));
        assert_eq!(conflict(&now, &next, false), None);
        next.drive = weft_spec::ids::DriveUid::random();
        assert!(conflict(&now, &next, false).is_some());
    }
}
