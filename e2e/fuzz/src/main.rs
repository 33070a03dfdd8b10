//! libFuzzer's program for the target that `WEFT_FUZZ_TARGET` names; arguments are libFuzzer's.
//! With `--targets` as its name it prints each target's name and longest input.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use weft_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("WEFT_FUZZ_TARGET").unwrap_or_default();
    if let Some(target) = weft_fuzz::find(&name) {
        return target;
    }
    for target in TARGETS {
        println!("{} {}", target.name, target.longest);
    }
    std::process::exit(i32::from(name != "--targets"));
}

fuzz_target!(
    init: {
        TARGET.get_or_init(chosen);
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);
