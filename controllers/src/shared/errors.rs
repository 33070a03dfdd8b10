//! Errors of a pass: what was tried, on which object; each with a category that is the Event's
//! reason, and a back-off that grows with each failure in a row.

use super::context::Context;
use super::links::LinkError;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Wait after the first failure; doubled with each further one in a row.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Greatest wait: how late an operator may be in noticing that the cause is gone.
const GREATEST_WAIT: Duration = Duration::from_secs(60);

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("cannot {doing}: {}", why(source))]
    Api {
        /// What was tried, on which object.
        doing: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// A pod refused or did not answer.
    #[error("cannot {doing}: {source}")]
    Link {
        /// What was tried, on which object.
        doing: String,
        /// Why not.
        source: LinkError,
    },
    /// An object lacks what it must have, or holds what cannot be read.
    #[error("{object}: {problem}")]
    Unusable {
        /// Kind and name.
        object: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A certificate could not be made or read.
    #[error("cannot {doing}: {source}")]
    Tls {
        /// What was tried.
        doing: String,
        /// Why not.
        source: weft_control::tls::TlsError,
    },
}

impl Error {
    /// PascalCase word: reason of the Event and label of the metric.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_conflict() => "Conflict",
                kube::Error::Api(status) if status.is_already_exists() => "Conflict",
                kube::Error::Api(status) if status.is_forbidden() => "Forbidden",
                kube::Error::Api(status) if status.is_not_found() => "NotFound",
                kube::Error::Api(status) if status.code == 422 => "Invalid",
                _ => "ApiServerError",
            },
            Self::Link {
                source: LinkError::Refused { .. },
                ..
            } => "PodRefused",
            Self::Link { .. } => "PodUnreachable",
            Self::Unusable { .. } => "Unusable",
            Self::Tls { .. } => "CertificateError",
        }
    }

    /// Whether the pass only met a newer object than it had read: no news for anybody.
    pub fn is_conflict(&self) -> bool {
        self.category() == "Conflict"
    }

    /// For an object that lacks what it must have.
    pub fn unusable<K: Resource<DynamicType = ()>>(object: &K, problem: impl Into<String>) -> Self {
        Self::Unusable {
            object: describe(object),
            problem: problem.into(),
        }
    }
}

/// What the API server said, without the debug form that kube prints after it.
fn why(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

/// Kind and name, for messages.
pub fn describe<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{} {}", K::kind(&()), object.name_any())
}

/// Says what was being done when an error came.
pub trait Doing<T> {
    /// `what` completes "cannot …".
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, kube::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Api {
            doing: what(),
            source: Box::new(source),
        })
    }
}

impl<T> Doing<T> for Result<T, LinkError> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Link {
            doing: what(),
            source,
        })
    }
}

impl<T> Doing<T> for Result<T, weft_control::tls::TlsError> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Tls {
            doing: what(),
            source,
        })
    }
}

/// How often each object has failed in a row, and why last.
#[derive(Clone, Default)]
pub struct Backoffs {
    failures: Arc<Mutex<HashMap<String, (u32, &'static str)>>>,
}

impl Backoffs {
    /// Counts a failure; gives the wait, and whether its category is news.
    fn failed(&self, object: &str, category: &'static str) -> (Duration, bool) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = failures.entry(object.to_owned()).or_insert((0, ""));
        let news = *last != category;
        let wait = FIRST_WAIT
            .saturating_mul(1 << (*count).min(16))
            .min(GREATEST_WAIT);
        (*count, *last) = (*count + 1, category);
        (wait, news)
    }

    /// A pass over the object went through.
    pub fn succeeded(&self, object: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(object);
    }

    /// Objects that fail at the moment: name, times in a row, category.
    pub fn failing(&self) -> Vec<(String, u32, &'static str)> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures
            .iter()
            .map(|(object, (count, why))| (object.clone(), *count, *why))
            .collect()
    }
}

/// The error policy of every controller: back-off, one log line, and an Event when the category
/// is news.
pub fn policy<K>(object: Arc<K>, error: &Error, context: Arc<Context>) -> Action
where
    K: Resource<DynamicType = ()> + Send + Sync + 'static,
{
    let name = describe(object.as_ref());
    let (wait, news) = context.backoffs.failed(&name, error.category());
    if error.is_conflict() {
        tracing::debug!(object = name, %error, "met a newer object; again");
        return Action::requeue(wait);
    }
    tracing::warn!(object = name, %error, category = error.category(), again_in = ?wait, "a pass failed");
    if news {
        let (category, note) = (error.category(), error.to_string());
        let reference = object.object_ref(&());
        tokio::spawn(async move {
            context
                .events
                .warning(&reference, category, "Reconcile", note)
                .await
        });
    }
    Action::requeue(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_a_minute_and_starts_over_after_success() {
        let backoffs = Backoffs::default();
        let waits: Vec<_> = (0..12)
            .map(|_| backoffs.failed("Drive d", "NotFound").0)
            .collect();
        assert_eq!(waits[0], FIRST_WAIT);
        assert_eq!(waits[1], FIRST_WAIT * 2);
        assert_eq!(*waits.last().unwrap(), GREATEST_WAIT);
        backoffs.succeeded("Drive d");
        assert_eq!(backoffs.failed("Drive d", "NotFound"), (FIRST_WAIT, true));
    }

    #[test]
    fn a_category_is_news_once() {
        let backoffs = Backoffs::default();
        assert!(backoffs.failed("Drive d", "NotFound").1);
        assert!(!backoffs.failed("Drive d", "NotFound").1);
        assert!(backoffs.failed("Drive d", "Forbidden").1);
    }
}
