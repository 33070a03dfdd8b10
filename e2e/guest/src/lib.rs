//! Guests with a Linux kernel of their own: the judge of what Weft puts on the wire.
//!
//! A guest is a User-Mode Linux process. It needs no virtualization and no image: its root is
//! the host's tree, read only, with a tmpfs on top. The kernel is built from the distribution's
//! source package with the options of `guest.config`, once, and kept in a cache.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let cache = std::path::Path::new("/var/cache/weft");
//! let report = weft_guest::Guest::new(cache)?.run(&weft_guest::Job {
//!     script: "uname -r; ls /dev/nvme-fabrics".to_owned(),
//!     ..weft_guest::Job::default()
//! })?;
//! assert_eq!(report.status, Some(0), "{}", report.out);
//! # Ok(())
//! # }
//! ```

mod job;
mod kernel;
mod machine;

pub use job::{Guest, Job, Network, Report, Running};
pub use kernel::{kernel, kernel_path};
pub use machine::{INIT_SCRIPT, Link, Machine};
