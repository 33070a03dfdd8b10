//! Loop devices with direct I/O and 4096-byte blocks, as a node plugin makes them.
#![expect(unsafe_code, reason = "ioctl of loop devices has no safe wrapper")]

use anyhow::Context;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, NoArg, Opcode, Setter};
use std::ffi::c_void;
use std::path::{Path, PathBuf};

const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_SET_CAPACITY: Opcode = 0x4C07;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_config` (include/uapi/linux/loop.h) with its `loop_info64` inside.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    device_inode_rdevice_offset_sizelimit: [u64; 5],
    number_encrypt_type_key_size: [u32; 3],
    flags: u32,
    names_and_key: [u8; 64 + 64 + 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

struct GetFree;

// SAFETY: the opcode takes no argument and its result is the return value.
unsafe impl Ioctl for GetFree {
    type Output = i32;
    const IS_MUTATING: bool = false;
    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }
    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }
    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

/// A loop device that is cleared when its last user closes it, this object included.
pub struct LoopDevice {
    path: PathBuf,
    open: OwnedFd,
}

impl LoopDevice {
    /// Attaches a file.
    pub fn attach(file: &Path) -> anyhow::Result<Self> {
        let direct = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        let backing = rustix::fs::open(file, direct, Mode::empty())
            .with_context(|| format!("opening {}", file.display()))?;
        let control = rustix::fs::open("/dev/loop-control", OFlags::RDWR, Mode::empty())?;
        loop {
            // SAFETY: see the implementation of the trait.
            let number = unsafe { rustix::ioctl::ioctl(&control, GetFree) }?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let device = rustix::fs::open(&path, flags, Mode::empty())?;
            let config = LoopConfig {
                fd: u32::try_from(backing.as_raw_fd())?,
                block_size: 4096,
                device_inode_rdevice_offset_sizelimit: [0; 5],
                number_encrypt_type_key_size: [0; 3],
                flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
                names_and_key: [0; 160],
                init: [0; 2],
                reserved: [0; 8],
            };
            // SAFETY: the opcode reads one `struct loop_config`, which this is.
            let set = unsafe {
                let setter = Setter::<LOOP_CONFIGURE, LoopConfig>::new(config);
                rustix::ioctl::ioctl(&device, setter)
            };
            match set {
                Ok(()) => {
                    return Ok(Self { path, open: device });
                }
                // Somebody else on this machine was quicker.
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(errno).context("LOOP_CONFIGURE"),
            }
        }
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the device be as large as the file behind it, which the kernel has been asked for.
    pub fn follow_size(&self, file: &Path) -> anyhow::Result<u64> {
        std::fs::metadata(file)?;
        // SAFETY: the opcode takes no argument.
        unsafe { rustix::ioctl::ioctl(&self.open, NoArg::<LOOP_SET_CAPACITY>::new()) }?;
        Ok(rustix::fs::seek(&self.open, rustix::fs::SeekFrom::End(0))?)
    }

    /// Whether the kernel does direct I/O on the file.
    pub fn is_direct(&self) -> bool {
        let name = self
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        std::fs::read_to_string(format!("/sys/block/{name}/loop/dio"))
            .is_ok_and(|dio| dio.trim() == "1")
    }
}

const _: () = assert!(size_of::<LoopConfig>() == 304);
