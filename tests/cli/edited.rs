//! What cannot be provoked on a test machine, because the limits are the whole host's: captures of this machine's
//! sockets *with edited host facts*.

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Result;
use linger::collect::live::{Choice, Live};
use linger::collect::procfs::ProcRoot;
use linger::collect::{Source, Want};
use linger::model::{Coverage, Facts, Owners, StateSet, TcpState};
use linger::record::Writer;
use serde_json::Value;

use crate::support::*;

/// What is changed in the facts of each of the two looks.
type Edit = fn(&mut Facts, usize);

/// A capture of this machine with other facts.
fn capture(directory: &tempfile::TempDir, edit: Edit) -> Result<PathBuf> {
    let path = directory.path().join("edited.linger");
    let mut machine = Live::new(Choice::Netlink, ProcRoot::default());
    let mut writer = Writer::create(&path, true)?;
    writer.host(&machine.host())?;
    let whole = Want {
        tcp_info: true,
        memory: true,
        ..Want::states(StateSet::ALL)
    };
    let light = Want {
        memory: true,
        ..Want::states(StateSet::of(TcpState::Listen))
    };
    let facts = machine.facts();
    for (look, want) in [whole, light].into_iter().enumerate() {
        let taken = machine.now() + std::time::Duration::from_secs(look as u64);
        writer.begin_sample(taken)?;
        writer.asked(&want)?;
        let mut row = |_: linger::collect::Row<'_>| ControlFlow::Continue(());
        let coverage = machine.dump_teed(&want, &mut row, Some(&mut writer.tee()))?;
        let mut facts = facts.clone();
        edit(&mut facts, look);
        writer.facts(&facts)?;
        if look == 0 {
            writer.owners(&Owners::default())?;
        }
        let coverage = Coverage {
            owners_read: look == 0,
            ..coverage
        };
        writer.coverage(&coverage)?;
    }
    writer.finish()?;
    Ok(path)
}

/// The severity and subject of the finding, if it is found.
fn judged(id: &str, edit: Edit) -> Result<Option<(String, String)>> {
    let directory = tempfile::tempdir()?;
    let path = capture(&directory, edit)?;
    let document = json(&format!(
        "diagnose --json --only {id} --from {}",
        path.display()
    ));
    let at = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    if at("/findings/0/id") != Some(id) {
        return Ok(None);
    }
    let (severity, kind) = (at("/findings/0/severity"), at("/findings/0/subject/kind"));
    let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
    Ok(Some((owned(severity), owned(kind))))
}

fn is(severity: &str) -> Option<(String, String)> {
    Some((severity.to_owned(), "host".to_owned()))
}

fn sysctl(facts: &mut Facts, path: &str, value: &str) {
    facts.sysctls.insert(path.to_owned(), value.to_owned());
}

fn conntrack(facts: &mut Facts, count: &str) {
    sysctl(facts, "net/netfilter/nf_conntrack_max", "100000");
    sysctl(facts, "net/netfilter/nf_conntrack_count", count);
    sysctl(facts, "net/ipv4/tcp_mem", "93000 124000 186000");
}

#[test]
fn a_table_of_connection_tracking_nearly_full_with_edited_facts() -> Result<()> {
    let id = "conntrack-near-full";
    assert_eq!(
        judged(id, |facts, _| conntrack(facts, "75000"))?,
        is("warning")
    );
    assert_eq!(
        judged(id, |facts, _| conntrack(facts, "90000"))?,
        is("critical")
    );
    assert_eq!(judged(id, |facts, _| conntrack(facts, "74000"))?, None);
    Ok(())
}

fn orphans(facts: &mut Facts, orphans: i64) {
    sysctl(facts, "net/ipv4/tcp_max_orphans", "1000");
    facts.sockstat.insert("TCP.orphan".to_owned(), orphans);
}

#[test]
fn orphans_that_use_up_the_host_with_edited_facts() -> Result<()> {
    let id = "orphan-pile-up";
    assert_eq!(judged(id, |facts, _| orphans(facts, 250))?, is("warning"));
    assert_eq!(judged(id, |facts, _| orphans(facts, 500))?, is("critical"));
    assert_eq!(judged(id, |facts, _| orphans(facts, 249))?, None);
    Ok(())
}

fn memory(facts: &mut Facts, pages: i64) {
    sysctl(facts, "net/ipv4/tcp_mem", "1000 2000 4000");
    facts.sockstat.insert("TCP.mem".to_owned(), pages);
}

#[test]
fn memory_of_all_tcp_sockets_nearly_spent_with_edited_facts() -> Result<()> {
    let id = "tcp-memory-pressure";
    assert_eq!(judged(id, |facts, _| memory(facts, 2_001))?, is("warning"));
    assert_eq!(judged(id, |facts, _| memory(facts, 3_601))?, is("critical"));
    assert_eq!(judged(id, |facts, _| memory(facts, 1_999))?, None);
    Ok(())
}

fn dropped(facts: &mut Facts, packets: i64) {
    facts.counters.insert("Softnet.dropped".to_owned(), packets);
}

#[test]
fn packets_dropped_on_receipt_with_edited_facts() -> Result<()> {
    let id = "host-receive-drops";
    let found = judged(id, |facts, look| dropped(facts, 5 + 1_000 * look as i64))?;
    assert!(found == is("warning") || found == is("info"), "{found:?}");
    assert_eq!(
        judged(id, |facts, _| dropped(facts, 5))?,
        None,
        "it does not move"
    );
    Ok(())
}
