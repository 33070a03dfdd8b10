//! The sequence from a socket to an identified namespace (`nvme-tcp.md` section 1.2).

use super::live::Live;
use super::queue::{Completion, Queue, QueueOptions, Shared};
use super::{ConnectError, ConnectOptions};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::time::{Duration, Instant, sleep, timeout};
use weft_nvme::command::fabrics::{Connect, ConnectData, DYNAMIC_CONTROLLER, FabricsCommand};
use weft_nvme::command::{AdminCommand, Sqe};
use weft_nvme::digest::Digests;
use weft_nvme::identify;
use weft_nvme::initiator::{ControllerFacts, Demands, NamespaceFacts, Unfit};
use weft_nvme::{IN_CAPSULE, NSID, feature, property};

/// Entries of the admin queue, as Linux asks for.
pub(super) const ADMIN_DEPTH: u16 = 32;
/// How long the target may take for one step. A fence drains before it admits.
const STEP: Duration = Duration::from_secs(30);
/// How long the target may take to hear that it is left.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often CSTS is read while the controller becomes ready; one of Weft's is at once.
const READY_POLL: Duration = Duration::from_millis(10);

/// What the sequence ends with.
pub(super) struct Association {
    pub admin: Arc<Queue>,
    pub io: Queue,
    pub controller: ControllerFacts,
    pub namespace: NamespaceFacts,
    pub live: Arc<Live>,
}

/// Runs the sequence.
pub(super) async fn associate(
    options: &ConnectOptions,
    shared: &Shared,
) -> Result<Association, ConnectError> {
    let digests = Digests {
        header: options.header_digest,
        data: options.data_digest,
    };
    let keep_alive = Duration::from_millis(options.keep_alive_ms.into()) / 2;
    let queue = |depth, in_capsule, keep_alive| QueueOptions {
        address: options.address,
        digests,
        depth,
        in_capsule,
        keep_alive,
    };
    let admin = queue(
        ADMIN_DEPTH,
        IN_CAPSULE,
        (!keep_alive.is_zero()).then_some(keep_alive),
    );
    let admin = Arc::new(Queue::open(admin, shared.clone()).await?);
    let controller = connect(&admin, options, 0, ADMIN_DEPTH, DYNAMIC_CONTROLLER).await?;
    let entries = enable(&admin).await?;
    let demands = Demands {
        subsystem: &options.subsystem,
        controller,
    };
    let identified = identify(&admin, identify::CNS_CONTROLLER, 0).await?;
    let facts = demands.controller(&identified).map_err(unfit)?;
    let queues = AdminCommand::SetFeatures {
        feature: feature::QUEUES,
        value: 0,
        save: false,
    };
    step(admin.ask(queues.to_sqe(), 0)).await?;

    let said = if facts.max_commands == 0 {
        u16::MAX
    } else {
        facts.max_commands
    };
    let depth = options.queue_size.min(entries).min(said).max(2);
    let io = Queue::open(queue(depth, facts.in_capsule, None), shared.clone()).await?;
    connect(&io, options, 1, depth, controller).await?;
    let bytes = identify(&admin, identify::CNS_NAMESPACE, NSID).await?;
    let descriptors = identify(&admin, identify::CNS_DESCRIPTORS, NSID).await?;
    let namespace = demands.namespace(&bytes, &descriptors).map_err(unfit)?;
    let live = Live::start(admin.clone(), &demands, &facts, namespace).await?;
    tokio::spawn(live.clone().follow(facts.events, shared.closed.clone()));
    Ok(Association {
        admin,
        io,
        controller: facts,
        namespace,
        live,
    })
}

/// Waits for one completion that must be a success.
pub(super) async fn step(
    command: impl Future<Output = Option<Completion>>,
) -> Result<Completion, ConnectError> {
    let completion = timeout(STEP, command)
        .await
        .map_err(|_| ConnectError::TimedOut)?
        .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionReset))?;
    let status = completion.cqe.status();
    if status.is_success() {
        return Ok(completion);
    }
    Err(ConnectError::Refused {
        status: status.code(),
        dnr: status.dnr(),
    })
}

/// Connect; the controller's identifier.
pub(super) async fn connect(
    queue: &Queue,
    options: &ConnectOptions,
    number: u16,
    depth: u16,
    controller: u16,
) -> Result<u16, ConnectError> {
    let kato = if number == 0 {
        options.keep_alive_ms
    } else {
        0
    };
    let command = Connect {
        queue: number,
        sqsize: depth.saturating_sub(1),
        no_flow_control: true,
        kato,
    };
    let data = ConnectData {
        host_id: options.host_id,
        controller,
        subsystem: options.subsystem.clone(),
        host: options.host.clone(),
    };
    let sqe = FabricsCommand::Connect(command).to_sqe();
    let done = step(queue.tell(sqe, Bytes::from(data.to_bytes()))).await?;
    let [low, high, ..] = done.cqe.result.get().to_le_bytes();
    Ok(u16::from_le_bytes([low, high]))
}

/// Ends an association in order: CC.SHN (Base section 3.6.1). A target that does not answer is left
/// all the same.
pub(super) async fn shut_down(admin: &Queue) {
    let set = FabricsCommand::PropertySet {
        offset: property::CC,
        wide: false,
        value: u64::from(property::CC_ENABLED | property::CC_SHUTDOWN),
    };
    let _answer = timeout(FAREWELL, admin.ask(set.to_sqe(), 0)).await;
}

/// Enables the controller; the number of entries that a queue may have.
pub(super) async fn enable(admin: &Queue) -> Result<u16, ConnectError> {
    let cap = get(admin, property::CAP, true).await?;
    let [mqes_low, mqes_high, _, timeout_units, ..] = cap.to_le_bytes();
    let until = Instant::now() + Duration::from_millis(500) * u32::from(timeout_units.max(1));
    let cc = u64::from(property::CC_ENABLED);
    let set = FabricsCommand::PropertySet {
        offset: property::CC,
        wide: false,
        value: cc,
    };
    step(admin.ask(set.to_sqe(), 0)).await?;
    while get(admin, property::CSTS, false).await? & u64::from(property::CSTS_RDY) == 0 {
        if Instant::now() > until {
            return Err(ConnectError::TimedOut);
        }
        sleep(READY_POLL).await;
    }
    Ok(u16::from_le_bytes([mqes_low, mqes_high]).saturating_add(1))
}

async fn get(admin: &Queue, offset: u32, wide: bool) -> Result<u64, ConnectError> {
    let sqe: Sqe = FabricsCommand::PropertyGet { offset, wide }.to_sqe();
    Ok(step(admin.ask(sqe, 0)).await?.cqe.result.get())
}

/// A log page from its beginning; reading it clears its event.
pub(super) async fn read_log(
    admin: &Queue,
    page: u8,
    length: u32,
) -> Result<BytesMut, ConnectError> {
    let command = AdminCommand::GetLog {
        page,
        specific: 0,
        offset: 0,
        length,
        retain: false,
    };
    let room = usize::try_from(length).unwrap_or_default();
    Ok(step(admin.ask(command.to_sqe(), room)).await?.data)
}

pub(super) async fn identify(admin: &Queue, cns: u8, nsid: u32) -> Result<BytesMut, ConnectError> {
    let sqe = AdminCommand::Identify { cns, nsid, csi: 0 }.to_sqe();
    Ok(step(admin.ask(sqe, identify::SIZE)).await?.data)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn unfit(unfit: Unfit) -> ConnectError {
    ConnectError::Protocol(unfit.to_string())
}
