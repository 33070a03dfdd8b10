//! When another engine is started, with the next term. Pure.
//!
//! A takeover needs no help of the lost node: the fence at the drive makes it safe whatever the
//! engine before still does.

use super::members;
use super::plan::{EnginePod, Observed, term};
use weft_crds::VolumeStatus;
use weft_spec::engine::{EngineState, EngineStatus};

/// Why a pod cannot be counted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Succeeded or Failed: never runs again.
    Ended(String),
    /// The kubelet restarts it with growing pauses.
    CrashLoop(String),
    /// Its node is no more.
    NodeGone,
    /// A person has said that its node is out of service.
    OutOfService,
    /// Its node does not report.
    NodeNotReady,
    /// Its drives have lost it, and nothing comes from it.
    Silent,
}

impl Trouble {
    /// Whether the node is gone by a person's word: nobody is there to end the pod.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::NodeGone | Self::OutOfService)
    }

    fn is_of_node(&self) -> bool {
        self.is_gone() || matches!(self, Self::NodeNotReady | Self::Silent)
    }
}

/// Why another engine is started.
#[derive(Debug, PartialEq, Eq)]
pub enum Cause {
    /// The volume's first.
    First,
    /// No pod bears the term.
    NoPod,
    /// Its Secret was deleted: nothing could be told to it any more.
    NoSecret,
    /// The pod is being deleted (a drain, a person).
    Leaving(String),
    /// The engine met a newer fence.
    Parked,
    /// It cannot be counted on.
    Trouble {
        /// The pod.
        pod: String,
        /// Where it runs.
        node: String,
        /// Why.
        trouble: Trouble,
    },
}

impl Cause {
    /// Whether trying again at once may meet the same failure.
    pub fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Parked
                | Self::Trouble {
                    trouble: Trouble::Ended(_) | Trouble::CrashLoop(_),
                    ..
                }
        )
    }

    /// The node that is lost, by this cause. Kubernetes may still think well of it.
    pub fn lost_node(&self) -> Option<&str> {
        match self {
            Self::Trouble { node, trouble, .. } if trouble.is_of_node() => Some(node),
            _ => None,
        }
    }
}

/// Whether another engine is wanted, and why; `None` while the present one is as it should be.
pub fn cause_for_another(
    o: &Observed,
    status: &VolumeStatus,
    present: Option<&EnginePod>,
) -> Option<Cause> {
    if status.term == 0 {
        return Some(Cause::First);
    }
    let Some(pod) = present else {
        return Some(Cause::NoPod);
    };
    if pod.deleting {
        return Some(Cause::Leaving(pod.name.clone()));
    }
    if o.secrets.iter().all(|s| s.name != pod.name) {
        return Some(Cause::NoSecret);
    }
    match &pod.trouble {
        // The data is on that very node: an engine elsewhere would only wait for it.
        Some(Trouble::NodeNotReady | Trouble::Silent)
            if !members::can_do_without(o, status, &pod.node) =>
        {
            None
        }
        Some(trouble) => Some(Cause::Trouble {
            pod: pod.name.clone(),
            node: pod.node.clone(),
            trouble: trouble.clone(),
        }),
        None => {
            let parked =
                |r: &EngineStatus| term(r.term) == status.term && r.state == EngineState::Parked;
            o.report
                .as_ref()
                .is_some_and(parked)
                .then_some(Cause::Parked)
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::First => f.write_str("the first engine of the volume"),
            Self::NoPod => f.write_str("no pod bears the term before"),
            Self::NoSecret => f.write_str("the Secret of the pod before is gone"),
            Self::Leaving(pod) => write!(f, "pod {pod} is being deleted"),
            Self::Parked => f.write_str("the engine before was fenced by a newer one"),
            Self::Trouble { pod, trouble, .. } => write!(f, "pod {pod}: {trouble}"),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended(why) => write!(f, "it ended ({why})"),
            Self::CrashLoop(why) => write!(f, "it fails at each start ({why})"),
            Self::NodeGone => f.write_str("its node is no more"),
            Self::OutOfService => f.write_str("its node is out of service, by the taint on it"),
            Self::NodeNotReady => f.write_str("its node does not report"),
            Self::Silent => f.write_str("its drives have lost it, and it does not answer"),
        }
    }
}
