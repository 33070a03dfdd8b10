//! Wrong documents and wrong media: a clear word, nothing lost, nothing crashes.

use std::io::{Seek, SeekFrom, Write};
use weft_e2e_local::host::Host;
use weft_e2e_local::namespace;
use weft_e2e_local::process::{Process, Role, exit_code};
use weft_e2e_local::setup::{DRIVE_SIZE, Nth, Setup};
use weft_e2e_local::wait::until;
use weft_spec::drive::Adoption;

/// Starts a program that must end by itself and say why.
fn refused(setup: &Setup, name: &'static str, document: &str, expected: &[&str]) {
    let path = setup.path("wrong.json");
    std::fs::write(&path, document).expect("room");
    let mut process = Process::start(name, Role::Direct, &path);
    let code = exit_code(process.end());
    let log = process.log();
    assert!(code != 0 && code < 128, "{name} ended with {code}:\n{log}");
    assert!(!log.contains("panicked"), "{name}:\n{log}");
    for word in expected {
        assert!(log.contains(word), "{name} does not say {word:?}:\n{log}");
    }
    std::fs::remove_file(process.log_path()).expect("it was written");
}

#[test]
fn a_document_that_is_none_is_refused_by_every_program() {
    namespace::enter();
    let setup = Setup::new();
    for name in ["weft-drive", "weft-engine", "weft-initiator"] {
        refused(&setup, name, "", &["wrong.json"]);
        refused(&setup, name, "{\"version\":1}", &["wrong.json"]);
        refused(&setup, name, "[[[[", &["wrong.json"]);
    }
}

#[test]
fn a_document_of_another_version_is_refused_by_every_program() {
    namespace::enter();
    let setup = Setup::new();
    let mut drive = setup.drive_document();
    drive.version = 77;
    let mut engine = setup.engine_document(1);
    engine.version = 77;
    let mut initiator = setup.initiator_document(1);
    initiator.version = 77;
    let text = |value: serde_json::Result<String>| value.expect("plain structs");
    refused(
        &setup,
        "weft-drive",
        &text(serde_json::to_string(&drive)),
        &["77"],
    );
    refused(
        &setup,
        "weft-engine",
        &text(serde_json::to_string(&engine)),
        &["77"],
    );
    refused(
        &setup,
        "weft-initiator",
        &text(serde_json::to_string(&initiator)),
        &["77"],
    );
}

#[test]
fn a_medium_with_foreign_data_is_named_and_not_touched() {
    namespace::enter();
    let setup = Setup::new();
    let image = setup.medium(Nth(0));
    let mut file = std::fs::File::create(&image).expect("room");
    file.set_len(DRIVE_SIZE).expect("room");
    file.seek(SeekFrom::Start(1024)).expect("a file");
    file.write_all(b"somebody's file system").expect("room");
    let before = std::fs::read(&image).expect("it is there");
    let drive = setup.start_drive(Role::Supervised);
    until("the word", || {
        drive.log().contains("ForeignData").then_some(())
    });
    assert!(drive.log().contains("drive-0.img"), "{}", drive.log());
    drop(drive);
    assert!(
        std::fs::read(&image).expect("it is there") == before,
        "the medium was touched"
    );
}

#[test]
fn a_blank_medium_is_not_taken_without_the_word_for_it() {
    namespace::enter();
    let setup = Setup::new();
    std::fs::File::create(setup.medium(Nth(0)))
        .and_then(|file| file.set_len(DRIVE_SIZE))
        .expect("room");
    let mut document = setup.drive_document();
    document.adoption = Adoption::Never;
    let path = setup.write("never.json", &document);
    let drive = Process::start("weft-drive", Role::Supervised, &path);
    until("the word", || drive.log().contains("IfBlank").then_some(()));
}

#[test]
fn a_drive_of_another_identity_is_not_served() {
    namespace::enter();
    let setup = Setup::new();
    let drive = setup.start_drive(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let host = Host::start(setup.host_options(1));
        host.progress(50).await;
        host.finish().await.expect("a right drive serves");
    });
    drop((drive, engine));
    let other = Setup::new();
    let mut document = other.drive_document();
    document.medium = setup.drive_document().medium;
    let path = other.write("other.json", &document);
    let drive = Process::start("weft-drive", Role::Supervised, &path);
    until("the word", || {
        drive.log().contains("IdentityMismatch").then_some(())
    });
}

#[test]
fn a_slice_larger_than_its_drive_is_refused_with_the_numbers() {
    namespace::enter();
    let setup = Setup::new();
    let mut document = setup.drive_document();
    for grant in &mut document.slices {
        grant.request.size = 4 * DRIVE_SIZE;
    }
    let path = setup.write("large.json", &document);
    let drive = Process::start("weft-drive", Role::Supervised, &path);
    let wanted = (4 * DRIVE_SIZE).to_string();
    until("the word", || drive.log().contains(&wanted).then_some(()));
    assert!(!drive.log().contains("panicked"), "{}", drive.log());
}

#[test]
fn an_initiator_at_an_impossible_place_says_which() {
    namespace::enter();
    let setup = Setup::new();
    std::fs::write(setup.path("file"), "").expect("room");
    let mut document = setup.initiator_document(1);
    document.mount_point = setup.path("file/below");
    let text = serde_json::to_string(&document).expect("plain structs");
    refused(&setup, "weft-initiator", &text, &["file/below"]);
}
