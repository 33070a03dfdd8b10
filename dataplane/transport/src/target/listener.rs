//! The listener: accepts, bounds the number of connections, and runs each on a task of its own.

use super::association::Associations;
use super::connection::{Connection, Server};
use super::halfopen::HalfOpen;
use super::{Gate, Limits};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use weft_nvme::target::Budget;

/// Wait after an accept that failed for want of descriptors or memory: nothing else would change.
const SHORT_OF: Duration = Duration::from_millis(100);

/// Bytes that all connections together keep between commands: four queues at their full speed, and
/// little enough beside what an idle process may hold.
const SPARE: usize = 2 << 20;

/// Serves the listener until dropped: then all connections end at once.
pub async fn serve(listener: TcpListener, gate: Arc<dyn Gate>, limits: Limits) -> io::Result<()> {
    let half_open = HalfOpen::new(limits.half_open, limits.half_open_of_one);
    let server = Arc::new(Server {
        gate,
        limits,
        associations: Associations::default(),
        budget: Budget::new(limits.memory),
        spare: Budget::new(SPARE),
        room: Arc::new(Semaphore::new(limits.connections)),
    });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Ended tasks are let go of as they end.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                let place = half_open.enter(peer);
                let connection = Connection::new(server.clone(), stream, peer, place);
                connections.spawn(connection.run());
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(SHORT_OF).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
