//! Every input that was ever interesting still passes, and no folder is left without its target.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use weft_fuzz::TARGETS;

#[test]
fn every_file_of_the_corpus_passes_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut folders: BTreeSet<String> = fs::read_dir(&corpus)
        .expect("the corpus is there")
        .map(|entry| {
            entry
                .expect("a folder")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    for target in TARGETS {
        assert!(folders.remove(target.name), "{} has no corpus", target.name);
        let mut files = 0;
        for entry in fs::read_dir(corpus.join(target.name)).expect("a folder") {
            let path = entry.expect("a file").path();
            let data = fs::read(&path).expect("a readable file");
            println!("{}", path.display());
            (target.run)(&data);
            files += 1;
        }
        assert!(files > 0, "the corpus of {} is empty", target.name);
    }
    assert!(folders.is_empty(), "no target for {folders:?}");
}
