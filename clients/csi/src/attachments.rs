//! The Attachments of this node: one watch, what it last saw, and what is reported back.

use crate::waiting::{api_status, until};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;
use weft_crds::Attachment;
use weft_crds::attachment::{Initiator, Observed};
use weft_spec::ids::{Term, VolumeUid};
use weft_spec::initiator::VolumePath;
use weft_spec::nqn::{self, HostNqn};

/// Field manager of everything that the node plugin writes.
const MANAGER: &str = "weft-csi-node";
/// Label of a Node that says whether its kernel has an NVMe/TCP initiator.
const LABEL: &str = "weft.storage/nvme-tcp";
/// Key of the host's name in an attachment's Secret.
const HOST_NQN: &str = "host-nqn";

/// An Attachment that can be connected to, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    /// Name of the Attachment.
    pub name: String,
    /// Identity of the volume.
    pub uid: VolumeUid,
    /// Where the engine is.
    pub path: VolumePath,
    /// NQN of the volume's subsystem.
    pub subsystem: String,
    /// How to connect.
    pub way: Way,
    /// The engine refuses writes.
    pub read_only: bool,
    /// What this plugin reported last.
    pub observed: Observed,
}

/// How a node connects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// By the kernel's initiator.
    Kernel {
        /// Identifier that goes with the host's name.
        host_id: Uuid,
        /// Secret with the host's name.
        secret: String,
    },
    /// By the user-space initiator in this pod.
    UserSpace {
        /// Its name.
        pod: String,
    },
}

impl Way {
    /// The word for it in the API.
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Kernel { .. } => Initiator::Kernel,
            Self::UserSpace { .. } => Initiator::UserSpace,
        }
    }
}

impl Admission {
    /// What an Attachment admits, once everything that a connection needs is in it.
    pub fn of(attachment: &Attachment) -> Option<Self> {
        if attachment.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let status = attachment.status.as_ref()?;
        let subsystem = status.subsystem_nqn.clone()?;
        let address: SocketAddr = status.address.as_ref()?.parse().ok()?;
        let term = Term(u64::try_from(status.term?).ok()?);
        let way = match status.initiator? {
            Initiator::Kernel => Way::Kernel {
                host_id: status.host_id.as_ref()?.parse().ok()?,
                secret: status.secret_name.clone()?,
            },
            Initiator::UserSpace => Way::UserSpace {
                pod: status.initiator_pod.clone()?,
            },
        };
        Some(Self {
            name: attachment.name_any(),
            uid: nqn::parse_volume(&subsystem)?,
            path: VolumePath { term, address },
            subsystem,
            way,
            read_only: attachment.spec.read_only,
            observed: status.observed.clone().unwrap_or_default(),
        })
    }
}

/// The Attachments of one node.
#[derive(Clone)]
pub struct Attachments {
    node: String,
    attachments: Api<Attachment>,
    secrets: Api<Secret>,
    nodes: Api<Node>,
    seen: Store<Attachment>,
}

/// Feeds [`Attachments`] with what the watch brings; has to be run.
pub type Changes = std::pin::Pin<Box<dyn Stream<Item = Attachment> + Send>>;

impl Attachments {
    /// Of this node; Secrets are in this namespace. The stream brings each Attachment of the
    /// node, at first all of them and then those that change, for ever.
    pub fn new(client: &Client, node: &str, namespace: &str) -> (Self, Changes) {
        let attachments: Api<Attachment> = Api::all(client.clone());
        let (seen, writer) = reflector::store();
        let of_node = watcher::Config::default().fields(&format!("spec.node={node}"));
        let changes = watcher(attachments.clone(), of_node)
            .default_backoff()
            .reflect(writer)
            .applied_objects()
            .filter_map(|change| async {
                change
                    .inspect_err(|error| tracing::warn!(%error, "watch is repeated"))
                    .ok()
            });
        let this = Self {
            node: node.to_owned(),
            attachments,
            secrets: Api::namespaced(client.clone(), namespace),
            nodes: Api::all(client.clone()),
            seen,
        };
        (this, changes.boxed())
    }

    /// Name of the node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What the watch last saw under a name.
    pub fn seen(&self, name: &str) -> Option<Arc<Attachment>> {
        self.seen.get(&ObjectRef::new(name))
    }

    /// What is there under a name now, by the API server.
    pub async fn get(&self, name: &str) -> Result<Option<Attachment>, Status> {
        self.attachments
            .get_opt(name)
            .await
            .map_err(|e| api_status("cannot read the attachment", &e))
    }

    /// Waits until an Attachment can be connected to.
    pub async fn admitted(
        &self,
        name: &str,
        volume: &str,
        end: Instant,
    ) -> Result<Admission, Status> {
        let settled = |a: Option<&Attachment>| {
            a.is_none_or(|a| {
                a.metadata.deletion_timestamp.is_some()
                    || a.spec.node != self.node
                    || Admission::of(a).is_some()
            })
        };
        let Some(found) = until(&self.attachments, name, end, settled).await else {
            return Err(Status::deadline_exceeded(format!(
                "Attachment {name} has no engine to connect to yet: see kubectl describe \
                 attachments.weft.storage {name}"
            )));
        };
        let gone = || {
            Status::failed_precondition(format!(
                "there is no Attachment {name} (any more): the volume has to be attached again"
            ))
        };
        let attachment = found.ok_or_else(gone)?;
        if attachment.spec.node != self.node || attachment.spec.volume != volume {
            return Err(Status::invalid_argument(format!(
                "Attachment {name} gives volume {} to node {}, not volume {volume} to node {}",
                attachment.spec.volume, attachment.spec.node, self.node,
            )));
        }
        Admission::of(&attachment).ok_or_else(gone)
    }

    /// How this host calls itself at the engine.
    pub async fn host_nqn(&self, secret: &str) -> Result<HostNqn, Status> {
        let found = self.secrets.get(secret).await;
        let found = found.map_err(|e| api_status("cannot read the attachment's Secret", &e))?;
        let bytes = found.data.and_then(|mut data| data.remove(HOST_NQN));
        let text = bytes.and_then(|bytes| String::from_utf8(bytes.0).ok());
        text.map(|text| HostNqn::from_wire(text.trim()))
            .ok_or_else(|| {
                Status::internal(format!(
                    "Secret {secret} has no {HOST_NQN}: delete it to have it made again"
                ))
            })
    }

    /// Writes what is observed of an Attachment. One that is gone has nothing to be told.
    pub async fn report(&self, name: &str, observed: &Observed) -> Result<(), Status> {
        let patch = json!({
            "apiVersion": format!("{}/{}", weft_crds::GROUP, weft_crds::VERSION),
            "kind": "Attachment",
            "metadata": {"name": name},
            "status": {"observed": observed},
        });
        // Applying to an object that does not exist is refused for a subresource, so this
        // never makes one.
        let parameters = PatchParams::apply(MANAGER).force();
        match self
            .attachments
            .patch_status(name, &parameters, &Patch::Apply(patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(api_status("cannot report what is staged", &error)),
        }
    }

    /// Says on this Node whether its kernel can connect over TCP.
    pub async fn label_node(&self, has_kernel_initiator: bool) -> Result<(), kube::Error> {
        let patch = json!({"metadata": {"labels": {LABEL: has_kernel_initiator.to_string()}}});
        let parameters = PatchParams {
            field_manager: Some(MANAGER.into()),
            ..Default::default()
        };
        self.nodes
            .patch_metadata(&self.node, &parameters, &Patch::Merge(patch))
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_crds::{AttachmentSpec, AttachmentStatus};

    fn attachment(change: impl FnOnce(&mut AttachmentStatus)) -> Attachment {
        let spec = AttachmentSpec {
            volume: "db-0".to_owned(),
            node: "n1".to_owned(),
            access: Default::default(),
            read_only: false,
            initiator: Default::default(),
        };
        let mut status = AttachmentStatus {
            address: Some("10.0.0.1:4420".to_owned()),
            term: Some(3),
            subsystem_nqn: Some(nqn::volume(VolumeUid(Uuid::from_u128(7)))),
            host_id: Some(Uuid::from_u128(8).to_string()),
            secret_name: Some("s".to_owned()),
            initiator: Some(Initiator::Kernel),
            initiator_pod: Some("p".to_owned()),
            ..Default::default()
        };
        change(&mut status);
        let mut attachment = Attachment::new("db-0-n1", spec);
        attachment.status = Some(status);
        attachment
    }

    #[test]
    fn an_admission_has_all_that_a_connection_needs() {
        let kernel = Admission::of(&attachment(|_| {})).unwrap();
        assert_eq!(kernel.uid, VolumeUid(Uuid::from_u128(7)));
        assert_eq!(kernel.path.term, Term(3));
        assert_eq!(kernel.way.initiator(), Initiator::Kernel);
        let user = attachment(|status| status.initiator = Some(Initiator::UserSpace));
        let way = Admission::of(&user).unwrap().way;
        assert_eq!(
            way,
            Way::UserSpace {
                pod: "p".to_owned()
            }
        );
    }

    #[test]
    fn an_attachment_without_one_of_them_is_waited_for() {
        let lacking: [fn(&mut AttachmentStatus); 7] = [
            |s| s.address = None,
            |s| s.address = Some("somewhere".to_owned()),
            |s| s.term = None,
            |s| s.subsystem_nqn = Some("nqn.other".to_owned()),
            |s| s.host_id = None,
            |s| s.secret_name = None,
            |s| s.initiator = None,
        ];
        for change in lacking {
            assert_eq!(Admission::of(&attachment(change)), None);
        }
        assert_eq!(
            Admission::of(&attachment(|s| {
                s.initiator = Some(Initiator::UserSpace);
                s.initiator_pod = None;
            })),
            None
        );
    }
}
