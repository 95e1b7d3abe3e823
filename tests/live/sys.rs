//! The system calls that neither std nor a dependency wraps.
#![expect(
    unsafe_code,
    reason = "unshare(2), prctl(2), socket options that socket2 does not know, seccomp(2), wait4(2)"
)]

use std::io;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

use libc::{c_int, c_long, c_void, seccomp_data, sock_filter, sock_fprog, socklen_t};
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

/// Sets a socket option whose value is a structure.
pub fn set_option_bytes(
    socket: &Socket,
    level: c_int,
    name: c_int,
    value: &[u8],
) -> io::Result<()> {
    let length = socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to `value`, which outlives the call, and `length` is its size.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast::<c_void>(),
            length,
        )
    })
}

/// Binds to an address that socket2 does not know: the bytes of a `struct sockaddr_ll` or `sockaddr_nl`.
pub fn bind(socket: &Socket, address: &[u8]) -> io::Result<()> {
    let length = socklen_t::try_from(address.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to `address`, which outlives the call, and `length` is its size; any bytes are an address.
    check(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), length) })
}

/// Connects to an address that socket2 does not know.
pub fn connect(socket: &Socket, address: &[u8]) -> io::Result<()> {
    let length = socklen_t::try_from(address.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to `address`, which outlives the call, and `length` is its size; any bytes are an address.
    check(unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), length) })
}

/// What a sandbox refuses, and with which errno.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// `socket(AF_NETLINK, *, NETLINK_SOCK_DIAG)`
    Socket(c_int),
    /// `send(2)`, which libc makes a `sendto`, and `sendmsg(2)`, whatever the socket
    Send(c_int),
}

/// Has the command run in a sandbox: a seccomp filter that refuses one thing.
pub fn sandbox(command: &mut Command, refusal: Refusal) -> io::Result<()> {
    let mut program = program(refusal)?;
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    // SAFETY: between fork and exec only prctl(2) is called. `program` is moved into the closure, so the pointer is
    // good, and the kernel copies what it points to.
    unsafe {
        command.pre_exec(move || {
            let filter = sock_fprog {
                len: length,
                filter: program.as_mut_ptr(),
            };
            // Without it only root may bring a filter.
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            let mode = libc::SECCOMP_MODE_FILTER;
            check(libc::prctl(
                libc::PR_SET_SECCOMP,
                mode,
                &raw const filter,
                0,
                0,
            ))
        });
    }
    Ok(())
}

/// Classic BPF over `struct seccomp_data` (`include/uapi/linux/seccomp.h`). The architecture is not asked for: the
/// program is of the same one as this test.
fn program(refusal: Refusal) -> io::Result<Vec<sock_filter>> {
    let statement = |code: u32, k: u32| bpf(code, 0, 0, k);
    let number = |call: c_long| u32::try_from(call).map_err(io::Error::other);
    // An argument has 64 bits; the kernel takes the lower half for an int.
    let lower = if cfg!(target_endian = "big") { 4 } else { 0 };
    let argument = |n: usize| load(offset_of!(seccomp_data, args) + 8 * n + lower);
    let call = load(offset_of!(seccomp_data, nr))?;
    // Each question jumps over the rest, to the last statement but one, if the answer is no.
    let equals = |k: u32, otherwise: u8| bpf(libc::BPF_JMP | libc::BPF_JEQ, 0, otherwise, k);
    let refuse = |errno: c_int| {
        let errno = u32::try_from(errno).map_err(io::Error::other)?;
        io::Result::Ok(libc::SECCOMP_RET_ERRNO | (errno & libc::SECCOMP_RET_DATA))
    };
    let allow = statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW)?;
    Ok(match refusal {
        Refusal::Socket(errno) => vec![
            call,
            equals(number(libc::SYS_socket)?, 5)?,
            argument(0)?,
            equals(libc::AF_NETLINK.cast_unsigned(), 3)?,
            argument(2)?,
            equals(libc::NETLINK_SOCK_DIAG.cast_unsigned(), 1)?,
            statement(libc::BPF_RET, refuse(errno)?)?,
            allow,
        ],
        Refusal::Send(errno) => vec![
            call,
            bpf(
                libc::BPF_JMP | libc::BPF_JEQ,
                1,
                0,
                number(libc::SYS_sendto)?,
            )?,
            equals(number(libc::SYS_sendmsg)?, 1)?,
            statement(libc::BPF_RET, refuse(errno)?)?,
            allow,
        ],
    })
}

fn load(offset: usize) -> io::Result<sock_filter> {
    let offset = u32::try_from(offset).map_err(io::Error::other)?;
    bpf(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn bpf(code: u32, yes: u8, no: u8, k: u32) -> io::Result<sock_filter> {
    Ok(sock_filter {
        code: u16::try_from(code).map_err(io::Error::other)?,
        jt: yes,
        jf: no,
        k,
    })
}

/// Takes CAP_NET_ADMIN away from the command: root gets what the bounding set holds.
pub fn without_net_admin(command: &mut Command) {
    /// `include/uapi/linux/capability.h`
    const CAP_NET_ADMIN: c_long = 12;
    // SAFETY: between fork and exec only prctl(2) is called, with numbers.
    unsafe {
        command.pre_exec(|| check(libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0)));
    }
}

/// Has the command started by `fork` and not by `vfork`, which would count this process's memory as the child's peak:
/// the kernel keeps the peak over `exec` (`exec_mmap()` in fs/exec.c).
pub fn fork(command: &mut Command) {
    // SAFETY: the closure does nothing.
    unsafe {
        command.pre_exec(|| Ok(()));
    }
}

/// Waits for the child's end: how it ended, and the most memory that it ever had resident, in bytes.
pub fn wait_for_peak(child: Child) -> io::Result<(ExitStatus, u64)> {
    let pid = c_int::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to locals that outlive the call.
        let ended = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if ended == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: all of it are numbers, for which zeros will do, and the kernel has filled it in.
    let usage = unsafe { usage.assume_init() };
    let kilobytes = u64::try_from(usage.ru_maxrss).map_err(io::Error::other)?;
    Ok((ExitStatus::from_raw(status), kilobytes * 1024))
}

fn check(answer: c_int) -> io::Result<()> {
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
