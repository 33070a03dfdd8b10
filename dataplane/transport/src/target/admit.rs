//! Connect: which association a connection belongs to, or why it is refused.

use super::association::Association;
use super::connection::{Connection, Queue};
use super::{ConnectRequest, DISCOVERY_SUBSYSTEM, Refusal};
use std::net::SocketAddr;
use std::sync::Arc;
use weft_nvme::command::fabrics;
use weft_nvme::command::fabrics::{
    BadParameter, Connect, ConnectData, DYNAMIC_CONTROLLER, FabricsCommand,
};
use weft_nvme::status::Status;
use weft_nvme::target::Command;

impl Connection {
    pub(super) async fn admit(
        &mut self,
        command: &Command,
    ) -> Result<(Queue, Connect), (Status, u64)> {
        if command.sqe.opcode != fabrics::OPCODE {
            return Err((Status::COMMAND_SEQUENCE, 0));
        }
        let connect = match FabricsCommand::parse(&command.sqe).map_err(|status| (status, 0))? {
            FabricsCommand::Connect(connect) => connect,
            _ => return Err((Status::COMMAND_SEQUENCE, 0)),
        };
        let data = ConnectData::parse(&command.data).map_err(bad)?;
        if connect.sqsize == 0 || connect.sqsize >= self.server.limits.queue_size {
            return Err(bad(BadParameter::SqSize));
        }
        let room = self.server.room.clone().try_acquire_owned();
        let room = room.map_err(|_| (Status::CONNECT_BUSY, 0))?;
        let association = match connect.queue {
            0 => self.admit_host(&connect, data).await?,
            queue => self.admit_queue(queue, &data)?,
        };
        Ok((Queue::new(association, connect.queue, room), connect))
    }

    async fn admit_host(
        &mut self,
        connect: &Connect,
        data: ConnectData,
    ) -> Result<Arc<Association>, (Status, u64)> {
        if data.controller != DYNAMIC_CONTROLLER {
            return Err(bad(BadParameter::Controller));
        }
        let request = ConnectRequest {
            subsystem: data.subsystem,
            host: data.host,
            host_id: data.host_id,
            peer: self.peer,
        };
        let limits = &self.server.limits;
        if request.subsystem == DISCOVERY_SUBSYSTEM {
            let discovery = self.server.gate.discovery();
            let discovery = discovery.ok_or_else(|| bad(BadParameter::Subsystem))?;
            let local = self
                .stream
                .local_addr()
                .map_err(|_| (Status::INTERNAL, 0))?;
            let local = SocketAddr::new(local.ip().to_canonical(), local.port());
            return self
                .server
                .associations
                .admit_discovery(request, discovery, local, limits.queue_size, connect.kato)
                .ok_or((Status::CONNECT_BUSY, 0));
        }
        let admission = self
            .server
            .gate
            .connect(request.clone())
            .await
            .map_err(refused)?;
        self.server
            .associations
            .admit(
                request,
                admission,
                limits.queue_size,
                limits.io_queues,
                connect.kato,
            )
            .ok_or((Status::CONNECT_BUSY, 0))
    }

    fn admit_queue(
        &self,
        queue: u16,
        data: &ConnectData,
    ) -> Result<Arc<Association>, (Status, u64)> {
        let association = self
            .server
            .associations
            .find(&data.subsystem, data.controller)
            .filter(|association| !association.ending.is_cancelled())
            .ok_or_else(|| bad(BadParameter::Controller))?;
        if !association.is_host(data) {
            return Err(bad(BadParameter::Host));
        }
        let controller = association.controller();
        if !controller.is_ready() {
            return Err((Status::COMMAND_SEQUENCE, 0));
        }
        let allowed = controller.allows_queue(queue);
        drop(controller);
        if !allowed || !association.take_queue(queue) {
            return Err(bad(BadParameter::Queue));
        }
        Ok(association)
    }
}

fn bad(parameter: BadParameter) -> (Status, u64) {
    (Status::CONNECT_INVALID_PARAMETERS, parameter.result())
}

fn refused(refusal: Refusal) -> (Status, u64) {
    match refusal {
        Refusal::InvalidHost => (Status::CONNECT_INVALID_HOST, 0),
        Refusal::UnknownSubsystem => bad(BadParameter::Subsystem),
        Refusal::Busy => (Status::CONNECT_BUSY, 0),
    }
}
