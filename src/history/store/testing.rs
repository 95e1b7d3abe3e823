//! What the tests of the store share.

use std::num::NonZeroU64;

use jiff::Timestamp;

use crate::history::{Dial, Flow, Held, Mark, Sample};
use crate::model::{Cpu, Endpoint, Family, Listener, Queue, Subject};

/// A sample with something in every member.
pub fn full() -> Sample {
    let remote = Endpoint::v4([198, 51, 100, 7], 443);
    let held = |cookie| Held {
        cookie,
        port: 40_000,
        remote,
    };
    let queue = |id| Queue {
        id,
        recv_q: 3,
        drops: Some(1),
    };
    let mut sample = Sample {
        taken: Timestamp::from_second(1_800_000_000).unwrap(),
        listeners: vec![Listener {
            cookie: NonZeroU64::new(9),
            recv_q: 1,
            send_q: 128,
            drops: Some(2),
        }],
        listening: vec![(Family::Ipv6, Endpoint::v6([0; 16], 80))],
        close_wait: vec![held(1), held(2)],
        fin_wait_2: vec![held(3)],
        closing: vec![held(4)],
        bound: vec![5],
        descriptors: vec![(2211, 300)],
        syn_sent: vec![(6, remote)],
        established: vec![remote],
        talking: vec![remote],
        probed: vec![held(7)],
        flows: vec![Flow {
            cookie: 8,
            recv_q: 1,
            send_q: 2,
            bytes_received: Some(3),
            bytes_acked: Some(4),
            busy_us: Some(5),
            rwnd_limited_us: None,
            sndbuf_limited_us: Some(6),
            total_retrans: 7,
        }],
        marks: vec![
            Mark {
                id: "close-wait-leak".into(),
                subject: Subject::Process {
                    pid: Some(2211),
                    comm: Some("checkout".to_owned()),
                    uid: None,
                    unit: None,
                    container: None,
                },
            },
            Mark {
                id: "syn-sent-blackhole".into(),
                subject: Subject::Destination {
                    address: remote.ip(),
                    port: 443,
                    source_address: None,
                },
            },
            Mark {
                id: "x".into(),
                subject: Subject::Peer {
                    address: remote.ip(),
                },
            },
            Mark {
                id: "y".into(),
                subject: Subject::Host,
            },
            Mark {
                id: "z".into(),
                subject: Subject::Listener {
                    address: remote.ip(),
                    port: 1,
                    pid: None,
                    comm: None,
                    unit: Some("a.service".to_owned()),
                    container: None,
                },
            },
        ],
        resent: vec![(10, 11)],
        udp: Some(vec![queue(12)]),
        unix: Some(vec![queue(13)]),
        states: std::array::from_fn(|at| at as u64 + 20),
        ..Sample::default()
    };
    sample.ports.insert(
        Dial {
            source: remote.address,
            remote,
        },
        14,
    );
    sample
        .facts
        .counters
        .insert("TcpExt.ListenOverflows".to_owned(), 15);
    sample.facts.sockstat.insert("TCP.tw".to_owned(), 16);
    sample.facts.sysctls.insert(
        "net/netfilter/nf_conntrack_count".to_owned(),
        "17".to_owned(),
    );
    let cpu = Cpu {
        periods: Some(18),
        ..Cpu::default()
    };
    sample.cpu.insert("/a.service".to_owned(), cpu);
    sample
}
