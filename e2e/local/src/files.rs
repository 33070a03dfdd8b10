//! A file system on a loop device on the volume's file, as a node plugin stacks them.

use crate::loopdev::LoopDevice;
use anyhow::{Context, ensure};
use rustix::mount::{MountFlags, UnmountFlags};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes written at once.
const PIECE: usize = 256 << 10;

/// A mounted ext4.
pub struct FileSystem {
    device: LoopDevice,
    mount_point: PathBuf,
    mounted: bool,
}

impl FileSystem {
    /// Attaches `file`, makes an ext4 on it and mounts it.
    pub fn make(file: &Path, mount_point: &Path) -> anyhow::Result<Self> {
        let device = LoopDevice::attach(file)?;
        ensure!(
            device.is_direct(),
            "the kernel does not do direct I/O on {}",
            file.display()
        );
        // All of it now: nothing is left for the kernel to initialise in the background.
        let at_once = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4")
            .args(["-qF", "-E", at_once])
            .arg(device.path()))?;
        std::fs::create_dir_all(mount_point)?;
        let mut made = Self {
            device,
            mount_point: mount_point.to_owned(),
            mounted: false,
        };
        made.mount()?;
        Ok(made)
    }

    /// Mounts it; what the kernel has cached of an earlier mount is gone.
    pub fn mount(&mut self) -> anyhow::Result<()> {
        rustix::mount::mount(
            self.device.path(),
            &self.mount_point,
            "ext4",
            MountFlags::empty(),
            None,
        )
        .context("mounting ext4")?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it.
    pub fn unmount(&mut self) -> anyhow::Result<()> {
        rustix::mount::unmount(&self.mount_point, UnmountFlags::empty())
            .context("unmounting ext4")?;
        self.mounted = false;
        Ok(())
    }

    /// Checks the unmounted file system.
    pub fn check(&self) -> anyhow::Result<()> {
        run(Command::new("fsck.ext4").arg("-fn").arg(self.device.path()))
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount_point.join(name)
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        if self.mounted {
            let _ = rustix::mount::unmount(&self.mount_point, UnmountFlags::DETACH);
        }
    }
}

/// Writes so many bytes that do not repeat, each piece made durable, and gives their SHA-256.
pub fn write_random(path: &Path, length: usize, seed: u64) -> anyhow::Result<Vec<u8>> {
    let mut file = File::create(path)?;
    let mut sum = Sha256::new();
    let mut state = seed | 1;
    let mut piece = vec![0u8; PIECE];
    for _ in 0..length / PIECE {
        for word in piece.chunks_exact_mut(8) {
            // xorshift64: enough not to repeat, and quick in a debug build.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        sum.update(&piece);
        file.write_all(&piece).context("write")?;
        file.sync_data().context("fdatasync")?;
    }
    file.sync_all().context("fsync")?;
    Ok(sum.finalize().to_vec())
}

/// SHA-256 of a file.
pub fn sum(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut sum = Sha256::new();
    let mut piece = vec![0u8; PIECE];
    loop {
        let length = file.read(&mut piece).context("read")?;
        if length == 0 {
            return Ok(sum.finalize().to_vec());
        }
        sum.update(piece.get(..length).unwrap_or_default());
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    Ok(())
}
