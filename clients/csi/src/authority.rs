//! Lets the kubelet in: mends the `:authority` of its requests.
//!
//! The kubelet's plugin watcher dials the registration socket by its path and sends that path,
//! percent-encoded, as `:authority`. RFC 9113 section 8.3.1 allows no such authority, and the
//! HTTP/2 library resets the stream for it. So the bytes from the kubelet pass through here: each
//! header block is decoded, the authority replaced, and the block sent on in literals.

use loona_hpack::Decoder;
use std::io;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy, duplex, split,
};
use tokio::net::UnixStream;

/// What takes the authority's place.
const AUTHORITY: &[u8] = b"localhost";
/// The client connection preface (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// Header of a frame (section 4.1).
const FRAME: usize = 9;
/// Largest frame before SETTINGS_MAX_FRAME_SIZE is raised, which the server here never does.
const MAX_FRAME: usize = 16_384;
const HEADERS: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes on the way between the two.
const BUFFER: usize = 16 << 10;

/// The connection as the server may see it.
pub fn mend(client: UnixStream) -> DuplexStream {
    let (ours, servers) = duplex(BUFFER);
    tokio::spawn(async move {
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, to_server) = split(ours);
        // Either end may go first; the other then sees the end of its stream.
        let requests = pass(from_client, to_server);
        let answers = copy(&mut from_server, &mut to_client);
        tokio::select! {
            ended = requests => if let Err(error) = ended {
                tracing::debug!(%error, "a registration connection ended");
            },
            _ = answers => {}
        }
    });
    servers
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut preface = [0; PREFACE];
    from.read_exact(&mut preface).await?;
    to.write_all(&preface).await?;
    let mut decoder = Decoder::new();
    loop {
        let mut header = [0; FRAME];
        from.read_exact(&mut header).await?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if length > MAX_FRAME {
            return Err(invalid("a frame is too large"));
        }
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await?;
        if kind != HEADERS {
            to.write_all(&header).await?;
            to.write_all(&payload).await?;
            continue;
        }
        if flags & END_HEADERS == 0 {
            return Err(invalid("a header block is larger than one frame"));
        }
        let block = rewrite(&mut decoder, fragment(&payload, flags)?)?;
        let [_, b, c] = u24(block.len())?;
        let [a, ..] = u24(block.len())?;
        // Padding and priority are left out.
        to.write_all(&[a, b, c, HEADERS, flags & !(PADDED | PRIORITY)])
            .await?;
        to.write_all(&stream).await?;
        to.write_all(&block).await?;
    }
}

/// The field block fragment in a HEADERS payload (section 6.2).
fn fragment(payload: &[u8], flags: u8) -> io::Result<&[u8]> {
    let mut block = payload;
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (first, rest) = block
            .split_first()
            .ok_or_else(|| invalid("no pad length"))?;
        padding = usize::from(*first);
        block = rest;
    }
    if flags & PRIORITY != 0 {
        block = block.get(5..).ok_or_else(|| invalid("no priority"))?;
    }
    let end = block
        .len()
        .checked_sub(padding)
        .ok_or_else(|| invalid("more padding than bytes"))?;
    block
        .get(..end)
        .ok_or_else(|| invalid("more padding than bytes"))
}

/// The same fields with another authority, as literals without indexing (RFC 7541 section 6.2.2):
/// they leave no trace in the server's dynamic table.
fn rewrite(decoder: &mut Decoder<'_>, block: &[u8]) -> io::Result<Vec<u8>> {
    let fields = decoder
        .decode(block)
        .map_err(|_| invalid("header block cannot be decoded"))?;
    let mut again = Vec::with_capacity(block.len() * 2);
    for (name, value) in fields {
        let value = if name == b":authority" {
            AUTHORITY
        } else {
            value.as_slice()
        };
        again.push(0);
        string(&mut again, &name);
        string(&mut again, value);
    }
    Ok(again)
}

/// A string literal without Huffman coding (RFC 7541 section 5.2).
fn string(into: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if let Ok(short) = u8::try_from(length)
        && short < 0x7f
    {
        into.push(short);
    } else {
        // An integer that does not fit in the prefix of seven bits (section 5.1).
        into.push(0x7f);
        length -= 0x7f;
        while length >= 0x80 {
            into.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        into.push(length as u8);
    }
    into.extend_from_slice(text);
}

fn u24(value: usize) -> io::Result<[u8; 3]> {
    match u32::try_from(value).map(u32::to_be_bytes) {
        Ok([0, a, b, c]) if value <= MAX_FRAME => Ok([a, b, c]),
        _ => Err(invalid("a header block grew too large")),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loona_hpack::Encoder;

    #[test]
    fn only_the_authority_is_another_afterwards() {
        let long = vec![b'x'; 400];
        let fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"POST"),
            (
                b":authority",
                b"%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fx.sock",
            ),
            (b"content-type", b"application/grpc"),
            (b"long", &long),
        ];
        let block = Encoder::new().encode(fields.iter().copied());
        let again = rewrite(&mut Decoder::new(), &block).unwrap();
        let seen = Decoder::new().decode(&again).unwrap();
        assert_eq!(seen.len(), fields.len());
        for ((name, value), (seen_name, seen_value)) in fields.iter().zip(&seen) {
            assert_eq!(name, &seen_name.as_slice());
            let expected = if name == b":authority" {
                AUTHORITY
            } else {
                value
            };
            assert_eq!(expected, seen_value.as_slice());
        }
    }

    #[test]
    fn padding_and_priority_are_taken_off_and_lies_about_them_refused() {
        assert_eq!(fragment(&[1, 7, 8, 0], PADDED).unwrap(), [7, 8]);
        assert_eq!(fragment(&[0, 0, 0, 0, 1, 9], PRIORITY).unwrap(), [9]);
        assert!(fragment(&[9, 1], PADDED).is_err());
        assert!(fragment(&[1, 2], PRIORITY).is_err());
    }
}
