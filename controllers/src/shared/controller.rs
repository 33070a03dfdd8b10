//! How every controller is run.

use super::context::Context;
use super::errors::Error;
use futures::{Stream, StreamExt};
use kube::runtime::controller::{self, Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, runtime::watcher};
use std::sync::Arc;

/// Passes at a time per kind: bounds what an operator with many objects asks of the API server.
const CONCURRENCY: u16 = 16;

/// Configuration of every controller.
pub fn config() -> Config {
    Config::default().concurrency(CONCURRENCY)
}

/// Drives a controller's stream of results for ever: a success ends its object's back-off, and
/// whatever is not an error of a pass (those are told by the policy) is logged.
pub async fn run<K>(
    kind: &'static str,
    results: impl Stream<
        Item = Result<(ObjectRef<K>, Action), controller::Error<Error, watcher::Error>>,
    >,
    context: Arc<Context>,
) where
    K: Resource<DynamicType = ()>,
{
    let mut results = std::pin::pin!(results);
    while let Some(result) = results.next().await {
        match result {
            Ok((object, _)) => {
                context
                    .backoffs
                    .succeeded(&format!("{} {}", K::kind(&()), object.name))
            }
            // The policy has told it, or the object is gone and there is nothing to do.
            Err(controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_)) => {
            }
            Err(error) => tracing::warn!(kind, %error, "a watch failed; it is tried again"),
        }
    }
}
