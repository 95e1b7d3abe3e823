//! Whose sockets they are, in captures of this machine's sockets *with edited owners*; and what `--pair` takes.

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Result;
use linger::collect::live::{Choice, Live};
use linger::collect::procfs::ProcRoot;
use linger::collect::{Row, Source, Want};
use linger::model::owner::Link;
use linger::model::{Coverage, Owners, Process, StateSet, TcpState};
use linger::record::Writer;
use serde_json::json;

use crate::support::*;

/// A capture of a listener, which a process in this cgroup holds where there is one, and its port.
fn capture(
    directory: &tempfile::TempDir,
    cgroup: Option<&str>,
    edit: fn(&mut Coverage),
) -> Result<(PathBuf, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let path = directory.path().join("edited.linger");
    let mut machine = Live::new(Choice::Netlink, ProcRoot::default());
    let mut writer = Writer::create(&path, true)?;
    writer.host(&machine.host())?;
    let want = Want::states(StateSet::of(TcpState::Listen));
    writer.begin_sample(machine.now())?;
    writer.asked(&want)?;
    let mut inode = 0;
    let mut row = |row: Row<'_>| {
        if let Row::Inet { socket, .. } = row
            && socket.local.port == port
        {
            inode = socket.inode;
        }
        ControlFlow::Continue(())
    };
    let read = machine.dump_teed(&want, &mut row, Some(&mut writer.tee()))?;
    let processes = cgroup.map(|path| Process {
        pid: 7,
        comm: "web".to_owned(),
        uid: Some(4_000_000),
        user: Some("capturedwww".to_owned()),
        cgroup: Some(path.to_owned()),
        ..Process::default()
    });
    let link = Link {
        inode,
        process: 0,
        fd: 3,
    };
    writer.owners(&Owners::new(processes.into_iter().collect(), vec![link]))?;
    let mut coverage = Coverage {
        owners_read: true,
        ..read
    };
    edit(&mut coverage);
    writer.facts(&machine.facts())?;
    writer.coverage(&coverage)?;
    writer.finish()?;
    Ok((path, port))
}

#[test]
fn a_container_comes_from_the_recorded_cgroup_of_an_edited_capture() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let id = "0123456789abcdef".repeat(4);
    let slice = "kubepods-besteffort-pod8c5d3e1a_1111_2222_3333_0123456789ab.slice";
    let path = format!("/kubepods.slice/{slice}/cri-containerd-{id}.scope");
    let (file, port) = capture(&directory, Some(&path), |_| {})?;
    let from = file.display();
    let document = json(&format!(
        "list -tl -p -e --json --from {from} sport = :{port}"
    ));
    let socket = &document["sockets"][0];
    assert_eq!(
        (
            &socket["container"],
            &socket["container_id"],
            &socket["pod_uid"]
        ),
        (
            &json!("containerd:0123456789ab"),
            &json!(id),
            &json!("8c5d3e1a-1111-2222-3333-0123456789ab")
        )
    );
    let owner = &socket["owners"][0];
    assert_eq!(
        (&owner["container"], &owner["user"]),
        (&json!("containerd:0123456789ab"), &json!("capturedwww"))
    );
    for (filter, rows) in [
        ("container = 0123456789ab", 1),
        ("container = containerd:0123456789abcd", 1),
        ("container ~ containerd:*", 1),
        ("pod = 8c5d3e1a-1111-2222-3333-0123456789ab", 1),
        ("container = 0123456789a", 0),
        ("container = docker:0123456789ab", 0),
        ("pod = 8c5d3e1a", 0),
    ] {
        let text = quiet(&format!("list -tlH -c pod --from {from} {filter}"));
        assert_eq!(text.lines().count(), rows, "{filter}: {text}");
    }
    let counted = json(&format!(
        "list -tl --json --group-by container,pod --from {from} container ~ *"
    ));
    assert_eq!(
        counted["groups"],
        json!([{
            "container": "containerd:0123456789ab",
            "pod_uid": "8c5d3e1a-1111-2222-3333-0123456789ab",
            "sockets": 1,
        }])
    );
    Ok(())
}

#[test]
fn why_no_holder_was_seen_comes_from_the_coverage_of_an_edited_capture() -> Result<()> {
    let directory = tempfile::tempdir()?;
    type Gap = fn(&mut Coverage);
    let gaps: [(Gap, &str, &str); 4] = [
        (|_| {}, "not-found", "- (no descriptor: "),
        (
            |coverage| coverage.unreadable_processes = 2,
            "not-permitted",
            "- (not seen: no permission)",
        ),
        (
            |coverage| coverage.owners_timed_out = true,
            "timed-out",
            "- (not seen: out of time)",
        ),
        (
            |coverage| coverage.nested_pids = true,
            "other-pid-namespace",
            "- (not seen: other pid namespace)",
        ),
    ];
    for (edit, slug, words) in gaps {
        let (file, port) = capture(&directory, None, edit)?;
        let from = file.display();
        let document = json(&format!("list -tl -p --json --from {from} sport = :{port}"));
        assert_eq!(document["sockets"][0]["no_owner"], slug);
        assert_eq!(document["complete"], slug == "not-found", "{slug}");
        let text = run(&format!("list -tlHp --from {from} sport = :{port}")).out;
        assert!(text.contains(words), "{text}");
    }
    Ok(())
}

#[test]
fn pairs_take_what_is_said_of_either_end() {
    let text = quiet(&from("list --pair"));
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect()
        })
        .collect();
    assert_eq!(rows.len(), 7, "{text}");
    let (client, server) = ("127.0.0.1:40002", "127.0.0.1:8080");
    let example = "example[4242]";
    let half_closed = [
        "FIN-WAIT-2",
        "CLOSE-WAIT",
        client,
        server,
        "0",
        "0",
        "6",
        "0",
        example,
        example,
    ];
    assert_eq!(rows[2], half_closed, "{text}");
    let alone = [
        "TIME-WAIT",
        "-",
        "127.0.0.1:40003",
        server,
        "0",
        "0",
        "-",
        "-",
        "- (time-wait)",
        "-",
    ];
    assert_eq!(rows[3], alone, "{text}");
    let found = quiet(&from("list --pair -H -c state,peer state close-wait -6"));
    assert_eq!(
        found.split_whitespace().collect::<Vec<_>>(),
        ["FIN-WAIT-2", "CLOSE-WAIT", "[::1]:8080", "[::1]:40002"]
    );
    let document = json(&from("list --pair --json"));
    assert_eq!(document["schema"], "linger.pairs/1");
    assert!(document["elsewhere"].as_u64().is_some(), "{document}");
    for (line, option) in [
        ("list --pair --group-by state", "--group-by"),
        ("list --pair -l", "--listening"),
        ("list --pair -B", "--bound-inactive"),
    ] {
        fails(&from(line), 2, option, "--help");
    }
    for option in ["-o", "-e", "-m", "-i"] {
        fails(
            &from(&format!("list --pair {option}")),
            2,
            option,
            "-c state",
        );
        let line = from(&format!("list --pair --output jsonl {option}"));
        assert_eq!(run(&line).code, Some(0));
    }
    fails(&from("status --pair"), 2, "'--pair'", "linger list");
}
