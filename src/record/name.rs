//! How a capture comes to its name: under a temporary one first, never over what is no file, never through a link.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::Error;

/// A capture holds addresses, process names and users: its owner's business.
const MODE: u32 = 0o600;

/// That `path` may be given to a capture: nobody has it, or it is a regular file and `force` says so.
pub fn free(path: &Path, force: bool) -> Result<(), Error> {
    let not_a_file = |found| Error::NotAFile {
        path: path.to_owned(),
        found,
    };
    if path.as_os_str() == "-" {
        return Err(not_a_file("the standard output"));
    }
    if path.as_os_str().as_bytes().ends_with(b"/") || path.file_name().is_none() {
        return Err(not_a_file("a directory"));
    }
    match path.symlink_metadata() {
        Ok(metadata) => {
            if let Some(kind) = other_than_file(metadata.file_type()) {
                return Err(not_a_file(kind));
            }
            if !force {
                return Err(Error::Exists {
                    path: path.to_owned(),
                });
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => {
            return Err(Error::Io {
                what: "look at",
                path: path.to_owned(),
                source,
            });
        }
    }
    Ok(())
}

/// What `kind` is, if it is not a regular file.
pub fn other_than_file(kind: std::fs::FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_symlink() {
        Some("a symbolic link")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// Creates a file beside `path` that nobody else has or can read.
pub fn temporary(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut taken = None;
    for number in 0..100u8 {
        let name = format!(".linger-{}-{number}.tmp", std::process::id());
        let temporary = path.with_file_name(name);
        // Exclusive creation never follows a link.
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&temporary);
        match created {
            Ok(file) => {
                // The umask may have taken bits away.
                return match file.set_permissions(Permissions::from_mode(MODE)) {
                    Ok(()) => Ok((file, temporary)),
                    Err(error) => std::fs::remove_file(&temporary).and(Err(error)),
                };
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => taken = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(taken.unwrap_or_else(|| ErrorKind::AlreadyExists.into()))
}

/// Renames, unless the new name is taken.
pub fn name_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems without the flag (NFS) still refuse to link onto a name that is taken.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        other => other.map_err(io::Error::from),
    }
}
