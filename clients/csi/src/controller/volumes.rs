//! CreateVolume and DeleteVolume.
//!
//! The Volume object is the only memory: a call that was cut off is repeated by the
//! provisioner with the same name, and finds the object that the first one made.

use super::parameters::{self, Parameters};
use super::{Controller, answer};
use crate::waiting::{api_status, until};
use crate::{capabilities, names, size};
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use std::collections::HashMap;
use tokio::time::Instant;
use tonic::{Code, Status};
use weft_crds::{Phase, Volume, VolumeSpec};
use weft_csi_proto as csi;

/// Annotation with the name by which CSI asked for the volume.
const CSI_NAME: &str = "weft.storage/csi-name";
/// Annotation with the attach choice of the class.
const ATTACH: &str = "weft.storage/attach";

/// What CreateVolume asks for.
struct Wanted {
    csi_name: String,
    object: String,
    parameters: Parameters,
    range: Option<csi::CapacityRange>,
}

impl Wanted {
    fn parse(request: csi::CreateVolumeRequest) -> Result<Self, Status> {
        if request.name.is_empty() {
            return Err(Status::invalid_argument("name is missing"));
        }
        capabilities::check_all(&request.volume_capabilities)?;
        if request.volume_content_source.is_some() {
            return Err(Status::invalid_argument(
                "a volume from a snapshot or from another volume cannot be made in this version: \
                 leave dataSource out of the claim",
            ));
        }
        if !request.mutable_parameters.is_empty() {
            return Err(Status::invalid_argument(
                "volumes cannot be modified in this version: leave volumeAttributesClassName out",
            ));
        }
        Ok(Self {
            object: names::volume(&request.name),
            csi_name: request.name,
            parameters: Parameters::parse(&request.parameters)?,
            range: request.capacity_range,
        })
    }

    fn object(&self) -> Result<Volume, Status> {
        let bytes = size::choose(self.range.as_ref())?;
        let spec = VolumeSpec {
            uid: None,
            pool: self.parameters.pool.clone(),
            size: size::quantity(bytes),
            replicas: self.parameters.replicas,
            on_no_data: Default::default(),
        };
        let mut volume = Volume::new(&self.object, spec);
        let attach = parameters::attach_word(self.parameters.attach);
        let annotations = [(CSI_NAME, self.csi_name.as_str()), (ATTACH, attach)];
        volume.metadata.annotations = Some(
            annotations
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        );
        Ok(volume)
    }

    /// Whether an object of that name is what is asked for.
    fn compare(&self, volume: &Volume) -> Result<(), Status> {
        let differs = |what: &str| {
            Err(Status::already_exists(format!(
                "volume {} exists with another {what}: delete it, or use another name",
                self.object
            )))
        };
        if volume.metadata.deletion_timestamp.is_some() {
            return Err(Status::aborted(format!(
                "volume {} is being deleted",
                self.object
            )));
        }
        if annotation(volume, CSI_NAME) != Some(&self.csi_name) {
            return differs("origin");
        }
        let bytes = size::bytes(&volume.spec.size).unwrap_or(0);
        if !size::fits(bytes, self.range.as_ref())? {
            return differs("size");
        }
        if volume.spec.pool != self.parameters.pool {
            return differs("pool");
        }
        if volume.spec.replicas != self.parameters.replicas {
            return differs("number of replicas");
        }
        if annotation(volume, ATTACH) != Some(parameters::attach_word(self.parameters.attach)) {
            return differs("attach choice");
        }
        Ok(())
    }
}

fn annotation<'a>(volume: &'a Volume, key: &str) -> Option<&'a str> {
    volume
        .metadata
        .annotations
        .as_ref()?
        .get(key)
        .map(String::as_str)
}

/// A Volume as CSI describes it, the same at every call.
pub fn describe(volume: &Volume) -> csi::Volume {
    let attach = annotation(volume, ATTACH)
        .map(|word| HashMap::from([(parameters::ATTACH.to_owned(), word.to_owned())]));
    csi::Volume {
        volume_id: volume.metadata.name.clone().unwrap_or_default(),
        capacity_bytes: size::bytes(&volume.spec.size)
            .and_then(|bytes| i64::try_from(bytes).ok())
            .unwrap_or(0),
        volume_context: attach.unwrap_or_default(),
        ..Default::default()
    }
}

/// What to make of a new Volume as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Ready,
    Wait,
    /// It cannot become Ready as it is: the answer, and whether the object is of any use.
    Refuse(Code),
}

fn judge(volume: &Volume) -> Verdict {
    let Some(status) = &volume.status else {
        return Verdict::Wait;
    };
    let reason = status
        .conditions
        .iter()
        .find(|c| c.type_ == "Ready")
        .map(|c| c.reason.as_str());
    match (status.phase, reason) {
        (Phase::Ready | Phase::Degraded, _) => Verdict::Ready,
        (Phase::Pending, Some("NotEnoughCapacity")) => Verdict::Refuse(Code::ResourceExhausted),
        (Phase::Pending, Some("UnknownPool")) => Verdict::Refuse(Code::InvalidArgument),
        (Phase::Failed, _) => Verdict::Refuse(Code::Internal),
        _ => Verdict::Wait,
    }
}

/// What the Volume itself says about why it is not Ready.
fn message(volume: &Volume) -> String {
    let status = volume.status.as_ref();
    status
        .and_then(|status| status.conditions.iter().find(|c| c.type_ == "Ready"))
        .map(|condition| condition.message.clone())
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| {
            "the operator has not looked at it yet: kubectl -n weft-system get pods".to_owned()
        })
}

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
        match self.volumes.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            // The admission policy: attached since the look above, or not yet seen detached.
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

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use weft_crds::VolumeStatus;
    use weft_csi_proto::volume_capability::access_mode::Mode;
    use weft_csi_proto::volume_capability::{AccessMode, AccessType, BlockVolume};

    fn request() -> csi::CreateVolumeRequest {
        csi::CreateVolumeRequest {
            name: "pvc-1".to_owned(),
            capacity_range: Some(csi::CapacityRange {
                required_bytes: 5 << 20,
                limit_bytes: 0,
            }),
            volume_capabilities: vec![csi::VolumeCapability {
                access_mode: Some(AccessMode {
                    mode: Mode::SingleNodeWriter.into(),
                }),
                access_type: Some(AccessType::Block(BlockVolume {})),
            }],
            parameters: HashMap::from([("pool".to_owned(), "fast".to_owned())]),
            ..Default::default()
        }
    }

    fn wanted(change: impl Fn(&mut csi::CreateVolumeRequest)) -> Wanted {
        let mut request = request();
        change(&mut request);
        Wanted::parse(request).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_volume_carries_what_was_asked_for_and_describes_it() {
        let volume = wanted(|_| {}).object().unwrap();
        assert_eq!(volume.spec.size.0, "5Mi");
        let described = describe(&volume);
        assert_eq!(described.volume_id, "pvc-1");
        assert_eq!(described.capacity_bytes, 5 << 20);
        assert_eq!(described.volume_context["attach"], "Auto");
    }

    #[test]
    fn a_repeated_call_must_ask_for_the_same() {
        let volume = wanted(|_| {}).object().unwrap();
        wanted(|_| {}).compare(&volume).unwrap();
        let set = |key: &'static str, value: &'static str| {
            move |r: &mut csi::CreateVolumeRequest| {
                r.parameters.insert(key.to_owned(), value.to_owned());
            }
        };
        let others = [
            wanted(|r| {
                r.capacity_range = Some(csi::CapacityRange {
                    required_bytes: 9 << 20,
                    limit_bytes: 0,
                })
            }),
            wanted(set("pool", "slow")),
            wanted(set("replicas", "2")),
            wanted(set("attach", "Kernel")),
        ];
        for other in others {
            assert_eq!(
                other.compare(&volume).unwrap_err().code(),
                Code::AlreadyExists
            );
        }
        let mut by_hand = volume.clone();
        by_hand.metadata.annotations = None;
        assert_eq!(
            wanted(|_| {}).compare(&by_hand).unwrap_err().code(),
            Code::AlreadyExists
        );
    }

    #[test]
    fn what_cannot_be_made_is_refused_before_anything_is_written() {
        let refused = |change: &dyn Fn(&mut csi::CreateVolumeRequest)| {
            let mut request = request();
            change(&mut request);
            assert_eq!(
                Wanted::parse(request).err().unwrap().code(),
                Code::InvalidArgument
            );
        };
        refused(&|r| r.name.clear());
        refused(&|r| r.volume_capabilities.clear());
        refused(&|r| r.parameters.clear());
        refused(&|r| r.volume_content_source = Some(csi::VolumeContentSource::default()));
        refused(&|r| _ = r.mutable_parameters.insert("a".to_owned(), "b".to_owned()));
    }

    #[test]
    fn a_volume_is_waited_for_or_refused_by_what_it_says() {
        let volume = |phase: Phase, reason: &str| {
            let condition = Condition {
                type_: "Ready".to_owned(),
                status: "False".to_owned(),
                reason: reason.to_owned(),
                message: String::new(),
                last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
                observed_generation: None,
            };
            let mut volume = wanted(|_| {}).object().unwrap();
            volume.status = Some(VolumeStatus {
                phase,
                conditions: vec![condition],
                ..Default::default()
            });
            volume
        };
        let table = [
            (Phase::Pending, "EngineStarting", Verdict::Wait),
            (Phase::Pending, "NoReadyDrive", Verdict::Wait),
            (
                Phase::Pending,
                "NotEnoughCapacity",
                Verdict::Refuse(Code::ResourceExhausted),
            ),
            (
                Phase::Pending,
                "UnknownPool",
                Verdict::Refuse(Code::InvalidArgument),
            ),
            (Phase::Ready, "Serving", Verdict::Ready),
            (Phase::Degraded, "MemberStale", Verdict::Ready),
            (Phase::Paused, "NodeNotReady", Verdict::Wait),
            (Phase::Failed, "Any", Verdict::Refuse(Code::Internal)),
        ];
        for (phase, reason, expected) in table {
            assert_eq!(judge(&volume(phase, reason)), expected, "{phase} {reason}");
        }
        assert_eq!(judge(&wanted(|_| {}).object().unwrap()), Verdict::Wait);
        assert!(message(&wanted(|_| {}).object().unwrap()).contains("operator"));
    }
}
