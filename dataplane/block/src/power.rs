use crate::medium::check;
use crate::{BLOCK, DiskError, ErrorKind, Medium, Write};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A medium in memory whose power can be cut: what was not flushed may be there or not, block by
/// block, and after a chosen number of requests nothing more is done. For tests of recovery.
#[derive(Debug)]
pub struct PowerDisk(Mutex<State>);

#[derive(Debug)]
struct State {
    durable: Vec<u8>,
    /// Newest bytes of each block that was written since the last flush, and all older ones.
    cached: BTreeMap<u64, Vec<Vec<u8>>>,
    requests: u64,
    off_after: Option<u64>,
}

impl PowerDisk {
    /// Starts with these bytes, all durable.
    pub fn new(bytes: Vec<u8>) -> Self {
        let cached = BTreeMap::new();
        Self(Mutex::new(State {
            durable: bytes,
            cached,
            requests: 0,
            off_after: None,
        }))
    }

    /// Refuses every request after `requests` more.
    pub fn cut_after(&self, requests: u64) {
        let mut state = self.state();
        state.off_after = Some(state.requests + requests);
    }

    /// Requests that changed something or asked to make it durable.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// What a power cut now leaves. For each block written since the last flush
    /// `choose(offset, n)` says which of its n + 1 versions, 0 being the durable one, stays.
    pub fn after_power_cut(&self, mut choose: impl FnMut(u64, usize) -> usize) -> Vec<u8> {
        let state = self.state();
        let mut bytes = state.durable.clone();
        for (offset, versions) in &state.cached {
            let chosen = choose(*offset, versions.len())
                .checked_sub(1)
                .and_then(|at| versions.get(at));
            if let Some(version) = chosen {
                let start = *offset as usize;
                bytes[start..start + version.len()].copy_from_slice(version);
            }
        }
        bytes
    }

    /// What the death of the process alone leaves: everything written.
    pub fn after_process_death(&self) -> Vec<u8> {
        self.after_power_cut(|_, versions| versions)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, what: &str, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError> {
        let mut state = self.state();
        check(what, state.durable.len() as u64, offset, data.len() as u64)?;
        state.powered()?;
        for (index, block) in data.chunks(BLOCK as usize).enumerate() {
            let at = offset + index as u64 * BLOCK;
            match mode {
                Write::Cached => state.cached.entry(at).or_default().push(block.to_vec()),
                Write::Durable => {
                    state.cached.remove(&at);
                    state.durable[at as usize..][..block.len()].copy_from_slice(block);
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn powered(&mut self) -> Result<(), DiskError> {
        if self.off_after.is_some_and(|limit| self.requests >= limit) {
            return Err(DiskError::new(ErrorKind::MediaWrite, "the power is off"));
        }
        self.requests += 1;
        Ok(())
    }
}

impl Medium for PowerDisk {
    fn size(&self) -> u64 {
        self.state().durable.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let state = self.state();
        check(
            "read",
            state.durable.len() as u64,
            offset,
            into.len() as u64,
        )?;
        for (index, block) in into.chunks_mut(BLOCK as usize).enumerate() {
            let at = offset + index as u64 * BLOCK;
            match state.cached.get(&at).and_then(|versions| versions.last()) {
                Some(newest) => block.copy_from_slice(newest),
                None => block.copy_from_slice(&state.durable[at as usize..][..BLOCK as usize]),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError> {
        self.change("write", offset, data, mode)
    }

    fn flush(&self) -> Result<(), DiskError> {
        let mut state = self.state();
        state.powered()?;
        for (offset, versions) in std::mem::take(&mut state.cached) {
            if let Some(newest) = versions.last() {
                state.durable[offset as usize..][..newest.len()].copy_from_slice(newest);
            }
        }
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.change(
            "write zeroes",
            offset,
            &vec![0; length as usize],
            Write::Cached,
        )
    }

    fn discard_at(&self, _offset: u64, _length: u64) -> Result<(), DiskError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_may_keep_or_lose_what_was_not_flushed() {
        let disk = PowerDisk::new(vec![0; 8192]);
        disk.write_at(0, &[1; 4096], Write::Cached).unwrap();
        disk.flush().unwrap();
        disk.write_at(0, &[2; 4096], Write::Cached).unwrap();
        disk.write_at(4096, &[3; 4096], Write::Durable).unwrap();
        assert_eq!(disk.after_power_cut(|_, _| 0)[0], 1);
        assert_eq!(disk.after_process_death()[0], 2);
        assert_eq!(disk.after_power_cut(|_, _| 0)[4096], 3);
    }

    #[test]
    fn nothing_is_written_after_the_cut() {
        let disk = PowerDisk::new(vec![0; 8192]);
        disk.cut_after(1);
        disk.write_at(0, &[1; 4096], Write::Cached).unwrap();
        assert!(disk.flush().is_err());
        assert!(disk.write_at(4096, &[1; 4096], Write::Durable).is_err());
    }
}
