//! Namespace Identification Descriptor list (Base section 5.17.2.3, figure 277).

use super::SIZE;
use uuid::Uuid;

const NIDT_NGUID: u8 = 2;
const NIDT_UUID: u8 = 3;
const NIDT_CSI: u8 = 4;
/// Type, length, two reserved bytes.
const HEADER: usize = 4;

/// UUID, NGUID and command set of a namespace.
pub fn descriptors(uuid: Uuid) -> Vec<u8> {
    let mut list = Vec::with_capacity(SIZE);
    for (kind, value) in [
        (NIDT_UUID, uuid.as_bytes().as_slice()),
        (NIDT_NGUID, uuid.as_bytes().as_slice()),
        (NIDT_CSI, &[0]),
    ] {
        // 16 at most.
        let length = u8::try_from(value.len()).unwrap_or_default();
        list.extend_from_slice(&[kind, length, 0, 0]);
        list.extend_from_slice(value);
    }
    list.resize(SIZE, 0);
    list
}

/// The UUID in a list received.
pub fn find_uuid(list: &[u8]) -> Option<Uuid> {
    let mut rest = list;
    loop {
        let (kind, length) = (*rest.first()?, usize::from(*rest.get(1)?));
        if length == 0 {
            return None;
        }
        let value = rest.get(HEADER..HEADER + length)?;
        if kind == NIDT_UUID {
            return Uuid::from_slice(value).ok();
        }
        rest = rest.get(HEADER + length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uuid_nguid_and_command_set_are_listed_and_an_empty_one_ends() {
        let list = descriptors(Uuid::from_u128(9));
        assert_eq!(list.len(), 4096);
        assert_eq!(list[..4], [3, 16, 0, 0]);
        assert_eq!(list[20..24], [2, 16, 0, 0]);
        assert_eq!(list[40..45], [4, 1, 0, 0, 0]);
        assert!(list[45..].iter().all(|byte| *byte == 0));
        assert_eq!(find_uuid(&list), Some(Uuid::from_u128(9)));
    }

    proptest! {
        #[test]
        fn any_list_is_searched_to_an_end(list in prop::collection::vec(any::<u8>(), 0..4096)) {
            let _ = find_uuid(&list);
        }
    }
}
