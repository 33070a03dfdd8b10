//! NVMe/TCP load by our own initiator.

use crate::cores::Ran;
use crate::figures::Sample;
use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use rustix::process::Pid;
use std::time::{Duration, Instant};
use weft_block::{Disk, DiskError, Write};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of a request.
    pub size: usize,
    /// Requests at a time.
    pub depth: usize,
    /// Of 100 requests, so many are writes.
    pub writes: u64,
    /// Addresses one after another, else anywhere.
    pub sequential: bool,
    /// What a write's answer promises.
    pub mode: Write,
}

impl Load {
    /// 4 KiB anywhere.
    pub fn random(depth: usize, writes: u64) -> Self {
        Self {
            size: 4096,
            depth,
            writes,
            sequential: false,
            mode: Write::Cached,
        }
    }

    /// 128 KiB one after another.
    pub fn stream(depth: usize, writes: u64) -> Self {
        Self {
            size: 128 << 10,
            sequential: true,
            ..Self::random(depth, writes)
        }
    }

    /// Writes of 4 KiB that are durable when answered, one at a time.
    pub fn durable() -> Self {
        Self {
            mode: Write::Durable,
            ..Self::random(1, 100)
        }
    }

    /// Measures it for a time on the first `span` bytes.
    pub async fn measure(
        self,
        disk: &dyn Disk,
        target: &[Pid],
        span: u64,
        time: Duration,
    ) -> Result<Sample, DiskError> {
        let before: Vec<_> = target.iter().map(|pid| Ran::now(*pid)).collect();
        let began = Instant::now();
        let until = began + time;
        let lanes = (0..self.depth as u64).map(|lane| self.lane(disk, lane, span, until));
        let latencies = try_join_all(lanes).await?.concat();
        let ran = before.iter().map(Ran::since).sum();
        Ok(Sample::of(latencies, began.elapsed(), ran))
    }

    /// One request after another.
    async fn lane(
        self,
        disk: &dyn Disk,
        lane: u64,
        span: u64,
        until: Instant,
    ) -> Result<Vec<Duration>, DiskError> {
        let places = span / self.size as u64;
        let data = Bytes::from(vec![0x5a; self.size]);
        let mut into = BytesMut::zeroed(self.size);
        let mut latencies = Vec::with_capacity(1 << 12);
        let mut number = lane.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = lane * (places / self.depth.max(1) as u64);
        let mut begun = Instant::now();
        while begun < until {
            // Xorshift (Marsaglia 2003): enough to go anywhere.
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            next += 1;
            let place = if self.sequential { next } else { number } % places;
            let offset = place * self.size as u64;
            if (number >> 32) % 100 < self.writes {
                disk.write(offset, data.clone(), self.mode).await?;
            } else {
                disk.read(offset, &mut into).await?;
            }
            let now = Instant::now();
            latencies.push(now - begun);
            begun = now;
        }
        Ok(latencies)
    }
}
