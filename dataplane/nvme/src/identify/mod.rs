//! Identify data structures (Base section 5.17; NVM section 4.1.5), one a file.

mod controller;
mod descriptors;
mod lists;
mod namespace;

pub use controller::IdentifyController;
pub use descriptors::{descriptors, find_uuid};
pub use lists::{active_namespaces, nvm_controller};
pub use namespace::IdentifyNamespace;

use uuid::Uuid;

/// Bytes of every Identify data structure.
pub const SIZE: usize = 4096;

/// CNS 00h: Identify Namespace.
pub const CNS_NAMESPACE: u8 = 0x00;
/// CNS 01h: Identify Controller.
pub const CNS_CONTROLLER: u8 = 0x01;
/// CNS 02h: active namespace list.
pub const CNS_ACTIVE: u8 = 0x02;
/// CNS 03h: namespace identification descriptors.
pub const CNS_DESCRIPTORS: u8 = 0x03;
/// CNS 06h: command set specific controller structure.
pub const CNS_CONTROLLER_CSI: u8 = 0x06;

/// CNTRLTYPE (Base figure 275): what a controller is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControllerType {
    /// Serves the namespace.
    Io = 1,
    /// Serves the discovery log alone.
    Discovery = 2,
}

/// What a controller says about itself and its one namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// CNTRLTYPE.
    pub kind: ControllerType,
    /// SUBNQN.
    pub subsystem: String,
    /// SN, the same for all controllers of the subsystem.
    pub serial: String,
    /// CNTLID.
    pub controller: u16,
    /// NGUID and UUID of the namespace.
    pub uuid: Uuid,
    /// Logical blocks.
    pub blocks: u64,
    /// NSATTR bit 0.
    pub read_only: bool,
    /// Entries of a queue.
    pub queue_size: u16,
}
