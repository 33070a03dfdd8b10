//! The CSI driver `csi.weft.storage`, both sides of it.
//!
//! | file | what |
//! | --- | --- |
//! | [`identity`] | who the plugin is |
//! | [`controller`] | volumes and attachments as objects of the API server |
//! | [`node`] | from an attachment to a file system or device in a pod |
//! | [`attachments`] | the watch of this node's Attachments, and what is reported back |
//! | [`registration`], [`liveness`] | what other drivers have a container for each |
//! | [`capabilities`], [`names`], [`size`] | pure parts |
//! | [`locks`], [`waiting`], [`server`] | one at a time, by watch, on a Unix socket |
//!
//! The node side listens on no network port, runs a closed list of tools by absolute path
//! and no shell, and needs no state beside the kernel's and the API server's.

pub mod attachments;
pub mod authority;
pub mod capabilities;
pub mod controller;
pub mod identity;
pub mod liveness;
pub mod locks;
pub mod names;
pub mod node;
pub mod registration;
pub mod server;
pub mod size;
pub mod waiting;
