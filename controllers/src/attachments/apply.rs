//! The only file of this folder that writes.

use super::objects;
use super::plan::{Observed, Pass, Plan, Step};
use super::status::QUIET;
use crate::shared::context::Context;
use crate::shared::errors::{Doing, Error, describe};
use crate::shared::{apply, finalizers};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use std::time::Duration;
use weft_crds::{Attachment, Volume, VolumeStatus};

/// Where this controller writes.
pub struct Writer<'a> {
    context: &'a Context,
    attachments: Api<Attachment>,
    volumes: Api<Volume>,
    pods: Api<Pod>,
    budgets: Api<PodDisruptionBudget>,
    secrets: Api<Secret>,
}

impl<'a> Writer<'a> {
    /// For one pass.
    pub fn new(context: &'a Context) -> Self {
        let (client, system) = (&context.client, &context.settings.namespaces.system);
        Self {
            context,
            attachments: Api::all(client.clone()),
            volumes: Api::all(client.clone()),
            pods: Api::namespaced(client.clone(), system),
            budgets: Api::namespaced(client.clone(), system),
            secrets: Api::namespaced(client.clone(), system),
        }
    }

    /// Does what was decided.
    pub async fn perform(&self, o: &Observed, plan: Plan) -> Result<Action, Error> {
        match plan {
            Plan::Claim => {
                finalizers::claim(&self.attachments, &o.attachment, None).await?;
                Ok(Action::await_change())
            }
            Plan::Release => {
                finalizers::release(&self.attachments, &o.attachment).await?;
                Ok(Action::await_change())
            }
            Plan::Pass(pass) => self.pass(o, *pass).await,
        }
    }

    async fn pass(&self, o: &Observed, pass: Pass) -> Result<Action, Error> {
        if let (Some(volume), Some(status)) = (&o.volume, &pass.volume) {
            self.swap(volume, status).await?;
        }
        for step in &pass.before {
            self.step(o, step).await?;
        }
        self.say(o, &pass).await?;
        for step in &pass.after {
            self.step(o, step).await?;
        }
        // Nobody tells when a Secret is gone.
        let unseen = pass
            .after
            .iter()
            .any(|step| matches!(step, Step::DeleteSecret(_)));
        Ok(if unseen {
            Action::requeue(Duration::ZERO)
        } else {
            Action::await_change()
        })
    }

    async fn swap(&self, volume: &Volume, status: &VolumeStatus) -> Result<(), Error> {
        let mut wanted = volume.clone();
        wanted.status = Some(status.clone());
        self.volumes
            .replace_status(&volume.name_any(), &PostParams::default(), &wanted)
            .await
            .doing(|| format!("swap the hosts of {}", describe(volume)))?;
        Ok(())
    }

    /// With the version that was read, so that what the node plugin has observed is never
    /// overwritten by an older copy of it.
    async fn say(&self, o: &Observed, pass: &Pass) -> Result<(), Error> {
        let before = o.attachment.status.clone().unwrap_or_default();
        if o.attachment.status.is_some() && before == pass.status {
            return Ok(());
        }
        let mut wanted = o.attachment.clone();
        wanted.status = Some(pass.status.clone());
        let written = self
            .attachments
            .replace_status(&o.attachment.name_any(), &PostParams::default(), &wanted)
            .await
            .doing(|| format!("write the status of {}", describe(&o.attachment)))?;
        let (old, new) = (&before.conditions, &pass.status.conditions);
        self.context
            .events
            .changes(&written.object_ref(&()), old, new, QUIET)
            .await;
        Ok(())
    }

    async fn step(&self, o: &Observed, step: &Step) -> Result<(), Error> {
        let (settings, gracious) = (&self.context.settings, DeleteParams::background());
        match step {
            Step::WriteSecret(host) => {
                let master = &self.context.keys.master;
                let secret = objects::secret(settings, master, &o.attachment, host)?;
                apply::apply(&self.secrets, None, &secret).await.map(drop)
            }
            Step::CreatePod(name) => {
                let budget = objects::budget(settings, &o.attachment, name);
                apply::create(&self.budgets, &budget).await?;
                apply::create(&self.pods, &objects::pod(settings, &o.attachment, name))
                    .await
                    .map(drop)
            }
            Step::DeletePod(name) => remove(&self.pods, name, &gracious).await,
            // A name is used for one generation, so this is the pod that was read.
            Step::ForgetPod(name) => remove(&self.pods, name, &gracious.grace_period(0)).await,
            Step::DeleteBudget(name) => remove(&self.budgets, name, &gracious).await,
            Step::DeleteSecret(name) => remove(&self.secrets, name, &gracious).await,
        }
    }
}

async fn remove<K>(api: &Api<K>, name: &str, params: &DeleteParams) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error).doing(|| format!("delete {} {name}", K::kind(&()))),
    }
}
