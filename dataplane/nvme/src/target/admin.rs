//! Admin commands other than Fabrics commands.

use super::controller::{Controller, Reply, round_kato};
use crate::command::{AdminCommand, Sqe};
use crate::identify::{self, ControllerType, IdentifyController, IdentifyNamespace};
use crate::status::Status;
use crate::{NSID, feature, log};
use bytes::Bytes;
use zerocopy::IntoBytes;

/// SEL of Get Features: supported capabilities (Base figure 193).
const CAPABILITIES: u8 = 3;
/// Bit 2 of the capabilities: changeable.
const CHANGEABLE: u64 = 1 << 2;
/// Abort's dword 0 bit 0: not aborted.
const NOT_ABORTED: u64 = 1;

impl Controller {
    pub(super) fn admin(&mut self, sqe: &Sqe) -> Result<Reply, Status> {
        match AdminCommand::parse(sqe)? {
            AdminCommand::Identify { cns, nsid, csi } => self.identify(cns, nsid, csi),
            AdminCommand::GetLog {
                page,
                specific,
                offset,
                length,
                retain,
            } => {
                let reply = self.log(page, specific, offset, length)?;
                if !retain {
                    self.notices.read(page);
                    self.namespace_changed &= page != log::CHANGED_NAMESPACES;
                }
                Ok(reply)
            }
            AdminCommand::SetFeatures { save: true, .. } => Err(Status::FEATURE_NOT_SAVEABLE),
            AdminCommand::SetFeatures { feature, value, .. } => self.set_feature(feature, value),
            AdminCommand::GetFeatures { feature, select } => self.get_feature(feature, select),
            AdminCommand::AsyncEvent => {
                if !self.notices.hold() {
                    return Err(Status::AER_LIMIT_EXCEEDED);
                }
                Ok(Reply::Held)
            }
            AdminCommand::KeepAlive => Ok(Reply::Done(0)),
            // A command runs to its end: that is what a fence waits for. Abort is best effort
            // (Base section 5.1), so none is ever aborted.
            AdminCommand::Abort => Ok(Reply::Done(NOT_ABORTED)),
            AdminCommand::Vendor { opcode, cdw10 } => Ok(Reply::Vendor {
                opcode,
                cdw10,
                length: sqe.sgl.length.get(),
            }),
        }
    }

    /// A discovery controller has the discovery log alone, and no other controller has it
    /// (Fabrics section 5.3).
    fn log(&self, page: u8, specific: u8, offset: u64, length: u32) -> Result<Reply, Status> {
        match (self.shape.kind, page) {
            (ControllerType::Discovery, log::DISCOVERY) => {
                Ok(Reply::DiscoveryLog { offset, length })
            }
            (ControllerType::Discovery, _) => Err(Status::INVALID_LOG_PAGE),
            (ControllerType::Io, _) => {
                log::part(&log::page(page, specific, self.facts())?, offset, length).map(data)
            }
        }
    }

    /// The notices that this kind of controller has.
    fn events(&self) -> u32 {
        match self.shape.kind {
            ControllerType::Io => feature::EVENTS,
            ControllerType::Discovery => feature::DISCOVERY_NOTICE,
        }
    }

    fn identify(&self, cns: u8, nsid: u32, csi: u8) -> Result<Reply, Status> {
        if self.shape.kind == ControllerType::Discovery && cns != identify::CNS_CONTROLLER {
            return Err(Status::INVALID_FIELD);
        }
        match cns {
            identify::CNS_NAMESPACE if nsid != NSID => Err(Status::INVALID_NAMESPACE),
            identify::CNS_NAMESPACE => Ok(raw(&IdentifyNamespace::new(&self.shape))),
            identify::CNS_CONTROLLER => Ok(raw(&IdentifyController::new(&self.shape))),
            // Section 5.17.2.2: numbers with no successor are refused.
            identify::CNS_ACTIVE if nsid >= u32::MAX - 1 => Err(Status::INVALID_NAMESPACE),
            identify::CNS_ACTIVE => Ok(data(identify::active_namespaces(nsid))),
            identify::CNS_DESCRIPTORS if nsid != NSID => Err(Status::INVALID_NAMESPACE),
            identify::CNS_DESCRIPTORS => Ok(data(identify::descriptors(self.shape.uuid))),
            identify::CNS_CONTROLLER_CSI if csi == 0 => Ok(data(identify::nvm_controller())),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    fn set_feature(&mut self, id: u8, value: u32) -> Result<Reply, Status> {
        match id {
            feature::QUEUES if self.shape.kind == ControllerType::Discovery => {
                Err(Status::INVALID_FIELD)
            }
            feature::QUEUES => {
                let (count, result) = feature::grant_queues(value, self.io_queue_limit)
                    .ok_or(Status::INVALID_FIELD)?;
                self.io_queues = count;
                Ok(Reply::Done(result.into()))
            }
            feature::ASYNC_EVENTS => {
                // Bits 7:0 ask for health warnings, of which there are none.
                if value & !(self.events() | 0xff) != 0 {
                    return Err(Status::INVALID_FIELD);
                }
                self.notices.set_mask(value);
                Ok(Reply::Done(0))
            }
            feature::KEEP_ALIVE => {
                self.kato_ms = round_kato(value);
                Ok(Reply::Done(0))
            }
            // The cache is there whatever a host says; it may only say what is so.
            feature::WRITE_CACHE if value & 1 == 1 => Ok(Reply::Done(0)),
            feature::WRITE_CACHE
            | feature::ARBITRATION
            | feature::POWER
            | feature::TEMPERATURE
            | feature::ERROR_RECOVERY
            | feature::WRITE_ATOMICITY => Err(Status::FEATURE_NOT_CHANGEABLE),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    fn get_feature(&self, id: u8, select: u8) -> Result<Reply, Status> {
        let queues = u64::from(self.io_queues).saturating_sub(1);
        let (value, changeable) = match id {
            feature::QUEUES if self.shape.kind == ControllerType::Io => {
                (queues | queues << 16, true)
            }
            feature::ASYNC_EVENTS => (self.notices.mask().into(), true),
            feature::KEEP_ALIVE => (self.kato_ms.into(), true),
            feature::WRITE_CACHE => (1, false),
            feature::ARBITRATION
            | feature::POWER
            | feature::TEMPERATURE
            | feature::ERROR_RECOVERY
            | feature::WRITE_ATOMICITY => (0, false),
            _ => return Err(Status::INVALID_FIELD),
        };
        match select {
            CAPABILITIES => Ok(Reply::Done(if changeable { CHANGEABLE } else { 0 })),
            // Default and saved values are those of now: nothing is saveable.
            0..CAPABILITIES => Ok(Reply::Done(value)),
            _ => Err(Status::INVALID_FIELD),
        }
    }
}

fn data(bytes: Vec<u8>) -> Reply {
    Reply::Data(Bytes::from(bytes))
}

fn raw(structure: &(impl IntoBytes + zerocopy::Immutable)) -> Reply {
    Reply::Data(Bytes::copy_from_slice(structure.as_bytes()))
}
