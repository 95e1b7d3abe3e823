//! What the manual page of `linger list` says beyond its help: which sockets, the filter language, the outputs, and what
//! the options of ss and netstat are here. Names come from where they are defined.

use std::io::{self, Write};

use super::man::{again, item, paragraph, section, subsection, verbatim};
use super::{fingers, tables};
use crate::model::{Protocol, StateSet, TcpState};

/// Everything between the notes of the help and the columns.
pub fn write(out: &mut Vec<u8>) -> io::Result<()> {
    sockets(out)?;
    filter(out)?;
    output(out)
}

fn sockets(out: &mut Vec<u8>) -> io::Result<()> {
    section(out, "SOCKETS")?;
    let protocols: Vec<&str> = Protocol::ALL
        .iter()
        .map(|protocol| protocol.label())
        .collect();
    paragraph(
        out,
        &format!(
            "{} sockets can be listed, by their options together or by the names of -A. Without one it is TCP; -l alone \
            is TCP and UDP, so that it shows everybody who waits. Where rows of several kinds come, the first column is \
            the kind. A table that this kernel does not have, such as that of --vsock without the module vsock_diag, is a note \
            and no failure. Another one that cannot be read is a failure if it was named, and a note if it came with others (-A \
            all, -A inet, -l).",
            protocols.join(", ")
        ),
    )?;
    let names: Vec<&str> = tables::names().collect();
    item(
        out,
        "-A TABLE,...",
        &format!(
            "{}. A name behind ! is left out; a list that begins so begins with all. tipc, xdp and dccp are not read.",
            names.join(" ")
        ),
    )?;
    item(
        out,
        "-f FAMILY",
        &format!(
            "{}. It limits the options of protocols, or stands for all sockets of the family; inet and inet6 alone mean TCP, as -4 and -6 do.",
            tables::FAMILIES.join(" ")
        ),
    )?;
    subsection(out, "Which states")?;
    item(
        out,
        "TCP, MPTCP",
        "Unasked, everything but LISTEN, CLOSED and BOUND-INACTIVE. -l is LISTEN, -B is BOUND-INACTIVE, -a is everything.",
    )?;
    item(
        out,
        "The others",
        "Unasked, everything but LISTEN. They have no states but ESTABLISHED (it has a peer), UNCONNECTED, and some LISTEN; \
        most sockets of UDP are always UNCONNECTED, and ss hides them. -l, and the name of the state LISTEN, mean those that \
        wait for anybody: LISTEN, and where there is no LISTEN (UDP, UDP-Lite, RAW, PACKET, NETLINK, UNIX datagrams with a \
        name) UNCONNECTED. 'state unconnected' and 'state established' are those alone.",
    )?;
    subsection(out, "What stands in the cells of both ends")?;
    for (name, text) in [
        (
            "ADDRESS:PORT",
            "of IP; the port * is none. [::ffff:10.0.0.7]:80 is an IPv4 conversation on a socket of IPv6.",
        ),
        ("ADDRESS:PROTOCOL", "of RAW, such as 0.0.0.0:icmp."),
        (
            "NAME:INODE",
            "of UNIX, such as /run/x.sock:49253965, @abstract:1659, or *:1658 without a name. The last colon parts them. The kernel tells the peer's inode alone. Where only UNIX sockets are listed these are columns of their own.",
        ),
        (
            "ETHERTYPE:INTERFACE",
            "of PACKET, such as arp:eth0; * is all.",
        ),
        (
            "FAMILY:PORT-ID",
            "of NETLINK, such as rtnl:NetworkManager/1234, with the name of the holder, or rtnl:kernel.",
        ),
        ("CID:PORT", "of VSOCK."),
    ] {
        item(out, name, text)?;
    }
    again(
        out,
        "No cell is ever cut. A name that others chose is shown with \\x1b for what is not printable and \\x20 for a blank, \
        so that a blank within a cell is never part of a name: it stands between the processes of one socket, and in words \
        such as (not seen: no permission).",
    )
}

/// The language, as it is read.
const GRAMMAR: &str = "\
FILTER := AND { or AND }
AND    := TERM { [and] TERM }
TERM   := not TERM | ( FILTER ) | CLAUSE | TEST
CLAUSE := state STATE,... | exclude STATE,...
TEST   := NAME [OPERATOR] VALUE";

const JUNCTIONS: &str = "\
not  !        binds tightest
and  && &     or nothing between two tests
or   || |     binds loosest";

const OPERATORS: &str = "\
=  ==  eq     equal; may be left out
!= ne  neq    not equal, which is: not (NAME = VALUE)
<  lt         less
<= le  leq    at most
>  gt         more
>= ge  geq    at least
~  =~         fits a pattern: * is any text, ? is one character
!~            does not fit it";

/// Each test: how it is written, which operators, and what it means.
const TESTS: &[(&str, &str)] = &[
    (
        "src HOST, dst HOST   (= !=)",
        "The address of this end, of the other. HOST is 10.0.0.7, 10.0.0 (zeros are added), 10.0.0.0/8, 10.0.0.0/255.0.0.0, ::1, fd00::/16, [fd00::/16]:22, 10.0.0.7:443, *, or a name, of which every address counts. inet: or inet6: in front choose the family of the socket. An IPv4 address finds v4-mapped ones too.",
    ),
    (
        "src NAME   (= !=)",
        "Of UNIX sockets the name, if it begins with / or @, or behind unix:. * and ? as with ~. The other end's name is not known.",
    ),
    (
        "sport PORT, dport PORT   (= != < <= > >=)",
        "The port of this end, of the other: 443, :443, 0x1bb, https. A listener's other port is 0.",
    ),
    (
        "port PORT   (= != < <= > >=)",
        "That of either end: (sport PORT or dport PORT). With != neither is.",
    ),
    (
        "dev NAME   (= !=)",
        "The interface that the socket is bound to, by name or number; not the one of its route.",
    ),
    (
        "fwmark MARK[/MASK]   (= !=)",
        "SO_MARK and MASK is MARK. The kernel tells marks only to CAP_NET_ADMIN; without it this is an error.",
    ),
    (
        "cgroup PATH   (= != ~ !~)",
        "The cgroup that made the socket, from the root of the hierarchy or as a path of the file system; exactly that one, or with ~ a pattern.",
    ),
    (
        "process NAME, comm NAME   (= != ~ !~)",
        "Some process that holds the socket.",
    ),
    ("pid N   (= != < <= > >=)", "Its number."),
    ("user NAME, uid N", "The socket's owner."),
    (
        "unit NAME   (= != ~ !~)",
        "The systemd unit; .service may be left out.",
    ),
    (
        "timer NAME   (= !=)",
        "The running timer: retransmit (on), keepalive, persist, time-wait or none (off).",
    ),
    (
        "cookie HEX   (= != < <= > >=)",
        "The kernel's identity of the socket, as -e shows it behind sk: and JSON in cookie: always hexadecimal, with 0x or without.",
    ),
    (
        "v6only yes|no   (= !=)",
        "Flags take yes, 1 and true, or no, 0 and false. family, protocol, netid and waiting-on take their own names alone; with ~ any pattern.",
    ),
    (
        "COLUMN VALUE",
        "Any column of COLUMNS that is a number, a time, a size (= != < <= > >=) or text (= != ~ !~); a member of tcp_info with or without its unit, as in rtt > 100ms.",
    ),
];

const VALUES: &str = "\
times   100us 1.5ms 10s 5min 2h 1d; the unit is needed
sizes   1500, 64KiB (or 64k), 1MB, 2GiB; bytes without a unit
numbers 22, 0x16, 026, as ss reads them
text    a backslash before blanks, operators and parentheses";

fn filter(out: &mut Vec<u8>) -> io::Result<()> {
    section(out, "FILTER")?;
    paragraph(
        out,
        "All words that are no options are one filter, in whatever order they stand among the options, quoted or not. \
        Operators and parentheses need no blanks around them, but quotes for the shell. Names and words of the language are \
        understood in any case.",
    )?;
    writeln!(out, ".PP")?;
    verbatim(out, None, GRAMMAR)?;
    subsection(out, "What joins")?;
    verbatim(out, None, JUNCTIONS)?;
    subsection(out, "Operators")?;
    verbatim(out, None, OPERATORS)?;
    subsection(out, "States")?;
    let states: Vec<&str> = TcpState::SHOWN
        .into_iter()
        .filter_map(TcpState::slug)
        .collect();
    let groups: Vec<String> = StateSet::GROUPS
        .iter()
        .map(|(name, set)| {
            let has: Vec<&str> = TcpState::SHOWN
                .into_iter()
                .filter(|state| set.contains(*state))
                .filter_map(TcpState::slug)
                .collect();
            let lacks: Vec<&str> = states
                .iter()
                .copied()
                .filter(|state| !has.contains(state))
                .collect();
            match (has.len(), lacks.len()) {
                (_, 0) => format!("{name}: every state"),
                (has, lack) if lack < has => format!("{name}: all but {}", lacks.join(" ")),
                _ => format!("{name}: {}", has.join(" ")),
            }
        })
        .collect();
    paragraph(
        out,
        &format!(
            "{}, in the spellings of RFC 9293, ss, netstat, the kernel and node_exporter alike (ESTAB, SYN_RCVD, time_wait, FIN-WAIT-1, finwait1, unconnected); unconnected is closed. The groups of ss:",
            states.join(" ")
        ),
    )?;
    writeln!(out, ".PP")?;
    verbatim(out, None, &groups.join("\n"))?;
    again(
        out,
        "The first clause decides where the set begins: state with none, exclude with all but BOUND-INACTIVE. Those that \
        follow add and take away. The clauses of one alternative of 'or' count together, wherever they stand in it; an \
        alternative without one means the states of -a, -l, -B or none of these.",
    )?;
    subsection(out, "Tests")?;
    for (name, text) in TESTS {
        item(out, name, text)?;
    }
    again(
        out,
        "What is not known fits no comparison, so != holds for it. Of an age that is known within bounds only what is sure \
        counts. Sockets without addresses of IP fit no test of an address or port.",
    )?;
    subsection(out, "Values")?;
    verbatim(out, None, VALUES)
}

fn output(out: &mut Vec<u8>) -> io::Result<()> {
    section(out, "OUTPUT")?;
    for (name, text) in [
        (
            "table",
            "Aligned columns. On a terminal more than 1,000 rows of TIME-WAIT become one line with their number, unless there is a filter or -a, -l, -B, -o, --sort or --top. What goes into a pipe or a file is never folded.",
        ),
        (
            "wide",
            "The table with process, user, unit, age, timer and more, and a line for each row however long it is.",
        ),
        (
            "json",
            "One document of the schema linger.sockets/1 (linger.groups/1 with --group-by); -j is short for it. -c adds the members of its columns to the usual ones and leaves none out, here as with jsonl.",
        ),
        ("jsonl", "One object a line, without an envelope."),
        (
            "csv",
            "One line of the names of columns (not with -H), one for each row, by RFC 4180 with a newline alone at the end of a line. Values are those of JSON; what is not known is empty, ages are in milliseconds. A text that begins with = + - or @ is not changed, because names such as -bash and @/tmp/.X11-unix/X0 do: tell a spreadsheet to import text. What is no UTF-8, and NUL, becomes U+FFFD; on a terminal what would steer it is shown as \\x1b.",
        ),
    ] {
        item(out, &format!("--output {name}"), text)?;
    }
    again(
        out,
        "All of them stream in constant memory; --sort keeps the rows, with --top only those that may be among the first.",
    )
}

/// What fingers type that is not the same here, or not here.
pub fn flags(out: &mut Vec<u8>) -> io::Result<()> {
    section(out, "FROM SS AND NETSTAT")?;
    paragraph(
        out,
        "The options -t -u -w -x -0 -M -S -4 -6 -f -A -a -l -B -n -o -e -m -i -p -H -O have the meaning and the long names of \
        ss and are joined as there: -tulpn, -tunap, -xlp. -n is the default. -c takes columns, where netstat repeats, and -o \
        and -i take no value, unlike those of kubectl and lsof. -S is SCTP and -M is MPTCP, as in ss. Other options are \
        wrong usage, with a hint:",
    )?;
    for (options, _) in fingers::FOREIGN {
        let hint = options.first().and_then(|option| fingers::hint(option));
        item(out, &options.join(", "), &hint.unwrap_or_default())?;
    }
    Ok(())
}
