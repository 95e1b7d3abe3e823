//! Two ways to read the same sockets have to agree.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, ensure};

use crate::answers::Row;
use crate::harness::Test;
use crate::states::{lists_bound_sockets, zoo};
use crate::world::{World, connect, listen};

pub const TESTS: &[Test] = &[Test {
    name: "collectors_agree",
    run: collectors_agree,
}];

type Key = (IpAddr, u16, IpAddr, u16);

fn collectors_agree(world: &mut World) -> Result<()> {
    let mut specimens = Vec::new();
    for family in world.families() {
        specimens.extend(zoo(world, *family)?);
    }
    // An IPv6 socket with an IPv4 conversation.
    let any = "[::]:7100".parse()?;
    let both = world.families().len() == 2;
    let mapped = if both { Some(listen(any, 5)?) } else { None };
    let client = both.then(|| connect("127.0.0.1:7100".parse()?));
    let client = client.transpose()?;

    // A timer may fire between two listings; then they are made again.
    let mut disagreements = Vec::new();
    for _ in 0..5 {
        disagreements = compare(world)?;
        if disagreements.is_empty() {
            break;
        }
    }
    for disagreement in disagreements {
        world.problem(disagreement);
    }
    drop((mapped, client));
    Ok(())
}

/// Lists the sockets over netlink, from `/proc/net`, and over netlink again, and says where they differ.
fn compare(world: &World) -> Result<Vec<String>> {
    let first = listing(world, "netlink")?;
    let text = listing(world, "procfs")?;
    let last = listing(world, "netlink")?;
    let mut disagreements = Vec::new();
    let mut bound = 0;
    for (key, row) in &first {
        if row.state == "bound-inactive" {
            bound += 1;
            if text.contains_key(key) {
                disagreements.push(format!("/proc/net shows no bound sockets: {row:?}"));
            }
            continue;
        }
        match (text.get(key), last.get(key)) {
            (Some(other), Some(later)) => {
                disagreements.extend(differences(row, other, later));
            }
            other => disagreements.push(format!("not in all listings: {row:?} {other:?}")),
        }
    }
    for (key, row) in &text {
        if !first.contains_key(key) {
            disagreements.push(format!("in /proc/net only: {row:?}"));
        }
        if row.cookie.is_some() || row.tcp_info.is_some() {
            disagreements.push(format!("/proc/net does not know that: {row:?}"));
        }
    }
    if (bound > 0) != lists_bound_sockets()? {
        disagreements.push(format!("{bound} bound sockets over netlink"));
    }
    Ok(disagreements)
}

fn listing(world: &World, collector: &str) -> Result<BTreeMap<Key, Row>> {
    let rows = world.rows(&["list", "-a", "--json", "--collector", collector])?;
    ensure!(!rows.is_empty(), "{collector} lists nothing");
    let count = rows.len();
    let by_key: BTreeMap<Key, Row> = rows
        .into_iter()
        .map(|row| {
            let local = (row.local_address, row.local_port);
            let peer = (row.peer_address, row.peer_port);
            ((local.0, local.1, peer.0, peer.1), row)
        })
        .collect();
    ensure!(
        by_key.len() == count,
        "{collector} lists a socket twice: {by_key:?}"
    );
    Ok(by_key)
}

/// `row` and `later` come from netlink, `other` from `/proc/net` in between.
fn differences(row: &Row, other: &Row, later: &Row) -> Vec<String> {
    let mut all = Vec::new();
    let mut same = |what: &str, agree: bool| {
        if !agree {
            all.push(format!("{what}: {row:?} but {other:?}"));
        }
    };
    same("family", row.family == other.family);
    same("state", row.state == other.state);
    same("recv_q", row.recv_q == other.recv_q);
    // /proc/net does not know a listener's limit.
    same(
        "send_q",
        row.send_q == other.send_q || row.state == "listen",
    );
    // Of a handshake /proc/net gives the listener's uid, netlink 0 (inet_req_diag_fill() in net/ipv4/inet_diag.c).
    same("uid", row.uid == other.uid || row.state == "syn-received");
    same("inode", row.is_held() == other.is_held());
    same("inode", !row.is_held() || row.inode == other.inode);
    same("timer", row.timer_name() == other.timer_name());
    if let (Some(timer), Some(other), Some(later)) = (&row.timer, &other.timer, &later.timer) {
        // Of a handshake netlink counts the SYN-ACKs that went out again, /proc/net the time-outs: a repeated SYN makes
        // them differ (num_retrans and num_timeout in include/net/request_sock.h).
        same(
            "retransmits",
            timer.retransmits == other.retransmits || row.state == "syn-received",
        );
        let range = later.expires_ms.saturating_sub(250)..=timer.expires_ms + 250;
        same("expires_ms", range.contains(&other.expires_ms));
    }
    all
}
