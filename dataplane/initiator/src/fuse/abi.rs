//! The kernel's FUSE structures: `include/uapi/linux/fuse.h`, protocol 7.41, with its own field
//! names. Everything is in the machine's byte order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Major version spoken here.
pub const KERNEL_VERSION: u32 = 7;
/// Minor version spoken here; the kernel adapts to it.
pub const KERNEL_MINOR_VERSION: u32 = 41;

/// `FUSE_ROOT_ID`.
pub const ROOT_ID: u64 = 1;

/// Opcodes (`enum fuse_opcode`).
pub mod opcode {
    #![expect(missing_docs, reason = "the kernel's own names")]
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const ACCESS: u32 = 34;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    /// SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, CREATE, RENAME2, TMPFILE.
    pub const DIRECTORY_CHANGES: [u32; 10] = [6, 8, 9, 10, 11, 12, 13, 35, 45, 51];
}

/// `FUSE_NOTIFY_RESEND` (kernel 6.9): every request read but not answered is queued again.
pub const NOTIFY_RESEND: i32 = 7;

/// INIT flags asked for; see [`super::handshake`] for why each.
pub mod init {
    #![expect(missing_docs, reason = "the kernel's own names")]
    pub const ASYNC_READ: u32 = 1 << 0;
    pub const BIG_WRITES: u32 = 1 << 5;
    pub const ASYNC_DIO: u32 = 1 << 15;
    pub const PARALLEL_DIROPS: u32 = 1 << 18;
    pub const MAX_PAGES: u32 = 1 << 22;
    pub const INIT_EXT: u32 = 1 << 30;
    /// Bit 39, in the second word of flags: the kernel can resend.
    pub const HAS_RESEND: u32 = 1 << (39 - 32);
}

/// `FOPEN_DIRECT_IO`: no page cache.
pub const FOPEN_DIRECT_IO: u32 = 1 << 0;
/// `FOPEN_NOFLUSH`: closing a descriptor asks nothing.
pub const FOPEN_NOFLUSH: u32 = 1 << 5;
/// `FOPEN_PARALLEL_DIRECT_WRITES`: writes within the file do not exclude each other.
pub const FOPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

/// `FALLOC_FL_KEEP_SIZE`.
pub const FALLOC_KEEP_SIZE: u32 = 0x01;
/// `FALLOC_FL_PUNCH_HOLE`.
pub const FALLOC_PUNCH_HOLE: u32 = 0x02;
/// `FALLOC_FL_ZERO_RANGE`.
pub const FALLOC_ZERO_RANGE: u32 = 0x10;

/// `O_ACCMODE` of open flags.
pub const O_ACCMODE: u32 = 0o3;
/// `O_DSYNC`: contained in `O_SYNC`.
pub const O_DSYNC: u32 = 0o10000;

macro_rules! structs {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        #[expect(missing_docs, reason = "the kernel's own names")]
        pub struct $name { $(pub $field: $type),* }
    )*};
}

structs! {
    /// `struct fuse_in_header`.
    InHeader { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16 }
    /// `struct fuse_out_header`.
    OutHeader { len: u32, error: i32, unique: u64 }
    /// `struct fuse_init_in`, as far as every kernel sends it with `FUSE_INIT_EXT`.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32 }
    /// `struct fuse_init_out`.
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32,
        max_background: u16, congestion_threshold: u16, max_write: u32, time_gran: u32,
        max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32, unused: [u16; 12],
    }
    /// `struct fuse_attr`.
    Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32,
        rdev: u32, blksize: u32, flags: u32,
    }
    /// `struct fuse_entry_out`.
    EntryOut { nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32, attr_valid_nsec: u32, attr: Attr }
    /// `struct fuse_attr_out`.
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    /// `struct fuse_open_in`.
    OpenIn { flags: u32, open_flags: u32 }
    /// `struct fuse_open_out`.
    OpenOut { fh: u64, open_flags: u32, backing_id: i32 }
    /// `struct fuse_release_in`.
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// `struct fuse_read_in`.
    ReadIn { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `struct fuse_write_in`.
    WriteIn { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `struct fuse_write_out`.
    WriteOut { size: u32, padding: u32 }
    /// `struct fuse_fallocate_in`.
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// `struct fuse_interrupt_in`.
    InterruptIn { unique: u64 }
    /// `struct fuse_kstatfs`.
    Kstatfs { blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6] }
    /// `struct fuse_dirent` without the name that follows it.
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32 }
}

/// Length of [`InHeader`].
pub const IN_HEADER: usize = size_of::<InHeader>();
/// Length of [`OutHeader`].
pub const OUT_HEADER: usize = size_of::<OutHeader>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_lengths_of_the_kernel_header() {
        let lengths = [
            (size_of::<InHeader>(), 40),
            (size_of::<OutHeader>(), 16),
            (size_of::<InitOut>(), 64),
            (size_of::<Attr>(), 88),
            (size_of::<EntryOut>(), 128),
            (size_of::<AttrOut>(), 104),
            (size_of::<OpenOut>(), 16),
            (size_of::<ReleaseIn>(), 24),
            (size_of::<ReadIn>(), 40),
            (size_of::<WriteIn>(), 40),
            (size_of::<FallocateIn>(), 32),
            (size_of::<Kstatfs>(), 80),
            (size_of::<Dirent>(), 24),
        ];
        for (position, (ours, kernels)) in lengths.into_iter().enumerate() {
            assert_eq!(ours, kernels, "structure {position} of the list");
        }
    }
}
