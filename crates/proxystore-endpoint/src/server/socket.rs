//! Where the socket for clients of this host is. Its path may not be long, and home directories may be: then it is in
//! a directory of this user below `/tmp`, and the card says so. (`$XDG_RUNTIME_DIR` goes when its user logs out.)

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use proxystore::wire::EndpointId;
use proxystore::{Error, ErrorKind, Result};

use crate::directory::Directory;

/// The longest path of a Unix socket, bytes.
const LONGEST: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The path of the socket of an endpoint.
///
/// # Errors
/// When it needs a directory that is not this user's alone.
pub fn socket_path(directory: &Directory, id: &EndpointId) -> Result<PathBuf> {
    let path = directory.socket();
    if path.as_os_str().len() <= LONGEST {
        return Ok(path);
    }
    let user = rustix::process::geteuid().as_raw();
    let short = PathBuf::from(format!("/tmp/proxystore-{user}"));
    make_private(&short)?;
    Ok(short.join(format!("{}.socket", id.short())))
}

/// Makes a directory that only this user enters, or makes sure that it is one: somebody else may have made it.
fn make_private(path: &Path) -> Result<()> {
    const MAKE: &str = "make a directory for a socket";
    let failed = |error| Error::io(MAKE, error).with("directory", path.display());
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let found = fs::symlink_metadata(path).map_err(failed)?;
    let user = rustix::process::geteuid().as_raw();
    let for_others = found.mode() & 0o077;
    if found.is_dir() && found.uid() == user && for_others == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Permission, MAKE, "it is not this user's alone")
        .with("directory", path.display())
        .with_hint(
            "remove it, or set PROXYSTORE_HOME to a path so short that the socket can be there",
        ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_of_others_is_not_taken() {
        let parent = tempfile::tempdir().unwrap();
        let [own, open, link] = ["own", "open", "link"].map(|name| parent.path().join(name));
        for _ in 0..2 {
            make_private(&own).unwrap();
        }
        assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        symlink(&own, &link).unwrap();
        for path in [&open, &link] {
            assert_eq!(make_private(path).unwrap_err().kind(), ErrorKind::Permission);
        }
    }
}
