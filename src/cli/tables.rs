//! Which sockets are listed: the options of protocols and families, and the names that ss gives to its tables.

use super::args;
use super::failure::Failure;
use crate::fields::{Record, netid};
use crate::model::{Ends, Protocol, StateSet, TcpState, nearest};

/// Kinds of sockets, a bit each.
type Kinds = u32;

/// Each kind by its Netid. Kinds that no kernel known to this program has belong to their protocol's first.
const KINDS: [(Protocol, &str); 15] = [
    (Protocol::Tcp, "tcp"),
    (Protocol::Mptcp, "mptcp"),
    (Protocol::Udp, "udp"),
    (Protocol::UdpLite, "udplite"),
    (Protocol::Raw, "raw"),
    (Protocol::Sctp, "sctp"),
    (Protocol::Unix, "u_str"),
    (Protocol::Unix, "u_dgr"),
    (Protocol::Unix, "u_seq"),
    (Protocol::Packet, "p_raw"),
    (Protocol::Packet, "p_dgr"),
    (Protocol::Netlink, "nl"),
    (Protocol::Vsock, "v_str"),
    (Protocol::Vsock, "v_dgr"),
    (Protocol::Vsock, "v_seq"),
];

const EVERYTHING: Kinds = (1 << KINDS.len()) - 1;

/// The names of tables that mean several kinds, or a kind by another name than its Netid.
const LONG: [(&str, &[&str]); 13] = [
    ("inet", &["tcp", "mptcp", "udp", "udplite", "raw", "sctp"]),
    ("unix", &["u_str", "u_dgr", "u_seq"]),
    ("unix_stream", &["u_str"]),
    ("unix_dgram", &["u_dgr"]),
    ("unix_seqpacket", &["u_seq"]),
    ("packet", &["p_raw", "p_dgr"]),
    ("packet_raw", &["p_raw"]),
    ("packet_dgram", &["p_dgr"]),
    ("netlink", &["nl"]),
    ("vsock", &["v_str", "v_dgr", "v_seq"]),
    ("vsock_stream", &["v_str"]),
    ("vsock_dgram", &["v_dgr"]),
    ("vsock_seqpacket", &["v_seq"]),
];

/// What ss reads and linger does not, and what to do.
const UNREAD: [(&str, &str, &str); 3] = [
    ("tipc", "TIPC", "'ss --tipc' shows them"),
    ("xdp", "XDP", "'ss --xdp' shows them"),
    (
        "dccp",
        "DCCP",
        "Linux 6.16 has removed the protocol; 'ss --dccp' shows them on older kernels",
    ),
];

/// The families of `-f`.
pub const FAMILIES: [&str; 6] = ["unix", "inet", "inet6", "link", "netlink", "vsock"];

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    /// what was asked for
    kinds: Kinds,
    /// what was asked for by its own name, so that it is an error if it cannot be read
    named: Kinds,
    /// sockets of IPv4
    pub ipv4: bool,
    /// sockets of IPv6
    pub ipv6: bool,
}

/// The kinds that satisfy `is`.
fn kinds(is: impl Fn(Protocol, &str) -> bool) -> Kinds {
    let bits = KINDS.iter().enumerate();
    bits.filter(|(_, (protocol, netid))| is(*protocol, netid))
        .fold(0, |kinds, (bit, _)| kinds | 1 << bit)
}

fn of(protocol: Protocol) -> Kinds {
    kinds(|own, _| own == protocol)
}

fn by_name(name: &str) -> Option<Kinds> {
    if name == "all" {
        return Some(EVERYTHING);
    }
    let long = LONG.iter().find(|(long, _)| *long == name);
    let found = match long {
        Some((_, netids)) => kinds(|_, netid| netids.contains(&netid)),
        None => kinds(|_, netid| netid == name),
    };
    (found != 0).then_some(found)
}

/// The names of `-A`, for hints and manuals.
pub fn names() -> impl Iterator<Item = &'static str> {
    let long = LONG.iter().map(|(name, _)| *name);
    let short = KINDS.iter().map(|(_, netid)| *netid);
    ["all"].into_iter().chain(long).chain(short)
}

fn unread(name: &str) -> Option<Failure> {
    let (_, label, hint) = UNREAD.iter().find(|(unread, ..)| *unread == name)?;
    Some(Failure::usage(
        format!("linger does not read {label} sockets"),
        (*hint).to_owned(),
    ))
}

fn unknown(what: &str, name: &str, all: &[&'static str]) -> Failure {
    let near = nearest(name, all.iter().copied());
    let list = format!("there are {}", all.join(" "));
    Failure::usage(
        format!("there is no {what} '{name}'"),
        match near.first() {
            Some(near) => format!("did you mean '{near}'? {list}"),
            None => list,
        },
    )
}

impl Tables {
    /// Reads the options. Without one it is TCP, and with `-l` UDP too.
    ///
    /// # Errors
    /// For names that there are not, and options that leave nothing.
    pub fn of(args: &args::List) -> Result<Self, Failure> {
        let mut chosen: Kinds = 0;
        for (option, protocol) in [
            (args.tcp, Protocol::Tcp),
            (args.mptcp, Protocol::Mptcp),
            (args.udp, Protocol::Udp),
            (args.udplite, Protocol::UdpLite),
            (args.raw, Protocol::Raw),
            (args.sctp, Protocol::Sctp),
            (args.unix, Protocol::Unix),
            (args.packet, Protocol::Packet),
            (args.netlink, Protocol::Netlink),
            (args.vsock, Protocol::Vsock),
        ] {
            if option {
                chosen |= of(protocol);
            }
        }
        let mut named = chosen;
        for word in args.query.iter().flat_map(|words| words.split(',')) {
            let word = word.trim().to_ascii_lowercase();
            let (without, name) = match word.strip_prefix('!') {
                Some(name) => (true, name),
                None => (false, word.as_str()),
            };
            let Some(kinds) = by_name(name) else {
                let all: Vec<_> = names().collect();
                return Err(unread(name).unwrap_or_else(|| unknown("table", name, &all)));
            };
            if without {
                // What begins with an exclusion begins with everything.
                chosen = if chosen == 0 { EVERYTHING } else { chosen } & !kinds;
                named &= !kinds;
            } else {
                chosen |= kinds;
                if !["all", "inet"].contains(&name) {
                    named |= kinds;
                }
            }
        }
        if chosen == 0 && !args.query.is_empty() {
            return Err(Failure::usage(
                "-A leaves no table".to_owned(),
                "name those that you want, as in '-A tcp,udp', or fewer behind '!'".to_owned(),
            ));
        }
        Self::within(args, chosen, named)
    }

    /// What the families leave of `chosen`.
    fn within(args: &args::List, chosen: Kinds, named: Kinds) -> Result<Self, Failure> {
        let over_ip = kinds(|protocol, _| protocol.over_ip());
        let (mut ipv4, mut ipv6) = (args.ipv4, args.ipv6);
        let family = args.family.as_deref().map(str::to_ascii_lowercase);
        let (mut kinds, mut named) = match family.as_deref() {
            None => (chosen, named),
            Some(name) => {
                let of_family = match name {
                    "inet" | "inet6" => {
                        ipv4 |= name == "inet";
                        ipv6 |= name == "inet6";
                        over_ip
                    }
                    "link" => of(Protocol::Packet),
                    "unix" => of(Protocol::Unix),
                    "netlink" => of(Protocol::Netlink),
                    "vsock" => of(Protocol::Vsock),
                    other => {
                        return Err(
                            unread(other).unwrap_or_else(|| unknown("family", other, &FAMILIES))
                        );
                    }
                };
                match chosen {
                    0 if of_family == over_ip => (0, 0),
                    0 => (of_family, of_family),
                    chosen if chosen & of_family == 0 => {
                        return Err(Failure::usage(
                            format!("none of the sockets asked for is of the family '{name}'"),
                            "leave -f out, or the options of other protocols".to_owned(),
                        ));
                    }
                    chosen => (chosen & of_family, named & of_family),
                }
            }
        };
        if kinds == 0 {
            kinds = of(Protocol::Tcp);
            named = kinds;
            if args.listening {
                kinds |= of(Protocol::Udp);
            }
        }
        if (args.ipv4 || args.ipv6) && kinds & over_ip == 0 {
            return Err(Failure::usage(
                "-4 and -6 choose among sockets over IP, and none are listed".to_owned(),
                "leave them out, or add -t, -u or -w".to_owned(),
            ));
        }
        // -4 and -6 together are both; neither is both too.
        let both = ipv4 == ipv6;
        Ok(Self {
            kinds,
            named,
            ipv4: both || ipv4,
            ipv6: both || ipv6,
        })
    }

    /// The protocols, in the order of listings.
    pub fn protocols(self) -> impl Iterator<Item = Protocol> {
        Protocol::ALL
            .into_iter()
            .filter(move |protocol| self.has(*protocol))
    }

    /// Whether sockets of `protocol` are listed.
    pub fn has(self, protocol: Protocol) -> bool {
        self.kinds & of(protocol) != 0
    }

    /// Whether it fails if sockets of `protocol` cannot be read.
    pub fn must(self, protocol: Protocol) -> bool {
        self.named & of(protocol) != 0
    }

    /// Whether rows of more than one kind come.
    pub const fn several(self) -> bool {
        self.kinds.count_ones() > 1
    }

    /// Whether only UNIX sockets come.
    pub fn only_unix(self) -> bool {
        self.kinds & !of(Protocol::Unix) == 0
    }

    /// Whether a row of a protocol that is listed is of a kind that is.
    pub fn shows(self, record: &Record<'_>) -> bool {
        if matches!(record.ends, Ends::Ip) {
            return true;
        }
        let protocol = of(record.socket.protocol);
        if self.kinds & protocol == protocol {
            return true;
        }
        let netid = netid(record);
        let own = kinds(|_, own| own == netid);
        self.kinds & own != 0
    }
}

/// The states of `protocol` that are shown by a filter that names none. What has no TCP states hides LISTEN alone:
/// UNCONNECTED is what most of its sockets always are.
pub fn unasked(args: &args::List, protocol: Protocol) -> StateSet {
    let listen = StateSet::of(TcpState::Listen);
    let bound = StateSet::of(TcpState::BoundInactive);
    match (args.all, args.listening, args.bound_inactive) {
        (true, ..) => StateSet::ALL,
        (_, true, true) => listen.union(bound),
        (_, true, false) => listen,
        (_, false, true) => bound,
        (false, false, false) if protocol.has_tcp_states() => StateSet::DEFAULT,
        (false, false, false) => StateSet::ALL.without(listen),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn tables(words: &str) -> Result<Tables, Failure> {
        let line = ["linger", "list"]
            .into_iter()
            .chain(words.split_whitespace());
        match args::Cli::read(line.map(OsString::from)).map(|cli| cli.command) {
            Ok(args::Command::List(args)) => Tables::of(&args),
            other => panic!("{words}: {other:?}"),
        }
    }

    fn shown(words: &str) -> String {
        let tables = tables(words).unwrap_or_else(|error| panic!("{words}: {error}"));
        let kinds = KINDS.iter().enumerate();
        let netids: Vec<&str> = kinds
            .filter(|(bit, _)| tables.kinds & 1 << bit != 0)
            .map(|(_, (_, netid))| *netid)
            .collect();
        let version = match (tables.ipv4, tables.ipv6) {
            (true, false) => " 4",
            (false, true) => " 6",
            _ => "",
        };
        netids.join(" ") + version
    }

    #[test]
    fn tables_by_option_family_and_name() {
        for (words, expected) in [
            ("", "tcp"),
            ("-l", "tcp udp"),
            ("-ltn", "tcp"),
            ("-tulpn", "tcp udp"),
            ("-x", "u_str u_dgr u_seq"),
            ("-w0M", "mptcp raw p_raw p_dgr"),
            (
                "-S --udplite --vsock --netlink",
                "udplite sctp nl v_str v_dgr v_seq",
            ),
            ("-4", "tcp 4"),
            ("-46", "tcp"),
            ("-f inet6", "tcp 6"),
            ("-u -f inet", "udp 4"),
            ("-f link", "p_raw p_dgr"),
            ("-f unix", "u_str u_dgr u_seq"),
            ("-tx -f unix", "u_str u_dgr u_seq"),
            ("-A tcp,u_dgr", "tcp u_dgr"),
            ("-A unix_stream -u", "udp u_str"),
            ("-A inet,!tcp", "mptcp udp udplite raw sctp"),
            ("-A vsock_dgram,packet_raw,netlink", "p_raw nl v_dgr"),
            ("-A !inet,!unix,!vsock", "p_raw p_dgr nl"),
            ("-t -t -nn", "tcp"),
        ] {
            assert_eq!(shown(words), expected, "{words}");
        }
        assert_eq!(shown("-A all").split(' ').count(), KINDS.len());
    }

    #[test]
    fn what_is_asked_for_by_its_name_must_be_read() {
        let all = tables("-A all,sctp").unwrap();
        assert!(all.must(Protocol::Sctp) && !all.must(Protocol::Mptcp));
        let listeners = tables("-l").unwrap();
        assert!(listeners.must(Protocol::Tcp) && !listeners.must(Protocol::Udp));
    }

    #[test]
    fn what_leaves_nothing_is_said() {
        for (words, message) in [
            ("-A tpc", "no table 'tpc'"),
            ("-A tipc", "does not read TIPC"),
            ("-A all,!all", "leaves no table"),
            ("-f dccp", "does not read DCCP"),
            ("-f inet4", "no family 'inet4'"),
            ("-t -f unix", "family 'unix'"),
            ("-x -4", "sockets over IP"),
        ] {
            let error = tables(words).unwrap_err().to_string();
            assert!(
                error.contains(message) && error.contains("\nhint: "),
                "{words}: {error}"
            );
        }
    }
}
