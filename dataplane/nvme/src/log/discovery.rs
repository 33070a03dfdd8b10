//! Discovery log page (Fabrics section 5.3, figures 34 and 35).

use crate::text::{nul_padded, read_nul_padded, read_space_padded, space_padded};
use std::net::{IpAddr, SocketAddr};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// TRTYPE: TCP.
const TCP: u8 = 3;
/// ADRFAM.
const IPV4: u8 = 1;
const IPV6: u8 = 2;
/// SUBTYPE: an NVM subsystem.
const NVM_SUBSYSTEM: u8 = 2;
/// TREQ: nothing is said of a secure channel (00b), SQ flow control may be disabled (bit 2). On "not
/// required" (10b) `nvme connect-all` tries one, and fails.
const TREQ: u8 = 0b100;
/// CNTLID: controllers are made at Connect.
const DYNAMIC: u16 = 0xffff;
/// ASQSZ: the smallest that the specification allows.
const ADMIN_QUEUE: u16 = 32;

/// A subsystem and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiscoveryRecord {
    /// SUBNQN.
    pub subsystem: String,
    /// TRADDR, TRSVCID and ADRFAM.
    pub address: SocketAddr,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    genctr: U64,
    numrec: U64,
    recfmt: U16,
    reserved: [u8; 1006],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    trtype: u8,
    adrfam: u8,
    subtype: u8,
    treq: u8,
    portid: U16,
    cntlid: U16,
    asqsz: U16,
    eflags: U16,
    reserved_12: [u8; 20],
    trsvcid: [u8; 32],
    reserved_64: [u8; 192],
    subnqn: [u8; 256],
    traddr: [u8; 256],
    tsas_sectype: u8,
    tsas: [u8; 255],
}

/// The page: header and records of 1024 bytes each.
pub fn discovery(generation: u64, records: &[DiscoveryRecord]) -> Vec<u8> {
    let header = Header {
        genctr: U64::new(generation),
        numrec: U64::new(records.len() as u64),
        ..Header::new_zeroed()
    };
    let mut page = header.as_bytes().to_vec();
    for record in records {
        let ip = record.address.ip().to_canonical();
        let entry = Entry {
            trtype: TCP,
            adrfam: if ip.is_ipv4() { IPV4 } else { IPV6 },
            subtype: NVM_SUBSYSTEM,
            treq: TREQ,
            portid: U16::new(1),
            cntlid: U16::new(DYNAMIC),
            asqsz: U16::new(ADMIN_QUEUE),
            trsvcid: space_padded(&record.address.port().to_string()),
            subnqn: nul_padded(&record.subsystem),
            traddr: space_padded(&ip.to_string()),
            ..Entry::new_zeroed()
        };
        page.extend_from_slice(entry.as_bytes());
    }
    page
}

/// Generation, and the NVM subsystems that can be reached over TCP. `None` if the page is shorter
/// than it says.
pub fn parse_discovery(page: &[u8]) -> Option<(u64, Vec<DiscoveryRecord>)> {
    let (header, rest) = Header::ref_from_prefix(page).ok()?;
    let count = usize::try_from(header.numrec.get()).ok()?;
    let entries = <[Entry]>::ref_from_prefix_with_elems(rest, count).ok()?.0;
    let records = entries
        .iter()
        .filter(|entry| entry.trtype == TCP && entry.subtype == NVM_SUBSYSTEM)
        .filter_map(|entry| {
            let ip: IpAddr = read_space_padded(&entry.traddr)?.parse().ok()?;
            let port = read_space_padded(&entry.trsvcid)?.parse().ok()?;
            Some(DiscoveryRecord {
                subsystem: read_nul_padded(&entry.subnqn)?.to_owned(),
                address: SocketAddr::new(ip, port),
            })
        });
    Some((header.genctr.get(), records.collect()))
}

/// Bytes that the whole page has, by its header; `None` without a whole header.
pub fn discovery_length(page: &[u8]) -> Option<u64> {
    let (header, _) = Header::ref_from_prefix(page).ok()?;
    header.numrec.get().checked_add(1)?.checked_mul(1024)
}

/// GENCTR, by the page's header; `None` without a whole header.
pub fn discovery_generation(page: &[u8]) -> Option<u64> {
    let (header, _) = Header::ref_from_prefix(page).ok()?;
    Some(header.genctr.get())
}

const _: () = assert!(size_of::<Header>() == 1024 && size_of::<Entry>() == 1024);

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<DiscoveryRecord> {
        ["10.4.0.7:4420", "[fd00::7]:4420"]
            .map(|address| DiscoveryRecord {
                subsystem: "nqn.2026-11.storage.weft:volume:1".into(),
                address: address.parse().unwrap(),
            })
            .to_vec()
    }

    #[test]
    fn fields_are_where_hosts_look() {
        let page = discovery(7, &records());
        assert_eq!(page.len(), 3 * 1024);
        assert_eq!(page[..16], [7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(page[1024..1028], [3, 1, 2, 4]);
        assert_eq!(page[2 * 1024 + 1], 2, "IPv6");
        assert_eq!(page[1030..1034], [0xff, 0xff, 32, 0]);
        assert_eq!(&page[1024 + 32..1024 + 37], b"4420 ");
        assert_eq!(&page[1024 + 256..1024 + 260], b"nqn.");
        assert_eq!(&page[1024 + 512..1024 + 521], b"10.4.0.7 ");
    }

    #[test]
    fn a_page_is_read_as_it_was_written_and_not_beyond_its_end() {
        let page = discovery(7, &records());
        assert_eq!(parse_discovery(&page), Some((7, records())));
        assert_eq!(discovery_length(&page), Some(3 * 1024));
        assert_eq!(discovery_generation(&page[..1024]), Some(7));
        assert_eq!(parse_discovery(&page[..2 * 1024]), None);
        assert_eq!(parse_discovery(&page[..100]), None);
    }
}
