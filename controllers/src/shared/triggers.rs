//! "Look at this object again": names handed to controllers from outside of the API server, as
//! when a pod has pushed its status. Each subscriber has a set of names, so what is kept is bounded
//! by the number of objects, and a name fired twice before it is taken costs one pass.

use futures::Stream;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// One kind of trigger. Cloning shares it.
#[derive(Clone, Default)]
pub struct Triggers {
    subscribers: Arc<Mutex<Vec<Arc<Subscriber>>>>,
}

#[derive(Default)]
struct Subscriber {
    names: Mutex<BTreeSet<String>>,
    ready: Notify,
}

impl Triggers {
    /// Tells every subscriber.
    pub fn fire(&self, name: &str) {
        let subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for subscriber in subscribers.iter() {
            let mut names = subscriber
                .names
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            names.insert(name.to_owned());
            subscriber.ready.notify_one();
        }
    }

    /// Names fired from now on; never ends.
    pub fn subscribe(&self) -> impl Stream<Item = String> + Send + 'static {
        let subscriber = Arc::new(Subscriber::default());
        let mut subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        subscribers.push(subscriber.clone());
        futures::stream::unfold(subscriber, |subscriber| async move {
            loop {
                if let Some(name) = subscriber.take() {
                    return Some((name, subscriber));
                }
                subscriber.ready.notified().await;
            }
        })
    }
}

impl Subscriber {
    fn take(&self) -> Option<String> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt};

    #[tokio::test]
    async fn every_subscriber_gets_each_name_once() {
        let triggers = Triggers::default();
        let (mut a, mut b) = (
            Box::pin(triggers.subscribe()),
            Box::pin(triggers.subscribe()),
        );
        for name in ["x", "y", "x"] {
            triggers.fire(name);
        }
        for stream in [&mut a, &mut b] {
            assert_eq!(stream.next().await.unwrap(), "x");
            assert_eq!(stream.next().await.unwrap(), "y");
            assert!(stream.next().now_or_never().is_none());
        }
        triggers.fire("x");
        assert_eq!(a.next().await.unwrap(), "x");
    }
}
