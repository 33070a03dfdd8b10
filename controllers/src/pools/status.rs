//! Sums and conditions of a Pool, from the drives that it selects.

use super::hold::Held;
use super::plan::{Observed, Why};
use crate::shared::conditions::{self, Truth};
use crate::shared::{finalizers, quantity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use weft_crds::pool::PoolStatus;
use weft_crds::{Drive, Phase, Pool};

/// Slices can be placed.
pub const READY: &str = "Ready";

/// Pods of drives may be evicted now.
pub const EVICTABLE: &str = "Evictable";

/// Names of volumes in a message; the rest is counted.
const NAMED: usize = 3;

/// The whole status, with the sums of `drives`, those that the pool selects.
pub fn status(o: &Observed, drives: &[Drive], why: &Why) -> PoolStatus {
    let (pool, now) = (&o.pool, o.now);
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
    if drives.is_empty() && *why == Why::NothingLeaves {
        conditions::clear(&mut status.conditions, EVICTABLE);
        return status;
    }
    let (truth, reason, message) = evictable(pool, why);
    conditions::set(
        &mut status.conditions,
        EVICTABLE,
        truth,
        reason,
        &message,
        pool.metadata.generation,
        now,
    );
    status
}

/// Why a drain waits, or does not.
fn evictable(pool: &Pool, why: &Why) -> (Truth, &'static str, String) {
    let key = pool.spec.spread_by.last().map_or("node", String::as_str);
    match why {
        Why::NothingLeaves => {
            let message = "no node with drives of the pool is cordoned; kubectl drain cordons the node first, and the \
                           budget opens by itself"
                .to_owned();
            (Truth::False, "NothingLeaves", message)
        }
        Why::Open(domain) => {
            let message = format!(
                "pods of drives in {key} {} may be evicted: a node there is cordoned",
                domain.0
            );
            (Truth::True, "Open", message)
        }
        Why::Closing => {
            let message = "closed for a moment, before another failure domain is opened".to_owned();
            (Truth::False, "Closing", message)
        }
        Why::Held(domain, held) => {
            let message = format!(
                "a node in {key} {} is cordoned, and without its drives nothing would serve {}. The drain goes on by \
                 itself when that is over; a drive that is gone for good is to be evicted: kubectl patch volume {} \
                 --type merge -p '{{\"spec\":{{\"evict\":[\"<drive>\"]}}}}'",
                domain.0,
                named(held),
                held.first().map_or("", |held| held.volume.as_str()),
            );
            (Truth::False, "WaitsForVolumes", message)
        }
    }
}

fn named(held: &[Held]) -> String {
    let one = |held: &Held| format!("volume {} ({})", held.volume, held.waits_for.join(", "));
    let named: Vec<_> = held.iter().take(NAMED).map(one).collect();
    match held.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
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
