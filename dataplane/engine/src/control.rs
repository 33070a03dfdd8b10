//! The engine's end of the control link: tells its status, takes newer documents.

use crate::document::DocumentError;
use async_trait::async_trait;
use http::Method;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use weft_control::server::{Handler, Reply, Request};
use weft_control::tls::Fingerprint;
use weft_spec::engine::{EngineDocument, EngineStatus};

/// How long an answer is held back for a document to be in force; below the time that the asker
/// waits, so that it learns what it is waiting for.
const IN_FORCE_TIMEOUT: Duration = Duration::from_secs(25);

/// A document that was put; the answer is given when it is durable and in force.
#[derive(Debug)]
pub struct Put {
    /// The document.
    pub document: Box<EngineDocument>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<(), DocumentError>>,
}

/// Answers the operator, and nobody else.
pub struct EngineHandler {
    /// The operator's certificate.
    pub operator: Fingerprint,
    /// What the engine reports.
    pub status: watch::Receiver<EngineStatus>,
    /// To the engine's loop.
    pub puts: mpsc::Sender<Put>,
}

#[async_trait]
impl Handler for EngineHandler {
    async fn handle(&self, request: Request) -> Reply {
        match (request.method, request.path.as_str()) {
            (Method::GET, "/status") => Reply::json(200, &*self.status.borrow()),
            (Method::PUT, "/document") => self.put(&request.body).await,
            _ => Reply::text(404, "an engine answers GET /status and PUT /document"),
        }
    }

    fn accepts(&self, peer: &Fingerprint) -> bool {
        *peer == self.operator
    }
}

impl EngineHandler {
    async fn put(&self, body: &[u8]) -> Reply {
        let document = match serde_json::from_slice(body) {
            Ok(document) => Box::new(document),
            Err(error) => return Reply::text(400, format!("not an engine's document: {error}")),
        };
        let (answer, answered) = oneshot::channel();
        let put = Put { document, answer };
        if self.puts.send(put).await.is_err() {
            return Reply::text(503, "the engine is ending");
        }
        match tokio::time::timeout(IN_FORCE_TIMEOUT, answered).await {
            Ok(Ok(Ok(()))) => Reply::json(200, &*self.status.borrow()),
            Ok(Ok(Err(refused))) => Reply::text(409, refused.to_string()),
            Ok(Err(_)) => Reply::text(503, "the engine is ending"),
            Err(_) => {
                let message = &self.status.borrow().message;
                Reply::text(
                    503,
                    format!("taken, but not in force yet, put it again: {message}"),
                )
            }
        }
    }
}
