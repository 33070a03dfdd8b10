//! The seeds in the corpus are what the drive's encoders write. The on-disk format is one that
//! stays readable: a change of these files is a change of the format.
//! `WEFT_SEEDS=write cargo test -p weft-fuzz --test seeds` writes them anew.

use std::fs;
use std::path::Path;

#[test]
fn the_encoders_of_the_drive_still_write_the_seeds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = std::env::var_os("WEFT_SEEDS").is_some_and(|word| word == "write");
    for (target, name, bytes) in weft_drive::fuzz::seeds() {
        let folder = corpus.join(target);
        let path = folder.join(format!("seed-{name}"));
        if write {
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(&path, &bytes).expect("a file");
        }
        let found = fs::read(&path).unwrap_or_default();
        assert!(found == bytes, "{} is not what is written", path.display());
    }
}
