//! Pools: a status and nothing else. A Pool has no process and no endpoint; placement
//! (`volumes/placement.rs`) reads its rules.

pub mod apply;
pub mod status;
#[cfg(test)]
mod tests;

use crate::shared::context::Context;
use crate::shared::{controller, errors};
use kube::Api;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use std::sync::Arc;
use std::time::Duration;
use weft_crds::{Drive, Pool};

/// A burst of drives that change (all of a node's, say) is one pass.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Runs for ever.
pub async fn run(context: Arc<Context>) {
    let client = context.client.clone();
    let controller = Controller::new(Api::<Pool>::all(client.clone()), watcher::Config::default());
    let pools = controller.store();
    let results = controller
        .with_config(controller::config().debounce(DEBOUNCE))
        // Every pool: a drive whose labels changed leaves one that it does not name any more.
        .watches(
            Api::<Drive>::all(client),
            watcher::Config::default(),
            move |_| {
                let all = pools.state().into_iter();
                all.map(|pool| ObjectRef::from_obj(pool.as_ref()))
                    .collect::<Vec<_>>()
            },
        )
        .run(
            |pool, context: Arc<Context>| async move { apply::reconcile(&context, &pool).await },
            errors::policy,
            context.clone(),
        );
    controller::run("Pool", results, context).await;
}
