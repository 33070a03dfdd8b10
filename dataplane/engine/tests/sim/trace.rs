//! What happened in which order: printed when a seed is replayed, and always hashed, so that two runs
//! of a seed can be compared.

use std::fmt::{self, Write};
use std::sync::Mutex;
use tokio::time::Instant;

/// FNV-1a over every line.
struct Digest(u64);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        Ok(())
    }
}

/// See the module.
pub struct Trace {
    began: Instant,
    is_printed: bool,
    digest: Mutex<Digest>,
}

impl Trace {
    pub fn new(is_printed: bool) -> Self {
        Self {
            began: Instant::now(),
            is_printed,
            digest: Mutex::new(Digest(0xcbf2_9ce4_8422_2325)),
        }
    }

    /// Adds a line at the virtual time of now.
    pub fn say(&self, line: fmt::Arguments<'_>) {
        let at = self.began.elapsed().as_millis();
        let mut digest = self.digest.lock().unwrap();
        writeln!(digest, "{at} {line}").unwrap();
        if self.is_printed {
            println!("{at:>8} ms  {line}");
        }
    }

    pub fn digest(&self) -> u64 {
        self.digest.lock().unwrap().0
    }
}
