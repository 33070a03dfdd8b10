//! The initiator's side: [`Connection`] makes PDUs of commands and completions of PDUs;
//! [`Demands`] is what it checks in what a target says about itself.

mod connection;
mod demands;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Done, Payload};
pub use demands::{ControllerFacts, Demands, NamespaceFacts, Unfit};
