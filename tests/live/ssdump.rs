//! What `ss -D` writes, read by linger: the sockets that ss itself shows, of both families.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

use crate::answers::Row;
use crate::harness::{Skip, Test};
use crate::kernel::until;
use crate::states::zoo;
use crate::world::World;

pub const TESTS: &[Test] = &[
    Test {
        name: "a_raw_dump_of_ss_has_the_sockets_that_ss_shows",
        run: a_raw_dump_of_ss_has_the_sockets_that_ss_shows,
    },
    Test {
        name: "a_raw_dump_of_ss_says_what_it_does_not_hold",
        run: a_raw_dump_of_ss_says_what_it_does_not_hold,
    },
];

/// State, local end, peer.
type Shown = BTreeSet<(String, String, String)>;

fn ss(arguments: &[&str]) -> Result<Output> {
    let output = match Command::new("ss").args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(Skip("`ss` is missing: apt-get install iproute2".to_owned()))
        }
        output => output.context("cannot run ss")?,
    };
    ensure!(
        output.status.success(),
        "ss {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output)
}

fn shown_by_ss() -> Result<Shown> {
    let output = ss(&["-tanH"])?;
    let text = String::from_utf8(output.stdout)?;
    let row = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let state = words.next()?;
        let state = match state {
            "ESTAB" => "established".to_owned(),
            "SYN-RECV" => "syn-received".to_owned(),
            other => other.to_lowercase(),
        };
        let mut ends = words.skip(2).map(|end| end.replace(":*", ":0"));
        Some((state, ends.next()?, ends.next()?))
    };
    Ok(text.lines().filter_map(row).collect())
}

fn shown(rows: &[Row]) -> Shown {
    let end =
        |address: std::net::IpAddr, port: u16| std::net::SocketAddr::new(address, port).to_string();
    let row = |row: &Row| {
        let local = end(row.local_address, row.local_port);
        let peer = end(row.peer_address, row.peer_port);
        (row.state.clone(), local, peer)
    };
    rows.iter().map(row).collect()
}

/// The sockets of `linger ARGUMENTS`, whose document need not be complete.
fn rows(world: &World, arguments: &[&str]) -> Result<(Vec<Row>, serde_json::Value)> {
    let mut document = crate::answers::json(arguments, &world.linger(arguments)?)?;
    let sockets = document
        .get_mut("sockets")
        .map(serde_json::Value::take)
        .context("no sockets")?;
    Ok((serde_json::from_value(sockets)?, document))
}

fn a_raw_dump_of_ss_has_the_sockets_that_ss_shows(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    for family in world.families() {
        kept.extend(zoo(world, *family)?);
    }
    let file = world.scratch.path().join("ss.dump");
    let file = file.to_str().context("an odd temporary directory")?;
    // Sockets of the zoo may move on between two looks.
    until("the same rows from ss and its dump", || {
        let before = shown_by_ss()?;
        ss(&["-taiem", "-D", file])?;
        if before != shown_by_ss()? {
            return Ok(Some("the sockets change".to_owned()));
        }
        let (mut all, _) = rows(world, &["list", "-a", "--json", "--from", file])?;
        // The kernel's table of sockets that are only bound is not one that every ss asks for.
        all.retain(|row| row.state != "bound-inactive");
        let found = shown(&all);
        let differs = || format!("ss shows {before:?}, its dump has {found:?}");
        Ok((found != before).then(differs))
    })?;
    let (detailed, _) = rows(world, &["list", "-aim", "--json", "--from", file])?;
    let established = |row: &&Row| row.state == "established";
    let told = detailed
        .iter()
        .filter(established)
        .all(|row| row.tcp_info.is_some() && row.cookie.is_some());
    world.expect(told && detailed.iter().any(|row| established(&row)), || {
        "an established socket of the dump should have tcp_info".to_owned()
    });
    for family in world.families() {
        let v6 = matches!(family, crate::world::Family::V6);
        let (option, name) = if v6 { ("-6", "ipv6") } else { ("-4", "ipv4") };
        let (found, _) = rows(world, &["list", option, "--json", "--from", file])?;
        let fits = found.iter().all(|row| row.family == name);
        world.expect(fits && !found.is_empty(), || format!("{option}: {found:?}"));
    }
    let arguments = ["diagnose", "--json", "--from", file];
    let diagnosis = world.read_diagnosis(&arguments, &world.linger(&arguments)?)?;
    world.expect(diagnosis.verdict != "ok", || {
        "without counters and owners nothing is ok".to_owned()
    });
    drop(kept);
    Ok(())
}

fn a_raw_dump_of_ss_says_what_it_does_not_hold(world: &mut World) -> Result<()> {
    let family = world.families().first().copied().context("no family")?;
    let listener = crate::world::listen(family.near(443), 7)?;
    let served = world.serve(&listener)?;
    let file = world.scratch.path().join("ss.dump");
    let file = file.to_str().context("an odd temporary directory")?;
    let warned = |world: &World, arguments: &[&str], text: &str| -> Result<bool> {
        let (_, document) = rows(world, arguments)?;
        Ok(document
            .get("warnings")
            .is_some_and(|all| all.to_string().contains(text)))
    };
    let listen = ["list", "-l", "--json", "--from", file];
    let details = ["list", "-i", "--json", "--from", file];
    // Without -a there are no listeners in it, which does not mean that there were none.
    for (options, in_listen, without_info) in [
        (&["-t", "-D", file][..], true, true),
        (&["-tai", "-D", file], false, false),
    ] {
        ss(options)?;
        let said = warned(world, &listen, "sockets in LISTEN")?;
        world.expect(said == in_listen, || format!("{options:?}: LISTEN"));
        let said = warned(world, &details, "tcp_info of some")?;
        world.expect(said == without_info, || format!("{options:?}: tcp_info"));
    }
    ss(&["-ta4", "-D", file])?;
    let all = ["list", "-a", "--json", "--from", file];
    let said = warned(world, &all, "TCP over IPv6: not in the file")?;
    world.expect(said, || "half a dump should be said to be half".to_owned());
    drop((served, listener));
    Ok(())
}
