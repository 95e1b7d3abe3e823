//! What is done for each socket allocates nothing: decoding, and writing a row once the first ones have been written.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::io;
use std::ops::ControlFlow;

use jiff::Timestamp;
use linger::collect::netlink::{Progress, Stream};
use linger::collect::{Row, Want};
use linger::fields::{self, Field, NoNames, Record};
use linger::model::owner::Link;
use linger::model::tcp_info::MEMBERS;
use linger::model::{
    AgeFacts, Attributes, Coverage, Ends, Facts, Owners, Process, StateSet, TcpInfo, TcpState,
    UnixKind, UnixSocket,
};
use linger::query::Filter;
use linger::render::csv::Csv;
use linger::render::groups::{Groups, Members};
use linger::render::json::{Head, Parts, SOCKETS, Sockets};
use linger::render::rows::{Extras, Options, Table, default_columns};

/// Counts what each thread asks for; tests run as threads of one process.
struct Counting;

thread_local! {
    // Made at compile time and without a destructor: to look at it does not allocate.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // While a thread ends there may be nothing to count with, and nobody who asks.
    ASKED.try_with(|asked| asked.set(asked.get() + 1)).ok();
}

#[expect(
    unsafe_code,
    reason = "there is no other way to see allocations than to be the allocator"
)]
// SAFETY: each call is handed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; `block` is of this allocator, which is the system's.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread has asked for memory so far.
fn asked() -> u64 {
    ASKED.with(Cell::get)
}

const ROWS: u32 = 10_000;
/// After so many rows the widths of a table's columns are known and buffers have the size that they need.
const WARM: u32 = 2_000;
/// Rows repeat after so many: whatever makes one long has been seen while it was warm.
const KINDS: u32 = 1_000;

/// `SOCK_DIAG_BY_FAMILY` (`include/uapi/linux/sock_diag.h`)
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SEQUENCE: u32 = 7;

/// The dump of so many sockets, as the kernel sends it: datagrams of several messages, each with every attribute that
/// linger asks for.
fn dump() -> Vec<Vec<u8>> {
    let rows: Vec<u32> = (0..ROWS).collect();
    rows.chunks(40)
        .map(|rows| rows.iter().flat_map(|n| message(n % KINDS)).collect())
        .collect()
}

/// Attributes, one behind the other.
fn nested(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in attributes {
        bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn message(n: u32) -> Vec<u8> {
    // Numbers of every length.
    let any = n.wrapping_mul(2_654_435_761) >> (n % 31);
    let low = any.to_be_bytes();
    let v6 = n % 2 == 1;
    let states = [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 7, 14];
    let state = states.iter().copied().cycle().nth(n as usize);
    // struct inet_diag_msg
    let mut payload = vec![if v6 { 10 } else { 2 }, state.unwrap_or(1), (n % 5) as u8];
    payload.push((n % 16) as u8);
    payload.extend((n as u16).to_be_bytes());
    payload.extend((any as u16).to_be_bytes());
    for host in 0..2u8 {
        if v6 {
            payload.extend([0xfd, 0x99, host, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
            payload.extend(low);
        } else {
            payload.extend([198, 51, 100 + host, n as u8]);
            payload.extend([0; 12]);
        }
    }
    // interface, cookie, expires, queues, uid, inode
    for number in [n % 3, n + 1, any, any, any / 3, any / 7, n % 70, n] {
        payload.extend(number.to_ne_bytes());
    }
    let info: Vec<u8> = (0..280u32).map(|at| (at * (n + 1)) as u8).collect();
    let memory: Vec<u8> = (0..9).flat_map(|m| (any / (m + 1)).to_ne_bytes()).collect();
    let id = u64::from(any).to_ne_bytes();
    let numbers =
        |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_ne_bytes()).collect() };
    let bbr = numbers(&[any, 0, n, n % 1_000, n % 700]);
    let vegas = numbers(&[1, n, any, any / 2]);
    let mut md5 = vec![if v6 { 10 } else { 2 }, (n % 33) as u8, 6, 0];
    md5.extend([low; 4].concat());
    md5.resize(100, b'k');
    let subflow = nested(&[(2, &any.to_ne_bytes()), (4, &id), (8, &n.to_ne_bytes())]);
    let tls = nested(&[(1, &[3, 3]), (2, &[51 + (n % 9) as u8, 0]), (3, &[2, 0])]);
    let upper = match n % 2 {
        0 => nested(&[(1, b"mptcp\0"), (3, &subflow)]),
        _ => nested(&[(1, b"tls\0"), (2, &tls)]),
    };
    for (kind, value) in [
        (2u16, info.as_slice()),  // INET_DIAG_INFO
        (4, b"cubic\0"),          // INET_DIAG_CONG
        (5, &[16]),               // INET_DIAG_TOS
        (6, &[32]),               // INET_DIAG_TCLASS
        (7, &memory),             // INET_DIAG_SKMEMINFO
        (8, &[(n % 4) as u8]),    // INET_DIAG_SHUTDOWN
        (11, &[(n % 2) as u8]),   // INET_DIAG_SKV6ONLY
        (15, &any.to_ne_bytes()), // INET_DIAG_MARK
        (17, &any.to_ne_bytes()), // INET_DIAG_CLASS_ID
        (21, &id),                // INET_DIAG_CGROUP_ID
        (22, &low[..2]),          // INET_DIAG_SOCKOPT
        (18, &md5),               // INET_DIAG_MD5SIG
        (19, &upper),             // INET_DIAG_ULP_INFO
        match n % 3 {
            0 => (3u16, &vegas), // INET_DIAG_VEGASINFO
            _ => (16, &bbr),     // INET_DIAG_BBRINFO
        },
        (99, b"unknown to linger"),
    ] {
        payload.extend((value.len() as u16 + 4).to_ne_bytes());
        payload.extend(kind.to_ne_bytes());
        payload.extend(value);
        payload.resize(payload.len().next_multiple_of(4), 0);
    }
    let mut message = (payload.len() as u32 + 16).to_ne_bytes().to_vec();
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(2u16.to_ne_bytes());
    message.extend(SEQUENCE.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(payload);
    message
}

/// Feeds the dump to the sink: how often memory was asked for in all, and after the first rows.
fn feed(sink: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>) -> (u64, u64) {
    let dump = dump();
    let want = Want {
        tcp_info: true,
        memory: true,
        congestion: true,
        tos: true,
        ..Want::states(StateSet::ALL)
    };
    let mut coverage = Coverage::default();
    let mut stream = Stream::new(Some(SEQUENCE));
    let (mut rows, mut warm) = (0, None);
    let before = asked();
    for datagram in &dump {
        let progress = stream.feed(datagram, &want, &mut coverage, &mut |row| {
            if rows == WARM {
                warm = Some(asked());
            }
            rows += 1;
            sink(row)
        });
        assert!(matches!(progress, Progress::More), "{progress:?}");
    }
    let after = asked();
    assert_eq!(rows, ROWS, "every row arrives");
    assert_eq!(coverage.undecoded, 0);
    (after - before, after - warm.unwrap_or(before))
}

/// Feeds the dump to the sink as records that have whatever a record may have.
fn feed_records(push: &mut dyn FnMut(&Record<'_>) -> io::Result<()>) -> (u64, u64) {
    let process = |pid: u32| Process {
        pid,
        comm: format!("worker/{pid}:\u{202e}\n"),
        user: Some("www-data".to_owned()),
        cgroup: Some("/system.slice/web.service".to_owned()),
        ..Process::default()
    };
    let link = |inode, process| Link {
        inode,
        process,
        fd: inode + 3,
    };
    // Some have no holder, some one, some two.
    let links = (0..KINDS).filter(|n| n % 3 > 0).map(|n| link(n, n % 7));
    let shared = (0..KINDS).filter(|n| n % 3 > 1).map(|n| link(n, 7));
    let owners = Owners::new(
        (100..108).map(process).collect(),
        links.chain(shared).collect(),
    );
    let mut facts = Facts::default();
    let mut set = |name: &str, value: &str| facts.sysctls.insert(name.into(), value.into());
    set("net/ipv4/tcp_fin_timeout", "60");
    set("net/ipv4/tcp_syn_linear_timeouts", "4");
    let ages = AgeFacts::new(&facts);
    feed(&mut |row| {
        let Row::Inet { socket, attributes } = row else {
            // Ends the dump, which the caller notices.
            return ControlFlow::Break(());
        };
        let written = push(&Record {
            socket: &socket,
            attributes: &attributes,
            ends: Ends::Ip,
            owners: Some(&owners),
            ages: &ages,
            names: &NoNames,
        });
        assert!(written.is_ok(), "{written:?}");
        ControlFlow::Continue(())
    })
}

#[test]
fn what_is_allocated_is_counted() {
    let before = asked();
    black_box(vec![1u8; 10]);
    assert_eq!(asked() - before, 1);
    let mut text = black_box(String::with_capacity(1));
    text.push_str("more than one byte");
    assert_eq!(asked() - before, 3, "growing counts too");
}

#[test]
fn decoding_allocates_nothing() {
    let (mut infos, mut sum) = (0, 0u64);
    let (all, _) = feed(&mut |row| {
        let Row::Inet { socket, attributes } = row else {
            panic!("a row of another protocol")
        };
        infos += u32::from(attributes.tcp_info.and_then(TcpInfo::parse).is_some());
        let raw = attributes.tcp_info.unwrap_or_default();
        let members = MEMBERS.iter().filter_map(|member| member.get(raw));
        sum = members.fold(sum, u64::wrapping_add);
        let memory = attributes.memory();
        assert!(memory.is_some() && attributes.congestion == Some(b"cubic"));
        black_box((socket, memory));
        let told = attributes.congestion_info().is_some() && attributes.md5().is_some();
        assert!(told && attributes.ulp().is_some() && attributes.sockopt.is_some());
        ControlFlow::Continue(())
    });
    assert_eq!(infos, ROWS, "each has its tcp_info");
    assert_ne!(black_box(sum), 0);
    assert_eq!(all, 0, "allocations for {ROWS} sockets");
}

const EVERYTHING: Extras = Extras {
    timer: true,
    extended: true,
    memory: true,
    info: true,
    process: true,
};

/// Rows as a table: allocations in all and after the first.
fn as_table(columns: Vec<&'static Field>, extras: Extras, width: Option<usize>) -> (u64, u64) {
    let options = Options {
        header: true,
        extras,
        width,
        one_line: false,
    };
    let mut table = Table::new(io::sink(), columns, options);
    feed_records(&mut |record| table.push(record))
}

#[test]
fn rows_of_a_table_allocate_nothing_after_the_first() {
    for extras in [Extras::default(), EVERYTHING] {
        for width in [None, Some(80)] {
            let (all, later) = as_table(default_columns(), extras, width);
            assert!(all > 0, "its buffers are of some size");
            assert_eq!(later, 0, "{extras:?} {width:?}");
        }
    }
    let every_column: Vec<&Field> = fields::ALL.iter().collect();
    assert!(every_column.len() > 20);
    let (_, later) = as_table(every_column, Extras::default(), None);
    assert_eq!(later, 0, "every column");
}

#[test]
fn a_filter_allocates_nothing() {
    let filter = "state connected and (dst fd99::/16 or dst 198.51.100.0/23) and not (process ~ *worker/1* or user = 0) \
        or rtt > 1ms recv-q >= 1 age > 1s fwmark = 1/3 unit = web timer = keepalive sport != :22 congestion = cubic \
        skmem-drops > 1 family = ipv6";
    let filter = Filter::parse(&[filter.to_owned()]);
    let filter = filter.unwrap_or_else(|error| panic!("{error}"));
    let mut fitting = 0;
    let (all, _) = feed_records(&mut |record| {
        fitting += u32::from(filter.matches(record));
        Ok(())
    });
    assert!(0 < fitting && fitting < ROWS, "{fitting}");
    assert_eq!(all, 0, "allocations for {ROWS} sockets");
}

#[test]
fn counting_allocates_for_groups_and_not_for_rows() {
    let columns = ["state", "process", "timer", "unit"].map(|id| fields::by_id(id).unwrap());
    for members in [Members::None, Members::Json, Members::Csv] {
        let mut groups = Groups::new(columns.to_vec(), members);
        let (all, later) = feed_records(&mut |record| groups.push(record));
        assert!(all > 0, "each group once");
        assert_eq!(later, 0, "{members:?}");
        assert_eq!(groups.counted(Some(1)).total, u64::from(ROWS));
    }
}

/// Rows of UNIX sockets, of names of every length and of any bytes: allocations after the first.
fn feed_unix(push: &mut dyn FnMut(&Record<'_>) -> io::Result<()>) -> u64 {
    let names: Vec<Vec<u8>> = (0..KINDS)
        .map(|n| {
            let length = n % 107;
            let bytes = (0..length).map(|at| (at * 7 + n) as u8);
            std::iter::once((n % 2) as u8 * b'/').chain(bytes).collect()
        })
        .collect();
    let (attributes, ages) = (Attributes::default(), AgeFacts::default());
    let mut warm = asked();
    for n in 0..ROWS {
        if n == WARM {
            warm = asked();
        }
        let unix = UnixSocket {
            netns: 0,
            cookie: None,
            inode: n % KINDS + 1,
            kind: UnixKind::Stream,
            state: if n % 3 == 0 {
                TcpState::Listen
            } else {
                TcpState::Closed
            },
            name: names.get((n % KINDS) as usize).map(Vec::as_slice),
            file: Some((n % 256, n % KINDS)),
            peer: Some(n % KINDS),
            waiting: None,
            recv_q: Some(n % 7),
            send_q: None,
            memory: None,
            shutdown: Some(0),
            uid: Some(n % 70),
        };
        let ends = Ends::Unix(&unix);
        let written = push(&Record {
            socket: &ends.socket(),
            attributes: &attributes,
            ends,
            owners: None,
            ages: &ages,
            names: &NoNames,
        });
        assert!(written.is_ok(), "{written:?}");
    }
    asked() - warm
}

#[test]
fn rows_of_unix_sockets_and_of_csv_allocate_nothing_after_the_first() {
    let every_column: Vec<&Field> = fields::all().collect();
    let options = Options {
        header: true,
        extras: Extras {
            extended: true,
            ..Extras::default()
        },
        width: Some(80),
        one_line: false,
    };
    let mut table = Table::new(io::sink(), every_column.clone(), options);
    assert_eq!(feed_unix(&mut |record| table.push(record)), 0, "a table");
    let mut lines = Sockets::lines(io::sink(), Parts::default());
    assert_eq!(feed_unix(&mut |record| lines.push(record)), 0, "JSON");
    for terminal in [false, true] {
        let csv = || Csv::new(io::sink(), every_column.clone(), true, terminal).unwrap();
        let mut unix = csv();
        assert_eq!(feed_unix(&mut |record| unix.push(record)), 0, "CSV of UNIX");
        let mut tcp = csv();
        let (_, later) = feed_records(&mut |record| tcp.push(record));
        assert_eq!(later, 0, "CSV");
    }
    let filter =
        Filter::parse(&["src /*a? or local-name ~ *z* and not state listen".to_owned()]).unwrap();
    let mut fitting = 0;
    let later = feed_unix(&mut |record| {
        fitting += u32::from(filter.matches(record));
        Ok(())
    });
    assert!(
        later == 0 && 0 < fitting && fitting < ROWS,
        "{later} {fitting}"
    );
}

#[test]
fn rows_as_json_allocate_nothing_after_the_first() {
    let parts = Parts {
        owners: true,
        info: true,
        memory: true,
        extended: true,
    };
    for parts in [Parts::default(), parts] {
        let head = Head {
            schema: SOCKETS,
            generated_at: Timestamp::UNIX_EPOCH,
            host: "web-7",
            netns: None,
            collector: "netlink",
        };
        let mut document = Sockets::document(io::sink(), &head, parts).unwrap();
        let (_, later) = feed_records(&mut |record| document.push(record));
        assert_eq!(later, 0, "a document, {parts:?}");
        let mut lines = Sockets::lines(io::sink(), parts);
        let (_, later) = feed_records(&mut |record| lines.push(record));
        assert_eq!(later, 0, "lines, {parts:?}");
    }
}
