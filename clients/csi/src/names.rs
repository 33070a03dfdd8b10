//! Names of Weft's objects, made from CSI's names. Pure.

use uuid::Uuid;

/// Longest name of a Kubernetes object that is also usable as a label value.
const LONGEST: usize = 63;
/// Name space for the UUIDs made from CSI names (UUIDv5).
const CSI_SPACE: Uuid = Uuid::from_u128(0x7d0c_1f60_6b1e_4a53_9c58_7765_6674_6373);

/// Name of the Volume object for a CSI name: itself where it can be one, else `v-<hash>`.
///
/// Kubernetes sends `pvc-<uid>`; the specification allows any 128 bytes.
pub fn volume(csi_name: &str) -> String {
    if is_object_name(csi_name) {
        csi_name.to_owned()
    } else {
        format!(
            "v-{}",
            Uuid::new_v5(&CSI_SPACE, csi_name.as_bytes()).simple()
        )
    }
}

/// Name of the Attachment object of one volume on one node.
pub fn attachment(volume: &str, node: &str) -> String {
    let node = weft_spec::nqn::node_uuid(node).simple().to_string();
    format!("{volume}-{}", node.split_at(8).0)
}

/// Whether this can be the name of a Volume: an RFC 1123 label.
pub fn is_object_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty()
        && name.len() <= LONGEST
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubernetes_name_stays_and_any_other_becomes_a_hash() {
        assert_eq!(volume("pvc-0af1"), "pvc-0af1");
        for odd in ["", "UPPER", "a.b", "-a", "a-", "ünï", &"x".repeat(64)] {
            let name = volume(odd);
            assert!(
                name.starts_with("v-") && is_object_name(&name),
                "{odd} -> {name}"
            );
            assert_eq!(name, volume(odd));
        }
        assert_ne!(volume("A"), volume("B"));
    }

    #[test]
    fn an_attachment_is_named_by_volume_and_node() {
        let name = attachment("db-0", "n1");
        assert!(name.starts_with("db-0-") && name.len() == "db-0-".len() + 8);
        assert_ne!(name, attachment("db-0", "n2"));
    }
}
