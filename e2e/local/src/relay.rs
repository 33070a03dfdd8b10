//! A relay between an engine and its drives that knows the commands that matter, and holds the one
//! at which the engine is to be killed (`killpoint.rs`).

use crate::killpoint::{Killpoint, Side, Step};
use crate::setup::{Nth, Setup};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use weft_spec::drive::{
    VENDOR_CHECKPOINT, VENDOR_PUT_GENERATION, VENDOR_PUT_RECORD, VENDOR_REGIONS_EQUAL,
};

/// NVMe/TCP 1.0, section 3.3: PDU types.
const COMMAND: u8 = 0x04;
const RESPONSE: u8 = 0x05;
/// Common header (section 3.1).
const HEADER: usize = 8;
/// Longer PDUs are none that either end sends.
const LONGEST: usize = 8 << 20;
/// NVMe over Fabrics 1.1, section 3: opcode and type of Connect, where the name of the host is in
/// its data.
const FABRICS: u8 = 0x7f;
const CONNECT: u8 = 0x01;
const HOST_NAME: usize = 512;

/// Of all drives of a volume.
#[derive(Clone, Default)]
pub struct Relay(Arc<Mutex<Killpoint>>);

impl Relay {
    /// Listens where the engines of a setup look for their drives; within a runtime.
    ///
    /// # Panics
    /// When the ports are taken.
    pub async fn start(setup: &Setup) -> Self {
        let relay = Self::default();
        for nth in (0..setup.drives()).map(Nth) {
            let listener = TcpListener::bind(setup.relay_of(nth)).await;
            let listener = listener.expect("a port of the test's own");
            let (drive, relay) = (setup.address_of(nth), relay.clone());
            tokio::spawn(async move {
                while let Ok((engine, _)) = listener.accept().await {
                    let relay = relay.clone();
                    tokio::spawn(async move {
                        // Either end is gone: both are.
                        let _ended = relay.join(engine, drive, nth).await;
                    });
                }
            });
        }
        relay
    }

    /// Where the engine is killed.
    pub fn point(&self) -> MutexGuard<'_, Killpoint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn join(&self, engine: TcpStream, drive: SocketAddr, nth: Nth) -> io::Result<()> {
        let drive = TcpStream::connect(drive).await?;
        for stream in [&engine, &drive] {
            stream.set_nodelay(true)?;
        }
        let (commands, to_engine) = engine.into_split();
        let (answers, to_drive) = drive.into_split();
        let awaited = Mutex::default();
        tokio::select! {
            ended = self.commands(commands, to_drive, nth, &awaited) => ended,
            ended = self.answers(answers, to_engine, nth, &awaited) => ended,
        }
    }

    async fn commands(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        nth: Nth,
        awaited: &Awaited,
    ) -> io::Result<()> {
        loop {
            let pdu = read(&mut from).await?;
            if let Some((command, step)) = step(&pdu) {
                let side = self.point().passes(nth, step);
                match side {
                    None => {}
                    Some(Side::After) => {
                        lock(awaited).insert(command, step);
                    }
                    Some(Side::Before) => {
                        self.point().hold(nth, step);
                        break;
                    }
                }
            }
            to.write_all(&pdu).await?;
        }
        // Until the engine is dead.
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
        Ok(())
    }

    async fn answers(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        nth: Nth,
        awaited: &Awaited,
    ) -> io::Result<()> {
        loop {
            let pdu = read(&mut from).await?;
            let step = answers(&pdu).and_then(|command| lock(awaited).remove(&command));
            if let Some(step) = step {
                self.point().hold(nth, step);
                // The end of the commands ends this too.
                return std::future::pending().await;
            }
            to.write_all(&pdu).await?;
        }
    }
}

/// Commands whose answers are to be held, by their identifiers.
type Awaited = Mutex<BTreeMap<CommandId, Step>>;

fn lock(awaited: &Awaited) -> MutexGuard<'_, BTreeMap<CommandId, Step>> {
    awaited.lock().unwrap_or_else(PoisonError::into_inner)
}

/// NVMe base specification, CDW0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct CommandId([u8; 2]);

async fn read(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut pdu = vec![0; HEADER];
    from.read_exact(&mut pdu).await?;
    let length = u32::from_le_bytes([pdu[4], pdu[5], pdu[6], pdu[7]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(HEADER..=LONGEST).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    pdu.resize(length, 0);
    from.read_exact(&mut pdu[HEADER..]).await?;
    Ok(pdu)
}

/// The step that a PDU of an engine is, and the command's identifier.
fn step(pdu: &[u8]) -> Option<(CommandId, Step)> {
    let entry = pdu.get(HEADER..HEADER + 64)?;
    if pdu[0] != COMMAND {
        return None;
    }
    let step = match entry[0] {
        FABRICS if entry[4] == CONNECT && is_engine(pdu, entry) => Step::Fence,
        VENDOR_PUT_RECORD => Step::Record,
        VENDOR_PUT_GENERATION => Step::Mark,
        VENDOR_CHECKPOINT => Step::Checkpoint,
        VENDOR_REGIONS_EQUAL => Step::Equal,
        _ => return None,
    };
    Some((CommandId([entry[2], entry[3]]), step))
}

/// Whether a Connect is that of an engine's admin queue (queue identifier 0).
fn is_engine(pdu: &[u8], entry: &[u8]) -> bool {
    let name = pdu.get(usize::from(pdu[3]) + HOST_NAME..).unwrap_or(&[]);
    let name = name.split(|byte| *byte == 0).next().unwrap_or(&[]);
    let name = String::from_utf8_lossy(name);
    entry[42..44] == [0, 0] && name.contains(":engine:")
}

/// The command that a PDU of a drive is the answer to.
fn answers(pdu: &[u8]) -> Option<CommandId> {
    let entry = pdu.get(HEADER..HEADER + 16)?;
    (pdu[0] == RESPONSE).then(|| CommandId([entry[12], entry[13]]))
}
