//! ControllerPublishVolume and ControllerUnpublishVolume: one Attachment made or deleted.
//!
//! An Attachment is what admits a node at the engine, so publishing waits only for the
//! admission; the node connects in NodeStageVolume. Unpublishing waits until the operator has
//! taken the right back and removed the object, which it does only after the engine (or, when
//! that does not answer, a new term) refuses the node.

use super::parameters::{ATTACH, parse_attach};
use super::{Controller, answer};
use crate::waiting::{api_status, until};
use crate::{capabilities, names};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use tokio::time::Instant;
use tonic::Status;
use weft_crds::attachment::{Access, AttachmentPhase, InitiatorChoice};
use weft_crds::{Attachment, AttachmentSpec};
use weft_csi_proto as csi;

/// Key of the publish context: the name of the Attachment and nothing else, so that an engine
/// may move while a volume is published.
pub const ATTACHMENT: &str = "attachment";

/// What to do about a wish to attach, seeing the Attachments that the volume has.
#[derive(Debug, PartialEq)]
enum Plan {
    Create,
    Await,
}

fn plan(wanted: &Attachment, present: &[Attachment]) -> Result<Plan, Status> {
    let name = wanted.name_any();
    let volume = &wanted.spec.volume;
    if let Some(other) = present.iter().find(|a| a.spec.node != wanted.spec.node) {
        return Err(Status::failed_precondition(format!(
            "volume {volume} is attached to node {} (Attachment {}): it can be attached to node \
             {} when that is gone",
            other.spec.node,
            other.name_any(),
            wanted.spec.node,
        )));
    }
    let Some(same) = present.first() else {
        return Ok(Plan::Create);
    };
    if same.name_any() != name {
        return Err(Status::failed_precondition(format!(
            "volume {volume} was attached to node {} by hand: delete Attachment {} first",
            same.spec.node,
            same.name_any(),
        )));
    }
    if same.metadata.deletion_timestamp.is_some() {
        return Err(Status::aborted(format!(
            "Attachment {name} is being deleted"
        )));
    }
    if same.spec.read_only != wanted.spec.read_only {
        let word = |read_only| {
            if read_only {
                "read-only"
            } else {
                "for writing"
            }
        };
        return Err(Status::already_exists(format!(
            "volume {volume} is attached to node {} {}, not {}: detach it first",
            same.spec.node,
            word(same.spec.read_only),
            word(wanted.spec.read_only),
        )));
    }
    Ok(Plan::Await)
}

fn is_admitted(attachment: &Attachment) -> bool {
    let phase = attachment.status.as_ref().and_then(|status| status.phase);
    matches!(
        phase,
        Some(AttachmentPhase::Admitted | AttachmentPhase::Attached)
    )
}

fn message(attachment: &Attachment) -> String {
    let conditions = attachment.status.as_ref().map(|s| s.conditions.as_slice());
    conditions
        .unwrap_or_default()
        .iter()
        .find(|c| c.status != "True" && !c.message.is_empty())
        .map_or_else(
            || "the operator has not said why".to_owned(),
            |c| c.message.clone(),
        )
}

impl Controller {
    pub(super) async fn publish(
        &self,
        request: csi::ControllerPublishVolumeRequest,
        end: Instant,
    ) -> Result<String, Status> {
        if request.node_id.is_empty() {
            return Err(Status::invalid_argument("node id is missing"));
        }
        let usage = capabilities::check(request.volume_capability.as_ref())?;
        let volume = self.known_volume(&request.volume_id).await?;
        let _guard = self.locks.take(&request.volume_id)?;
        let node = self.nodes.get_opt(&request.node_id).await;
        if node
            .map_err(|e| api_status("cannot read the node", &e))?
            .is_none()
        {
            return Err(Status::not_found(format!(
                "there is no node {}",
                request.node_id
            )));
        }
        let choice = request
            .volume_context
            .get(ATTACH)
            .map(|word| parse_attach(word));
        let bad = || Status::invalid_argument("attach in the volume context is not known");
        let initiator = choice.map_or(Ok(InitiatorChoice::Auto), |c| c.ok_or_else(bad))?;
        let name = names::attachment(&request.volume_id, &request.node_id);
        let spec = AttachmentSpec {
            volume: volume.name_any(),
            node: request.node_id,
            access: Access::ReadWriteOnce,
            read_only: request.readonly || usage.read_only,
            initiator,
        };
        let wanted = Attachment::new(&name, spec);
        if plan(&wanted, &self.attachments_of(&request.volume_id).await?)? == Plan::Create {
            match self
                .attachments
                .create(&PostParams::default(), &wanted)
                .await
            {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    return Err(Status::aborted(format!("Attachment {name} was just made")));
                }
                Err(error) => return Err(api_status("the attachment is refused", &error)),
            }
        }
        self.await_admitted(&name, end).await?;
        Ok(name)
    }

    async fn await_admitted(&self, name: &str, end: Instant) -> Result<(), Status> {
        let settled = |a: Option<&Attachment>| {
            a.is_none_or(|a| is_admitted(a) || a.metadata.deletion_timestamp.is_some())
        };
        match until(&self.attachments, name, end, settled).await {
            Some(Some(attachment)) if attachment.metadata.deletion_timestamp.is_none() => Ok(()),
            Some(_) => Err(Status::aborted(format!(
                "Attachment {name} was deleted meanwhile"
            ))),
            None => {
                let now = self.attachments.get_opt(name).await;
                let now = now.map_err(|e| api_status("cannot read the attachment", &e))?;
                let why = now.as_ref().map(message).unwrap_or_default();
                Err(Status::deadline_exceeded(format!(
                    "Attachment {name} is not admitted yet: {why}"
                )))
            }
        }
    }

    pub(super) async fn unpublish(
        &self,
        volume: &str,
        node: &str,
        end: Instant,
    ) -> Result<(), Status> {
        if volume.is_empty() {
            return Err(Status::invalid_argument("volume id is missing"));
        }
        if !names::is_object_name(volume) {
            return Ok(());
        }
        let _guard = self.locks.take(volume)?;
        let present = self.attachments_of(volume).await?;
        // An empty node id means every node.
        let leaving: Vec<_> = present
            .iter()
            .filter(|a| node.is_empty() || a.spec.node == node)
            .collect();
        for attachment in &leaving {
            let deleted = self
                .attachments
                .delete(&attachment.name_any(), &DeleteParams::default())
                .await;
            match deleted {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                other => {
                    other.map_err(|error| api_status("cannot delete the attachment", &error))?;
                }
            }
        }
        for attachment in leaving {
            self.await_gone(attachment, end).await?;
        }
        Ok(())
    }

    async fn await_gone(&self, attachment: &Attachment, end: Instant) -> Result<(), Status> {
        let name = attachment.name_any();
        let gone = |now: Option<&Attachment>| {
            now.is_none_or(|a| a.metadata.uid != attachment.metadata.uid)
        };
        if until(&self.attachments, &name, end, gone).await.is_some() {
            return Ok(());
        }
        let now = self.attachments.get_opt(&name).await;
        let now = now.map_err(|e| api_status("cannot read the attachment", &e))?;
        let why = now.as_ref().map(message).unwrap_or_default();
        Err(Status::deadline_exceeded(format!(
            "Attachment {name} is being taken back: {why}"
        )))
    }

    /// The Attachments of a volume, as the API server has them now.
    pub(super) async fn attachments_of(&self, volume: &str) -> Result<Vec<Attachment>, Status> {
        let of_volume = ListParams::default().fields(&format!("spec.volume={volume}"));
        let found = self.attachments.list(&of_volume).await;
        Ok(found
            .map_err(|error| api_status("cannot list attachments", &error))?
            .items)
    }

    pub(super) async fn validate(
        &self,
        request: csi::ValidateVolumeCapabilitiesRequest,
    ) -> Result<csi::ValidateVolumeCapabilitiesResponse, Status> {
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume capabilities are missing"));
        }
        self.known_volume(&request.volume_id).await?;
        Ok(answer::validated(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn attachment(name: &str, node: &str, read_only: bool) -> Attachment {
        let spec = AttachmentSpec {
            volume: "db-0".to_owned(),
            node: node.to_owned(),
            access: Access::ReadWriteOnce,
            read_only,
            initiator: InitiatorChoice::Auto,
        };
        Attachment::new(name, spec)
    }

    #[test]
    fn a_volume_is_attached_to_one_node_in_one_way() {
        let wanted = attachment("db-0-n1", "n1", false);
        let mut leaving = wanted.clone();
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        );
        leaving.metadata.deletion_timestamp = Some(now);
        let table = [
            (vec![], Ok(Plan::Create)),
            (vec![wanted.clone()], Ok(Plan::Await)),
            (
                vec![attachment("db-0-n1", "n1", true)],
                Err(Code::AlreadyExists),
            ),
            (
                vec![attachment("mine", "n1", false)],
                Err(Code::FailedPrecondition),
            ),
            (
                vec![attachment("db-0-n2", "n2", false)],
                Err(Code::FailedPrecondition),
            ),
            (
                vec![wanted.clone(), attachment("b", "n2", true)],
                Err(Code::FailedPrecondition),
            ),
            (vec![leaving], Err(Code::Aborted)),
        ];
        for (present, expected) in table {
            let planned = plan(&wanted, &present).map_err(|status| status.code());
            assert_eq!(planned, expected, "{present:?}");
        }
    }

    #[test]
    fn the_node_that_holds_a_volume_is_named() {
        let wanted = attachment("db-0-n1", "n1", false);
        let error = plan(&wanted, &[attachment("db-0-n2", "n2", false)]).unwrap_err();
        assert!(error.message().contains("node n2"), "{error}");
    }

    #[test]
    fn only_an_admitted_attachment_is_published() {
        let mut attachment = attachment("a", "n1", false);
        assert!(!is_admitted(&attachment));
        for (phase, admitted) in [
            (AttachmentPhase::Pending, false),
            (AttachmentPhase::Admitted, true),
            (AttachmentPhase::Attached, true),
            (AttachmentPhase::Detaching, false),
        ] {
            attachment.status = Some(weft_crds::AttachmentStatus {
                phase: Some(phase),
                ..Default::default()
            });
            assert_eq!(is_admitted(&attachment), admitted, "{phase}");
        }
    }
}
