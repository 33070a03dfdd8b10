//! One association: an admin queue and one I/O queue.

use super::ConnectError;
use super::handshake::{Association, associate, shut_down};
use super::probe::{Asked, Probe};
use super::queue::Shared;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use uuid::Uuid;
use weft_block::{BLOCK, Disk, DiskError, ErrorKind, Stamp, Write};
use weft_nvme::command::{self, AdminCommand, BlockRange, Cqe, IoCommand, Sqe, encode_ranges};
use weft_nvme::initiator::Payload;
use weft_nvme::log::AnaState;
use weft_nvme::status::Status;

/// Most bytes of one Write Zeroes: 65,536 blocks (NVM section 3.2.8).
const MAX_ZEROES: u64 = 65_536 * BLOCK;
/// Most bytes of one range of Dataset Management that stays a whole number of chunks.
const MAX_DISCARD: u64 = 1 << 40;

/// How often a command is sent again at most, as Linux does (`nvme_max_retries`).
const RETRIES: u32 = 5;

/// Whom to connect to, and as whom.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Where the target listens.
    pub address: SocketAddr,
    /// SUBNQN.
    pub subsystem: String,
    /// HOSTNQN: a secret, never logged.
    pub host: String,
    /// HOSTID.
    pub host_id: Uuid,
    /// Entries of the I/O queue.
    pub queue_size: u16,
    /// Keep Alive Timeout.
    pub keep_alive_ms: u32,
    /// Whether to look if the target answers while something is asked of it.
    pub probe: Option<Probe>,
    /// CRC32C over each header.
    pub header_digest: bool,
    /// CRC32C over the data of each PDU.
    pub data_digest: bool,
}

impl ConnectOptions {
    /// Options with a queue of 128, a keep-alive of 15 s, no probe and no digests.
    pub fn new(
        address: SocketAddr,
        subsystem: impl Into<String>,
        host: impl Into<String>,
        host_id: Uuid,
    ) -> Self {
        Self {
            address,
            subsystem: subsystem.into(),
            host: host.into(),
            host_id,
            queue_size: 128,
            keep_alive_ms: 15_000,
            probe: None,
            header_digest: false,
            data_digest: false,
        }
    }
}

/// A namespace behind one association. When the association is lost, requests pending and later
/// fail with [`ErrorKind::Gone`]; the object is then of no more use.
pub struct RemoteDisk {
    association: Association,
    asked: Option<Arc<Asked>>,
    closed: CancellationToken,
}

impl RemoteDisk {
    /// Runs the whole sequence until the namespace is identified.
    pub async fn connect(options: ConnectOptions) -> Result<RemoteDisk, ConnectError> {
        let closed = CancellationToken::new();
        let shared = Shared {
            closed: closed.clone(),
            heard: Arc::new(AtomicBool::new(true)),
            asked: options.probe.map(|_| Arc::default()),
        };
        // Ends the queues' tasks also when the caller gives up in the middle.
        let guard = closed.clone().drop_guard();
        let association = associate(&options, &shared).await?;
        guard.disarm();
        let asked = shared.asked;
        if let (Some(probe), Some(asked)) = (options.probe, asked.clone()) {
            tokio::spawn(asked.watch(association.admin.clone(), probe, closed.clone()));
        }
        Ok(Self {
            association,
            asked,
            closed,
        })
    }

    /// Local address of the admin queue's socket.
    pub fn local(&self) -> SocketAddr {
        self.association.admin.local
    }

    /// SUBNQN that Identify Controller answered.
    pub fn subsystem(&self) -> &str {
        &self.association.controller.subsystem
    }

    /// UUID of the namespace.
    pub fn namespace_uuid(&self) -> Uuid {
        self.association.namespace.uuid
    }

    /// Vendor specific admin command, controller to host: `length` bytes.
    pub async fn vendor_get(
        &self,
        opcode: u8,
        cdw10: u32,
        length: u32,
    ) -> Result<Bytes, DiskError> {
        let sqe = AdminCommand::Vendor { opcode, cdw10 }.to_sqe();
        let length = usize::try_from(length).map_err(|_| too_large())?;
        self.check_length(length)?;
        let done = self
            .association
            .admin
            .ask(sqe, length)
            .await
            .ok_or_else(gone)?;
        self.check(&done.cqe, "vendor command", 0)?;
        Ok(done.data.freeze())
    }

    /// Vendor specific admin command, host to controller.
    pub async fn vendor_put(&self, opcode: u8, cdw10: u32, data: Bytes) -> Result<(), DiskError> {
        let sqe = AdminCommand::Vendor { opcode, cdw10 }.to_sqe();
        self.check_length(data.len())?;
        let done = self
            .association
            .admin
            .tell(sqe, data)
            .await
            .ok_or_else(gone)?;
        self.check(&done.cqe, "vendor command", 0)
    }

    /// ANA state of the namespace on this association.
    pub fn ana(&self) -> AnaState {
        self.association.live.ana()
    }

    /// Told when size or ANA state has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.association.live.changes()
    }

    /// Whether the association is lost or ended.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Resolves when the association is lost or ended.
    pub fn closed(&self) -> WaitForCancellationFutureOwned {
        self.closed.clone().cancelled_owned()
    }

    /// Whether it was lost because the target did not answer its probe.
    pub fn fell_silent(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.fell_silent())
    }

    /// Ends the association without a word: what is under way has no answer.
    pub fn abandon(&self) {
        self.closed.cancel();
    }

    /// Ends the association in order (CC.SHN, then the sockets).
    pub async fn disconnect(&self) {
        shut_down(&self.association.admin).await;
        self.closed.cancel();
    }

    /// Turns a completion into a result (`nvme-tcp.md` section 1.5).
    fn check(&self, cqe: &Cqe, what: &str, offset: u64) -> Result<(), DiskError> {
        let status = cqe.status();
        if status.is_success() {
            return Ok(());
        }
        let kind = match status.code() {
            0x001 | 0x002 => ErrorKind::Unsupported,
            0x020 => ErrorKind::ReadOnly,
            0x080 => ErrorKind::OutOfRange,
            0x081 => ErrorKind::NoSpace,
            0x083 => ErrorKind::Fenced,
            0x280 => ErrorKind::MediaWrite,
            0x281 => ErrorKind::MediaRead,
            0x701 => ErrorKind::WrongConfig,
            0x702 => ErrorKind::SwapLost,
            // Path related, command sequence, transient: this association does not serve; the
            // next one may. Nothing of it is lost, since the request is sent again.
            _ => {
                self.closed.cancel();
                ErrorKind::Gone
            }
        };
        Err(DiskError::new(
            kind,
            format!("{what} at byte {offset}: status {status:?}"),
        ))
    }

    fn check_length(&self, length: usize) -> Result<(), DiskError> {
        if length as u64 > self.max_transfer() {
            return Err(too_large());
        }
        Ok(())
    }

    fn max_transfer(&self) -> u64 {
        u64::from(self.association.controller.max_transfer)
    }

    /// Runs a command to its end: waits while the namespace is inaccessible, and sends again what
    /// a target says may be sent again.
    async fn run(
        &self,
        command: Sqe,
        mut payload: Payload,
        what: &str,
        offset: u64,
    ) -> Result<BytesMut, DiskError> {
        let Association { io, live, .. } = &self.association;
        let mut left = RETRIES;
        loop {
            if live.ana() != AnaState::Optimized {
                tokio::select! {
                    biased;
                    () = live.accessible() => {}
                    () = self.closed.cancelled() => return Err(gone()),
                }
            }
            let out = match &payload {
                Payload::ToController(data) => Some(data.clone()),
                Payload::None | Payload::ToHost(_) => None,
            };
            let done = io.command(command, payload).await;
            let done = done.ok_or_else(gone)?;
            match Again::of(done.cqe.status()) {
                Again::Elsewhere if live.read_ana().await.map_err(|_| gone())? => {}
                Again::Here if left > 0 => left -= 1,
                _ => {
                    self.check(&done.cqe, what, offset)?;
                    return Ok(done.data);
                }
            }
            payload = match out {
                Some(data) => Payload::ToController(data),
                None if done.data.is_empty() => Payload::None,
                None => Payload::ToHost(done.data),
            };
        }
    }

    async fn read_part(&self, offset: u64, part: BytesMut) -> Result<BytesMut, DiskError> {
        let range = range(offset, part.len() as u64)?;
        self.run(
            IoCommand::Read { range }.to_sqe(),
            Payload::ToHost(part),
            "read",
            offset,
        )
        .await
    }

    async fn write_part(
        &self,
        offset: u64,
        part: Bytes,
        mode: Write,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        let range = range(offset, part.len() as u64)?;
        let fua = mode == Write::Durable;
        let command = stamped(IoCommand::Write { range, fua }, stamp);
        let payload = Payload::ToController(part);
        self.run(command, payload, "write", offset).await.map(drop)
    }
}

impl Drop for RemoteDisk {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

fn gone() -> DiskError {
    DiskError::new(ErrorKind::Gone, "association lost")
}

fn too_large() -> DiskError {
    DiskError::new(ErrorKind::OutOfRange, "more bytes than one command moves")
}

fn range(offset: u64, length: u64) -> Result<BlockRange, DiskError> {
    if length == 0 || !offset.is_multiple_of(BLOCK) || !length.is_multiple_of(BLOCK) {
        let text = format!("{length} bytes at byte {offset} are not whole blocks");
        return Err(DiskError::new(ErrorKind::OutOfRange, text));
    }
    Ok(BlockRange {
        start: offset / BLOCK,
        count: length / BLOCK,
    })
}

fn stamped(command: IoCommand, stamp: Stamp) -> Sqe {
    let stamp = command::Stamp {
        config: stamp.config,
        number: stamp.number,
        checkpoint: stamp.checkpoint,
    };
    stamp.on(command.to_sqe())
}

/// Pieces of a range, none longer than `most`: offset and length of each.
fn pieces(offset: u64, length: u64, most: u64) -> impl Iterator<Item = (u64, u64)> {
    let most = most.max(BLOCK);
    (0..length.div_ceil(most)).map(move |n| (offset + n * most, most.min(length - n * most)))
}

/// Whether a command is to be sent again (`nvme-tcp.md` section 1.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Again {
    /// Done, or failed for good on this association.
    No,
    /// The path does not serve now: when the ANA log says that it does.
    Elsewhere,
    /// Something passed by: at once.
    Here,
}

impl Again {
    fn of(status: Status) -> Self {
        match status.code() {
            _ if status.dnr() => Self::No,
            // Persistent Loss, Inaccessible, Transition.
            0x301..=0x303 => Self::Elsewhere,
            // Data Transfer Error, Command Interrupted, Transient Transport Error, Namespace Not Ready.
            0x004 | 0x021 | 0x022 | 0x082 => Self::Here,
            _ => Self::No,
        }
    }
}

#[async_trait]
impl Disk for RemoteDisk {
    fn size(&self) -> u64 {
        self.association.live.size()
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        let length = into.len();
        if (1..=self.max_transfer()).contains(&(length as u64)) {
            let read = self.read_part(offset, std::mem::take(into)).await;
            let (buffer, result) = match read {
                Ok(buffer) => (buffer, Ok(())),
                Err(error) => (BytesMut::zeroed(length), Err(error)),
            };
            *into = buffer;
            return result;
        }
        let mut rest = std::mem::take(into);
        let parts = pieces(offset, length as u64, self.max_transfer()).map(|(at, count)| {
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(rest.len());
            self.read_part(at, rest.split_to(count))
        });
        let parts: Vec<_> = parts.collect();
        match try_join_all(parts).await {
            Ok(parts) => {
                for part in parts {
                    into.unsplit(part);
                }
                Ok(())
            }
            Err(error) => {
                *into = BytesMut::zeroed(length);
                Err(error)
            }
        }
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        let length = data.len() as u64;
        if (1..=self.max_transfer()).contains(&length) {
            return self.write_part(offset, data, mode, stamp).await;
        }
        let parts = pieces(offset, length, self.max_transfer()).map(|(at, count)| {
            let from = usize::try_from(at - offset)
                .unwrap_or(usize::MAX)
                .min(data.len());
            let to = from
                .saturating_add(usize::try_from(count).unwrap_or(usize::MAX))
                .min(data.len());
            self.write_part(at, data.slice(from..to), mode, stamp)
        });
        try_join_all(parts.collect::<Vec<_>>()).await.map(drop)
    }

    async fn flush_stamped(&self, stamp: Stamp) -> Result<(), DiskError> {
        let command = stamped(IoCommand::Flush, stamp);
        self.run(command, Payload::None, "flush", 0).await.map(drop)
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        for (at, count) in pieces(offset, length, MAX_ZEROES) {
            let range = range(at, count)?;
            let command = IoCommand::WriteZeroes {
                range,
                deallocate: true,
                fua: false,
            };
            let command = stamped(command, stamp);
            self.run(command, Payload::None, "write zeroes", at).await?;
        }
        Ok(())
    }

    async fn discard_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        for (at, count) in pieces(offset, length, MAX_DISCARD) {
            let data = Bytes::from(encode_ranges(&[range(at, count)?]));
            let command = IoCommand::DatasetManagement {
                ranges: 1,
                deallocate: true,
            };
            let command = stamped(command, stamp);
            self.run(command, Payload::ToController(data), "discard", at)
                .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_range_and_none_is_too_long() {
        let all: Vec<_> = pieces(4096, 20_480, 8192).collect();
        assert_eq!(all, [(4096, 8192), (12_288, 8192), (20_480, 4096)]);
        assert_eq!(pieces(0, 4096, 1 << 20).collect::<Vec<_>>(), [(0, 4096)]);
    }
}
