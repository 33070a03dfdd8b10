//! A whole drive: its gate, its wire, its process.

mod gate;
mod lab;
mod process;
