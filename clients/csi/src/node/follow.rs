//! Staged volumes whose engine moves: the watch tells where it is, the initiator is told.
//!
//! One task per Attachment, started anew with each change of it; a change that comes while
//! one is at work takes its place, since only the newest word counts. It ends when the
//! initiator has taken the new place.

use super::Node;
use super::blocking;
use super::connect_user::UserInitiator;
use crate::attachments::{Admission, Changes, Way};
use crate::locks::Guard;
use futures::StreamExt;
use kube::ResourceExt;
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::Status;
use weft_crds::Attachment;
use weft_crds::attachment::Observed;

/// Between attempts, growing to the longer.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long one look at an initiator may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Follows all Attachments of the node for ever.
pub async fn follow(node: Node, mut changes: Changes) {
    let mut tasks: HashMap<String, JoinHandle<()>> = HashMap::new();
    while let Some(attachment) = changes.next().await {
        tasks.retain(|_, task| !task.is_finished());
        let name = attachment.name_any();
        if let Some(older) = tasks.remove(&name) {
            older.abort();
        }
        if let Some(task) = is_staged(&attachment)
            .then(|| Admission::of(&attachment))
            .flatten()
        {
            let node = node.clone();
            let volume = attachment.spec.volume;
            tasks.insert(
                name,
                tokio::spawn(async move { node.pursue(&volume, task).await }),
            );
        }
    }
}

fn is_staged(attachment: &Attachment) -> bool {
    let observed = attachment
        .status
        .as_ref()
        .and_then(|status| status.observed.as_ref());
    observed.is_some_and(|observed| observed.staged)
}

impl Node {
    async fn pursue(&self, volume: &str, admission: Admission) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.follow_once(volume, &admission).await {
            tracing::warn!(
                attachment = admission.name,
                address = %admission.path.address,
                error = error.message(),
                "volume is not followed yet"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn follow_once(&self, volume: &str, admission: &Admission) -> Result<(), Status> {
        let ends = match &admission.way {
            Way::Kernel { .. } => {
                let hands = self.hands.wait(volume).await;
                // Unstaged meanwhile: what is not there must not be connected.
                if !self.is_staged_now(&admission.name).await? {
                    return Ok(());
                }
                self.follow_kernel(admission, hands).await?
            }
            // Telling an initiator that is about to go does no harm.
            Way::UserSpace { pod } => {
                self.follow_user(admission, UserInitiator::new(&self.initiators, pod))
                    .await?
            }
        };
        let (source, identity) = ends;
        let observed = Observed {
            source,
            identity,
            ..admission.observed.clone()
        };
        if observed == admission.observed {
            return Ok(());
        }
        let _hands = self.hands.wait(volume).await;
        match self.is_staged_now(&admission.name).await? {
            true => self.attachments.report(&admission.name, &observed).await,
            false => Ok(()),
        }
    }

    /// By the API server: the watch may not have brought yet what an unstage just wrote.
    async fn is_staged_now(&self, name: &str) -> Result<bool, Status> {
        Ok(self
            .attachments
            .get(name)
            .await?
            .is_some_and(|now| is_staged(&now)))
    }

    async fn follow_kernel(&self, admission: &Admission, hands: Guard) -> Result<Ends, Status> {
        let target = self.target(admission).await?;
        let kernel = self.kernel.clone();
        blocking::run(move || {
            // Held as long as the kernel is at work, also when nobody waits for it any more.
            let _hands = hands;
            // Staged with no controller is a node that was started anew: NodeStage connects.
            if kernel.controllers(&target.subsystem).is_empty() {
                return Ok((None, None));
            }
            if kernel.follow(&target)? {
                tracing::info!(address = %target.address, "volume moved");
            }
            let device = kernel.device(&target.subsystem, target.volume);
            let identity = device.and_then(|device| kernel.subsystem_of(&device));
            Ok((kernel.source(&target), identity))
        })
        .await
    }

    async fn follow_user(
        &self,
        admission: &Admission,
        initiator: UserInitiator,
    ) -> Result<Ends, Status> {
        let (path, uid) = (admission.path, admission.uid);
        blocking::within(PATIENCE, "the initiator pod did not answer", move || {
            if initiator.follow(path)? {
                tracing::info!(address = %path.address, term = %path.term, "volume moved");
            }
            let end = std::time::Instant::now() + PATIENCE / 2;
            let status = initiator.wait_until_ready(uid, end)?;
            Ok((status.local.map(|local| local.to_string()), status.identity))
        })
        .await
    }
}

/// This end's own address and the identity that the engine answered.
type Ends = (Option<String>, Option<String>);
