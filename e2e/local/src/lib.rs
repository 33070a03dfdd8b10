//! The local tier: real processes on loopback, killed and stopped.
//!
//! Every test has a network and a mount namespace of its own, so ports are fixed and nothing is
//! left behind; every process dies with the test, however that ends. The tests need root, and
//! fail when they do not have it.
//!
//! Executables come from the directory that `WEFT_BIN` names (`make local` sets it), else from
//! the directory that the test itself was built into.
//!
//! | file | what |
//! | --- | --- |
//! | [`namespace`] | the test thread's own network and mounts |
//! | [`nodes`] | networks joined by routes, which can be cut |
//! | [`process`] | a Weft process and its supervisor, killed by number |
//! | [`setup`] | documents and processes of a volume: drives, engines, an initiator |
//! | [`host`] | a host that checks every byte it gets back |
//! | [`files`] | the same through a file system |
//! | [`faults`] | the fault matrix, one row a file |
//! | [`fuse`] | a disk as a file, for a drive to have as its medium |
//! | [`forgetful`] | a disk of which a flush fails once |
//! | [`relay`] | what is between an engine and its drives, if something is |
//! | [`killpoint`] | the command at which an engine is killed |
//! | [`loopdev`] | loop devices with direct I/O |
//! | [`wire`] | PDUs by hand, also wrong ones |
//! | [`usage`] | what a process costs |
//! | [`wait`] | waiting for a condition, never for a time |

pub mod faults;
pub mod files;
pub mod forgetful;
pub mod fuse;
pub mod host;
pub mod killpoint;
pub mod loopdev;
pub mod namespace;
pub mod nodes;
pub mod process;
pub mod relay;
pub mod setup;
pub mod usage;
pub mod wait;
pub mod wire;
