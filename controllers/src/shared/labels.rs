//! Labels, annotations, finalizers and names: what other people may rely on.

use std::collections::BTreeMap;
use uuid::Uuid;

/// Value of `app.kubernetes.io/part-of` on everything that the operator makes.
pub const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "weft");
/// `drive`, `engine` or `initiator`.
pub const COMPONENT: &str = "weft.storage/component";
/// Weft's uid of the Drive.
pub const DRIVE_UID: &str = "weft.storage/drive-uid";
/// Weft's uid of the Volume.
pub const VOLUME_UID: &str = "weft.storage/volume-uid";
/// Term of an engine's pod and Secret.
pub const TERM: &str = "weft.storage/term";
/// Annotation: name of the object that a pod, Secret, claim or PersistentVolume was made for
/// (a name may be longer than a label's value).
pub const OWNER: &str = "weft.storage/owner";
/// Annotation of a pool's budget: the failure domain whose drives may be evicted.
pub const OPEN: &str = "weft.storage/open";
/// Annotation of a pool's budget: since when that domain is open; empty while none is.
pub const OPEN_SINCE: &str = "weft.storage/open-since";
/// Finalizer of every kind of ours; each kind has one controller, so one name is enough.
pub const FINALIZER: &str = "weft.storage/operator";
/// Field manager of the operator.
pub const MANAGER: &str = "weft-operator";

/// What a pod is a part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Component {
    /// Drive pod, in the drives' namespace.
    Drive,
    /// Engine pod, in the engines' namespace.
    Engine,
    /// User-space initiator pod, in the operator's namespace.
    Initiator,
}

impl Component {
    /// As the label spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drive => "drive",
            Self::Engine => "engine",
            Self::Initiator => "initiator",
        }
    }

    /// Selects everything of this component.
    pub fn selector(self) -> String {
        format!("{COMPONENT}={}", self.as_str())
    }
}

/// Labels of something made for the object with this uid (`uid_label` is one of the `…_UID`).
pub fn labels(component: Component, uid_label: &str, uid: Uuid) -> BTreeMap<String, String> {
    BTreeMap::from([
        (PART_OF.0.to_owned(), PART_OF.1.to_owned()),
        (COMPONENT.to_owned(), component.as_str().to_owned()),
        (uid_label.to_owned(), uid.hyphenated().to_string()),
    ])
}

/// Annotation of a Volume that `weft-operator adopt` is still making, or holds: nothing else touches it.
pub const ADOPTION: &str = "weft.storage/adoption";

/// The annotation that names the owner.
pub fn owner_annotation(owner: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(OWNER.to_owned(), owner.to_owned())])
}

/// `<name cut to 40>-<tail>`: a pod's name. Dots become hyphens, so that it is a host name too.
pub fn pod_name(name: &str, tail: &str) -> String {
    let stem: String = name
        .chars()
        .take(40)
        .map(|c| if c == '.' { '-' } else { c })
        .collect();
    format!("{}-{tail}", stem.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_name_is_cut_and_has_no_dots() {
        assert_eq!(pod_name("n1-d0", "0123abcd"), "n1-d0-0123abcd");
        assert_eq!(pod_name("a.b", "0123abcd-7"), "a-b-0123abcd-7");
        let long = pod_name(&"x".repeat(100), "0123abcd");
        assert_eq!(long.len(), 49);
        assert_eq!(
            pod_name(&format!("{}.rest", "x".repeat(39)), "t"),
            format!("{}-t", "x".repeat(39))
        );
    }
}
