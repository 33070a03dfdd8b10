//! Events: once per change, never per pass. An Event that cannot be written is logged and
//! forgotten; conditions carry the truth.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Longest note that API servers take.
const LONGEST_NOTE: usize = 1024;

/// Writes Events. Cloning shares it.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// `instance` is the name of the operator's pod.
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter {
            controller: "weft-operator".to_owned(),
            instance: Some(instance.to_owned()),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Something went as it should.
    pub async fn normal(
        &self,
        regarding: &ObjectReference,
        reason: &str,
        action: &str,
        note: String,
    ) {
        self.publish(EventType::Normal, regarding, reason, action, note)
            .await;
    }

    /// Something needs attention.
    pub async fn warning(
        &self,
        regarding: &ObjectReference,
        reason: &str,
        action: &str,
        note: String,
    ) {
        self.publish(EventType::Warning, regarding, reason, action, note)
            .await;
    }

    /// One event for each condition whose status or reason has changed; none for the reasons in
    /// `quiet`, which are but steps on the way.
    pub async fn changes(
        &self,
        regarding: &ObjectReference,
        before: &[Condition],
        after: &[Condition],
        quiet: &[&str],
    ) {
        for condition in after {
            let same = |c: &&Condition| {
                c.type_ == condition.type_
                    && c.status == condition.status
                    && c.reason == condition.reason
            };
            if before.iter().any(|c| same(&c)) || quiet.contains(&condition.reason.as_str()) {
                continue;
            }
            let kind = if condition.status == "True" {
                EventType::Normal
            } else {
                EventType::Warning
            };
            let note = condition.message.clone();
            self.publish(kind, regarding, &condition.reason, &condition.type_, note)
                .await;
        }
    }

    async fn publish(
        &self,
        type_: EventType,
        regarding: &ObjectReference,
        reason: &str,
        action: &str,
        mut note: String,
    ) {
        while note.len() > LONGEST_NOTE {
            note.pop();
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, regarding).await {
            tracing::debug!(%error, reason, "an Event was not written");
        }
    }
}
