//! Plain data, no I/O: what a socket, its owner, the host, a reading and a finding are.

pub mod age;
pub mod congestion;
pub mod container;
pub mod coverage;
pub mod cpu;
pub mod diff;
pub mod ends;
pub mod finding;
pub mod host;
pub mod moves;
pub mod mptcp_info;
pub mod namespace;
pub mod nearest;
pub mod nla;
pub mod numbers;
pub mod options;
pub mod owner;
pub mod printable;
pub mod program;
pub mod protocol;
pub mod range;
pub mod sctp;
pub mod snapshot;
pub mod socket;
pub mod state;
pub mod tcp_info;
pub mod top;
pub mod ulp;
pub mod unix;
pub mod waiting;
pub mod words;

pub use age::{Age, AgeFacts};
pub use congestion::CongestionInfo;
pub use coverage::{Collector, Coverage};
pub use cpu::Cpu;
pub use ends::{Ends, NetlinkSocket, PacketSocket, VsockSocket};
pub use finding::{
    Actor, Analysis, Evidence, Finding, Overall, Severity, Story, Subject, Unknown, stories,
};
pub use host::{Facts, Host};
pub use moves::Moves;
pub use namespace::{Looked, Namespace};
pub use nearest::nearest;
pub use options::{Md5, SockOpts};
pub use owner::{Owners, Process};
pub use program::{Part, Program};
pub use protocol::Protocol;
pub use snapshot::{Datagram, Listener, Messages, Pulse, Queue, Snapshot, Unlisted};
pub use socket::{Attributes, Endpoint, Family, Memory, Socket, Timer};
pub use state::{StateSet, TcpState};
pub use tcp_info::TcpInfo;
pub use top::Top;
pub use ulp::Ulp;
pub use unix::{Local, UnixKind, UnixSocket};
pub use waiting::{LastWord, WaitingOn};
