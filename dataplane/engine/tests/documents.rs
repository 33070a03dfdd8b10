//! The documents of `docs/without-kubernetes.md` are what the programs read.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use weft_spec::DOCUMENT_VERSION;
use weft_spec::drive::DriveDocument;
use weft_spec::engine::EngineDocument;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/without-kubernetes.md");
    std::fs::read_to_string(path).unwrap()
}

/// What stands between ```` ```json ```` and ```` ``` ````, in order.
fn documents(page: &str) -> Vec<&str> {
    let blocks = page.split("```json\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_documents_are_read_and_fit_each_other() {
    let page = page();
    let [drive, engine] = documents(&page)[..] else {
        panic!("a drive's document and an engine's")
    };
    let drive: DriveDocument = serde_json::from_str(drive).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engine.json");
    std::fs::write(&path, engine).unwrap();
    let engine: EngineDocument = weft_engine::document::read(&path).unwrap();

    assert_eq!(
        (drive.version, engine.version),
        (DOCUMENT_VERSION, DOCUMENT_VERSION)
    );
    assert_eq!(drive.cluster, engine.cluster);
    let (granted, used) = (
        drive.slices[0],
        weft_engine::document::only_slice(&engine).unwrap(),
    );
    assert_eq!((granted.slice, drive.drive), (used.slice, used.drive));
    assert_eq!(granted.request.volume, engine.volume);
    assert!(granted.request.size >= engine.size);
    assert_eq!(drive.port, used.address.port());
    assert_eq!(
        drive.key.slice(used.slice, engine.term),
        used.key,
        "the derived key"
    );
}

#[test]
fn the_commands_name_the_volume_and_the_host_of_the_document() {
    let page = page();
    let engine: EngineDocument = serde_json::from_str(documents(&page)[1]).unwrap();
    let host = &engine.hosts[0].nqn;
    for option in [
        format!("--nqn {}", weft_spec::nqn::volume(engine.volume)),
        format!("--hostnqn {}", host.expose()),
        format!("--hostid {}", host.host_id()),
        format!("--trsvcid {}", engine.port),
    ] {
        assert!(page.contains(&option), "{option}");
    }
}

#[test]
fn a_document_that_cannot_be_read_is_told_by_its_path_and_field() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engine.json");
    let text = |path: &Path| {
        format!(
            "{:#}",
            anyhow::Error::from(weft_engine::document::read(path).unwrap_err())
        )
    };
    assert!(text(&path).contains("engine.json"));
    std::fs::write(&path, "{\"version\": 1}").unwrap();
    assert!(text(&path).contains("missing field"), "{}", text(&path));
    let other = documents(&page())[1].replacen("\"version\": 1", "\"version\": 9", 1);
    std::fs::write(&path, other).unwrap();
    assert!(text(&path).contains("version 9"), "{}", text(&path));
}
