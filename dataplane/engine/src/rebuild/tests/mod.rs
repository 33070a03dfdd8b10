//! The rebuild between real slice stores in memory.

mod copies;
mod cycle;
mod interrupted;
mod remote;
mod support;
