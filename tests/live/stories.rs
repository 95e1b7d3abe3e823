//! What a filter finds among real sockets, and the story that is told of each state.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::answers::json;
use crate::harness::Test;
use crate::kernel::until;
use crate::states::{Specimen, lists_bound_sockets, zoo};
use crate::world::{Family, World, listen, local, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "every_state_has_its_story",
        run: every_state_has_its_story,
    },
    Test {
        name: "filters_select_real_sockets",
        run: filters_select_real_sockets,
    },
    Test {
        name: "stories_of_a_capture_are_those_of_the_machine",
        run: stories_of_a_capture,
    },
];

/// A part of the story, whose move it is, and whether the kernel ends it by itself.
type Says = (&'static str, &'static str, bool);

/// What must be said of each specimen.
const SAYS: &[(&str, Says)] = &[
    (
        "a listener",
        ("The kernel, not the program", "nobody", false),
    ),
    (
        "an accepted connection",
        ("The peer called", "nobody", false),
    ),
    (
        "a handshake whose last step never comes",
        ("No program", "peer", true),
    ),
    ("a connect that nobody answers", ("active opener", "", true)),
    (
        "a port that is only bound",
        ("called bind()", "this-program", false),
    ),
    (
        "an idle connection",
        ("Probably this side called", "nobody", false),
    ),
    (
        "a connection whose peer is gone without a word",
        ("nobody would notice", "nobody", false),
    ),
    (
        "a connection with keepalive",
        ("keepalive", "nobody", false),
    ),
    (
        "a connection whose peer does not read",
        ("window is closed", "peer", false),
    ),
    (
        "a FIN that nobody acknowledges",
        ("This side closes first", "", true),
    ),
    (
        "half closed by us, still held",
        ("half-closed, not half-open", "peer", false),
    ),
    (
        "closed by us, not by the peer",
        ("close(), and holds it no more", "peer", true),
    ),
    (
        "closed by the peer, not by us",
        ("The peer closed first", "this-program", false),
    ),
    (
        "closed by both, and neither heard the other's ACK",
        ("Both sides closed", "network", true),
    ),
    (
        "closed by both, our FIN unanswered",
        ("then this side", "", true),
    ),
    (
        "closed by us, then by the peer",
        ("two reasons", "nobody", true),
    ),
];

fn told(world: &World, arguments: &[&str]) -> Result<Value> {
    json(arguments, &world.linger(arguments)?)
}

/// What the first story says under `key`.
fn of_story<'v>(document: &'v Value, key: &str) -> Option<&'v Value> {
    document.get("stories")?.get(0)?.get(key)
}

/// The ends of a specimen as a filter.
fn filter(specimen: &Specimen) -> String {
    let (ip, port) = (specimen.local.ip(), specimen.local.port());
    format!("src [{ip}]:{port} and dport = :{}", specimen.peer_port)
        .replace("[10.99.0.1]", "10.99.0.1")
}

fn every_state_has_its_story(world: &mut World) -> Result<()> {
    let specimens = zoo(world, Family::V4)?;
    world.expect(specimens.len() == SAYS.len(), || {
        "a specimen without a story".to_owned()
    });
    for specimen in &specimens {
        if specimen.number.is_none() && !lists_bound_sockets()? {
            continue;
        }
        let what = specimen.what;
        let (_, (part, actor, ends)) = SAYS.iter().find(|(name, _)| *name == what).context(what)?;
        let filter = filter(specimen);
        let document = told(world, &["explain", "--json", "--socket", &filter])?;
        let text = ["came", "awaits", "ends"].map(|key| {
            let part = of_story(&document, key).and_then(Value::as_str);
            part.unwrap_or_default()
        });
        let is = |key: &str, value: &str| of_story(&document, key).is_some_and(|own| own == value);
        let right = document.get("total").is_some_and(|total| total == 1)
            && is("state", specimen.state)
            && text.concat().contains(part)
            && (actor.is_empty() || is("whose_move", actor))
            && (!ends
                || ["lifetime", "left_ms"]
                    .iter()
                    .all(|key| of_story(&document, key).is_some()));
        world.expect(right, || format!("{what}: {filter}: {document}"));
    }
    Ok(())
}

fn filters_select_real_sockets(world: &mut World) -> Result<()> {
    let mut specimens = Vec::new();
    for family in world.families() {
        specimens.extend(zoo(world, *family)?);
    }
    let marked = listen(Family::V4.near(7777), 5)?;
    marked.set_mark(0x2a)?;
    let comm = std::fs::read_to_string("/proc/self/comm")?;
    let comm = comm.trim();
    let count = |filter: &str| -> Result<usize> {
        Ok(world.rows(&["list", "--json", "-a", filter])?.len())
    };
    for specimen in &specimens {
        if specimen.number.is_some() {
            let filter = filter(specimen);
            world.expect(count(&filter)? == 1, || {
                format!("{}: {filter}", specimen.what)
            });
        }
    }
    let held = specimens
        .iter()
        .filter(|specimen| specimen.held && specimen.number.is_some())
        .count()
        + 1;
    let of_state = |state: &str| {
        specimens
            .iter()
            .filter(|specimen| specimen.state == state)
            .count()
    };
    let families = world.families().len();
    for (filter, expected) in [
        (format!("process = {comm} exclude bound-inactive"), held),
        (
            format!("pid = {} and not state bound-inactive", std::process::id()),
            held,
        ),
        (
            format!("process != {comm} exclude bound-inactive"),
            specimens.len() - families - (held - 1),
        ),
        ("timer = persist".to_owned(), families),
        (
            "timer = persist send-q > 0 process ~ * recv-q = 0".to_owned(),
            families,
        ),
        (
            "state close-wait or state last-ack".to_owned(),
            of_state("close-wait") + of_state("last-ack"),
        ),
        ("state listen sport = :7777".to_owned(), 1),
        ("state listen sport = :7777 dev != lo".to_owned(), 1),
        ("dev = lo".to_owned(), 0),
        ("dst 10.99.0.0/16 state listen".to_owned(), 0),
        ("state time-wait age < 1h".to_owned(), families),
        ("state time-wait age > 1h".to_owned(), 0),
    ] {
        let found = count(&filter)?;
        world.expect(found == expected, || {
            format!("{filter}: {found} and not {expected}")
        });
    }
    // In a namespace of another user the kernel tells no marks, and linger says so.
    let marks = world.linger(&["list", "--json", "-a", "fwmark = 0x2a"])?;
    if marks.status.success() {
        let found = count("fwmark = 0x2a")? + count("fwmark = 2/3")?;
        world.expect(found == 2, || format!("{found} sockets with the mark"));
        world.expect(count("fwmark = 1")? == 0, || {
            "no socket has the mark 1".to_owned()
        });
    } else {
        let said = String::from_utf8_lossy(&marks.stderr).into_owned();
        world.expect(said.contains("CAP_NET_ADMIN"), || said);
    }
    let bound = tcp(Family::V4.loopback(0))?;
    bound.bind_device(Some(b"lo"))?;
    bound.bind(&Family::V4.loopback(0).into())?;
    bound.listen(1)?;
    let port = local(&bound)?.port();
    world.expect(count(&format!("dev = lo sport = :{port}"))? == 1, || {
        "bound to lo".to_owned()
    });
    Ok(())
}

fn stories_of_a_capture(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(7001), 5)?;
    let served = world.serve(&listener)?;
    world.far.shut_write(served.far)?;
    until("the peer's FIN", || {
        let rows = world.rows(&["list", "--json", "state", "close-wait"])?;
        Ok((rows.len() != 1).then(|| format!("{rows:?}")))
    })?;
    let file = world.scratch.path().join("w.linger");
    let file = file.to_str().context("a path")?;
    world.linger(&["record", file])?;
    let live = told(
        world,
        &["explain", "--json", "--socket", "state close-wait"],
    )?;
    let captured = told(
        world,
        &[
            "explain",
            "--json",
            "--from",
            file,
            "--socket",
            "state close-wait",
        ],
    )?;
    for key in ["came", "awaits", "ends", "whose_move", "path"] {
        let (live, captured) = (of_story(&live, key), of_story(&captured, key));
        world.expect(live == captured && live.is_some(), || {
            format!("{key}: {live:?} and {captured:?}")
        });
    }
    Ok(())
}
