//! The system calls that neither std nor a dependency wraps.
#![expect(
    unsafe_code,
    reason = "unshare(2), and socket options that socket2 does not know"
)]

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use libc::{c_int, c_void, socklen_t};
use socket2::Socket;

/// Leaves what `flags` name behind: for the calling thread (`CLONE_NEWNET`, `CLONE_FILES`), or for a process that has
/// one thread only (`CLONE_NEWUSER`).
pub fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: takes no pointer; fails without effect.
    check(unsafe { libc::unshare(flags) })
}

/// Sets a socket option whose value is an `int`.
pub fn set_option(socket: &Socket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = socklen_t::try_from(size_of::<c_int>()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to `value`, which outlives the call, and `length` is its size.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            length,
        )
    })
}

fn check(answer: c_int) -> io::Result<()> {
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
