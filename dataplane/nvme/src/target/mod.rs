//! The target's side: [`Connection`] makes commands of PDUs and PDUs of answers, [`Controller`]
//! answers admin commands.

mod admin;
mod budget;
mod connection;
mod controller;
mod notices;
mod slots;
#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use connection::{Command, Connection, Limits, Tag};
pub use controller::{Controller, Now, Reply};
pub use notices::Notice;
