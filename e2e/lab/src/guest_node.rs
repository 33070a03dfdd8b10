//! The node with a kernel of its own: a User-Mode Linux guest on a tap of the router.

use std::process::Command;

use anyhow::{Result, bail};

use crate::node::Node;

pub(crate) fn find(_node: &Node<'_>) -> Option<i32> {
    None
}
pub(crate) fn boot(_node: &Node<'_>) -> Result<()> {
    bail!("no guest")
}
pub(crate) fn freeze(_node: &Node<'_>) -> Result<()> {
    bail!("no guest")
}
pub(crate) fn thaw(_node: &Node<'_>) -> Result<()> {
    bail!("no guest")
}
pub(crate) fn command(_node: &Node<'_>, _argv: &[&str]) -> Result<Command> {
    bail!("no guest")
}
