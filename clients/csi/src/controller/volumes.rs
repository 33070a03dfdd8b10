//! CreateVolume and DeleteVolume.
//!
//! The Volume object is the only memory: a call that was cut off is repeated by the
//! provisioner with the same name, and finds the object that the first one made.

use super::wanted::{Verdict, Wanted, describe, judge, message};
use super::{Controller, answer};
use crate::names;
use crate::waiting::{api_status, until};
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use std::collections::HashMap;
use tokio::time::Instant;
use tonic::{Code, Status};
use weft_crds::Volume;
use weft_csi_proto as csi;

impl Controller {
    pub(super) async fn create(
        &self,
        request: csi::CreateVolumeRequest,
        end: Instant,
    ) -> Result<csi::Volume, Status> {
        let wanted = Wanted::parse(request)?;
        let _guard = self.locks.take(&wanted.object)?;
        let (volume, made) = match self.get_volume(&wanted.object).await? {
            Some(volume) => (volume, false),
            None => self.make(&wanted).await?,
        };
        if !made {
            wanted.compare(&volume)?;
        }
        self.await_ready(&wanted.object, end).await
    }

    async fn make(&self, wanted: &Wanted) -> Result<(Volume, bool), Status> {
        let pool = &wanted.parameters.pool;
        let known = self.pools.get_opt(pool).await;
        if known
            .map_err(|e| api_status("cannot read the pool", &e))?
            .is_none()
        {
            return Err(Status::invalid_argument(format!(
                "there is no Pool {pool}: make one (kubectl get pools.weft.storage lists those \
                 there are), or name another in the StorageClass"
            )));
        }
        match self
            .volumes
            .create(&PostParams::default(), &wanted.object()?)
            .await
        {
            Ok(volume) => Ok((volume, true)),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let volume = self.get_volume(&wanted.object).await?;
                let gone = || Status::aborted(format!("volume {} was just deleted", wanted.object));
                Ok((volume.ok_or_else(gone)?, false))
            }
            Err(error) => Err(api_status("the volume is refused", &error)),
        }
    }

    async fn await_ready(&self, name: &str, end: Instant) -> Result<csi::Volume, Status> {
        let settled = |volume: Option<&Volume>| volume.is_none_or(|v| judge(v) != Verdict::Wait);
        match until(&self.volumes, name, end, settled).await {
            Some(Some(volume)) => match judge(&volume) {
                Verdict::Refuse(code) => Err(self.refuse(&volume, code).await),
                _ => Ok(describe(&volume)),
            },
            Some(None) => Err(Status::aborted(format!(
                "volume {name} was deleted meanwhile"
            ))),
            None => {
                let why = self
                    .get_volume(name)
                    .await?
                    .as_ref()
                    .map(message)
                    .unwrap_or_default();
                Err(Status::deadline_exceeded(format!(
                    "volume {name} is not Ready yet: {why}"
                )))
            }
        }
    }

    /// Takes back a Volume that was never placed, so that a claim deleted meanwhile leaves
    /// nothing behind; a repeated call makes it anew.
    async fn refuse(&self, volume: &Volume, code: Code) -> Status {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let unplaced = volume.status.as_ref().is_none_or(|s| s.members.is_empty());
        if code != Code::Internal && unplaced {
            // Only exactly the object that was judged.
            let same = Preconditions {
                uid: volume.metadata.uid.clone(),
                resource_version: volume.metadata.resource_version.clone(),
            };
            let parameters = DeleteParams {
                preconditions: Some(same),
                ..Default::default()
            };
            if let Err(error) = self.volumes.delete(name, &parameters).await {
                tracing::warn!(volume = name, %error, "refused volume stays until the next call");
            }
        }
        Status::new(code, message(volume))
    }

    pub(super) async fn delete(&self, name: &str, end: Instant) -> Result<(), Status> {
        if name.is_empty() {
            return Err(Status::invalid_argument("volume id is missing"));
        }
        // What cannot be a name cannot be a volume, and an unknown volume is deleted already.
        if !names::is_object_name(name) {
            return Ok(());
        }
        let _guard = self.locks.take(name)?;
        let Some(volume) = self.get_volume(name).await? else {
            return Ok(());
        };
        let attached = self.attachments_of(name).await?;
        if let Some(attachment) = attached.first() {
            return Err(Status::failed_precondition(format!(
                "volume {name} is attached to node {}: it is deleted when Attachment {} is gone",
                attachment.spec.node,
                attachment.metadata.name.as_deref().unwrap_or_default(),
            )));
        }
        // The admission policy refuses while a host is listed, and the list is a moment behind
        // the last Attachment.
        let unlisted = |now: Option<&Volume>| {
            now.and_then(|v| v.status.as_ref())
                .is_none_or(|status| status.hosts.is_empty())
        };
        if !unlisted(Some(&volume)) {
            until(&self.volumes, name, end, unlisted).await;
        }
        match self.volumes.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            // The policy: attached since the look above.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
                return Err(Status::failed_precondition(status.message.clone()));
            }
            Err(error) => return Err(api_status("cannot delete the volume", &error)),
        }
        // Another object of the same name is another volume.
        let gone = |now: Option<&Volume>| now.is_none_or(|v| v.metadata.uid != volume.metadata.uid);
        match until(&self.volumes, name, end, gone).await {
            Some(_) => Ok(()),
            None => {
                let why = self
                    .get_volume(name)
                    .await?
                    .as_ref()
                    .map(message)
                    .unwrap_or_default();
                Err(Status::deadline_exceeded(format!(
                    "volume {name} is being deleted: {why}"
                )))
            }
        }
    }

    pub(super) async fn list(
        &self,
        request: &csi::ListVolumesRequest,
    ) -> Result<csi::ListVolumesResponse, Status> {
        let limit = u32::try_from(request.max_entries)
            .map_err(|_| Status::invalid_argument("max_entries is negative"))?;
        let token = Some(request.starting_token.clone()).filter(|token| !token.is_empty());
        let parameters = ListParams {
            limit: Some(limit).filter(|limit| *limit > 0),
            continue_token: token.clone(),
            ..Default::default()
        };
        let volumes = match self.volumes.list(&parameters).await {
            Ok(volumes) => volumes,
            // The token is the API server's own: malformed (400) or too old (410).
            Err(kube::Error::Api(status))
                if token.is_some() && matches!(status.code, 400 | 410) =>
            {
                return Err(Status::aborted(
                    "starting_token is not valid (any more): list anew",
                ));
            }
            Err(error) => return Err(api_status("cannot list volumes", &error)),
        };
        let nodes = self.published_nodes().await?;
        let entry = |volume: &Volume| {
            let described = describe(volume);
            let published_node_ids = nodes.get(&described.volume_id).cloned().unwrap_or_default();
            csi::list_volumes_response::Entry {
                volume: Some(described),
                status: Some(csi::list_volumes_response::VolumeStatus { published_node_ids }),
            }
        };
        Ok(csi::ListVolumesResponse {
            entries: volumes.items.iter().map(entry).collect(),
            next_token: volumes.metadata.continue_.unwrap_or_default(),
        })
    }

    pub(super) async fn get(&self, name: &str) -> Result<csi::ControllerGetVolumeResponse, Status> {
        let volume = self.known_volume(name).await?;
        let attached = self.attachments_of(name).await?;
        let published_node_ids = attached.into_iter().map(|a| a.spec.node).collect();
        let status = csi::controller_get_volume_response::VolumeStatus { published_node_ids };
        Ok(csi::ControllerGetVolumeResponse {
            volume: Some(describe(&volume)),
            status: Some(status),
        })
    }

    async fn published_nodes(&self) -> Result<HashMap<String, Vec<String>>, Status> {
        let all = self.attachments.list(&ListParams::default()).await;
        let all = all.map_err(|error| api_status("cannot list attachments", &error))?;
        let mut nodes: HashMap<String, Vec<String>> = HashMap::new();
        for attachment in all.items {
            nodes
                .entry(attachment.spec.volume)
                .or_default()
                .push(attachment.spec.node);
        }
        Ok(nodes)
    }

    async fn get_volume(&self, name: &str) -> Result<Option<Volume>, Status> {
        self.volumes
            .get_opt(name)
            .await
            .map_err(|e| api_status("cannot read the volume", &e))
    }

    /// The Volume of an id, or NOT_FOUND.
    pub(super) async fn known_volume(&self, name: &str) -> Result<Volume, Status> {
        if name.is_empty() {
            return Err(Status::invalid_argument("volume id is missing"));
        }
        let volume = match names::is_object_name(name) {
            true => self.get_volume(name).await?,
            false => None,
        };
        volume.ok_or_else(|| answer::unknown_volume(name))
    }
}
