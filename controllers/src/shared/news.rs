//! Whether a watched object says something new about what a controller hangs on: its other
//! changes (how full it is, a heartbeat) shall wake nobody.

use kube::{Resource, ResourceExt};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

/// Remembers, by name, what was last seen of one kind.
#[derive(Default)]
pub struct News(Mutex<HashMap<String, u64>>);

impl News {
    /// Whether `facts` of the object differ from those before. An object that is being deleted is
    /// always news, and so is the first sight of one.
    pub fn of<K: Resource>(&self, object: &K, facts: &impl Hash) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = object.name_any();
        if object.meta().deletion_timestamp.is_some() {
            known.remove(&name);
            return true;
        }
        let mut hasher = DefaultHasher::new();
        facts.hash(&mut hasher);
        object.meta().uid.hash(&mut hasher);
        let hash = hasher.finish();
        known.insert(name, hash) != Some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn only_a_change_of_the_facts_is_news_and_a_deletion_always() {
        let (news, mut pod) = (News::default(), Pod::default());
        pod.metadata.name = Some("a".into());
        assert!(news.of(&pod, &1));
        assert!(!news.of(&pod, &1));
        assert!(news.of(&pod, &2));
        pod.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(news.of(&pod, &2));
        assert!(news.of(&pod, &2));
    }
}
