//! What a row costs between the kernel's message and the bytes of the output, without a kernel:
//!
//! ```text
//! cargo bench --bench rows
//! cargo bench --bench rows -- 20000 table-i
//! ```
//!
//! Makes the dump of so many TCP sockets in memory (20,000 unasked), as the kernel sends it: two in three of IPv4, the
//! others of IPv6, with every attribute that `-i`, `-e` and `-m` ask for where they are measured. Prints the nanoseconds a
//! row of the decoder alone, and of a filter or a form of output beside it: the median of nine runs, and the fastest. A
//! name measures that one alone, once, for who counts instructions (`valgrind --tool=callgrind`).

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use jiff::Timestamp;
use linger::collect::netlink::Stream;
use linger::collect::{Row, Want};
use linger::fields::{NoNames, Record};
use linger::model::owner::Link;
use linger::model::tcp_info::example;
use linger::model::{AgeFacts, Coverage, Ends, Owners, Process, StateSet, nla};
use linger::query::Filter;
use linger::render::csv::Csv;
use linger::render::json::{Head, Parts, SOCKETS, Sockets};
use linger::render::rows::{Extras, Options, Table, default_columns};

/// How many runs.
const RUNS: usize = 9;
/// `SOCK_DIAG_BY_FAMILY` (`include/uapi/linux/sock_diag.h`)
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// As many messages as the kernel puts into a datagram of 32 KiB.
const BATCH: usize = 80;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let rows: u32 = args.next().map_or(Ok(20_000), |rows| rows.parse())?;
    let only = args.next();
    let (bare, whole) = (dump(rows, false), dump(rows, true));
    let mut fitting = 0u64;
    let filter = |words: &str| Filter::parse(&[words.to_owned()]);
    let ports = filter("dport = :443 or sport = :443")?;
    let nets = filter("state established and dst 10.0.0.0/8 and not recv-q > 0")?;
    let owners = owners(rows);
    let nobody = Owners::default();

    println!("{rows} rows                   ns a row   fastest");
    let run = |name: &str, dump: &Dump, once: &mut dyn FnMut(&Dump)| {
        if only.as_ref().is_some_and(|only| only != name) {
            return;
        }
        let runs = if only.is_some() { 1 } else { RUNS };
        let mut times: Vec<f64> = (0..runs)
            .map(|_| {
                let start = Instant::now();
                once(dump);
                start.elapsed().as_secs_f64() * 1e9 / f64::from(rows)
            })
            .collect();
        times.sort_by(f64::total_cmp);
        if let (Some(median), Some(fastest)) = (times.get(runs / 2), times.first()) {
            println!("{name:<24} {median:>12.0} {fastest:>9.0}");
        }
    };
    run("decode", &bare, &mut |dump| {
        feed(dump, None, &mut |record| {
            black_box(record.socket);
        });
    });
    run("decode-all", &whole, &mut |dump| {
        feed(dump, None, &mut |record| {
            black_box(record.attributes);
        });
    });
    for (name, filter) in [("filter-ports", &ports), ("filter-nets", &nets)] {
        run(name, &bare, &mut |dump| {
            feed(dump, None, &mut |record| {
                fitting += u64::from(filter.matches(record));
            });
        });
    }
    let table = |extras: Extras, width| {
        let options = Options {
            extras,
            width,
            ..Options::default()
        };
        Table::new(io::sink(), default_columns(), options)
    };
    let info = Extras {
        info: true,
        ..Extras::default()
    };
    let beside = Extras {
        timer: true,
        extended: true,
        memory: true,
        ..Extras::default()
    };
    for (name, dump, owners, extras, width) in [
        ("table", &bare, &nobody, Extras::default(), None),
        ("table-i", &whole, &nobody, info, None),
        ("table-i-80", &whole, &nobody, info, Some(80)),
        ("table-oem", &whole, &owners, beside, None),
    ] {
        run(name, dump, &mut |dump| {
            let mut table = table(extras, width);
            feed(dump, Some(owners), &mut |record| {
                black_box(table.push(record).is_ok());
            });
            black_box(table.finish().is_ok());
        });
    }
    let everything = Parts {
        owners: false,
        info: true,
        memory: true,
        extended: true,
    };
    for (name, dump, parts) in [
        ("json", &bare, Parts::default()),
        ("json-iem", &whole, everything),
    ] {
        run(name, dump, &mut |dump| {
            let head = Head {
                schema: SOCKETS,
                generated_at: Timestamp::UNIX_EPOCH,
                host: "web-7",
                netns: None,
                collector: "netlink",
            };
            if let Ok(mut json) = Sockets::document(io::sink(), &head, parts) {
                feed(dump, None, &mut |record| {
                    black_box(json.push(record).is_ok());
                });
            }
        });
    }
    run("csv", &bare, &mut |dump| {
        if let Ok(mut csv) = Csv::new(io::sink(), default_columns(), true, false) {
            feed(dump, None, &mut |record| {
                black_box(csv.push(record).is_ok());
            });
        }
    });
    black_box(fitting);
    Ok(())
}

/// Datagrams.
type Dump = Vec<Vec<u8>>;

/// Hands each row on as a record.
fn feed(dump: &Dump, owners: Option<&Owners>, push: &mut dyn FnMut(&Record<'_>)) {
    let want = Want::states(StateSet::ALL);
    let (mut coverage, mut stream) = (Coverage::default(), Stream::new(None));
    let ages = AgeFacts::default();
    for datagram in dump {
        stream.feed(datagram, &want, &mut coverage, &mut |row| {
            if let Row::Inet { socket, attributes } = &row {
                push(&Record {
                    socket,
                    attributes,
                    ends: Ends::Ip,
                    owners,
                    ages: &ages,
                    names: &NoNames,
                });
            }
            ControlFlow::Continue(())
        });
    }
    assert_eq!(coverage.undecoded, 0);
}

/// Each socket has a holder, as on a proxy a few processes hold all.
fn owners(rows: u32) -> Owners {
    let process = |pid| Process {
        pid,
        comm: "nginx".to_owned(),
        cgroup: Some("/system.slice/nginx.service".to_owned()),
        ..Process::default()
    };
    let link = |inode| Link {
        inode,
        process: inode % 8,
        fd: inode,
    };
    Owners::new(
        (100..108).map(process).collect(),
        (1..=rows).map(link).collect(),
    )
}

/// The dump of so many sockets; `whole` with the attributes that have to be asked for.
fn dump(rows: u32, whole: bool) -> Dump {
    let rows: Vec<u32> = (1..=rows).collect();
    rows.chunks(BATCH)
        .map(|rows| rows.iter().flat_map(|n| message(*n, whole)).collect())
        .collect()
}

/// One message. What is in it differs from row to row, so that no branch is foreseen that would not be in earnest.
fn message(n: u32, whole: bool) -> Vec<u8> {
    let any = n.wrapping_mul(2_654_435_761);
    let [a, b, c, d] = any.to_be_bytes();
    let v6 = n.is_multiple_of(3);
    // Of ten sockets seven are established, two wait, one was left by its peer.
    let state = match any / 256 % 10 {
        0..7 => 1,
        7..9 => 6,
        _ => 8,
    };
    let timer = if state == 6 { 3 } else { 0 };
    // struct inet_diag_msg
    let mut payload = vec![if v6 { 10 } else { 2 }, state, timer, 0];
    payload.extend(443u16.to_be_bytes());
    payload.extend((32_768 + (any >> 18) as u16).to_be_bytes());
    for host in [[10, 0, 0, 1], [10, b, c, d]] {
        if v6 {
            payload.extend([0x20, 0x01, 0x0d, 0xb8, a, 0, 0, 0, 0, 0, 0, 0]);
            payload.extend(host);
        } else {
            payload.extend(host);
            payload.extend([0; 12]);
        }
    }
    let queue = if any.is_multiple_of(16) { any >> 12 } else { 0 };
    // interface, cookie, expires, queues, uid, inode
    for number in [0, any, 0, any % 60_000, queue, 0, 33, n] {
        payload.extend(number.to_ne_bytes());
    }
    payload.extend(nla::built(&[
        (8, &[0]),
        (15, &[0; 4]),
        (21, &1u64.to_ne_bytes()),
        (22, &[0; 2]),
    ]));
    if whole {
        let memory = [0, 131_072, 0, 46_080, 0, 0, 0, 0, any % 3];
        let memory: Vec<u8> = memory.iter().flat_map(|m: &u32| m.to_ne_bytes()).collect();
        payload.extend(nla::built(&[
            (2, &info(any)),
            (4, b"cubic\0"),
            (5, &[0]),
            (7, &memory),
        ]));
    }
    let mut message = (payload.len() as u32 + 16).to_ne_bytes().to_vec();
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(2u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(payload);
    message
}

/// What the kernel says of a connection that was used.
fn info(any: u32) -> Vec<u8> {
    let any = u64::from(any);
    example(&[
        ("options", 7),
        ("snd_wscale", 7),
        ("rcv_wscale", 7),
        ("rto_us", 201_000 + any % 90_000),
        ("ato_us", 40_000),
        ("snd_mss_bytes", 1448),
        ("rcv_mss_bytes", 536 + any % 900),
        ("last_data_sent_ms", any % 900_000),
        ("last_data_recv_ms", any % 700_000),
        ("last_ack_recv_ms", any % 600_000),
        ("pmtu_bytes", 1500),
        ("rcv_ssthresh_bytes", 64_088),
        ("rtt_us", 150 + any % 70_000),
        ("rttvar_us", 75 + any % 9_000),
        ("snd_ssthresh", 0x7fff_ffff),
        ("snd_cwnd", 10 + any % 30),
        ("advmss_bytes", 1448),
        ("reordering", 3),
        ("rcv_space_bytes", 14_480),
        ("pacing_rate_bytes_per_s", any * 40),
        ("max_pacing_rate_bytes_per_s", u64::MAX),
        ("bytes_acked", any * 3),
        ("bytes_received", any / 5),
        ("segs_out", any % 70_000),
        ("segs_in", any % 60_000),
        ("min_rtt_us", 120 + any % 9_000),
        ("data_segs_in", any % 5_000),
        ("data_segs_out", any % 40_000),
        ("delivery_rate_bytes_per_s", any),
        ("delivery_rate_app_limited", any % 2),
        ("busy_time_us", any % 8_000_000),
        ("delivered", any % 40_000),
        ("bytes_sent", any * 3),
        ("snd_wnd_bytes", 64_256),
        ("rcv_wnd_bytes", 64_256),
    ])
}
