//! Which drives a pool's budget is for, in which failure domains they are, and what the budgets that
//! are there say. Pure.

use super::plan::Observed;
use crate::shared::labels::{DRIVE_UID, OPEN, OPEN_SINCE};
use crate::shared::nodes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use std::collections::BTreeSet;
use weft_crds::{Drive, Pool};

/// A value of the finest label that the pool spreads by; the node's name where it spreads by none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Domain(pub String);

/// Uids of all drives that the pool's budget is for.
pub fn closed(o: &Observed) -> BTreeSet<String> {
    own(o).filter_map(|drive| drive.spec.uid.clone()).collect()
}

/// Uids of those of them in one domain.
pub fn drives(o: &Observed, domain: &Domain) -> BTreeSet<String> {
    let here = own(o).filter(|drive| domain_of(o, drive) == *domain);
    here.filter_map(|drive| drive.spec.uid.clone()).collect()
}

/// Domains of which a node with drives is cordoned.
pub fn leaving(o: &Observed) -> Vec<Domain> {
    let cordoned = own(o).filter(|drive| node_of(o, drive).is_some_and(nodes::is_cordoned));
    let domains: BTreeSet<_> = cordoned.map(|drive| domain_of(o, drive)).collect();
    domains.into_iter().collect()
}

/// The pool that has the drive's budget.
pub fn pool_of<'a>(o: &'a Observed, drive: &Drive) -> Option<&'a str> {
    let pools = o.pools.iter().filter(|pool| selects(pool, drive));
    pools.filter_map(|pool| pool.metadata.name.as_deref()).min()
}

fn own(o: &Observed) -> impl Iterator<Item = &Drive> {
    let name = o.pool.metadata.name.as_deref();
    o.drives
        .iter()
        .filter(move |drive| pool_of(o, drive) == name)
}

/// A selector that the API server took and that cannot be read selects nothing, never all.
fn selects(pool: &Pool, drive: &Drive) -> bool {
    let selector = Selector::try_from(pool.spec.selector.clone());
    selector.is_ok_and(|selector| selector.matches(drive.labels()))
}

fn node_of<'a>(o: &'a Observed, drive: &Drive) -> Option<&'a Node> {
    let name = Some(&drive.spec.host_export.node);
    o.nodes
        .iter()
        .find(|node| node.metadata.name.as_ref() == name)
}

fn domain_of(o: &Observed, drive: &Drive) -> Domain {
    let Some(key) = o.pool.spec.spread_by.last() else {
        return Domain(drive.spec.host_export.node.clone());
    };
    // As placement has it: nodes without the label are one domain.
    let label = node_of(o, drive).and_then(|node| node.labels().get(key));
    Domain(label.cloned().unwrap_or_default())
}

/// The budget of this pool.
pub fn own_budget(o: &Observed) -> Option<&PodDisruptionBudget> {
    let name = &o.pool.metadata.name;
    o.budgets
        .iter()
        .find(|budget| budget.metadata.name == *name)
}

/// The domain that a budget is open for, and since when. Nodes without the label are the domain of the
/// empty name, so it is the time that tells; one that cannot be read is long ago.
pub fn opened(budget: &PodDisruptionBudget) -> Option<(Domain, Timestamp)> {
    let domain = budget.annotations().get(OPEN)?;
    let since = budget.annotations().get(OPEN_SINCE)?;
    let since = (!since.is_empty()).then(|| since.parse().unwrap_or(Timestamp::UNIX_EPOCH))?;
    Some((Domain(domain.clone()), since))
}

/// Whether Kubernetes evicts by the budget as it is now.
pub fn is_known(budget: &PodDisruptionBudget) -> bool {
    let status = budget.status.as_ref();
    status.and_then(|status| status.observed_generation) == budget.metadata.generation
}

/// Whether the drive's pod may be evicted now, by somebody's budget or for want of one.
pub fn is_open(o: &Observed, drive: &Drive) -> bool {
    let listed = |budget: &PodDisruptionBudget| {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let terms = selector.and_then(|selector| selector.match_expressions.as_ref());
        let mut of_drives = terms
            .into_iter()
            .flatten()
            .filter(|term| term.key == DRIVE_UID);
        let uid = drive.spec.uid.as_ref();
        of_drives.any(|term| term.values.iter().flatten().any(|value| Some(value) == uid))
    };
    // A drive of no pool has no budget, ever: to wait for one would be for ever.
    pool_of(o, drive).is_some() && !o.budgets.iter().any(listed)
}
