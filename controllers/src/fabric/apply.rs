//! Makes the default Fabric and writes its status.

use super::{NAME, status};
use crate::shared::apply;
use crate::shared::context::{Context, FabricFacts};
use crate::shared::errors::{Doing, Error};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use weft_crds::{Fabric, FabricSpec};
use weft_spec::ids::ClusterUid;

/// The default Fabric with its identity: found, filled in or made. What it says holds for the
/// life of the process.
pub async fn ensure(client: &Client) -> Result<FabricFacts, Error> {
    let api: Api<Fabric> = Api::all(client.clone());
    let reading = || format!("read Fabric {NAME}");
    let mut found = api.get_opt(NAME).await.doing(reading)?;
    if found.is_none() {
        let spec = FabricSpec {
            uid: Some(ClusterUid::random().to_string()),
            ..FabricSpec::default()
        };
        match api
            .create(&PostParams::default(), &Fabric::new(NAME, spec))
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(error).doing(|| format!("create Fabric {NAME}")),
        }
        found = api.get_opt(NAME).await.doing(reading)?;
    }
    let mut fabric = found.ok_or_else(|| Error::Unusable {
        object: format!("Fabric {NAME}"),
        problem: "was deleted while it was made; it is made again at the next start".to_owned(),
    })?;
    if fabric.spec.uid.is_none() {
        let patch = json!({
            "metadata": {"resourceVersion": fabric.resource_version()},
            "spec": {"uid": ClusterUid::random().to_string()},
        });
        fabric = api
            .patch(NAME, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .doing(|| format!("give Fabric {NAME} an identity"))?;
    }
    status::facts(&fabric)
}

/// One pass over the Fabric.
pub async fn reconcile(context: &Context, fabric: &Fabric) -> Result<Action, Error> {
    let wanted = status::status(fabric, &context.fabric, Timestamp::now());
    let api: Api<Fabric> = Api::all(context.client.clone());
    apply::apply_status(&api, fabric, fabric.status.as_ref(), &wanted).await?;
    Ok(Action::await_change())
}
