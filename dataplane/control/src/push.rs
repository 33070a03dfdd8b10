//! Tells the operator each new status once, again until it is delivered.

use crate::client::Client;
use serde::Serialize;
use std::time::Duration;
use tokio::sync::watch;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Posts each new value of `status` to `path`. Values that come while one is under way are
/// skipped for the newest; a value equal (as JSON) to the last delivered is not sent. Returns
/// when the sender is gone and its last value is delivered. Waits without a timer once the
/// newest value is delivered.
pub async fn run<T: Serialize + Clone + Send + Sync>(
    client: Client,
    path: String,
    mut status: watch::Receiver<T>,
) {
    let mut delivered = Vec::new();
    loop {
        deliver_newest(&client, &path, &mut status, &mut delivered).await;
        if status.changed().await.is_err() {
            return;
        }
    }
}

async fn deliver_newest<T: Serialize + Clone + Send + Sync>(
    client: &Client,
    path: &str,
    status: &mut watch::Receiver<T>,
    delivered: &mut Vec<u8>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let newest = status.borrow_and_update().clone();
        let body = match serde_json::to_vec(&newest) {
            Ok(body) if body == *delivered => return,
            Ok(body) => body,
            Err(error) => return tracing::error!(%error, "a status cannot be written as JSON"),
        };
        match client.request(http::Method::POST, path, body.clone()).await {
            Ok((200..=299, _)) => {
                *delivered = body;
                return;
            }
            // Told once per series of attempts: an operator that is away is no event of the pod.
            Ok((code, answer)) if pause == FIRST_PAUSE => {
                let answer = String::from_utf8_lossy(&answer).into_owned();
                tracing::warn!(code, answer, "the operator refused the status; trying on");
            }
            Err(error) if pause == FIRST_PAUSE => {
                let error = &error as &dyn std::error::Error;
                tracing::info!(error, "the operator did not take the status; trying on");
            }
            Ok(_) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
