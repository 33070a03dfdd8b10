//! Performs a Plan: the only file here that writes.

use super::objects;
use super::observe::{Sight, observe, parts};
use super::plan::{Observed, Plan, Step, plan, uid};
use super::status;
use crate::shared::context::Context;
use crate::shared::errors::{Doing, Error};
use crate::shared::links::Peer;
use crate::shared::{apply, conditions, documents, finalizers};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;
use weft_control::tls::Identity;
use weft_crds::{Drive, Phase};
use weft_spec::drive::DriveDocument;
use weft_spec::ids::{DocumentGeneration, DriveUid};

/// One pass over one Drive.
pub async fn reconcile(
    context: &Context,
    drives: &Store<Drive>,
    drive: Arc<Drive>,
) -> Result<Action, Error> {
    let api: Api<Drive> = Api::all(context.client.clone());
    let Sight { observed, target } = observe(context, drives, drive).await?;
    let plan = plan(&observed, &context.settings);
    if let Plan::Claim(uid) = &plan {
        finalizers::claim(&api, &observed.drive, uid.map(|uid| uid.to_string())).await?;
        return Ok(Action::await_change());
    }
    let released = matches!(&plan, Plan::Steps(steps) if steps.contains(&Step::Release));
    if let (Plan::Steps(steps), Some(uid)) = (&plan, uid(&observed.drive)) {
        for step in steps {
            if let Err(error) = perform(context, &observed, uid, step).await {
                return Err(failed(&api, &observed, error).await);
            }
        }
    }
    if released {
        return Ok(Action::await_change());
    }
    let wanted = status::status(&observed, &plan, target);
    let before = observed.drive.status.as_ref();
    apply::apply_status(&api, &observed.drive, before, &wanted).await?;
    tell(context, &observed, &wanted).await;
    Ok(Action::await_change())
}

/// A step that the API server or the pod refuses is told in the condition too: an Event is gone in
/// an hour, and the drive may wait for longer. Gives the error back for the policy.
async fn failed(api: &Api<Drive>, o: &Observed, error: Error) -> Error {
    if !error.is_conflict() {
        let wanted = status::failed(o, &error);
        if let Err(second) =
            apply::apply_status(api, &o.drive, o.drive.status.as_ref(), &wanted).await
        {
            tracing::debug!(%second, "the failure of a step was not written");
        }
    }
    error
}

/// One Event when the drive begins or ceases to serve, or ceases for another reason.
async fn tell(context: &Context, o: &Observed, now: &weft_crds::DriveStatus) {
    let reason = |status: &weft_crds::DriveStatus| {
        conditions::get(&status.conditions, status::READY)
            .map(|c| (c.status.clone(), c.reason.clone()))
    };
    if o.drive.status.as_ref().and_then(reason) == reason(now) {
        return;
    }
    let Some(ready) = conditions::get(&now.conditions, status::READY) else {
        return;
    };
    let (regarding, note) = (o.drive.object_ref(&()), ready.message.clone());
    match now.phase {
        Phase::Failed | Phase::Paused => {
            context
                .events
                .warning(&regarding, &ready.reason, "Observe", note)
                .await
        }
        _ => {
            context
                .events
                .normal(&regarding, &ready.reason, "Observe", note)
                .await
        }
    }
}

async fn perform(context: &Context, o: &Observed, uid: DriveUid, step: &Step) -> Result<(), Error> {
    let namespace = context.settings.namespaces.drives.as_str();
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let settings = &context.settings;
    match step {
        Step::MakeSecret(generation) => make_secret(context, o, uid, *generation, &secrets).await?,
        Step::WriteSecret(document) => {
            let secret = documents::secret(
                &objects::place(&o.drive, uid, settings),
                document.as_ref(),
                &[],
            )?;
            apply::apply(&secrets, None, &secret).await?;
        }
        Step::PutDocument(document) => put_document(context, o, uid, document).await?,
        Step::MakeVolume => {
            let device = o
                .drive
                .spec
                .host_export
                .device
                .as_deref()
                .unwrap_or_default();
            let volume = objects::volume(&o.drive, uid, device, node(o)?, settings);
            apply::create(&volumes, &volume).await?;
        }
        Step::MakeClaim => {
            apply::create(&claims, &objects::claim(&o.drive, uid, settings)).await?;
        }
        Step::MakePod => {
            let ports = [context.fabric.ports.drive, context.fabric.ports.control];
            let pod = objects::pod(&o.drive, uid, node(o)?, settings, ports);
            apply::create(&pods, &pod).await?;
        }
        Step::DeletePod => delete(&pods, o.pod.as_ref()).await?,
        Step::ForgetPod => {
            if let Some(pod) = &o.pod {
                apply::forget(&pods, pod).await?;
            }
        }
        Step::DeleteSecret => delete(&secrets, o.secret.as_ref()).await?,
        Step::DeleteClaim => delete(&claims, o.claim.as_ref()).await?,
        Step::DeleteVolume => delete(&volumes, o.volume.as_ref()).await?,
        Step::Release => {
            context.links.forget(&objects::pod_name(&o.drive, uid));
            finalizers::release(&Api::all(context.client.clone()), &o.drive).await?;
        }
    }
    Ok(())
}

fn node(o: &Observed) -> Result<&Node, Error> {
    o.node.as_ref().ok_or_else(|| {
        let node = &o.drive.spec.host_export.node;
        Error::unusable(
            &o.drive,
            format!("there is no Node {node}; wait until it joins"),
        )
    })
}

async fn delete<K>(api: &Api<K>, object: Option<&K>) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match object {
        Some(object) => apply::delete(api, object).await,
        None => Ok(()),
    }
}

async fn make_secret(
    context: &Context,
    o: &Observed,
    uid: DriveUid,
    generation: DocumentGeneration,
    secrets: &Api<Secret>,
) -> Result<(), Error> {
    let name = o.drive.name_any();
    let identity = Identity::generate(&format!("drive {uid}"))
        .doing(|| format!("make a certificate for Drive {name}"))?;
    let document = objects::document(&o.drive, uid, parts(context, generation, &identity))
        .ok_or_else(|| {
            Error::unusable(
                &o.drive,
                "spec.hostExport has neither device nor file; set one",
            )
        })?;
    let secret = documents::secret(
        &objects::place(&o.drive, uid, &context.settings),
        &document,
        &[],
    )?;
    // Created, not applied: an identity that a pod may have by now is never written over.
    if apply::create(secrets, &secret).await? {
        context
            .links
            .register(
                &objects::pod_name(&o.drive, uid),
                Peer::Drive(uid),
                &name,
                &identity.certificate,
            )
            .doing(|| format!("read the certificate of Drive {name}"))?;
    }
    Ok(())
}

async fn put_document(
    context: &Context,
    o: &Observed,
    uid: DriveUid,
    document: &DriveDocument,
) -> Result<(), Error> {
    let (pod, name) = (objects::pod_name(&o.drive, uid), o.drive.name_any());
    context
        .links
        .put_document(&pod, document)
        .await
        .doing(|| format!("put document {} to Drive {name}", document.generation))
}
