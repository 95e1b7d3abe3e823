//! unshare(2) of the calling thread, which no dependency offers without unsafe code.
#![expect(unsafe_code, reason = "unshare(2)")]

use std::io;
use std::process::Command;

/// The calling thread leaves the machine's network, and what it starts from now on does too.
pub fn enter_a_network_namespace() -> io::Result<()> {
    // SAFETY: takes no pointer; fails without effect.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other("cannot set lo up"))
    }
}
