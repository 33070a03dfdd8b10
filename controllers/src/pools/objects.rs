//! The budget that a plan asks for. Pure.

use super::plan::Budget;
use crate::shared::labels::{COMPONENT, Component, DRIVE_UID, OPEN, OPEN_SINCE, PART_OF};
use crate::shared::settings::Settings;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;
use weft_crds::Pool;

/// More pods than a pool will ever have: who is listed stays. `maxUnavailable: 0` would say it better,
/// but Kubernetes knows that only of pods whose owner has a scale.
const MORE_THAN_ALL: i32 = 1_000_000;
/// A list in a selector must not be empty; no drive has this uid.
const NOBODY: &str = "none";

/// The budget of a pool, under the pool's name.
pub fn budget(settings: &Settings, pool: &Pool, wanted: &Budget) -> PodDisruptionBudget {
    let mut listed: Vec<String> = wanted.closed.iter().cloned().collect();
    if listed.is_empty() {
        listed.push(NOBODY.to_owned());
    }
    let open = wanted.open.as_ref();
    let (domain, since) = open
        .map(|(domain, since)| (domain.0.clone(), since.to_string()))
        .unwrap_or_default();
    PodDisruptionBudget {
        metadata: ObjectMeta {
            name: Some(pool.name_any()),
            namespace: Some(settings.namespaces.drives.clone()),
            labels: Some(BTreeMap::from([
                (PART_OF.0.to_owned(), PART_OF.1.to_owned()),
                (COMPONENT.to_owned(), Component::Drive.as_str().to_owned()),
            ])),
            annotations: Some(BTreeMap::from([
                (OPEN.to_owned(), domain),
                (OPEN_SINCE.to_owned(), since),
            ])),
            owner_references: pool.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(MORE_THAN_ALL)),
            selector: Some(LabelSelector {
                match_labels: None,
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: DRIVE_UID.to_owned(),
                    operator: "In".to_owned(),
                    values: Some(listed),
                }]),
            }),
            // A pod that does not run serves no slice: a drain shall not wait for it.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
