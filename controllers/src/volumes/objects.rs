//! The objects that a plan asks for: slice, document and pod of an engine. Pure.

use super::parts::Part;
use super::{growth, parts};
use crate::shared::context::{Context, FabricFacts};
use crate::shared::documents::Place;
use crate::shared::errors::Error;
use crate::shared::labels::{self, Component};
use crate::shared::pods;
use crate::shared::quantity;
use crate::shared::settings::Settings;
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, EnvVar, NodeAffinity, NodeSelectorRequirement,
    NodeSelectorTerm, Pod, PodSecurityContext, PreferredSchedulingTerm, ResourceRequirements,
    SeccompProfile, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use weft_crds::slice::SliceSpec;
use weft_crds::volume::{VolumeHost, VolumeMember};
use weft_crds::{Drive, Pool, Slice, SliceRole, Volume, VolumeStatus};
use weft_spec::DOCUMENT_VERSION;
use weft_spec::control::ControlLink;
use weft_spec::engine::{AllowedHost, EngineDocument, Mirror, SliceMember, Stack};
use weft_spec::ids::{AttachGeneration, ClusterUid, DocumentGeneration, SliceUid, Term, VolumeUid};
use weft_spec::keys::Key;
use weft_spec::nqn::HostNqn;

/// How long an engine whose pod is deleted may serve on until the next one has fenced it.
const GRACE_SECONDS: i64 = 120;
/// User of engines: that of "nobody" in images without a user database.
const USER: i64 = 65532;
/// What an idle engine was measured to need, and what one may never exceed: its queues are bounded.
const MEMORY: (&str, &str) = ("16Mi", "128Mi");
/// Share of a processor to be scheduled by; there is no limit (throttling looks like a dead member).
const CPU: &str = "10m";
/// Of a witness: one chunk, of which nothing is ever written.
const WITNESS_SIZE: &str = "64Ki";

/// Of a slice for so much of the volume as its role needs.
pub fn slice_size(volume: &Volume, role: SliceRole) -> Quantity {
    match role {
        SliceRole::Data => volume.spec.size.clone(),
        SliceRole::Witness => Quantity(WITNESS_SIZE.to_owned()),
    }
}

/// A slice of a volume on a drive.
pub fn slice(volume: &Volume, uid: VolumeUid, part: &Part, drive: &Drive, pool: &Pool) -> Slice {
    let drive_uid = drive.spec.uid.clone().unwrap_or_default();
    let percent = pool.spec.overcommit_percent();
    Slice {
        metadata: ObjectMeta {
            name: Some(part.name.clone()),
            finalizers: Some(vec![labels::FINALIZER.to_owned()]),
            labels: Some(BTreeMap::from([
                (labels::PART_OF.0.to_owned(), labels::PART_OF.1.to_owned()),
                (labels::VOLUME_UID.to_owned(), uid.to_string()),
                (labels::DRIVE_UID.to_owned(), drive_uid.clone()),
            ])),
            ..ObjectMeta::default()
        },
        spec: SliceSpec {
            uid: SliceUid::random().to_string(),
            volume: volume.name_any(),
            volume_uid: uid.to_string(),
            drive: drive.name_any(),
            drive_uid,
            role: part.role,
            size: slice_size(volume, part.role),
            overcommit_percent: i32::try_from(percent).unwrap_or(100),
        },
        status: None,
    }
}

/// Name of an engine's pod and Secret.
pub fn pod_name(volume: &Volume, uid: VolumeUid, term: i64) -> String {
    labels::pod_name(&volume.name_any(), &format!("{}-{term}", uid.short()))
}

/// Where pod and Secret of a term stand.
pub fn place(settings: &Settings, volume: &Volume, uid: VolumeUid, term: i64) -> Place {
    let mut of_pod = labels::labels(Component::Engine, labels::VOLUME_UID, uid.0);
    of_pod.insert(labels::TERM.to_owned(), term.to_string());
    Place {
        name: pod_name(volume, uid, term),
        namespace: settings.namespaces.engines.clone(),
        labels: of_pod,
        annotations: labels::owner_annotation(&volume.name_any()),
        owner: volume.controller_owner_ref(&()),
    }
}

/// What the operator knows beside the Volume.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Identity of the cluster.
    pub cluster: ClusterUid,
    /// The operator's master key.
    pub master: Key,
    /// TCP port of engines' targets.
    pub port: u16,
}

impl Facts {
    /// Of this operator.
    pub fn of(context: &Context) -> Self {
        Self {
            cluster: context.fabric.cluster,
            master: context.keys.master.clone(),
            port: context.fabric.ports.engine,
        }
    }
}

/// The engine's document, from exactly this object: the one whose swap succeeded.
pub fn document(
    volume: &Volume,
    facts: &Facts,
    link: ControlLink,
) -> Result<EngineDocument, Error> {
    let broken = |what: &str| {
        Error::unusable(
            volume,
            format!("{what} cannot be read; restore the object from a backup"),
        )
    };
    let uid: VolumeUid = volume
        .spec
        .uid
        .as_deref()
        .and_then(|uid| uid.parse().ok())
        .ok_or_else(|| broken("spec.uid"))?;
    let status = volume.status.as_ref().ok_or_else(|| broken("status"))?;
    let term = Term(u64::try_from(status.term).map_err(|_| broken("status.term"))?);
    let stack = stack(volume, status, &facts.master, term)
        .ok_or_else(|| broken("status.members or status.lineage"))?;
    let hosts = status
        .hosts
        .iter()
        .map(|host| allowed_host(host, &facts.master, uid));
    let generation = u64::try_from(status.document_generation);
    Ok(EngineDocument {
        version: DOCUMENT_VERSION,
        generation: DocumentGeneration(
            generation.map_err(|_| broken("status.documentGeneration"))?,
        ),
        cluster: facts.cluster,
        volume: uid,
        name: volume.name_any(),
        term,
        size: quantity::bytes(growth::told_size(volume, status))
            .ok_or_else(|| broken("status.allocated"))?,
        stack,
        hosts: hosts
            .collect::<Option<_>>()
            .ok_or_else(|| broken("status.hosts"))?,
        port: facts.port,
        control: Some(link),
    })
}

fn stack(volume: &Volume, status: &VolumeStatus, master: &Key, term: Term) -> Option<Stack> {
    let slices = |role: SliceRole, joining: bool| {
        let members = status.members.iter();
        let members = members.filter(move |m| m.role == role && m.joining == joining);
        members.map(|m| slice_member(m, master, term))
    };
    if !parts::is_mirror(volume) {
        return slices(SliceRole::Data, false).next()?.map(Stack::Slice);
    }
    Some(Stack::Mirror(Mirror {
        members: slices(SliceRole::Data, false).collect::<Option<_>>()?,
        joining: slices(SliceRole::Data, true).collect::<Option<_>>()?,
        witnesses: slices(SliceRole::Witness, false).collect::<Option<_>>()?,
        formed: status.formed,
        lineage: status.lineage.as_ref()?.parse().ok()?,
        recovery: None,
    }))
}

fn slice_member(member: &VolumeMember, master: &Key, term: Term) -> Option<SliceMember> {
    let (slice, drive) = (
        member.slice_uid.parse().ok()?,
        member.drive_uid.parse().ok()?,
    );
    Some(SliceMember {
        slice,
        drive,
        drive_name: member.drive.clone(),
        address: member.address.parse().ok()?,
        key: master.drive(drive).slice(slice, term),
    })
}

fn allowed_host(host: &VolumeHost, master: &Key, volume: VolumeUid) -> Option<AllowedHost> {
    let generation = AttachGeneration(u64::try_from(host.generation).ok()?);
    Some(AllowedHost {
        attachment: host.attachment.clone(),
        node: host.node.clone(),
        generation,
        nqn: HostNqn::host(
            &master.attach(volume, generation),
            volume,
            &host.node,
            generation,
        ),
        read_only: host.read_only,
    })
}

/// The pod of an engine: passes the *restricted* Pod Security profile.
pub fn pod(settings: &Settings, fabric: &FabricFacts, place: &Place, wish: &Wish<'_>) -> Pod {
    let (document, mount) = pods::document_volume(&place.name);
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        ..ContainerPort::default()
    };
    let amount = |memory: &str| ("memory".to_owned(), Quantity(memory.to_owned()));
    let container = Container {
        name: "engine".to_owned(),
        image: Some(settings.images.engine.clone()),
        image_pull_policy: Some(settings.images.pull_policy.clone()),
        command: Some(pods::command("weft-engine")),
        env: Some(vec![EnvVar {
            name: "RUST_LOG".to_owned(),
            value: Some(settings.pod_log.clone()),
            value_from: None,
        }]),
        ports: Some(vec![
            port("nvme", fabric.ports.engine),
            port("control", fabric.ports.control),
        ]),
        resources: Some(ResourceRequirements {
            requests: Some(BTreeMap::from([
                amount(MEMORY.0),
                ("cpu".to_owned(), Quantity(CPU.to_owned())),
            ])),
            limits: Some(BTreeMap::from([amount(MEMORY.1)])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(pods::locked_down(USER)),
        volume_mounts: Some(vec![mount]),
        ..Container::default()
    };
    let mut spec = pods::base_spec(GRACE_SECONDS);
    spec.tolerations = Some(stays_but_avoids());
    spec.affinity = Some(affinity(wish));
    spec.containers = vec![container];
    spec.volumes = Some(vec![document]);
    spec.security_context = Some(PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    });
    Pod {
        metadata: place.metadata(),
        spec: Some(spec),
        status: None,
    }
}

/// A node that does not report takes no running engine away: only the operator does. But the scheduler
/// puts no new one on a node that is cordoned, out of service, under pressure or does not report:
/// tolerating those too, the engine that takes over from a dead node could be bound to that very
/// node and wait there for ever.
fn stays_but_avoids() -> Vec<Toleration> {
    let stays = |key: &str| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    ["not-ready", "unreachable"]
        .map(|why| stays(&format!("node.kubernetes.io/{why}")))
        .to_vec()
}

/// Where an engine is best placed.
#[derive(Clone, Debug, Default)]
pub struct Wish<'a> {
    /// Nodes that have the data: one hop less for every byte.
    pub near: BTreeSet<&'a str>,
    /// A node that was lost a moment ago: Kubernetes may not have noticed.
    pub away_from: Option<&'a str>,
}

fn affinity(wish: &Wish<'_>) -> Affinity {
    // The API server takes one name a term.
    let term = |node: &str, operator: &str, weight: i32| PreferredSchedulingTerm {
        preference: NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: operator.to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
            match_expressions: None,
        },
        weight,
    };
    let near = wish
        .near
        .iter()
        .filter(|node| Some(**node) != wish.away_from);
    let near = near.map(|node| term(node, "In", 40));
    let away = wish.away_from.map(|node| term(node, "NotIn", 100));
    Affinity {
        node_affinity: Some(NodeAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(near.chain(away).collect()),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}
