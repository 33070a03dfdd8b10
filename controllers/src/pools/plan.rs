//! What a pass over one Pool decides about evictions: observed objects and a clock in, a [`Plan`] out.
//!
//! Every drive has at most one budget, for Kubernetes refuses to evict a pod that has two: that of the
//! first pool, by name, that selects it. The budget lists the drives whose
//! pods stay; it is opened for one failure domain by leaving that domain's drives out.
//!
//! | seen | decided |
//! | --- | --- |
//! | no node with drives is cordoned | closed for all |
//! | one is, and each volume could serve without that domain | open for it |
//! | one is, and a volume could not | closed until it could: a rebuild ends, a drive comes back |
//! | another domain is open | closed for all first; the next pass opens, once Kubernetes knows that it is closed |
//! | several domains wait | each has its turn: which of them is drained cannot be seen |

use super::domains::{self, Domain};
use super::hold::{self, Held};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use std::collections::BTreeSet;
use std::time::Duration;
use weft_crds::{Drive, Pool, Volume};

/// How long a domain stays open while another waits: `kubectl drain` tries every 5 s.
const TURN: SignedDuration = SignedDuration::from_secs(30);
/// When volumes that hold a domain are looked at again, should nothing have been told before: a drive
/// counts only some time after its pod was made, and nobody tells that this time is over.
const AGAIN: Duration = Duration::from_secs(5);

/// Everything that a pass has read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The pool.
    pub pool: Pool,
    /// All pools.
    pub pools: Vec<Pool>,
    /// All drives.
    pub drives: Vec<Drive>,
    /// All nodes; read only while one is cordoned, as all that follows but the budgets.
    pub nodes: Vec<Node>,
    /// All volumes.
    pub volumes: Vec<Volume>,
    /// Pods of drives.
    pub pods: Vec<Pod>,
    /// Budgets of all pools.
    pub budgets: Vec<PodDisruptionBudget>,
    /// The clock.
    pub now: Timestamp,
}

/// What the budget shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Uids of the drives whose pods stay.
    pub closed: BTreeSet<String>,
    /// The domain that is open, and since when.
    pub open: Option<(Domain, Timestamp)>,
}

/// Why the budget is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No node with drives of the pool is cordoned.
    NothingLeaves,
    /// Pods of this domain may be evicted.
    Open(Domain),
    /// Volumes that could not serve without this domain.
    Held(Domain, Vec<Held>),
    /// Closed for all, so that another domain can be opened.
    Closing,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The budget; `None` while the pool has no drive.
    pub budget: Option<Budget>,
    /// Why.
    pub why: Why,
    /// When to look again although nobody called.
    pub again: Option<Duration>,
}

/// Decides.
pub fn plan(o: &Observed) -> Plan {
    let all = domains::closed(o);
    if all.is_empty() {
        return Plan {
            budget: None,
            why: Why::NothingLeaves,
            again: None,
        };
    }
    let waiting = domains::leaving(o);
    let (open, why, again) = choose(o, &waiting);
    let left_out = open.as_ref().map(|(domain, _)| domains::drives(o, domain));
    let left_out = left_out.unwrap_or_default();
    let closed = all.into_iter().filter(|uid| !left_out.contains(uid));
    Plan {
        budget: Some(Budget {
            closed: closed.collect(),
            open,
        }),
        why,
        again,
    }
}

type Choice = (Option<(Domain, Timestamp)>, Why, Option<Duration>);

fn choose(o: &Observed, waiting: &[Domain]) -> Choice {
    let present = domains::own_budget(o);
    if let Some((domain, since)) = present.and_then(domains::opened) {
        let rest = TURN - o.now.duration_since(since);
        let stays = waiting.contains(&domain) && hold::held(o, &domain).is_empty();
        if stays && (waiting.len() == 1 || rest.is_positive()) {
            let again = (waiting.len() > 1).then(|| rest.unsigned_abs());
            let why = Why::Open(domain.clone());
            return (Some((domain, since)), why, again);
        }
        return (None, Why::Closing, Some(Duration::ZERO));
    }
    if waiting.is_empty() {
        return (None, Why::NothingLeaves, None);
    }
    // Only when an eviction meets the budget as it is: one that was granted before shows in the pods.
    if !present.is_some_and(domains::is_known) {
        return (None, Why::Closing, Some(AGAIN));
    }
    let mut held = Vec::new();
    for domain in in_turn(o.now, waiting) {
        let holds = hold::held(o, domain);
        if holds.is_empty() {
            let again = (waiting.len() > 1).then(|| TURN.unsigned_abs());
            return (
                Some((domain.clone(), o.now)),
                Why::Open(domain.clone()),
                again,
            );
        }
        held.push((domain, holds));
    }
    let why = held.into_iter().next();
    let why = why.map_or(Why::Closing, |(domain, holds)| {
        Why::Held(domain.clone(), holds)
    });
    (None, why, Some(AGAIN))
}

/// All of them, each in front for a turn.
fn in_turn(now: Timestamp, waiting: &[Domain]) -> impl Iterator<Item = &Domain> {
    let turn = usize::try_from(now.as_second() / TURN.as_secs()).unwrap_or(0);
    let first = turn.checked_rem(waiting.len()).unwrap_or(0);
    waiting.iter().cycle().skip(first).take(waiting.len())
}
