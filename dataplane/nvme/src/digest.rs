//! CRC32C as PDUs carry it (TCP section 3.1.2 and figure 10): initial value all ones, final
//! inversion, little endian on the wire.

/// Digest of one piece of memory.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The crate answers 32 bit checksums in a u64 whose upper half is zero.
    let wide = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(wide & u64::from(u32::MAX)).unwrap_or_default()
}

/// Which digests a connection carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Digests {
    /// After each header (HDGST).
    pub header: bool,
    /// After the data of each PDU (DDGST).
    pub data: bool,
}

impl Digests {
    /// Bytes that the header digest takes.
    pub fn header_len(self) -> usize {
        if self.header { 4 } else { 0 }
    }

    /// Bytes that the data digest takes.
    pub fn data_len(self) -> usize {
        if self.data { 4 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_is_that_of_crc32c() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720 section B.4: 32 bytes of zeros.
        assert_eq!(super::crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn the_processor_computes_it() {
        let by = crc_fast::get_calculator_target(crc_fast::CrcAlgorithm::Crc32Iscsi);
        assert!(!by.contains("software"), "{by}");
    }
}
