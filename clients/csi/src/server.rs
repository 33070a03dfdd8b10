//! Serving gRPC on a Unix socket: the only listeners that the plugin has.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

/// The path in a CSI endpoint: `unix:///run/csi.sock`, `unix:/run/csi.sock` or the bare path.
pub fn socket_path(endpoint: &str) -> Option<PathBuf> {
    let path = match endpoint.split_once(':') {
        Some(("unix", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some(_) => return None,
        None => endpoint,
    };
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// A listening socket whose file goes away with it.
pub struct Socket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl Socket {
    /// Binds, taking the place of the socket that an earlier process left. Any other file
    /// there is left alone and is an error.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        // The sidecars may run under another user of the same group.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self {
            path: path.to_owned(),
            listener: Some(listener),
        })
    }

    /// The connections, once.
    pub fn incoming(&mut self) -> io::Result<UnixListenerStream> {
        let taken = || io::Error::other("the socket is served already");
        self.listener
            .take()
            .map(UnixListenerStream::new)
            .ok_or_else(taken)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // What is left behind is taken over by the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_unix_socket_with_an_absolute_path() {
        let path = Some(PathBuf::from("/run/csi.sock"));
        for good in [
            "unix:///run/csi.sock",
            "unix:/run/csi.sock",
            "/run/csi.sock",
        ] {
            assert_eq!(socket_path(good), path, "{good}");
        }
        for bad in [
            "tcp://127.0.0.1:9000",
            "run/csi.sock",
            "unix://run/csi.sock",
            "",
        ] {
            assert_eq!(socket_path(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_another_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/csi.sock");
        let mut first = Socket::bind(&path).unwrap();
        std::mem::forget(first.incoming().unwrap());
        std::mem::forget(first);
        drop(Socket::bind(&path).unwrap());
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(Socket::bind(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
