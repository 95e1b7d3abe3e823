//! What can be wrong with a capture, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::format::FORMAT;

/// Why a capture could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// the file begins with something else
    #[error("'{}' is not a capture of linger, nor a raw dump of ss (ss -D): {found}", path.display())]
    NotACapture {
        /// the file
        path: PathBuf,
        /// what it is instead
        found: String,
    },
    /// the whole file is of a later format
    #[error("'{}' has format {found}, and this linger reads format {FORMAT}", path.display())]
    Version {
        /// the file
        path: PathBuf,
        /// its format
        found: u32,
    },
    /// a section is of a later version
    #[error("'{}': section {section} at byte {offset} has version {found}, which this linger does not know", path.display())]
    SectionVersion {
        /// the file
        path: PathBuf,
        /// where the section begins
        offset: u64,
        /// its tag
        section: String,
        /// its version
        found: u16,
    },
    /// the file ends too early
    #[error("'{}' is cut off at byte {offset}", path.display())]
    Truncated {
        /// the file
        path: PathBuf,
        /// where it ends
        offset: u64,
    },
    /// the file is not as it was written
    #[error("'{}' is damaged: section {section} at byte {offset}: {why}", path.display())]
    Corrupt {
        /// the file
        path: PathBuf,
        /// where the section begins
        offset: u64,
        /// its tag, `?` where that is damaged too
        section: String,
        /// what is wrong with it
        why: String,
    },
    /// netlink data of a machine with another byte order
    #[error("'{}' was recorded on a {recorded} machine, and this one is not", path.display())]
    ForeignEndian {
        /// the file
        path: PathBuf,
        /// the byte order of the recorded machine
        recorded: &'static str,
    },
    /// there is a file already
    #[error("'{}' exists", path.display())]
    Exists {
        /// the file
        path: PathBuf,
    },
    /// the name is not that of a regular file
    #[error("'{}' is {found}, and a capture is a regular file", path.display())]
    NotAFile {
        /// the name
        path: PathBuf,
        /// what it is instead
        found: &'static str,
    },
    /// parts of a capture were written in an order that no reader understands
    #[error("cannot write the capture: {0}")]
    Order(&'static str),
    /// a part is longer than any reader accepts
    #[error(
        "cannot write the capture: {section} takes {bytes} bytes, more than a capture holds in one section"
    )]
    TooLarge {
        /// the tag
        section: &'static str,
        /// its length
        bytes: usize,
    },
    /// what comes next would make a sequence larger than it may be
    #[error("'{}' has no room for another frame", path.display())]
    Full {
        /// the file
        path: PathBuf,
    },
    /// the system refused
    #[error("cannot {what} '{}': {source}", path.display())]
    Io {
        /// what was tried
        what: &'static str,
        /// the file
        path: PathBuf,
        /// the system's answer
        source: io::Error,
    },
}

impl Error {
    /// What the user may do now.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotACapture { .. } => {
                "'linger record FILE' makes a capture; 'ss -taiem -D FILE' a dump, without owners and settings"
                    .to_owned()
            }
            Self::Version { .. } | Self::SectionVersion { .. } => {
                "read it with the version of linger that recorded it, or a newer one".to_owned()
            }
            Self::Truncated { .. } => {
                "if it was copied here, copy it again; the end of the recording is missing"
                    .to_owned()
            }
            Self::Corrupt { .. } => {
                "if it was copied here, copy it again as a binary file and compare checksums"
                    .to_owned()
            }
            Self::ForeignEndian { recorded, .. } => {
                format!("read it on a {recorded} machine")
            }
            Self::Exists { .. } => "pass --force to replace it".to_owned(),
            Self::NotAFile { path, .. } if path.as_os_str() == "-" => {
                "give a file name; './-' is a file called '-'".to_owned()
            }
            Self::NotAFile { .. } => "give the name of a file".to_owned(),
            Self::Full { .. } => "a higher --max-size has room for more".to_owned(),
            Self::Order(_) | Self::TooLarge { .. } => return None,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "captures are readable by their owner only (mode 0600)".to_owned()
                }
                io::ErrorKind::StorageFull => {
                    "nothing was kept; record to another file system".to_owned()
                }
                _ => return None,
            },
        })
    }
}

impl From<Error> for crate::collect::Error {
    fn from(error: Error) -> Self {
        Self::Capture(error.to_string())
    }
}
