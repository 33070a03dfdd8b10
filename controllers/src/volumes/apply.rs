//! The only file of this folder that writes.

use super::members;
use super::objects::{self, Facts, Wish};
use super::plan::{Grace, Note, Pass, Plan, Step};
use super::status::QUIET;
use crate::shared::context::Context;
use crate::shared::errors::{Doing, Error, describe};
use crate::shared::links::Peer;
use crate::shared::{apply, documents, finalizers};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use weft_control::tls::Identity;
use weft_crds::{Drive, Slice, Volume};
use weft_spec::engine::EngineDocument;
use weft_spec::ids::VolumeUid;

/// Seconds for an engine that nobody uses any more.
const SHORT_GRACE: u32 = 1;

/// How long a pass waits for an engine to make a document durable: other events of the volume wait
/// meanwhile.
const PUT_PATIENCE: Duration = Duration::from_secs(3);
/// When a document that was not answered is put again, should nothing else happen before.
const PUT_AGAIN: Duration = Duration::from_secs(15);

/// Where this controller writes.
pub struct Writer<'a> {
    context: &'a Context,
    volumes: Api<Volume>,
    slices: Api<Slice>,
    pods: Api<Pod>,
    secrets: Api<Secret>,
}

impl<'a> Writer<'a> {
    /// For one pass.
    pub fn new(context: &'a Context) -> Self {
        let (client, engines) = (&context.client, &context.settings.namespaces.engines);
        Self {
            context,
            volumes: Api::all(client.clone()),
            slices: Api::all(client.clone()),
            pods: Api::namespaced(client.clone(), engines),
            secrets: Api::namespaced(client.clone(), engines),
        }
    }

    /// Does what was decided; `drives` are those near which an engine is best placed.
    pub async fn perform(
        &self,
        volume: &Volume,
        drives: &[Drive],
        plan: Plan,
    ) -> Result<Action, Error> {
        match plan {
            Plan::Claim(uid) => {
                finalizers::claim(&self.volumes, volume, uid.map(|uid| uid.to_string())).await?;
                Ok(Action::await_change())
            }
            Plan::Release => {
                finalizers::release(&self.volumes, volume).await?;
                Ok(Action::await_change())
            }
            Plan::Held => Ok(Action::await_change()),
            Plan::Pass(pass) => self.pass(volume, drives, *pass).await,
        }
    }

    /// The swap first: what follows is computed from exactly the object that it gives back.
    async fn pass(&self, volume: &Volume, drives: &[Drive], pass: Pass) -> Result<Action, Error> {
        let swapped = self.swap(volume, &pass).await?;
        let mut again = pass.again;
        for step in &pass.steps {
            if !self.step(&swapped, drives, step).await? {
                again = Some(again.map_or(PUT_AGAIN, |again| again.min(PUT_AGAIN)));
            }
        }
        for Note { reason, text } in pass.notes {
            let regarding = swapped.object_ref(&());
            self.context
                .events
                .normal(&regarding, reason, "Takeover", text)
                .await;
        }
        Ok(again.map_or_else(Action::await_change, Action::requeue))
    }

    async fn swap(&self, volume: &Volume, pass: &Pass) -> Result<Volume, Error> {
        let before = volume.status.clone().unwrap_or_default();
        if volume.status.is_some() && before == pass.status {
            return Ok(volume.clone());
        }
        let mut wanted = volume.clone();
        wanted.status = Some(pass.status.clone());
        let swapped = self
            .volumes
            .replace_status(&volume.name_any(), &PostParams::default(), &wanted)
            .await
            .doing(|| format!("swap the status of {}", describe(volume)))?;
        let (old, new) = (&before.conditions, &pass.status.conditions);
        self.context
            .events
            .changes(&swapped.object_ref(&()), old, new, QUIET)
            .await;
        Ok(swapped)
    }

    /// Gives whether it came to its end.
    async fn step(&self, volume: &Volume, drives: &[Drive], step: &Step) -> Result<bool, Error> {
        match step {
            Step::CreateSlice(slice) => apply::create(&self.slices, slice).await.map(drop)?,
            Step::GrowSlice(slice) => self.grow_slice(slice).await?,
            Step::StartEngine { away_from } => {
                self.start_engine(volume, drives, away_from.as_deref())
                    .await?;
            }
            Step::WriteDocument(name) => self.write_document(volume, name).await?,
            Step::PutDocument { name, .. } => return self.put_document(name).await,
            Step::DeletePod { name, grace } => self.delete_pod(name, *grace).await?,
            Step::DeleteSecret(name) => {
                self.context.links.forget(name);
                remove(&self.secrets, name, &DeleteParams::background()).await?;
            }
            Step::DeleteSlice(name) => {
                remove(&self.slices, name, &DeleteParams::background()).await?;
            }
        }
        Ok(true)
    }

    /// With the version that was read: the room was reckoned with exactly that size.
    async fn grow_slice(&self, slice: &Slice) -> Result<(), Error> {
        let patch = json!({
            "metadata": {"resourceVersion": slice.metadata.resource_version},
            "spec": {
                "size": slice.spec.size,
                "overcommitPercent": slice.spec.overcommit_percent,
            },
        });
        self.slices
            .patch(
                &slice.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await
            .doing(|| format!("raise the size of {}", describe(slice)))
            .map(drop)
    }

    /// Only ever called in the pass whose swap has raised the term. When it is cut short, the next
    /// pass finds a term without a pod and raises again; nothing here is tried twice for one term.
    async fn start_engine(
        &self,
        volume: &Volume,
        drives: &[Drive],
        away_from: Option<&str>,
    ) -> Result<(), Error> {
        let uid = identity(volume)?;
        let term = volume.status.as_ref().map_or(0, |status| status.term);
        let place = objects::place(&self.context.settings, volume, uid, term);
        let shown = Identity::generate(&place.name)
            .doing(|| format!("make a certificate for pod {}", place.name))?;
        let link = documents::control_link(self.context, &shown);
        let document = objects::document(volume, &Facts::of(self.context), link)?;
        let secret = documents::secret(&place, &document, &[])?;
        let (settings, fabric) = (&self.context.settings, &self.context.fabric);
        let wish = Wish {
            near: near(volume, drives),
            away_from,
        };
        let pod = objects::pod(settings, fabric, &place, &wish);
        let used = |made: bool| {
            made.then_some(()).ok_or_else(|| {
                Error::unusable(
                    volume,
                    format!("term {term} was used before; another is raised"),
                )
            })
        };
        used(apply::create(&self.secrets, &secret).await?)?;
        // Before the pod exists, so that its first push is accepted.
        let owner = volume.name_any();
        self.context
            .links
            .register(&place.name, Peer::Engine(uid), &owner, &shown.certificate)
            .doing(|| format!("read the certificate of pod {}", place.name))?;
        used(apply::create(&self.pods, &pod).await?)
    }

    async fn write_document(&self, volume: &Volume, name: &str) -> Result<(), Error> {
        let Some((mut secret, old)) = self.document(name).await? else {
            return Ok(());
        };
        let Some(link) = old.control.clone() else {
            return Err(Error::unusable(
                &secret,
                "the document names no control link: delete the Secret",
            ));
        };
        let new = objects::document(volume, &Facts::of(self.context), link)?;
        if new.term != old.term || new.generation <= old.generation {
            return Ok(());
        }
        let place = objects::place(
            &self.context.settings,
            volume,
            new.volume,
            status_term(volume),
        );
        secret.data = documents::secret(&place, &new, &[])?.data;
        self.secrets
            .replace(name, &PostParams::default(), &secret)
            .await
            .doing(|| format!("write the document of {}", describe(&secret)))?;
        Ok(())
    }

    /// What is in the Secret, so that pod and Secret never differ. An engine that has taken it and
    /// waits for its drive holds the answer back; it reports when it is durable, so the pass does
    /// not wait with it.
    async fn put_document(&self, name: &str) -> Result<bool, Error> {
        let Some((_, document)) = self.document(name).await? else {
            return Ok(true);
        };
        let putting = self.context.links.put_document(name, &document);
        match tokio::time::timeout(PUT_PATIENCE, putting).await {
            Ok(answer) => {
                let what = || format!("put document {} to pod {name}", document.generation);
                answer.doing(what).map(|()| true)
            }
            Err(_) => Ok(false),
        }
    }

    async fn document(&self, name: &str) -> Result<Option<(Secret, EngineDocument)>, Error> {
        let secret = self
            .secrets
            .get_opt(name)
            .await
            .doing(|| format!("read Secret {name}"))?;
        Ok(secret.and_then(|secret| documents::read(&secret).map(|document| (secret, document))))
    }

    async fn delete_pod(&self, name: &str, grace: Grace) -> Result<(), Error> {
        let params = DeleteParams::background();
        let params = match grace {
            Grace::Whole => params,
            Grace::Short => params.grace_period(SHORT_GRACE),
            // A name is used once, so this is the pod that was read.
            Grace::Nothing => params.grace_period(0),
        };
        remove(&self.pods, name, &params).await
    }
}

/// Nodes that have the data.
fn near<'a>(volume: &Volume, drives: &'a [Drive]) -> BTreeSet<&'a str> {
    let has_data = |drive: &&Drive| {
        let uid = drive.spec.uid.as_ref();
        let mut data = volume.status.iter().flat_map(members::data);
        data.any(|m| Some(&m.drive_uid) == uid)
    };
    let with_data = drives.iter().filter(has_data);
    with_data
        .map(|d| d.spec.host_export.node.as_str())
        .collect()
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

fn status_term(volume: &Volume) -> i64 {
    volume.status.as_ref().map_or(0, |status| status.term)
}

fn identity(volume: &Volume) -> Result<VolumeUid, Error> {
    super::plan::uid(volume).ok_or_else(|| {
        Error::unusable(
            volume,
            "spec.uid is no UUID: restore the object from a backup",
        )
    })
}
