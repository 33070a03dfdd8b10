//! What a target must say about itself before its namespace is used.

use crate::identify::{IdentifyController, IdentifyNamespace, find_uuid};
use crate::{BLOCK, log};
use uuid::Uuid;
use zerocopy::FromBytes;

/// What an initiator asked for, and what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Demands<'a> {
    /// SUBNQN asked for.
    pub subsystem: &'a str,
    /// CNTLID that Connect answered.
    pub controller: u16,
}

/// Why a target is not used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// A structure has another size than the specification says.
    #[error("{0} is not a whole structure")]
    Short(&'static str),
    /// CNTLID of Identify is not that of Connect.
    #[error("controller {identified} answered at Identify, {connected} at Connect")]
    Controller {
        /// From Connect.
        connected: u16,
        /// From Identify.
        identified: u16,
    },
    /// Another subsystem answered.
    #[error("subsystem {0:?} answered instead of the one asked for")]
    Subsystem(String),
    /// SGLS does not allow what every Fabrics command needs.
    #[error("SGLs are not supported")]
    Sgls,
    /// ICDOFF, IOCCSZ or IORCSZ.
    #[error("capsules have sizes that cannot be used")]
    Capsules,
    /// The namespace is not attached.
    #[error("namespace 1 has no capacity")]
    Empty,
    /// LBADS or metadata.
    #[error("namespace 1 does not have blocks of 4096 bytes without metadata")]
    Format,
    /// The size in bytes does not fit in 64 bits.
    #[error("namespace 1 has an impossible size")]
    Size,
    /// Neither UUID nor NGUID.
    #[error("namespace 1 has no identity")]
    Anonymous,
}

/// What the controller can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControllerFacts {
    /// Most bytes that one command may move.
    pub max_transfer: u32,
    /// Bytes that a capsule of an I/O queue may carry.
    pub in_capsule: u32,
    /// Commands that may be outstanding; 0 if it does not say.
    pub max_commands: u16,
    /// SUBNQN.
    pub subsystem: String,
    /// OAES: the notices that it can give.
    pub events: u32,
    /// Bytes of its ANA log; 0 if it has none (CMIC bit 3).
    pub ana_log: u32,
}

/// What the namespace is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamespaceFacts {
    /// Bytes.
    pub size: u64,
    /// Identity.
    pub uuid: Uuid,
    /// Writes are refused.
    pub read_only: bool,
    /// ANAGRPID.
    pub ana_group: u32,
}

/// Longest ANA log that is read: that of a Linux target with all its groups and namespaces is 8 KiB.
const LONGEST_ANA_LOG: u64 = 64 << 10;

fn ana_log(identify: &IdentifyController) -> u32 {
    const CMIC_ANA: u8 = 1 << 3;
    if identify.cmic & CMIC_ANA == 0 {
        return 0;
    }
    // MNAN may be 0: then NN says how many there are.
    let most = identify.mnan.get().max(identify.nn.get());
    let length = log::ana_length(identify.nanagrpid.get(), most).min(LONGEST_ANA_LOG);
    u32::try_from(length.next_multiple_of(4)).unwrap_or_default()
}

impl Demands<'_> {
    /// Checks Identify Controller.
    pub fn controller(&self, bytes: &[u8]) -> Result<ControllerFacts, Unfit> {
        let identify = IdentifyController::ref_from_bytes(bytes)
            .map_err(|_| Unfit::Short("Identify Controller"))?;
        let identified = identify.cntlid.get();
        if identified != self.controller {
            return Err(Unfit::Controller {
                connected: self.controller,
                identified,
            });
        }
        let subsystem = identify.subsystem().unwrap_or_default();
        if subsystem != self.subsystem {
            return Err(Unfit::Subsystem(subsystem.to_owned()));
        }
        if identify.sgls.get() & 0b11 == 0 {
            return Err(Unfit::Sgls);
        }
        let (command, response) = (identify.ioccsz.get(), identify.iorcsz.get());
        if command < 4 || response < 1 || identify.icdoff.get() != 0 {
            return Err(Unfit::Capsules);
        }
        let ours = u64::from(crate::MAX_TRANSFER);
        let max_transfer = identify.max_transfer().unwrap_or(ours).min(ours);
        Ok(ControllerFacts {
            max_transfer: u32::try_from(max_transfer).unwrap_or(crate::MAX_TRANSFER),
            // All of it: Linux waits for the data in the capsule of any write that it would let fit,
            // and answers one that would have an R2T by nothing at all.
            in_capsule: identify.in_capsule(),
            max_commands: identify.maxcmd.get(),
            subsystem: subsystem.to_owned(),
            events: identify.oaes.get(),
            ana_log: ana_log(identify),
        })
    }

    /// Checks Identify Namespace and the identification descriptors.
    pub fn namespace(&self, bytes: &[u8], descriptors: &[u8]) -> Result<NamespaceFacts, Unfit> {
        let identify = IdentifyNamespace::ref_from_bytes(bytes)
            .map_err(|_| Unfit::Short("Identify Namespace"))?;
        if identify.ncap.get() == 0 || identify.nsze.get() == 0 {
            return Err(Unfit::Empty);
        }
        if identify.block() != Some(BLOCK) {
            return Err(Unfit::Format);
        }
        let size = identify.nsze.get().checked_mul(BLOCK).ok_or(Unfit::Size)?;
        let uuid = find_uuid(descriptors).unwrap_or_else(|| identify.uuid());
        if uuid.is_nil() {
            return Err(Unfit::Anonymous);
        }
        Ok(NamespaceFacts {
            size,
            uuid,
            read_only: identify.nsattr & 1 != 0,
            ana_group: identify.anagrpid.get(),
        })
    }
}
