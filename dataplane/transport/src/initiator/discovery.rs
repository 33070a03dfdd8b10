//! Asks a discovery service (NVMe over Fabrics 1.1 section 5, `nvme-tcp.md` section 1.7).

use super::handshake::{ADMIN_DEPTH, connect, enable, read_log, shut_down};
use super::queue::{Queue, QueueOptions, Shared};
use super::{ConnectError, ConnectOptions};
use crate::target::DISCOVERY_SUBSYSTEM;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_nvme::command::fabrics::DYNAMIC_CONTROLLER;
use weft_nvme::digest::Digests;
use weft_nvme::log::{self, DiscoveryRecord};
use weft_nvme::{IN_CAPSULE, MAX_TRANSFER};

/// Bytes of the header of the discovery log.
const HEADER: u32 = 1024;
/// How often the log may change while it is read, as `nvme discover` has it.
const READINGS: u32 = 10;

/// The NVM subsystems that the discovery service at `address` tells this host of. A service with
/// nothing for it answers with none.
///
/// # Errors
/// As those of a Connect; [`ConnectError::Protocol`] also for a log of more than 1,023 records and
/// for one that changes whenever it is read.
pub async fn discover(
    address: SocketAddr,
    host: &str,
    host_id: Uuid,
) -> Result<Vec<DiscoveryRecord>, ConnectError> {
    let mut options = ConnectOptions::new(address, DISCOVERY_SUBSYSTEM, host, host_id);
    // It is left at once: without keep-alive (Fabrics section 5.2).
    options.keep_alive_ms = 0;
    let closed = CancellationToken::new();
    let _ends_the_queue = closed.clone().drop_guard();
    let shared = Shared {
        closed,
        asked: None,
        heard: Arc::new(AtomicBool::new(true)),
    };
    let queue = QueueOptions {
        address,
        digests: Digests::default(),
        depth: ADMIN_DEPTH,
        in_capsule: IN_CAPSULE,
        keep_alive: None,
    };
    let admin = Queue::open(queue, shared).await?;
    connect(&admin, &options, 0, ADMIN_DEPTH, DYNAMIC_CONTROLLER).await?;
    enable(&admin).await?;
    let records = read(&admin).await;
    shut_down(&admin).await;
    records
}

/// The whole log as it was at one time: header and records are read again when the generation
/// counter has moved meanwhile (Fabrics section 5.3).
async fn read(admin: &Queue) -> Result<Vec<DiscoveryRecord>, ConnectError> {
    let mut header = read_log(admin, log::DISCOVERY, HEADER).await?;
    for _ in 0..READINGS {
        let length = log::discovery_length(&header)
            .and_then(|length| u32::try_from(length).ok())
            .filter(|length| *length <= MAX_TRANSFER)
            .ok_or_else(|| broken("its discovery log is too long"))?;
        let page = read_log(admin, log::DISCOVERY, length).await?;
        header = read_log(admin, log::DISCOVERY, HEADER).await?;
        // The page may have grown between the two: then it is shorter than it says.
        if let Some((generation, records)) = log::parse_discovery(&page)
            && log::discovery_generation(&header) == Some(generation)
        {
            return Ok(records);
        }
    }
    Err(broken("its discovery log changes whenever it is read"))
}

fn broken(text: &str) -> ConnectError {
    ConnectError::Protocol(text.to_owned())
}
