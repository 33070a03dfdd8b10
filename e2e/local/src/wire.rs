//! PDUs by hand (NVMe/TCP 1.0, section 3), right ones and wrong ones.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection that speaks bytes.
pub struct Wire(TcpStream);

impl Wire {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(crate::wait::DEADLINE))?;
        Ok(Self(stream))
    }

    /// Sends bytes. A peer that has closed already is not an error: it was quicker.
    pub fn send(&mut self, bytes: &[u8]) {
        let _peer_was_quicker = self.0.write_all(bytes);
    }

    /// Sends nothing more.
    pub fn finish(&mut self) {
        let _gone_already = self.0.shutdown(std::net::Shutdown::Write);
    }

    /// Reads until the peer closes; gives what it sent.
    pub fn until_closed(&mut self) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        match self.0.read_to_end(&mut answer) {
            Ok(_) => Ok(answer),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(answer),
            Err(error) => Err(error),
        }
    }

    /// Reads exactly so many bytes.
    pub fn read(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads for at most this long; tells whether the peer has closed.
    pub fn closed_within(&mut self, time: Duration) -> bool {
        let _always_valid = self.0.set_read_timeout(Some(time));
        !matches!(self.0.read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A PDU's common header (section 3.1) and the bytes behind it.
pub fn pdu(kind: u8, flags: u8, hlen: u8, pdo: u8, plen: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, flags, hlen, pdo];
    bytes.extend_from_slice(&plen.to_le_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

/// Bytes of an ICResp (section 3.6.2.3).
pub const ICRESP: u8 = 128;

/// A right ICReq (section 3.6.2.2): version 0, no digests, one R2T at a time.
pub fn icreq() -> Vec<u8> {
    pdu(0x00, 0, 128, 0, 128, &[0; 120])
}
