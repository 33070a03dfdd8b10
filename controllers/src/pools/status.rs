//! Sums and conditions of a Pool, from the drives that it selects.

use crate::shared::conditions::{self, Truth};
use crate::shared::{finalizers, quantity};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use weft_crds::pool::PoolStatus;
use weft_crds::{Drive, Phase, Pool};

/// Slices can be placed.
pub const READY: &str = "Ready";

/// The whole status.
pub fn status(pool: &Pool, drives: &[Drive], now: Timestamp) -> PoolStatus {
    let mut status = pool.status.clone().unwrap_or_default();
    let ready = drives.iter().filter(|drive| is_ready(drive)).count();
    let sum = |of: fn(&Drive) -> Option<&Quantity>| {
        quantity::quantity(
            drives
                .iter()
                .filter_map(of)
                .filter_map(quantity::bytes)
                .sum(),
        )
    };
    status.drives = count(drives.len());
    status.ready = count(ready);
    status.size = Some(sum(|drive| drive.status.as_ref()?.size.as_ref()));
    status.free = Some(sum(|drive| drive.status.as_ref()?.free.as_ref()));
    status.observed_generation = pool.metadata.generation;
    let (phase, truth, reason, message) = judge(drives.len(), ready);
    status.phase = if finalizers::is_deleting(pool) {
        Phase::Deleting
    } else {
        phase
    };
    conditions::set(
        &mut status.conditions,
        READY,
        truth,
        reason,
        &message,
        pool.metadata.generation,
        now,
    );
    status
}

fn judge(drives: usize, ready: usize) -> (Phase, Truth, &'static str, String) {
    match (drives, ready) {
        (0, _) => (
            Phase::Pending,
            Truth::False,
            "NoDrives",
            "no Drive has the labels of spec.selector; label one, or change the selector: see kubectl get drives --show-labels".to_owned(),
        ),
        (_, 0) => (
            Phase::Pending,
            Truth::False,
            "NoDriveReady",
            format!("none of {drives} drives is Ready; see kubectl get drives -o wide"),
        ),
        (all, ready) if ready < all => (
            Phase::Degraded,
            Truth::True,
            "SomeDrivesReady",
            format!("{ready} of {all} drives are Ready; see kubectl get drives -o wide"),
        ),
        (all, _) => (Phase::Ready, Truth::True, "DrivesReady", format!("all of {all} drives are Ready")),
    }
}

fn is_ready(drive: &Drive) -> bool {
    let conditions = drive
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice());
    !finalizers::is_deleting(drive) && conditions.is_some_and(|all| conditions::is_true(all, READY))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
