//! A host in the test's own hands: one connection, one command at a time.

use crate::harness::{SUBSYSTEM, Target};
use bytes::{Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use uuid::Uuid;
use weft_nvme::command::fabrics::{Connect, ConnectData, DYNAMIC_CONTROLLER, FabricsCommand};
use weft_nvme::command::{AdminCommand, IoCommand, Sqe};
use weft_nvme::digest::Digests;
use weft_nvme::initiator::{Connection, Done, Payload};
use weft_nvme::property;
use weft_nvme::status::Status;

pub const HOST_ID: Uuid = Uuid::from_u128(0x686f7374);

pub struct Wire {
    pub stream: TcpStream,
    nvme: Connection<()>,
}

/// Fields of a Connect that are right unless changed.
pub struct Knock {
    pub connect: Connect,
    pub data: ConnectData,
}

impl Knock {
    pub fn admin() -> Self {
        Self {
            connect: Connect {
                queue: 0,
                sqsize: 31,
                no_flow_control: false,
                kato: 0,
            },
            data: ConnectData {
                host_id: HOST_ID,
                controller: DYNAMIC_CONTROLLER,
                subsystem: SUBSYSTEM.to_owned(),
                host: "host".to_owned(),
            },
        }
    }

    pub fn queue(number: u16, controller: u16) -> Self {
        let mut knock = Self::admin();
        (knock.connect.queue, knock.connect.sqsize) = (number, 127);
        knock.data.controller = controller;
        knock
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Wire {
    pub async fn open(target: &Target) -> Self {
        let stream = TcpStream::connect(target.address).await.unwrap();
        let mut wire = Self {
            stream,
            nvme: Connection::new(Digests::default(), 32, 8192),
        };
        wire.flush().await.unwrap();
        while !wire.nvme.is_ready() {
            assert!(wire.receive().await.unwrap().is_none());
        }
        wire
    }

    async fn flush(&mut self) -> io::Result<()> {
        let bytes = self.nvme.outbox().take_all();
        self.stream.write_all(&bytes).await
    }

    async fn receive(&mut self) -> io::Result<Option<Done<()>>> {
        if let Some(done) = self.nvme.next_done().unwrap() {
            return Ok(Some(done));
        }
        let count = self.stream.read_buf(&mut self.nvme.buffer()).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.nvme.received(count);
        let done = self.nvme.next_done().unwrap();
        self.flush().await?;
        Ok(done)
    }

    pub async fn send(&mut self, sqe: Sqe, payload: Payload) {
        self.nvme.submit(sqe, payload, ()).unwrap();
        self.flush().await.unwrap();
    }

    pub async fn answer(&mut self) -> io::Result<Done<()>> {
        let wait = async {
            loop {
                if let Some(done) = self.receive().await? {
                    return Ok(done);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap()
    }

    /// Sends a command and waits for its completion.
    pub async fn ask(&mut self, sqe: Sqe, payload: Payload) -> Done<()> {
        self.send(sqe, payload).await;
        self.answer().await.unwrap()
    }

    pub async fn connect(&mut self, knock: &Knock) -> (Status, u64) {
        let sqe = FabricsCommand::Connect(knock.connect).to_sqe();
        let data = Bytes::from(knock.data.to_bytes());
        let done = self.ask(sqe, Payload::ToController(data)).await;
        (done.cqe.status(), done.cqe.result.get())
    }

    pub async fn property(&mut self, offset: u32, wide: bool) -> u64 {
        let sqe = FabricsCommand::PropertyGet { offset, wide }.to_sqe();
        let done = self.ask(sqe, Payload::None).await;
        assert!(done.cqe.status().is_success());
        done.cqe.result.get()
    }

    pub async fn set_cc(&mut self, value: u32) {
        let sqe = FabricsCommand::PropertySet {
            offset: property::CC,
            wide: false,
            value: value.into(),
        };
        let done = self.ask(sqe.to_sqe(), Payload::None).await;
        assert!(done.cqe.status().is_success());
    }

    pub async fn admin(&mut self, command: AdminCommand) -> (Status, u64) {
        let done = self.ask(command.to_sqe(), Payload::None).await;
        (done.cqe.status(), done.cqe.result.get())
    }

    pub async fn identify(&mut self, cns: u8, nsid: u32) -> (Status, BytesMut) {
        let sqe = AdminCommand::Identify { cns, nsid, csi: 0 }.to_sqe();
        let done = self.ask(sqe, Payload::ToHost(BytesMut::zeroed(4096))).await;
        (done.cqe.status(), done.data)
    }

    pub async fn log(&mut self, page: u8, length: u32) -> (Status, BytesMut) {
        let command = AdminCommand::GetLog {
            page,
            specific: 0,
            offset: 0,
            length,
            retain: false,
        };
        let payload = Payload::ToHost(BytesMut::zeroed(length as usize));
        let done = self.ask(command.to_sqe(), payload).await;
        (done.cqe.status(), done.data)
    }

    pub async fn io(&mut self, command: IoCommand, payload: Payload) -> Status {
        self.ask(command.to_sqe(), payload).await.cqe.status()
    }

    /// Waits for the end of the connection.
    pub async fn closed(mut self) {
        let mut ignored = [0; 4096];
        let wait = async {
            while self
                .stream
                .read(&mut ignored)
                .await
                .is_ok_and(|count| count > 0)
            {}
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap();
    }
}

/// An enabled controller: its admin queue and its identifier.
pub async fn enabled(target: &Target, knock: Knock) -> (Wire, u16) {
    let mut wire = Wire::open(target).await;
    let (status, controller) = wire.connect(&knock).await;
    assert_eq!(status, Status::SUCCESS);
    wire.set_cc(property::CC_ENABLED).await;
    (wire, u16::try_from(controller).unwrap())
}

/// An I/O queue of an enabled controller.
pub async fn io_queue(target: &Target, number: u16, controller: u16) -> Wire {
    let mut wire = Wire::open(target).await;
    let (status, result) = wire.connect(&Knock::queue(number, controller)).await;
    assert_eq!((status, result), (Status::SUCCESS, controller.into()));
    wire
}
