//! What a target says about itself, as an initiator reads it.

use weft_nvme::identify::find_uuid;
use weft_nvme::initiator::Demands;
use weft_nvme::{BLOCK, MAX_TRANSFER, log};

/// Bytes of an Identify structure.
const IDENTIFY: usize = 4096;

pub(crate) fn facts(data: &[u8]) {
    let demands = Demands {
        subsystem: "nqn.2026-11.storage.weft:volume:00000000-0000-0000-0000-000000000001",
        controller: data.get(78).copied().unwrap_or_default().into(),
    };
    let (identify, descriptors) = data.split_at(data.len().min(IDENTIFY));
    if let Ok(facts) = demands.controller(identify) {
        assert!(facts.max_transfer <= MAX_TRANSFER);
        assert_eq!(facts.subsystem, demands.subsystem);
    }
    if let Ok(facts) = demands.namespace(identify, descriptors) {
        assert!(facts.size > 0 && facts.size % BLOCK == 0);
        assert!(!facts.uuid.is_nil());
    }
    let _uuid = find_uuid(descriptors);
    if let Some((generation, records)) = log::parse_discovery(data) {
        let again = log::parse_discovery(&log::discovery(generation, &records));
        assert_eq!(again, Some((generation, records)));
    }
}
