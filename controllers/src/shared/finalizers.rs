//! Finalizers, put on and taken off with the `resourceVersion` that was read: never over
//! somebody else's change.

use super::errors::{Doing, Error, describe};
use super::labels::FINALIZER;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// Whether our finalizer is on the object.
pub fn has<K: Resource>(object: &K) -> bool {
    object.finalizers().iter().any(|name| name == FINALIZER)
}

/// Whether the object is being deleted.
pub fn is_deleting<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Puts our finalizer on and, in the same write, `spec.uid` when `uid` is given: an object with one
/// and without the other is never seen.
pub async fn claim<K>(api: &Api<K>, object: &K, uid: Option<String>) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut names = object.finalizers().to_vec();
    if !has(object) {
        names.push(FINALIZER.to_owned());
    }
    let mut patch = with_finalizers(object, &names);
    if let Some(uid) = uid {
        patch["spec"] = json!({"uid": uid});
    }
    send(api, object, &patch).await
}

/// Takes our finalizer off. An object that is gone already is fine.
pub async fn release<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    if !has(object) {
        return Ok(());
    }
    let names: Vec<_> = object
        .finalizers()
        .iter()
        .filter(|name| *name != FINALIZER)
        .cloned()
        .collect();
    match send(api, object, &with_finalizers(object, &names)).await {
        Err(error) if error.category() == "NotFound" => Ok(()),
        result => result.map(drop),
    }
}

fn with_finalizers<K: Resource>(object: &K, names: &[String]) -> Value {
    json!({"metadata": {
        "resourceVersion": object.resource_version(),
        "finalizers": names,
    }})
}

async fn send<K>(api: &Api<K>, object: &K, patch: &Value) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    api.patch(
        &object.name_any(),
        &PatchParams::default(),
        &Patch::Merge(patch),
    )
    .await
    .doing(|| format!("change the finalizers of {}", describe(object)))
}
