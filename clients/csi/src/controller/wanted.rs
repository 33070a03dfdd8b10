//! What CreateVolume asks for, and what a Volume says about itself. Pure.

use super::parameters::{self, Parameters};
use crate::{capabilities, names, size};
use std::collections::HashMap;
use tonic::{Code, Status};
use weft_crds::{Phase, Volume, VolumeSpec};
use weft_csi_proto as csi;

/// Annotation with the name by which CSI asked for the volume.
const CSI_NAME: &str = "weft.storage/csi-name";
/// Annotation with the attach choice of the class.
const ATTACH: &str = "weft.storage/attach";

/// What CreateVolume asks for.
pub struct Wanted {
    csi_name: String,
    /// Name of the Volume object.
    pub object: String,
    /// What the StorageClass says.
    pub parameters: Parameters,
    range: Option<csi::CapacityRange>,
}

impl Wanted {
    /// Checks a request.
    pub fn parse(request: csi::CreateVolumeRequest) -> Result<Self, Status> {
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

    /// The object to make.
    pub fn object(&self) -> Result<Volume, Status> {
        let bytes = size::choose(self.range.as_ref())?;
        let spec = VolumeSpec {
            uid: None,
            pool: self.parameters.pool.clone(),
            size: size::quantity(bytes),
            replicas: self.parameters.replicas,
            evict: Vec::new(),
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
    pub fn compare(&self, volume: &Volume) -> Result<(), Status> {
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
    let served = volume.status.as_ref().and_then(|s| s.size.as_ref());
    let served = size::bytes(served.unwrap_or(&volume.spec.size));
    csi::Volume {
        volume_id: volume.metadata.name.clone().unwrap_or_default(),
        capacity_bytes: served
            .and_then(|bytes| i64::try_from(bytes).ok())
            .unwrap_or(0),
        volume_context: attach.unwrap_or_default(),
        ..Default::default()
    }
}

/// What to make of a new Volume as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It can be used.
    Ready,
    /// Not yet.
    Wait,
    /// It cannot become Ready as it is.
    Refuse(Code),
}

/// Judges a new Volume.
pub fn judge(volume: &Volume) -> Verdict {
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
        (Phase::Pending, Some("NotEnoughCapacity" | "TooFewDomains")) => {
            Verdict::Refuse(Code::ResourceExhausted)
        }
        (Phase::Pending, Some("UnknownPool")) => Verdict::Refuse(Code::InvalidArgument),
        (Phase::Failed, _) => Verdict::Refuse(Code::Internal),
        _ => Verdict::Wait,
    }
}

/// What the Volume itself says about why it is not Ready.
pub fn message(volume: &Volume) -> String {
    let status = volume.status.as_ref();
    status
        .and_then(|status| status.conditions.iter().find(|c| c.type_ == "Ready"))
        .map(|condition| condition.message.clone())
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| {
            "the operator has not looked at it yet: kubectl -n weft-system get pods".to_owned()
        })
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
        let mut by_hand = volume;
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
            (
                Phase::Pending,
                "TooFewDomains",
                Verdict::Refuse(Code::ResourceExhausted),
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
