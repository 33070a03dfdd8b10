//! ControllerExpandVolume: `spec.size` raised, and the engine waited for.
//!
//! The Volume object is the only memory: a call that was cut off is repeated by the resizer and
//! finds the size that the first one has written.

use super::Controller;
use super::wanted::Verdict;
use crate::waiting::{api_status, until};
use crate::{capabilities, size};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;
use tonic::{Code, Status};
use weft_crds::{Phase, Volume};
use weft_csi_proto as csi;

impl Controller {
    pub(super) async fn expand(
        &self,
        request: csi::ControllerExpandVolumeRequest,
        end: Instant,
    ) -> Result<csi::ControllerExpandVolumeResponse, Status> {
        if request.volume_capability.is_some() {
            capabilities::check(request.volume_capability.as_ref())?;
        }
        let range = request.capacity_range.as_ref();
        let needed = size::required(range)?;
        let name = &request.volume_id;
        // Looked for before the lock: what does not exist is no name to lock.
        self.known_volume(name).await?;
        let _guard = self.locks.take(name)?;
        let volume = self.known_volume(name).await?;
        if volume.metadata.deletion_timestamp.is_some() {
            return Err(Status::failed_precondition(format!(
                "volume {name} is being deleted: it does not grow any more"
            )));
        }
        let asked = size::bytes(&volume.spec.size).unwrap_or(0);
        let wanted = size::expanded(range, asked)?;
        if wanted > asked {
            self.raise(&volume, wanted).await?;
        }
        let capacity = self.await_size(name, needed, end).await?;
        Ok(csi::ControllerExpandVolumeResponse {
            capacity_bytes: i64::try_from(capacity).unwrap_or(i64::MAX),
            // A loop device follows only when it is told, and so does a file system.
            node_expansion_required: true,
        })
    }

    /// With the version that was read: somebody else may have raised it further.
    async fn raise(&self, volume: &Volume, bytes: u64) -> Result<(), Status> {
        let patch = json!({
            "metadata": {"resourceVersion": volume.metadata.resource_version},
            "spec": {"size": size::quantity(bytes)},
        });
        let patched = self
            .volumes
            .patch(
                &volume.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await;
        patched
            .map(drop)
            .map_err(|error| api_status("the larger size is refused", &error))
    }

    /// Waits until hosts see so many bytes; gives how many they do.
    async fn await_size(&self, name: &str, needed: u64, end: Instant) -> Result<u64, Status> {
        let settled =
            |volume: Option<&Volume>| volume.is_none_or(|v| judge(v, needed) != Verdict::Wait);
        match until(&self.volumes, name, end, settled).await {
            Some(Some(volume)) => match judge(&volume, needed) {
                Verdict::Refuse(code) => Err(Status::new(code, message(&volume))),
                _ => Ok(served(&volume)),
            },
            Some(None) => Err(Status::not_found(format!(
                "volume {name} was deleted meanwhile"
            ))),
            None => {
                let why = message(&self.known_volume(name).await?);
                Err(Status::deadline_exceeded(format!(
                    "volume {name} has not grown yet: {why}"
                )))
            }
        }
    }
}

/// Bytes that hosts see; 0 before an engine has served.
fn served(volume: &Volume) -> u64 {
    let size = volume.status.as_ref().and_then(|s| s.size.as_ref());
    size.and_then(size::bytes).unwrap_or(0)
}

/// Judges a Volume of which so many bytes are needed.
fn judge(volume: &Volume, needed: u64) -> Verdict {
    if served(volume) >= needed {
        return Verdict::Ready;
    }
    let Some(status) = &volume.status else {
        return Verdict::Wait;
    };
    // What was said of an earlier, smaller wish says nothing of this one.
    let of_this = |c: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        c.type_ == "Expanded" && c.observed_generation == volume.metadata.generation
    };
    let reason = status.conditions.iter().find(of_this);
    match (status.phase, reason.map(|c| c.reason.as_str())) {
        // Room may come: the resizer asks again.
        (_, Some("NoRoom")) => Verdict::Refuse(Code::ResourceExhausted),
        (Phase::Failed, _) => Verdict::Refuse(Code::Internal),
        _ => Verdict::Wait,
    }
}

/// What the Volume says about why it has not grown.
fn message(volume: &Volume) -> String {
    let conditions = volume.status.as_ref().map(|s| s.conditions.as_slice());
    let of = |kind: &str| {
        let found = conditions.unwrap_or_default().iter();
        let mut found = found.filter(|c| c.type_ == kind && c.status != "True");
        found.next().map(|c| c.message.clone())
    };
    of("Expanded")
        .or_else(|| of("Ready"))
        .unwrap_or_else(|| "the operator has not looked at it yet".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use weft_crds::{VolumeSpec, VolumeStatus};

    const MIB: u64 = 1 << 20;

    fn volume(phase: Phase, size: Option<u64>, said: Option<(&str, i64)>) -> Volume {
        let spec: VolumeSpec =
            serde_json::from_value(json!({"pool": "fast", "size": "3Mi"})).unwrap();
        let mut volume = Volume::new("v", spec);
        volume.metadata.generation = Some(2);
        let condition = said.map(|(reason, generation)| Condition {
            type_: "Expanded".to_owned(),
            status: "False".to_owned(),
            reason: reason.to_owned(),
            message: format!("because of {reason}"),
            last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
            observed_generation: Some(generation),
        });
        volume.status = Some(VolumeStatus {
            phase,
            size: size.map(size::quantity),
            conditions: condition.into_iter().collect(),
            ..Default::default()
        });
        volume
    }

    #[test]
    fn a_volume_is_waited_for_until_hosts_see_the_size_or_it_cannot_grow() {
        let refused = Verdict::Refuse(Code::ResourceExhausted);
        let table = [
            (Phase::Ready, Some(MIB), None, Verdict::Wait),
            (Phase::Ready, None, None, Verdict::Wait),
            (Phase::Ready, Some(3 * MIB), None, Verdict::Ready),
            (Phase::Paused, Some(4 * MIB), None, Verdict::Ready),
            (
                Phase::Ready,
                Some(MIB),
                Some(("SliceGrowing", 2)),
                Verdict::Wait,
            ),
            (Phase::Ready, Some(MIB), Some(("NoRoom", 2)), refused),
            (Phase::Ready, Some(MIB), Some(("NoRoom", 1)), Verdict::Wait),
            (
                Phase::Ready,
                Some(3 * MIB),
                Some(("NoRoom", 2)),
                Verdict::Ready,
            ),
            (
                Phase::Failed,
                Some(MIB),
                None,
                Verdict::Refuse(Code::Internal),
            ),
        ];
        for (phase, size, said, expected) in table {
            let volume = volume(phase, size, said);
            assert_eq!(
                judge(&volume, 3 * MIB),
                expected,
                "{phase} {size:?} {said:?}"
            );
        }
    }

    #[test]
    fn the_volume_lends_its_words() {
        let volume = volume(Phase::Ready, Some(MIB), Some(("NoRoom", 2)));
        assert_eq!(message(&volume), "because of NoRoom");
    }
}
