//! The mirror over disks that fail by script.

mod changes;
mod failures;
mod healing;
mod reads;
mod support;
