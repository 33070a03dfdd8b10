//! The ioctls of loop devices (`linux/loop.h`, loop(4)), which rustix does not have.
#![expect(
    unsafe_code,
    reason = "ioctl(2) with the kernel's own structs; each call says why it is sound"
)]

use rustix::io::Result;
use rustix::ioctl::{self, NoArg, Opcode, Setter, Updater};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_SET_CAPACITY: Opcode = 0x4C07;
const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;

/// `lo_flags`: no writes.
pub const LO_FLAGS_READ_ONLY: u32 = 1;
/// `lo_flags`: past the page cache of the file behind.
pub const LO_FLAGS_DIRECT_IO: u32 = 16;
/// Bytes of `lo_file_name`, its closing zero included.
pub const NAME_LENGTH: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; NAME_LENGTH],
    crypt_name: [u8; NAME_LENGTH],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl Info {
    const ZERO: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; NAME_LENGTH],
        crypt_name: [0; NAME_LENGTH],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

// The kernel copies exactly these many bytes.
const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);

/// What a configured loop device says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// `lo_file_name`: the name given when it was configured.
    pub name: String,
    /// `lo_flags`.
    pub flags: u32,
}

/// Number of a loop device that is free at this moment; another process may be quicker.
pub fn get_free(control: impl AsFd) -> Result<u32> {
    /// LOOP_CTL_GET_FREE gives its answer as the return value.
    struct GetFree;
    // SAFETY: the opcode takes no argument, so the null pointer is never followed, and the
    // output is made from the return value alone.
    unsafe impl ioctl::Ioctl for GetFree {
        type Output = u32;
        const IS_MUTATING: bool = false;
        fn opcode(&self) -> Opcode {
            LOOP_CTL_GET_FREE
        }
        fn as_ptr(&mut self) -> *mut std::ffi::c_void {
            std::ptr::null_mut()
        }
        unsafe fn output_from_ptr(
            out: ioctl::IoctlOutput,
            _: *mut std::ffi::c_void,
        ) -> Result<u32> {
            u32::try_from(out).map_err(|_| rustix::io::Errno::RANGE)
        }
    }
    // SAFETY: see the implementation just above.
    unsafe { ioctl::ioctl(control, GetFree) }
}

/// How a loop device is to be.
pub struct Setup<'a> {
    /// The file behind it; the kernel holds it from then on.
    pub file: BorrowedFd<'a>,
    /// Logical block size.
    pub block_size: u32,
    /// `lo_file_name`; what is longer than there is room for is cut off.
    pub name: &'a str,
    /// `lo_sizelimit`: at most so many bytes of the file.
    pub size_limit: u64,
    /// `lo_flags`.
    pub flags: u32,
}

/// Binds a file to a free loop device in one step.
pub fn configure(device: impl AsFd, setup: &Setup<'_>) -> Result<()> {
    let mut info = Info {
        flags: setup.flags,
        size_limit: setup.size_limit,
        ..Info::ZERO
    };
    // The last byte stays zero.
    let room = info.file_name.iter_mut().take(NAME_LENGTH - 1);
    room.zip(setup.name.bytes())
        .for_each(|(into, byte)| *into = byte);
    let fd = u32::try_from(setup.file.as_raw_fd()).map_err(|_| rustix::io::Errno::BADF)?;
    let config = Config {
        fd,
        block_size: setup.block_size,
        info,
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, whose layout and size `Config`
    // has (checked above), and it lives until the call returns.
    unsafe { ioctl::ioctl(device, Setter::<LOOP_CONFIGURE, Config>::new(config)) }
}

/// What the device is bound to; ENXIO when to nothing.
pub fn status(device: impl AsFd) -> Result<Status> {
    let mut info = Info::ZERO;
    // SAFETY: LOOP_GET_STATUS64 writes one `struct loop_info64`, whose layout and size `Info`
    // has (checked above); every bit pattern is a valid `Info`.
    unsafe { ioctl::ioctl(device, Updater::<LOOP_GET_STATUS64, Info>::new(&mut info))? };
    let name = info
        .file_name
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    Ok(Status {
        name: String::from_utf8_lossy(name).into_owned(),
        flags: info.flags,
    })
}

/// Lets the device be as large as the file behind it now is, by what the kernel last heard of it.
pub fn set_capacity(device: impl AsFd) -> Result<()> {
    // SAFETY: LOOP_SET_CAPACITY takes no argument.
    unsafe { ioctl::ioctl(device, NoArg::<LOOP_SET_CAPACITY>::new()) }
}

/// Frees the device; if others hold it open, as soon as the last of them closes it.
pub fn clear(device: impl AsFd) -> Result<()> {
    // SAFETY: LOOP_CLR_FD takes no argument.
    unsafe { ioctl::ioctl(device, NoArg::<LOOP_CLR_FD>::new()) }
}
