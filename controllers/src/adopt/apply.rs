//! Performs a [`Plan`]: the only file of this folder that writes.
//!
//! Volume, Slices, status, and only then the annotation away: cut short anywhere, the next run goes
//! on, and until the last write nobody else touches the volume.

use super::objects::spec_differs;
use super::plan::{Adoption, Plan};
use crate::shared::apply;
use crate::shared::context::Context;
use crate::shared::errors::{Doing, Error, describe};
use crate::shared::labels::ADOPTION;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use weft_crds::{Slice, Volume};

/// Writes all that was decided; what is as it should be is not written.
pub async fn perform(context: &Context, plan: &Plan) -> Result<(), Error> {
    for adoption in &plan.adoptions {
        one(context, adoption).await?;
    }
    Ok(())
}

async fn one(context: &Context, adoption: &Adoption) -> Result<(), Error> {
    let volumes: Api<Volume> = Api::all(context.client.clone());
    let slices: Api<Slice> = Api::all(context.client.clone());
    let wanted = &adoption.volume;
    let mut volume = object(&volumes, wanted).await?;
    for slice in &adoption.slices {
        apply::create(&slices, slice).await?;
    }
    if volume.status != wanted.status {
        volume.status.clone_from(&wanted.status);
        volume = volumes
            .replace_status(&wanted.name_any(), &PostParams::default(), &volume)
            .await
            .doing(|| format!("write the status of {}", describe(wanted)))?;
    }
    if adoption.held.is_none() && volume.annotations().contains_key(ADOPTION) {
        let off = json!({"metadata": {"annotations": {ADOPTION: Value::Null}}});
        patch(&volumes, &volume, off).await?;
    }
    Ok(())
}

/// The object as it is now, with the spec that is wanted.
async fn object(volumes: &Api<Volume>, wanted: &Volume) -> Result<Volume, Error> {
    let name = wanted.name_any();
    if wanted.metadata.resource_version.is_none() {
        // A status that is sent along would be dropped.
        let bare = Volume {
            status: None,
            ..wanted.clone()
        };
        let created = volumes.create(&PostParams::default(), &bare).await;
        return created.doing(|| format!("create {}", describe(wanted)));
    }
    let there = volumes.get(&name).await;
    let there = there.doing(|| format!("read {}", describe(wanted)))?;
    if there.metadata.resource_version != wanted.metadata.resource_version {
        let problem = "was changed by somebody else meanwhile; run weft-operator adopt again";
        return Err(Error::unusable(wanted, problem));
    }
    match spec_differs(&there, wanted) {
        true => {
            let spec = json!({"size": wanted.spec.size, "replicas": wanted.spec.replicas});
            patch(volumes, &there, json!({"spec": spec})).await
        }
        false => Ok(there),
    }
}

/// With the version that was read.
async fn patch(volumes: &Api<Volume>, there: &Volume, mut fields: Value) -> Result<Volume, Error> {
    fields["metadata"]["resourceVersion"] = json!(there.metadata.resource_version);
    let (name, params) = (there.name_any(), PatchParams::default());
    let patched = volumes.patch(&name, &params, &Patch::Merge(&fields)).await;
    patched.doing(|| format!("change {}", describe(there)))
}
