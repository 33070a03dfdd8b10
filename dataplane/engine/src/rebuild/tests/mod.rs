//! The rebuild between real slice stores in memory.

mod copies;
mod interrupted;
mod support;
