//! A controller: properties, features, and its answers to admin commands.

use super::notices::{Notice, Notices};
use crate::command::Sqe;
use crate::command::fabrics::FabricsCommand;
use crate::identify::Shape;
use crate::log::{AnaState, Facts};
use crate::property::{self, Lifecycle};
use crate::status::Status;
use bytes::Bytes;

/// What an admin command leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Completed with this result.
    Done(u64),
    /// Completed with data.
    Data(Bytes),
    /// Completed with a refusal; dword 0 may point at a field.
    Refused(Status, u64),
    /// An Asynchronous Event Request: held until there is an event.
    Held,
    /// Get Log Page of the discovery log, to be answered by whoever knows what there is to find.
    DiscoveryLog {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        length: u32,
    },
    /// A vendor specific command, to be answered by whoever knows it.
    Vendor {
        /// OPC.
        opcode: u8,
        /// Dword 10.
        cdw10: u32,
        /// Room that the host has for data.
        length: u32,
    },
}

impl From<Result<Reply, Status>> for Reply {
    fn from(result: Result<Reply, Status>) -> Self {
        result.unwrap_or_else(|status| Reply::Refused(status, 0))
    }
}

/// What changes while a controller lives, as of now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Size of the namespace.
    pub blocks: u64,
    /// State of its ANA group.
    pub ana: AnaState,
    /// How often that has changed.
    pub ana_changes: u64,
}

/// State of one association's controller.
#[derive(Debug)]
pub struct Controller {
    pub(super) shape: Shape,
    pub(super) lifecycle: Lifecycle,
    pub(super) io_queue_limit: u16,
    pub(super) io_queues: u16,
    pub(super) kato_ms: u32,
    pub(super) notices: Notices,
    pub(super) ana: (AnaState, u64),
    pub(super) namespace_changed: bool,
}

impl Controller {
    /// A controller as Connect made it.
    pub fn new(shape: Shape, io_queue_limit: u16, kato_ms: u32) -> Self {
        Self {
            shape,
            lifecycle: Lifecycle::default(),
            io_queue_limit,
            io_queues: io_queue_limit,
            kato_ms: round_kato(kato_ms),
            notices: Notices::default(),
            ana: (AnaState::Optimized, 0),
            namespace_changed: false,
        }
    }

    /// Keep Alive Timeout; 0 for none.
    pub fn kato_ms(&self) -> u32 {
        self.kato_ms
    }

    /// Whether I/O commands are served.
    pub fn is_ready(&self) -> bool {
        self.lifecycle.is_ready() && !self.lifecycle.is_shut()
    }

    /// Whether an I/O queue with this number may be connected.
    pub fn allows_queue(&self, queue: u16) -> bool {
        (1..=self.io_queues).contains(&queue)
    }

    /// What the controller says about itself and its namespace.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Something happened that the host may want to hear.
    pub fn raise(&mut self, notice: Notice) {
        self.namespace_changed |= notice == Notice::Namespace;
        self.notices.raise(notice);
    }

    /// What the next held Asynchronous Event Request is to be answered with. Ask until it has
    /// none, after [`Controller::raise`] and after each answer.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.next()
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            ana: self.ana.0,
            ana_changes: self.ana.1,
            namespace_changed: self.namespace_changed,
        }
    }

    /// Answers a command of the admin queue, except Connect.
    pub fn answer(&mut self, sqe: &Sqe, now: Now) -> Reply {
        self.shape.blocks = now.blocks;
        self.ana = (now.ana, now.ana_changes);
        if sqe.opcode == crate::command::fabrics::OPCODE {
            return FabricsCommand::parse(sqe)
                .and_then(|command| self.fabrics(command))
                .into();
        }
        // Base section 3.5.1: until the controller is ready only Fabrics commands are served.
        if !self.lifecycle.is_ready() {
            return Reply::Refused(Status::COMMAND_SEQUENCE, 0);
        }
        self.admin(sqe).into()
    }

    fn fabrics(&mut self, command: FabricsCommand) -> Result<Reply, Status> {
        match command {
            FabricsCommand::PropertyGet { offset, wide } => {
                let value = match (offset, wide) {
                    (property::CAP, true) => property::cap(self.shape.queue_size),
                    (property::VS, false) => property::VERSION.into(),
                    (property::CC, false) => self.lifecycle.cc().into(),
                    (property::CSTS, false) => self.lifecycle.csts().into(),
                    _ => return Err(Status::INVALID_FIELD),
                };
                Ok(Reply::Done(value))
            }
            FabricsCommand::PropertySet {
                offset: property::CC,
                wide: false,
                value,
            } => {
                let value = u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
                self.lifecycle.set_cc(value);
                Ok(Reply::Done(0))
            }
            FabricsCommand::PropertySet { .. } => Err(Status::INVALID_FIELD),
            // A second Connect on a queue (Fabrics section 3.3).
            FabricsCommand::Connect(_) => Err(Status::COMMAND_SEQUENCE),
            // Fabrics section 3.4: the admin queue is not disconnected by a command.
            FabricsCommand::Disconnect => Err(Status::INVALID_OPCODE),
        }
    }
}

/// Up to the granularity that KAS tells, 1 s.
pub(super) fn round_kato(ms: u32) -> u32 {
    ms.div_ceil(1000).saturating_mul(1000)
}
