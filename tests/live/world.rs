//! Two network namespaces joined by a veth pair, so that a listing shows one end of a connection only.
//!
//! *Near* is this process; linger is run here. *Far* is a thread with a network namespace and a descriptor table of its
//! own: what it opens is not among the descriptors of this process, and is nobody's fault here. So sockets stay on
//! their side: far hands out [`Handle`]s, never a `Socket`, whose number would mean something else here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use libc::{CLONE_FILES, CLONE_NEWNET, CLONE_NEWUSER};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tempfile::TempDir;

use crate::harness::Skip;
use crate::{kernel, sys};

/// Nothing in a healthy scenario takes longer than this.
const PATIENCE: Duration = Duration::from_secs(10);

/// The family of a scenario's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn subnet(self, host: u16, port: u16) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::from(0x0a63_0000 | u32::from(host)), port).into(),
            Self::V6 => (Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, host), port).into(),
        }
    }

    /// The near end of the pair: 10.99.0.1, fd99::1.
    pub fn near(self, port: u16) -> SocketAddr {
        self.subnet(1, port)
    }

    /// The far end of the pair: 10.99.0.2, fd99::2.
    pub fn far(self, port: u16) -> SocketAddr {
        self.subnet(2, port)
    }

    /// An address that swallows everything: its neighbour entry names a MAC that nobody has.
    pub fn hole(self, port: u16) -> SocketAddr {
        self.subnet(77, port)
    }

    /// The loopback address.
    pub fn loopback(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::LOCALHOST, port).into(),
            Self::V6 => (Ipv6Addr::LOCALHOST, port).into(),
        }
    }
}

/// The namespaces, and what was not as expected in them.
pub struct World {
    pub far: Far,
    /// a directory that goes away with the test
    pub scratch: TempDir,
    /// whether IPv6 works here
    v6: bool,
    problems: RefCell<Vec<String>>,
    /// the table when the first problem was noted
    scene: RefCell<String>,
}

/// One connection between near and far.
pub struct Connection {
    pub near: Socket,
    pub far: Handle,
}

impl World {
    /// Takes this process, which has one thread only, into a new namespace and joins it to another.
    pub fn enter(name: &str) -> Result<Self> {
        if let Err(error) = sys::unshare(CLONE_NEWNET) {
            become_root_of_a_user_namespace()
                .and_then(|()| Ok(sys::unshare(CLONE_NEWNET)?))
                .map_err(|as_user| {
                    Skip(format!(
                        "no network namespace: {error}; in a user namespace: {as_user:#}"
                    ))
                })?;
        }
        let scratch = tempfile::Builder::new()
            .prefix(&format!("linger-{name}-"))
            .tempdir()?;
        // Far copies the descriptors that are open now. It comes before all sockets, because a copy would keep them open.
        let far = Far::start()?;
        let mut world = Self {
            far,
            scratch,
            v6: false,
            problems: RefCell::default(),
            scene: RefCell::default(),
        };
        world.join()?;
        Ok(world)
    }

    fn join(&mut self) -> Result<()> {
        self.v6 = fs::exists("/proc/sys/net/ipv6")?;
        let v6 = self.v6;
        let tid = self.far.tid.to_string();
        ip(&["link", "set", "lo", "up"])?;
        ip(&[
            "link", "add", "near0", "type", "veth", "peer", "name", "far0", "netns", &tid,
        ])?;
        equip("near0", 1, v6)?;
        self.far.run(move |_| {
            ip(&["link", "set", "lo", "up"])?;
            equip("far0", 2, v6)
        })?;
        for family in self.families() {
            let hole = family.hole(0).ip().to_string();
            let nobody = "02:00:00:00:00:77";
            ip(&[
                "neigh",
                "add",
                &hole,
                "lladdr",
                nobody,
                "dev",
                "near0",
                "nud",
                "permanent",
            ])?;
        }
        Ok(())
    }

    /// The families that this kernel has.
    pub fn families(&self) -> &'static [Family] {
        if self.v6 {
            &Family::BOTH
        } else {
            &[Family::V4]
        }
    }

    /// Notes what is not as expected; the test goes on, and fails at its end.
    pub fn expect(&self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.problem(otherwise());
        }
    }

    /// Notes what is not as expected.
    pub fn problem(&self, what: String) {
        self.look();
        self.problems.borrow_mut().push(what);
    }

    /// What was noted.
    pub fn problems(&self) -> Vec<String> {
        self.problems.borrow().clone()
    }

    /// Keeps what `ss` sees at the first problem, for whoever reads the failure. Without `ss` there is nothing to keep.
    pub fn look(&self) {
        let mut scene = self.scene.borrow_mut();
        if scene.is_empty()
            && let Ok(listing) = Command::new("ss").args(["-tanoeiOH"]).output()
        {
            *scene = String::from_utf8_lossy(&listing.stdout).into_owned();
        }
    }

    /// Shows what was kept.
    pub fn show(&self) {
        println!("near at the first problem, as ss -tanoei shows it (at most 40 lines):");
        for line in self.scene.borrow().lines().take(40) {
            println!("  {}", line.trim_end());
        }
    }

    /// Runs linger in near.
    pub fn linger(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)
            .output()
            .context("cannot run linger")
    }

    /// linger with these arguments, not yet started. What this user keeps in the home directory has no say.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .stdin(Stdio::null())
            .env_remove("CLICOLOR_FORCE")
            .env_remove("LINGER_CONFIG")
            .env("HOME", self.scratch.path())
            .env("XDG_CONFIG_HOME", self.scratch.path())
            .env("XDG_STATE_HOME", self.scratch.path())
            .env("TZ", "UTC");
        command
    }

    /// Connects near to a listener of far, which is opened if need be.
    pub fn dial(&self, family: Family, port: u16) -> Result<Connection> {
        self.far.dialled(family.far(port))
    }

    /// Connects far to a listener of near.
    pub fn serve(&self, listener: &Socket) -> Result<Connection> {
        let address = local(listener)?;
        let far = self.far.connect(address)?;
        let (near, _) = listener
            .accept()
            .context("near accepts no connection of far")?;
        Ok(Connection { near, far })
    }
}

/// The program under test: the one that cargo built, or another build of it.
pub fn program() -> String {
    std::env::var("LINGER_UNDER_TEST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_linger").to_owned())
}

/// A socket of far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(usize);

type Job = Box<dyn FnOnce(&mut FarSide) + Send>;

/// The way to have something done in far.
#[derive(Clone)]
pub struct Far {
    jobs: mpsc::Sender<Job>,
    tid: u32,
}

impl Far {
    fn start() -> Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        thread::Builder::new().name("far".into()).spawn(move || {
            let tid = sys::unshare(CLONE_NEWNET | CLONE_FILES)
                .map_err(anyhow::Error::from)
                .and_then(|()| thread_id());
            let mut side = FarSide::default();
            if ready.send(tid).is_ok() {
                for job in todo {
                    job(&mut side);
                }
            }
        })?;
        let tid = is_ready.recv()?.context("no far namespace")?;
        Ok(Self { jobs, tid })
    }

    /// Has something done in far and waits for it. No socket may come back: see the module's head.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut FarSide) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = mpsc::channel();
        let job = Box::new(move |side: &mut FarSide| {
            // Nobody waits any more if the test has failed meanwhile.
            answer.send(job(side)).ok();
        });
        self.jobs.send(job).map_err(|_| anyhow!("far has ended"))?;
        answered.recv().context("far has ended")?
    }

    /// Connects near, where the caller is, to a listener of far, which is opened if need be.
    pub fn dialled(&self, address: SocketAddr) -> Result<Connection> {
        self.run(move |far| far.listener(address).map(drop))?;
        let near = connect(address)?;
        let far = self.run(move |far| far.accept(address))?;
        Ok(Connection { near, far })
    }

    /// Connects to near.
    pub fn connect(&self, address: SocketAddr) -> Result<Handle> {
        self.run(move |far| {
            let socket = connect(address)?;
            Ok(far.keep(socket))
        })
    }

    /// Begins to connect to near and does not wait. A deaf one never hears the answer.
    pub fn begin_connect(&self, address: SocketAddr, deaf: bool) -> Result<Handle> {
        self.run(move |far| {
            let socket = tcp(address)?;
            if deaf {
                deafen(&socket)?;
            }
            begin_connect(&socket, address)?;
            Ok(far.keep(socket))
        })
    }

    /// Uses a socket of far.
    pub fn with<T: Send + 'static>(
        &self,
        handle: Handle,
        job: impl FnOnce(&Socket) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(move |far| job(far.get(handle)?))
    }

    /// `close(2)`.
    pub fn close(&self, handle: Handle) -> Result<()> {
        self.run(move |far| {
            far.get(handle)?;
            far.sockets.remove(&handle);
            Ok(())
        })
    }

    /// `shutdown(2)` for writing.
    pub fn shut_write(&self, handle: Handle) -> Result<()> {
        self.with(handle, |socket| Ok(socket.shutdown(Shutdown::Write)?))
    }

    /// From now on it receives nothing, and its kernel answers nothing for it.
    pub fn deafen(&self, handle: Handle) -> Result<()> {
        self.with(handle, deafen)
    }

    /// From now on segments longer than this, TCP's header included, do not reach it: a path with a smaller MTU whose
    /// routers tell nobody.
    pub fn narrow(&self, handle: Handle, bytes: u32) -> Result<()> {
        self.with(handle, move |socket| narrow(socket, bytes))
    }

    /// Reads slowly until the test ends: so many bytes, then a pause.
    pub fn read_on(&self, handle: Handle, bytes: usize, pause: Duration) -> Result<()> {
        self.run(move |far| {
            let mut socket = far.get(handle)?.try_clone()?;
            // A thread of far's has its namespace and its descriptors.
            thread::spawn(move || {
                let mut buffer = vec![0; bytes];
                while socket.read(&mut buffer).is_ok_and(|n| n > 0) {
                    thread::sleep(pause);
                }
            });
            Ok(())
        })
    }

    /// It is gone like a machine without power: no FIN, no RST.
    pub fn vanish(&self, handle: Handle) -> Result<()> {
        self.with(handle, |socket| {
            // In repair mode close(2) sends nothing (tcp_close() in net/ipv4/tcp.c).
            sys::set_option(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1)
                .context("cannot set TCP_REPAIR")
        })?;
        self.close(handle)
    }
}

/// What the far thread holds.
#[derive(Default)]
pub struct FarSide {
    sockets: HashMap<Handle, Socket>,
    listeners: HashMap<SocketAddr, Socket>,
    given: usize,
}

impl FarSide {
    /// Keeps a socket open until it is closed by its handle.
    pub fn keep(&mut self, socket: Socket) -> Handle {
        self.given += 1;
        let handle = Handle(self.given);
        self.sockets.insert(handle, socket);
        handle
    }

    /// A socket of far.
    pub fn get(&self, handle: Handle) -> Result<&Socket> {
        self.sockets.get(&handle).context("closed already")
    }

    fn listener(&mut self, address: SocketAddr) -> Result<&Socket> {
        Ok(match self.listeners.entry(address) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(missing) => missing.insert(listen(address, 128)?),
        })
    }

    fn accept(&mut self, address: SocketAddr) -> Result<Handle> {
        let (socket, _) = self
            .listener(address)?
            .accept()
            .context("far accepts no connection of near")?;
        Ok(self.keep(socket))
    }
}

/// What containers run with: one per cent of it is no yardstick for a leak.
pub const PLENTY: u64 = 1_048_576;

/// Sets the soft limit, or what the hard limit allows of it.
pub fn limit_descriptors(soft: u64) -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: Some(soft),
        maximum: Some(maximum.unwrap_or(soft).max(soft)),
    };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    let current = maximum.map_or(soft, |maximum| soft.min(maximum));
    Ok(setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(current),
            maximum,
        },
    )?)
}

/// A socket that is to talk to, or at, the address.
pub fn tcp(address: SocketAddr) -> Result<Socket> {
    Ok(Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?)
}

/// A LISTEN socket whose `accept` gives up after a while.
pub fn listen(address: SocketAddr, backlog: i32) -> Result<Socket> {
    let socket = tcp(address)?;
    socket.set_reuse_address(true)?;
    socket
        .bind(&address.into())
        .with_context(|| format!("cannot bind {address}"))?;
    socket.listen(backlog)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Accepts on the side of the caller until the test ends, and handles each connection in a thread of its own.
pub fn serve_each(listener: Socket, handle: fn(Socket) -> Result<()>) {
    thread::spawn(move || {
        loop {
            if let Ok((socket, _)) = listener.accept() {
                // What became of one connection shows in the table, not here.
                thread::spawn(move || handle(socket).ok());
            }
        }
    });
}

/// An established connection.
pub fn connect(address: SocketAddr) -> Result<Socket> {
    let socket = tcp(address)?;
    socket
        .connect_timeout(&address.into(), PATIENCE)
        .with_context(|| format!("cannot connect to {address}"))?;
    Ok(socket)
}

/// Begins to connect and does not wait.
pub fn begin_connect(socket: &Socket, address: SocketAddr) -> Result<()> {
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
            Err(error).with_context(|| format!("cannot begin to connect to {address}"))
        }
        _ => Ok(()),
    }
}

/// The address of this end.
pub fn local(socket: &Socket) -> Result<SocketAddr> {
    let address = socket.local_addr()?;
    address.as_socket().context("not an address of IP")
}

/// Drops whatever arrives for the socket, before TCP sees it: the classic BPF program `return 0`.
fn deafen(socket: &Socket) -> Result<()> {
    // BPF_RET | BPF_K
    let return_0 = SockFilter::new(0x06, 0, 0, 0);
    Ok(socket.attach_filter(&[return_0])?)
}

/// Drops long segments before TCP sees them. The length is that of TCP's header and data (`tcp_filter()` in
/// net/ipv4/tcp_ipv4.c).
fn narrow(socket: &Socket, bytes: u32) -> Result<()> {
    Ok(socket.attach_filter(&[
        // BPF_LD | BPF_W | BPF_LEN
        SockFilter::new(0x80, 0, 0, 0),
        // BPF_JMP | BPF_JGT | BPF_K
        SockFilter::new(0x25, 0, 1, bytes),
        // BPF_RET | BPF_K: nothing, or all of it
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ])?)
}

/// Writes until neither end's buffer takes any more.
pub fn fill(socket: &Socket) -> Result<()> {
    socket.set_nonblocking(true)?;
    let block = [b'x'; 16 * 1024];
    // The window opens in steps while the peer's buffer fills, so "no" has to be heard for a while.
    let mut refused = 0;
    while refused < 10 {
        match socket.send(&block) {
            Ok(_) => refused = 0,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                refused += 1;
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn equip(device: &str, host: u16, v6: bool) -> Result<()> {
    let v4_address = format!("{}/24", Family::V4.subnet(host, 0).ip());
    ip(&["addr", "add", &v4_address, "dev", device])?;
    if v6 {
        // A container's runtime may have switched IPv6 off for new devices.
        kernel::set_sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "0")?;
        kernel::set_sysctl("net/ipv6/conf/lo/disable_ipv6", "0")?;
        let v6_address = format!("{}/64", Family::V6.subnet(host, 0).ip());
        ip(&["addr", "add", &v6_address, "dev", device, "nodad"])?;
    }
    ip(&["link", "set", device, "up"])
}

/// Runs `ip` in the namespace of the caller.
pub fn ip(arguments: &[&str]) -> Result<()> {
    let output = match Command::new("ip").args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(Skip("`ip` is missing: apt-get install iproute2".to_owned()))
        }
        output => output.context("cannot run ip")?,
    };
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// An ordinary user may open network namespaces as root of a user namespace, where that is allowed.
fn become_root_of_a_user_namespace() -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    sys::unshare(CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))?;
    Ok(())
}

fn thread_id() -> Result<u32> {
    let link = fs::read_link("/proc/thread-self")?;
    let name = link.file_name().and_then(|name| name.to_str());
    Ok(name.context("/proc/thread-self names nothing")?.parse()?)
}
