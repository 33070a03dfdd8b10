//! The Fabric: the one named `default` is made at start, with the cluster's identity; after that
//! only its status is kept. What it declares (ports, families) is read once, at start.

pub mod apply;
pub mod status;
#[cfg(test)]
mod tests;

use crate::shared::context::Context;
use crate::shared::{controller, errors};
use kube::Api;
use kube::runtime::{Controller, watcher};
use std::sync::Arc;
use weft_crds::Fabric;

/// Name of the one Fabric.
pub const NAME: &str = "default";

/// Runs for ever.
pub async fn run(context: Arc<Context>) {
    let api = Api::<Fabric>::all(context.client.clone());
    let results = Controller::new(api, watcher::Config::default()).with_config(controller::config()).run(
        |fabric, context: Arc<Context>| async move { apply::reconcile(&context, &fabric).await },
        errors::policy,
        context.clone(),
    );
    controller::run("Fabric", results, context).await;
}
