//! Pools: a status, and the budget by which drives' pods are evicted. A Pool has no process and no
//! endpoint; placement (`volumes/placement.rs`) reads its rules.
//!
//! Watches its own kind, drives, nodes (a drain begins with a cordon), the budgets (Kubernetes says when
//! it knows one) and, while something is cordoned, volumes.

pub mod apply;
pub mod domains;
pub mod hold;
pub mod objects;
pub mod observe;
pub mod plan;
pub mod status;
#[cfg(test)]
mod tests;

use crate::shared::context::Context;
use crate::shared::labels::Component;
use crate::shared::news::News;
use crate::shared::{conditions, controller, errors, nodes};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, watcher};
use kube::{Api, ResourceExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use weft_crds::{Drive, Pool, Volume};

/// A burst of drives that change (all of a node's, say) is one pass.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Runs for ever.
pub async fn run(context: Arc<Context>) {
    let client = context.client.clone();
    let namespace = context.settings.namespaces.drives.as_str();
    let controller = Controller::new(Api::<Pool>::all(client.clone()), watcher::Config::default());
    let (of_drives, of_nodes, of_volumes) =
        (controller.store(), controller.store(), controller.store());
    let volume_news = News::default();
    let one_at_a_time = Arc::new(Mutex::new(()));
    let results = controller
        .with_config(controller::config().debounce(DEBOUNCE))
        // Every pool: a drive whose labels changed leaves one that it does not name any more.
        .watches(
            Api::<Drive>::all(client.clone()),
            watcher::Config::default(),
            move |_| select(&of_drives, |_| true),
        )
        .watches_stream(nodes::watch(&client), move |_| select(&of_nodes, |_| true))
        .watches(
            Api::<PodDisruptionBudget>::namespaced(client.clone(), namespace),
            watcher::Config::default().labels(&Component::Drive.selector()),
            |budget| Some(ObjectRef::new(&budget.name_any())),
        )
        .watches(
            Api::<Volume>::all(client),
            watcher::Config::default(),
            move |volume: Volume| {
                let news = volume_news.of(&volume, &volume_facts(&volume));
                select(&of_volumes, |pool| news && is_leaving(pool))
            },
        )
        .run(
            move |pool, context: Arc<Context>| {
                let one_at_a_time = one_at_a_time.clone();
                async move {
                    let _one = one_at_a_time.lock().await;
                    apply::reconcile(&context, &pool).await
                }
            },
            errors::policy,
            context.clone(),
        );
    controller::run("Pool", results, context).await;
}

fn select(store: &Store<Pool>, wanted: impl Fn(&Pool) -> bool) -> Vec<ObjectRef<Pool>> {
    let pools = store.state();
    let wanted = pools.iter().filter(|pool| wanted(pool));
    wanted
        .map(|pool| ObjectRef::from_obj(pool.as_ref()))
        .collect()
}

/// Whether a node with drives of the pool is cordoned, by what the pool says: only then do volumes matter.
fn is_leaving(pool: &Pool) -> bool {
    let conditions = pool
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice());
    let evictable = conditions.and_then(|all| conditions::get(all, status::EVICTABLE));
    evictable.is_some_and(|condition| condition.reason != "NothingLeaves")
}

/// What of a volume a budget hangs on.
fn volume_facts(volume: &Volume) -> impl std::hash::Hash {
    let members = volume.status.iter().flat_map(|status| &status.members);
    let member = |m: &weft_crds::volume::VolumeMember| {
        (m.drive_uid.clone(), m.joining, format!("{:?}", m.state))
    };
    let wires = volume.status.iter().flat_map(|status| &status.wires);
    let wire = |wire: &weft_crds::volume::Wire| (wire.to.clone(), format!("{:?}", wire.state));
    (
        members.map(member).collect::<Vec<_>>(),
        wires.map(wire).collect::<Vec<_>>(),
    )
}
