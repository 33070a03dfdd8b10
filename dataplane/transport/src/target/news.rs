//! What wakes an admin queue that holds Asynchronous Event Requests.

use super::association::{Association, Served};
use tokio::sync::watch;

/// Where it hears that there may be something to tell.
pub(super) enum News {
    Namespace(watch::Receiver<()>),
    Discovery(watch::Receiver<u64>),
}

impl News {
    pub fn of(association: &Association) -> Self {
        match &association.served {
            Served::Namespace(export) => Self::Namespace(export.events.happened()),
            Served::Discovery(discovery, _) => Self::Discovery(discovery.generation()),
        }
    }
}

/// Waits until there may be something; for ever, if there is nobody who could tell.
pub(super) async fn changed(news: &mut Option<News>) {
    let changed = match news {
        Some(News::Namespace(receiver)) => receiver.changed().await,
        Some(News::Discovery(receiver)) => receiver.changed().await,
        None => std::future::pending().await,
    };
    if changed.is_err() {
        std::future::pending().await
    }
}
