//! Reads all that a pass needs, from the API server itself: a budget must not open on an old list.

use super::domains;
use super::plan::Observed;
use crate::shared::context::Context;
use crate::shared::errors::{Doing, Error};
use crate::shared::labels::Component;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use weft_crds::Pool;

/// Reads all that a pass needs: nodes and volumes, of which there are many, only while a node is
/// cordoned, for drives say all the time how full they are. The budgets before the pods: an eviction that was granted before a
/// budget was closed shows in the pods.
pub async fn observe(context: &Context, pool: &Pool) -> Result<Observed, Error> {
    let client = &context.client;
    let namespace = context.settings.namespaces.drives.as_str();
    let all = ListParams::default();
    let of_drives = all.clone().labels(&Component::Drive.selector());
    let mut observed = Observed {
        budgets: list(
            &Api::namespaced(client.clone(), namespace),
            &of_drives,
            pool,
        )
        .await?,
        pools: list(&Api::all(client.clone()), &all, pool).await?,
        drives: list(&Api::all(client.clone()), &all, pool).await?,
        nodes: Vec::new(),
        volumes: Vec::new(),
        pods: Vec::new(),
        pool: pool.clone(),
        now: Timestamp::now(),
    };
    let nodes: Api<Node> = Api::all(client.clone());
    let cordoned = all.clone().fields("spec.unschedulable=true");
    if list(&nodes, &cordoned, pool).await?.is_empty() {
        return Ok(observed);
    }
    observed.nodes = list(&nodes, &all, pool).await?;
    if !domains::leaving(&observed).is_empty() {
        observed.volumes = list(&Api::all(client.clone()), &all, pool).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        observed.pods = list(&pods, &of_drives, pool).await?;
    }
    Ok(observed)
}

async fn list<K>(api: &Api<K>, params: &ListParams, pool: &Pool) -> Result<Vec<K>, Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let found = api.list(params).await;
    let what = || format!("list {} for Pool {}", K::plural(&()), pool.name_any());
    Ok(found.doing(what)?.items)
}
