//! Pages that tools ask for and that have little to say here.

/// One entry of the Error Information log (Base figure 206): no error was recorded.
pub(super) fn error() -> Vec<u8> {
    vec![0; 64]
}

/// SMART / Health Information (Base figure 207). Zeros mean "not reported"; the spare is full, so
/// that tools do not raise an alarm.
pub(super) fn health() -> Vec<u8> {
    const AVAILABLE_SPARE: usize = 3;
    let mut log = vec![0; 512];
    if let Some(spare) = log.get_mut(AVAILABLE_SPARE) {
        *spare = 100;
    }
    log
}

/// Firmware Slot Information (Base figure 209): slot 1 is active.
pub(super) fn firmware() -> Vec<u8> {
    let mut log = vec![0; 512];
    if let Some(active) = log.first_mut() {
        *active = 1;
    }
    if let Some(revision) = log.get_mut(8..16) {
        revision.copy_from_slice(b"1       ");
    }
    log
}

/// Changed Namespace List (Base section 5.16.1.5): what changed since the last read.
pub(super) fn changed_namespaces(changed: Option<u32>) -> Vec<u8> {
    let mut log = vec![0; 4096];
    if let (Some(changed), Some(first)) = (changed, log.first_chunk_mut::<4>()) {
        *first = changed.to_le_bytes();
    }
    log
}
