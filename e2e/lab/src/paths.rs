//! Where the lab keeps things.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The two directories of the lab: one that `down` empties, one that outlives every lab.
#[derive(Clone, Debug)]
pub struct Paths {
    state: PathBuf,
    cache: PathBuf,
}

impl Paths {
    /// `WEFT_LAB_DIR` (default `/var/lib/weft-lab`) and `WEFT_CACHE` (default `~/.cache/weft`).
    pub fn from_env() -> Result<Self> {
        let state = env::var_os("WEFT_LAB_DIR")
            .map_or_else(|| PathBuf::from("/var/lib/weft-lab"), PathBuf::from);
        Self::new(state, cache_dir()?)
    }

    /// Both directories must be absolute, and neither below `/tmp` nor `/run`: a node has its
    /// own file systems there and would not see them.
    pub fn new(state: PathBuf, cache: PathBuf) -> Result<Self> {
        for dir in [&state, &cache] {
            if !dir.is_absolute() {
                bail!("{} is not an absolute path", dir.display());
            }
            for hidden in ["/tmp", "/run", "/dev", "/proc", "/sys", "/etc"] {
                if dir.starts_with(hidden) {
                    bail!(
                        "{} lies below {hidden}, which the nodes of the lab do not share; \
                         choose another place by WEFT_LAB_DIR or WEFT_CACHE",
                        dir.display()
                    );
                }
            }
        }
        Ok(Self { state, cache })
    }

    /// Everything that belongs to one run of the lab.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What is built once: Kubernetes, the guest's kernel.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Links named like the programs, and the scripts.
    pub fn bin(&self) -> PathBuf {
        self.state.join("bin")
    }

    /// Keys, certificates and kubeconfigs.
    pub fn pki(&self) -> PathBuf {
        self.state.join("pki")
    }

    /// One file per process of the control plane.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Archives which every node imports when it boots.
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// Media of the nodes that are block devices.
    pub fn drives(&self) -> PathBuf {
        self.state.join("drives")
    }

    /// What one node has on its disk.
    pub fn node(&self, name: &str) -> PathBuf {
        self.state.join("nodes").join(name)
    }

    /// The kubeconfig of the person in front of the lab.
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki().join("admin.kubeconfig")
    }

    /// The cgroup below which all nodes of this lab live, without the leading slash.
    pub fn cgroup(&self) -> String {
        let digest = Sha256::digest(self.state.as_os_str().as_encoded_bytes());
        format!("weft-lab-{}", hex(digest.get(..4).unwrap_or_default()))
    }
}

/// `WEFT_CACHE`, or `~/.cache/weft`.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("WEFT_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    let home = env::var_os("HOME").context("neither WEFT_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/weft"))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_that_nodes_cannot_see_is_refused() {
        let cache = PathBuf::from("/var/cache/weft");
        for state in ["/tmp/lab", "/run/lab", "lab"] {
            let error = Paths::new(state.into(), cache.clone()).expect_err(state);
            assert!(error.to_string().contains(state), "{error}");
        }
        assert!(Paths::new("/var/lib/weft-lab".into(), cache).is_ok());
    }

    #[test]
    fn two_state_directories_have_two_cgroups() {
        let one = Paths::new("/srv/a".into(), "/srv/c".into()).expect("absolute");
        let two = Paths::new("/srv/b".into(), "/srv/c".into()).expect("absolute");
        assert_ne!(one.cgroup(), two.cgroup());
    }
}
