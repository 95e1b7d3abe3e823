//! Sandboxes that refuse `sock_diag`: the same sockets from `/proc/net`, and an answer that says so.

use std::process::Output;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use libc::{EACCES, EAFNOSUPPORT, EPERM, EPROTONOSUPPORT};
use serde_json::Value;

use crate::answers::{self, Row, json};
use crate::harness::Test;
use crate::kernel::{self, until_count};
use crate::sys::{self, Refusal};
use crate::world::{Family, World, begin_connect, listen, tcp};

pub const TESTS: &[Test] = &[Test {
    name: "sock_diag_refused",
    run: sock_diag_refused,
}];

/// What sandboxes answer, and the name by which it is looked up.
const REFUSALS: [(Refusal, &str); 5] = [
    (Refusal::Socket(EPERM), "EPERM"),
    (Refusal::Socket(EACCES), "EACCES"),
    (Refusal::Socket(EPROTONOSUPPORT), "EPROTONOSUPPORT"),
    (Refusal::Socket(EAFNOSUPPORT), "EAFNOSUPPORT"),
    (Refusal::Send(EPERM), "EPERM"),
];

const PORT: u16 = 8080;

fn sock_diag_refused(world: &mut World) -> Result<()> {
    // A queue that waits, a retransmission timer, a keepalive timer, a TIME-WAIT.
    let listener = listen(Family::V4.near(PORT), 10)?;
    for _ in 0..4 {
        world.far.connect(Family::V4.near(PORT))?;
    }
    let calling = tcp(Family::V4.hole(81))?;
    begin_connect(&calling, Family::V4.hole(81))?;
    let kept_alive = world.dial(Family::V4, 443)?;
    kept_alive.near.set_keepalive(true)?;
    let closed = world.dial(Family::V4, 443)?;
    drop(closed.near);
    world.far.close(closed.far)?;
    until_count(kernel::TIME_WAIT, 1)?;

    // Without a sandbox netlink is what answers here.
    let free = document(world, None, &["list", "-a", "--json"])?;
    ensure!(collector(&free) == Some("netlink"), "{free}");

    for (refusal, name) in REFUSALS {
        falls_back(world, refusal, name)?;
        insists(world, refusal, name)?;
        asked_for(world, refusal)?;
    }
    drop((listener, calling, kept_alive));
    Ok(())
}

/// Unasked, `/proc/net` stands in, and every answer says so and why.
fn falls_back(world: &World, refusal: Refusal, name: &str) -> Result<()> {
    for arguments in [
        ["list", "-a", "--json"].as_slice(),
        &["status", "--json"],
        &["diagnose", "--json"],
    ] {
        let when = format!("{refusal:?}, {}", arguments.join(" "));
        let output = run(world, Some(refusal), arguments)?;
        let document = json(arguments, &output)?;
        world.expect(collector(&document) == Some("procfs"), || {
            format!("{when}: the collector is {:?}", collector(&document))
        });
        let told = |text: &str| text.contains("/proc/net, because") && names(text, name);
        let warnings = warnings(&document);
        let warned = warnings.iter().filter(|warning| told(warning)).count();
        world.expect(warned == 1, || {
            format!("{when}: JSON says once that it fell back, and why: {warnings:?}")
        });
        let stderr = String::from_utf8_lossy(&output.stderr);
        let noted = stderr.lines().filter(|line| told(line)).count();
        world.expect(noted == 1 && stderr.lines().count() == 1, || {
            format!("{when}: so does one note: {stderr:?}")
        });
        match arguments.first() {
            Some(&"list") => {
                // A timer that fires during a listing is due in 0 ms, or not shown; then it is listed again.
                let mut wrong = lists_all(&document)?;
                for _ in 0..5 {
                    if wrong.is_empty() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(50));
                    wrong = lists_all(&self::document(world, Some(refusal), arguments)?)?;
                }
                for wrong in wrong {
                    world.problem(format!("{when}: {wrong}"));
                }
            }
            Some(&"status") => {
                let counted = document.pointer("/states/tcp/syn-sent");
                world.expect(counted == Some(&1.into()), || {
                    format!("{when}: SYN-SENT is counted: {counted:?}")
                });
            }
            _ => cannot_tell(world, &when, arguments, &output)?,
        }
    }
    // Where a person looks, too.
    for arguments in [["list", "-a"], ["status", "--no-owners"]] {
        let output = run(world, Some(refusal), &arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let right = output.status.success() && names(&stderr, name) && !output.stdout.is_empty();
        world.expect(right, || {
            format!("{refusal:?}, {}: {output:?}", arguments.join(" "))
        });
    }
    Ok(())
}

/// What is not as expected of the eight sockets and their timers.
fn lists_all(document: &Value) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut expect = |holds: bool, otherwise: String| {
        if !holds {
            wrong.push(otherwise);
        }
    };
    let sockets = document.get("sockets").cloned().context("no sockets")?;
    let rows: Vec<Row> = serde_json::from_value(sockets)?;
    let mut seen = 0;
    for (state, port, timer) in [
        ("syn-sent", 81, Some("retransmit")),
        ("established", 443, Some("keepalive")),
        ("time-wait", 443, Some("time-wait")),
        ("listen", 0, None),
    ] {
        let row = rows
            .iter()
            .find(|row| row.state == state && row.peer_port == port);
        let right = row.is_some_and(|row| row.timer_name() == timer);
        let due = row.is_some_and(|row| {
            timer.is_none() || row.timer.as_ref().is_some_and(|timer| timer.expires_ms > 0)
        });
        expect(
            right && due,
            format!("{state} to {port} has timer {timer:?}: {row:?}"),
        );
        seen += usize::from(row.is_some());
    }
    let waiting = rows
        .iter()
        .filter(|row| row.state == "established" && row.local_port == PORT && !row.is_held());
    seen += waiting.count();
    expect(
        seen == 8 && rows.len() == 8,
        format!("8 sockets are there: {rows:?}"),
    );
    let queue = rows.iter().find(|row| row.state == "listen");
    expect(
        queue.is_some_and(|row| row.recv_q == 4),
        format!("the queue is shown: {queue:?}"),
    );
    Ok(wrong)
}

/// What `/proc/net` cannot tell is not judged, and not called quiet.
fn cannot_tell(world: &World, when: &str, arguments: &[&str], output: &Output) -> Result<()> {
    let diagnosis = world.read_diagnosis(arguments, output)?;
    // The queue's limit, and for how long its connections have waited.
    for id in ["listen-overflow", "accept-queue-stuck"] {
        let unknown = diagnosis.unknown.iter().filter(|u| u.id == id).count();
        let quiet = diagnosis.quiet.iter().any(|quiet| quiet == id);
        let found = diagnosis.worst(id).is_some();
        world.expect(unknown == 1 && !quiet && !found, || {
            format!("{when}: {id} cannot be told: {}", diagnosis.in_short())
        });
    }
    // What the table alone tells is judged.
    world.quiet(when, &diagnosis, "time-wait-flood");
    Ok(())
}

/// Who asks for netlink gets netlink or an error.
fn insists(world: &World, refusal: Refusal, name: &str) -> Result<()> {
    for arguments in [
        ["list", "--collector", "netlink"].as_slice(),
        &["status", "--collector", "netlink"],
        &["diagnose", "--collector", "netlink", "--samples", "1"],
        &["list", "--collector", "netlink", "--json"],
        &["status", "--collector", "netlink", "--json"],
    ] {
        let when = format!("{refusal:?}, {}", arguments.join(" "));
        let output = run(world, Some(refusal), arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        world.expect(output.status.code() == Some(1), || {
            format!("{when}: {}: {stderr}", output.status)
        });
        let lines: Vec<&str> = stderr.lines().collect();
        let right = match lines.as_slice() {
            [said, hint] => {
                said.starts_with("linger: ") && names(said, name) && hint.starts_with("hint: ")
            }
            _ => false,
        };
        world.expect(right, || format!("{when}: one line and a hint: {stderr:?}"));
        if arguments.contains(&"--json") && !output.stdout.is_empty() {
            // A document that was begun is ended, and does not look like a machine without sockets.
            let document = answers::document(&output.stdout).with_context(|| when.clone())?;
            world.expect(document.get("complete") == Some(&false.into()), || {
                format!("{when}: {document}")
            });
        }
    }
    Ok(())
}

/// Who asks for `/proc/net` is not told that it was second choice.
fn asked_for(world: &World, refusal: Refusal) -> Result<()> {
    let arguments = ["list", "-a", "--json", "--collector", "procfs"];
    for sandbox in [None, Some(refusal)] {
        let output = run(world, sandbox, &arguments)?;
        let document = json(&arguments, &output)?;
        let right = collector(&document) == Some("procfs")
            && warnings(&document).is_empty()
            && output.stderr.is_empty();
        world.expect(right, || {
            format!("{sandbox:?}, {}: {output:?}", arguments.join(" "))
        });
    }
    Ok(())
}

fn run(world: &World, refusal: Option<Refusal>, arguments: &[&str]) -> Result<Output> {
    let mut command = world.command(arguments);
    if let Some(refusal) = refusal {
        sys::sandbox(&mut command, refusal)?;
    }
    let output = command.output().context("cannot run linger")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("panicked") {
        bail!("linger {}: {stderr}", arguments.join(" "));
    }
    Ok(output)
}

fn document(world: &World, refusal: Option<Refusal>, arguments: &[&str]) -> Result<Value> {
    json(arguments, &run(world, refusal, arguments)?)
}

fn collector(document: &Value) -> Option<&str> {
    document.get("collector")?.as_str()
}

fn warnings(document: &Value) -> Vec<String> {
    let list = document.get("warnings").and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Whether the errno's name is one of the words.
fn names(text: &str, name: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word == name)
}
