//! Fuzz targets: everything in Weft that decodes bytes which somebody else has made.
//!
//! A target takes bytes and panics where something does not hold. libFuzzer (`make fuzz`) looks for
//! such bytes; the corpus of what it found interesting is in `corpus/`, and a plain test runs
//! every file of it through its target.

mod command;
mod controller;
mod documents;
mod drive;
mod facts;
mod fuse;
mod names;
mod wire;

/// One thing to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of its folder in `corpus/`.
    pub name: &'static str,
    /// Bytes beyond which an input shows nothing new.
    pub longest: usize,
    /// Panics where something does not hold.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, longest: usize, run: fn(&[u8])) -> Target {
    Target { name, longest, run }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("wire-target", 16384, wire::target),
    target("wire-initiator", 16384, wire::initiator),
    target("command", 64, command::entry),
    target("command-data", 4096, command::data),
    target("controller", 4096, controller::controller),
    target("facts", 12300, facts::facts),
    target("names", 300, names::names),
    target("documents", 8192, documents::documents),
    target("fuse", 8192, fuse::request),
    target("drive-superblock", 4097, drive::superblock),
    target("drive-record", 4096, drive::record),
    target("drive-log", 32768, drive::log),
    target("drive-page", 8193, drive::page),
    target("drive-vendor", 4096, drive::vendor),
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
