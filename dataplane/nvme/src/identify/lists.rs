//! Active Namespace ID list (Base section 5.17.2.2) and the NVM command set's Identify Controller
//! (NVM figure 101).

use super::SIZE;
use crate::NSID;

/// The namespaces above `after`, ascending: one at most.
pub fn active_namespaces(after: u32) -> Vec<u8> {
    let mut list = vec![0; SIZE];
    if after < NSID
        && let Some(first) = list.first_chunk_mut::<4>()
    {
        *first = NSID.to_le_bytes();
    }
    list
}

/// No limits beyond MDTS and those of the command's own fields: all zeros.
pub fn nvm_controller() -> Vec<u8> {
    vec![0; SIZE]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_begins_above_the_given_namespace() {
        assert_eq!(active_namespaces(0)[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(active_namespaces(1).iter().all(|byte| *byte == 0));
    }
}
