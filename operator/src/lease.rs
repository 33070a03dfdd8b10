//! One operator at a time: a Lease, taken and renewed by compare-and-swap on its
//! `resourceVersion`. Whether another's has run out is judged by when this process last saw it
//! change, so clocks of different nodes need not agree. A holder that could not renew in
//! [`GIVE_UP`] ends its process, before anybody else may take the Lease.

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::Duration;
use tokio::time::Instant;

/// Name of the Lease, in the operator's namespace.
const NAME: &str = "weft-operator";
/// After this long without a change the Lease is anybody's.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews, and how often a follower looks.
const RENEW: Duration = Duration::from_secs(5);
/// The holder ends its process after this long without a renewal.
const GIVE_UP: Duration = Duration::from_secs(10);

/// A Lease as this process last saw it change.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

/// What to do about a Lease.
#[derive(Debug, PartialEq)]
enum Claim {
    /// Write this.
    Take(LeaseSpec),
    /// Somebody else holds it.
    Follow,
}

/// Decides, from the Lease as it is and as it was seen before.
fn claim(current: Option<&Seen>, me: &str, now: Instant, clock: Timestamp) -> Claim {
    let held_by = current
        .and_then(|seen| seen.spec.holder_identity.as_deref())
        .filter(|holder| !holder.is_empty());
    let mine = held_by == Some(me);
    let expired = current.is_none_or(|seen| now.duration_since(seen.since) >= DURATION);
    if held_by.is_some() && !mine && !expired {
        return Claim::Follow;
    }
    let spec = current.map(|seen| seen.spec.clone()).unwrap_or_default();
    let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!mine && current.is_some());
    Claim::Take(LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: if mine {
            spec.acquire_time
        } else {
            Some(MicroTime(clock))
        },
        renew_time: Some(MicroTime(clock)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    })
}

/// The Lease of the operators.
pub struct Leadership {
    api: Api<Lease>,
    me: String,
    seen: Option<Seen>,
    renewed: Instant,
}

impl Leadership {
    /// `me` is the name of this operator.
    pub fn new(client: &Client, namespace: &str, me: String) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self {
            api,
            me,
            seen: None,
            renewed: Instant::now(),
        }
    }

    /// Waits until this process holds the Lease.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return tracing::info!(holder = self.me, "holds the lease"),
                Ok(false) => tracing::debug!("another operator holds the lease"),
                Err(error) => tracing::warn!(
                    error = format!("{error:#}"),
                    "cannot take the lease; trying on"
                ),
            }
            tokio::time::sleep(RENEW).await;
        }
    }

    /// Renews for as long as it can; returns when the Lease is lost.
    pub async fn keep(&mut self) {
        loop {
            tokio::time::sleep(RENEW).await;
            let left = GIVE_UP.saturating_sub(self.renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(true)) => continue,
                Ok(Ok(false)) => return tracing::error!("another operator has taken the lease"),
                Ok(Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "cannot renew the lease")
                }
                Err(_) => {}
            }
            if self.renewed.elapsed() >= GIVE_UP {
                return tracing::error!(for_ = ?GIVE_UP, "the lease could not be renewed");
            }
        }
    }

    /// Gives the Lease up, so that the next operator need not wait.
    pub async fn release(&mut self) {
        let result = async {
            let mut lease = self.api.get(NAME).await?;
            if let Some(spec) = &mut lease.spec
                && spec.holder_identity.as_deref() == Some(&self.me)
            {
                spec.holder_identity = Some(String::new());
                self.api
                    .replace(NAME, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        };
        if let Err(error) = result.await {
            tracing::info!(%error, "the lease was not given up; it runs out by itself");
        }
    }

    /// One look and, if it is free or ours, one write. Gives whether it is ours.
    async fn attempt(&mut self) -> anyhow::Result<bool> {
        let found = self
            .api
            .get_opt(NAME)
            .await
            .context("cannot read the lease")?;
        self.see(found.as_ref());
        let begun = Instant::now();
        let Claim::Take(spec) = claim(self.seen.as_ref(), &self.me, begun, Timestamp::now()) else {
            return Ok(false);
        };
        let result = match found {
            Some(lease) => {
                let wanted = Lease {
                    spec: Some(spec.clone()),
                    ..lease
                };
                self.api
                    .replace(NAME, &PostParams::default(), &wanted)
                    .await
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                };
                let wanted = Lease {
                    metadata,
                    spec: Some(spec.clone()),
                };
                self.api.create(&PostParams::default(), &wanted).await
            }
        };
        match result {
            Ok(_) => {
                self.seen = Some(Seen { spec, since: begun });
                self.renewed = begun;
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(false)
            }
            Err(error) => Err(error).context("cannot write the lease"),
        }
    }

    fn see(&mut self, found: Option<&Lease>) {
        let spec = found.and_then(|lease| lease.spec.clone());
        match (&self.seen, spec) {
            (Some(seen), Some(spec)) if seen.spec == spec => {}
            (_, Some(spec)) => {
                self.seen = Some(Seen {
                    spec,
                    since: Instant::now(),
                })
            }
            (_, None) => self.seen = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, since: Instant) -> Seen {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_transitions: Some(3),
            acquire_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        };
        Seen { spec, since }
    }

    #[test]
    fn a_lease_is_taken_when_free_own_given_up_or_run_out() {
        let start = Instant::now();
        let rows = [
            ("no lease", None, Duration::ZERO, Some(0)),
            ("own", Some("me"), Duration::ZERO, Some(3)),
            ("given up", Some(""), Duration::ZERO, Some(4)),
            (
                "another's, fresh",
                Some("other"),
                DURATION - Duration::from_millis(1),
                None,
            ),
            ("another's, run out", Some("other"), DURATION, Some(4)),
        ];
        for (what, holder, age, transitions) in rows {
            let seen = holder.map(|holder| held_by(holder, start));
            let claim = claim(seen.as_ref(), "me", start + age, Timestamp::now());
            match (claim, transitions) {
                (Claim::Follow, None) => {}
                (Claim::Take(spec), Some(wanted)) => {
                    assert_eq!(spec.holder_identity.as_deref(), Some("me"), "{what}");
                    assert_eq!(spec.lease_transitions, Some(wanted), "{what}");
                    let kept = spec.acquire_time == Some(MicroTime(Timestamp::UNIX_EPOCH));
                    assert_eq!(kept, holder == Some("me"), "{what}");
                }
                (claim, wanted) => panic!("{what}: {claim:?}, wanted {wanted:?}"),
            }
        }
    }
}
