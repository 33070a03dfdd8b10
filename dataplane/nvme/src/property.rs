//! Controller properties (Base section 3.1.3): CAP, VS, CC, CSTS.

/// Offset of CAP.
pub const CAP: u32 = 0x00;
/// Offset of VS.
pub const VS: u32 = 0x08;
/// Offset of CC.
pub const CC: u32 = 0x14;
/// Offset of CSTS.
pub const CSTS: u32 = 0x1c;
/// Offset of NSSR.
pub const NSSR: u32 = 0x20;

/// VS: 1.4. From 2.0 on, Linux also asks for structures that say nothing more about one namespace.
pub const VERSION: u32 = 0x0001_0400;

/// CC.EN.
pub const CC_EN: u32 = 1;
/// CC as a host enables an NVM controller: IOCQES 4, IOSQES 6, EN.
pub const CC_ENABLED: u32 = 4 << 20 | 6 << 16 | CC_EN;
/// CC.SHN: 01b, normal shutdown.
pub const CC_SHUTDOWN: u32 = 1 << 14;
/// CSTS.RDY.
pub const CSTS_RDY: u32 = 1;
/// CSTS.CFS.
pub const CSTS_CFS: u32 = 1 << 1;
/// CSTS.SHST: 10b, complete.
pub const CSTS_SHUT: u32 = 0b10 << 2;

/// CAP.TO in units of 500 ms: how long a host waits for CSTS.RDY. 0 would give it no time.
const TIMEOUT: u64 = 30;

/// CAP of a controller with queues of that many entries. CRMS stays 0, else hosts read CRTO.
pub fn cap(queue_size: u16) -> u64 {
    const CQR: u64 = 1 << 16;
    const CSS_NVM: u64 = 1 << 37;
    u64::from(queue_size.saturating_sub(1)) | CQR | TIMEOUT << 24 | CSS_NVM
}

/// CC and CSTS, and how they change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lifecycle {
    cc: u32,
    ready: bool,
    shut: bool,
    failed: bool,
}

impl Lifecycle {
    /// CC: reads back as written.
    pub fn cc(self) -> u32 {
        self.cc
    }

    /// CSTS.
    pub fn csts(self) -> u32 {
        let bit = |on, mask| if on { mask } else { 0 };
        bit(self.ready, CSTS_RDY) | bit(self.shut, CSTS_SHUT) | bit(self.failed, CSTS_CFS)
    }

    /// Whether commands other than Fabrics commands are served.
    pub fn is_ready(self) -> bool {
        self.ready
    }

    /// Whether the host has asked for the end: shutdown, or EN from 1 to 0.
    pub fn is_shut(self) -> bool {
        self.shut
    }

    /// Property Set of CC.
    pub fn set_cc(&mut self, value: u32) {
        let was = self.cc & CC_EN != 0;
        let is = value & CC_EN != 0;
        self.cc = value;
        if is && !was {
            // Section 3.1.3.5: entry sizes and the command set must be those supported. MPS is
            // memory page size 2^(12+MPS); CAP.MPSMAX 0 allows 4 KiB alone.
            let iocqes = value >> 20 & 0xf;
            let iosqes = value >> 16 & 0xf;
            let rest = value >> 4 & 0x3ff;
            self.failed = iocqes != 4 || iosqes != 6 || rest != 0;
            self.ready = !self.failed;
            self.shut = false;
        }
        if was && !is {
            *self = Self {
                cc: value,
                ..Self::default()
            };
        }
        if value >> 14 & 0b11 != 0 {
            self.shut = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cap_gives_a_host_time_and_announces_the_nvm_command_set_alone() {
        let cap = cap(128);
        assert_eq!(cap & 0xffff, 127, "MQES is zero-based");
        assert_eq!(cap >> 16 & 1, 1, "CQR");
        assert_eq!(cap >> 24 & 0xff, 30, "TO, 15 s");
        assert_eq!(cap >> 37 & 0xff, 1, "CSS");
        assert_eq!(cap >> 36 & 1, 0, "NSSRS");
        assert_eq!(cap >> 48 & 0xff, 0, "MPSMIN and MPSMAX");
        assert_eq!(cap >> 59 & 0b11, 0, "CRMS");
    }

    #[test]
    fn cc_reads_back_as_written_and_ready_follows_enable() {
        let mut life = Lifecycle::default();
        life.set_cc(0x0046_0000);
        assert_eq!((life.cc(), life.csts()), (0x0046_0000, 0));
        life.set_cc(0x0046_0001);
        assert_eq!((life.cc(), life.csts()), (0x0046_0001, CSTS_RDY));
        life.set_cc(0x0046_4001);
        assert_eq!(
            (life.cc(), life.csts()),
            (0x0046_4001, CSTS_RDY | CSTS_SHUT)
        );
        life.set_cc(0x0046_0000);
        assert_eq!((life.cc(), life.csts()), (0x0046_0000, 0));
    }

    #[test]
    fn entry_sizes_that_are_not_ours_make_the_controller_fail() {
        let mut life = Lifecycle::default();
        life.set_cc(0x0045_0001);
        assert_eq!((life.csts(), life.is_ready()), (CSTS_CFS, false));
    }
}
