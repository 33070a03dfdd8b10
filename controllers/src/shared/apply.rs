//! Writing: server-side apply of own fields only, and only when they differ.

use super::errors::{Doing, Error, describe};
use super::labels::MANAGER;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// Applies `wanted` unless `current` holds it already. Gives whether it wrote.
pub async fn apply<K>(api: &Api<K>, current: Option<&K>, wanted: &K) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    if current.is_some_and(|current| holds(current, wanted)) {
        return Ok(false);
    }
    api.patch(
        &wanted.name_any(),
        &PatchParams::apply(MANAGER).force(),
        &Patch::Apply(wanted),
    )
    .await
    .doing(|| format!("apply {}", describe(wanted)))?;
    Ok(true)
}

/// Creates `wanted`; one that is there already is left as it is. Gives whether it created.
pub async fn create<K>(api: &Api<K>, wanted: &K) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    match api.create(&params, wanted).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
        Err(error) => Err(error).doing(|| format!("create {}", describe(wanted))),
    }
}

/// Deletes the very object that was read, never a newer one of the same name. One that is gone
/// already is fine.
pub async fn delete<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match api.delete(&object.name_any(), &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error).doing(|| format!("delete {}", describe(object))),
    }
}

/// Deletes the very pod that was read without waiting for its kubelet, which is gone with the node by a
/// person's word.
pub async fn forget(api: &Api<Pod>, pod: &Pod) -> Result<(), Error> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::background().grace_period(0)
    };
    match api.delete(&pod.name_any(), &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error).doing(|| format!("delete {} by force", describe(pod))),
    }
}

/// Applies the whole of `wanted` as the status of `object`, unless it is that already. For kinds
/// whose status has one writer and is not compared-and-swapped.
pub async fn apply_status<K, S>(
    api: &Api<K>,
    object: &K,
    current: Option<&S>,
    wanted: &S,
) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    S: Serialize + PartialEq,
{
    if current == Some(wanted) {
        return Ok(false);
    }
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": object.name_any()},
        "status": wanted,
    });
    let params = PatchParams::apply(MANAGER).force();
    match api
        .patch_status(&object.name_any(), &params, &Patch::Apply(&patch))
        .await
    {
        Ok(_) => Ok(true),
        // Gone between read and write: nobody is left to read a status.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error).doing(|| format!("write the status of {}", describe(object))),
    }
}

/// Whether `current` has every field of `wanted` with the same value (it may have more).
pub fn holds<K: Serialize>(current: &K, wanted: &K) -> bool {
    match (serde_json::to_value(current), serde_json::to_value(wanted)) {
        (Ok(current), Ok(wanted)) => contains(&current, &wanted),
        _ => false,
    }
}

fn contains(current: &Value, wanted: &Value) -> bool {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            current
                .get(key)
                .is_some_and(|current| contains(current, wanted))
        }),
        (Value::Array(current), Value::Array(wanted)) => {
            current.len() == wanted.len()
                && current
                    .iter()
                    .zip(wanted)
                    .all(|(current, wanted)| contains(current, wanted))
        }
        (current, wanted) => current == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_holds_what_is_wanted_when_defaults_were_added() {
        let wanted = json!({"a": {"b": [{"name": "x"}]}});
        assert!(holds(
            &json!({"a": {"b": [{"name": "x", "more": 1}], "c": 2}}),
            &wanted
        ));
        assert!(!holds(&json!({"a": {"b": [{"name": "y"}]}}), &wanted));
        assert!(!holds(
            &json!({"a": {"b": [{"name": "x"}, {"name": "y"}]}}),
            &wanted
        ));
        assert!(!holds(&json!({}), &wanted));
    }
}
