//! The target's side: [`Connection`] makes commands of PDUs and PDUs of answers, [`Controller`]
//! answers admin commands.

mod admin;
mod connection;
mod controller;
mod slots;
#[cfg(test)]
mod tests;

pub use connection::{Command, Connection, Limits, Tag};
pub use controller::{Controller, Reply};
