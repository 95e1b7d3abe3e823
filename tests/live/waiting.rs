//! For whom each established connection waits, told by real sockets that wait for it.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::harness::Test;
use crate::silence::{keep_alive, row, send_to_far, send_to_near, until_backoff, until_probed};
use crate::world::{World, connect, fill, listen, local};

pub const TESTS: &[Test] = &[Test {
    name: "waiting_on",
    run: waiting_on,
}];

fn waiting_on(world: &mut World) -> Result<()> {
    for family in world.families() {
        let new = world.dial(*family, 7000)?;
        let asked = world.dial(*family, 7000)?;
        send_to_far(world, &asked.near, asked.far)?;
        let was_told = world.dial(*family, 7000)?;
        // In another tick of the kernel's clock than the handshake.
        thread::sleep(Duration::from_millis(50));
        send_to_near(world, &was_told.near, was_told.far)?;
        let unread = world.dial(*family, 7000)?;
        world
            .far
            .with(unread.far, |socket| Ok(socket.send(b"!")?))?;
        let full = world.dial(*family, 7000)?;
        fill(&full.near)?;
        let lost = world.dial(*family, 7000)?;
        world.far.deafen(lost.far)?;
        lost.near.send(b"?")?;
        until_backoff(world, &lost.near, 2)?;
        let dead = world.dial(*family, 7000)?;
        keep_alive(&dead.near, 1)?;
        world.far.deafen(dead.far)?;
        until_probed(world, 1)?;
        // Waits for its accept; the rows of both ends are listed.
        let listener = listen(family.loopback(0), 8)?;
        let unaccepted = connect(local(&listener)?)?;
        unaccepted.send(b"?")?;
        for (what, socket, wanted) in [
            ("nothing sent", &new.near, "nobody"),
            ("asked", &asked.near, "peer"),
            ("told", &was_told.near, "us"),
            ("unread", &unread.near, "us"),
            ("full window", &full.near, "peer-window"),
            ("lost", &lost.near, "network"),
            ("unanswered probes", &dead.near, "network"),
            ("asked one that accepts nobody", &unaccepted, "peer"),
        ] {
            let found = row(world, socket)?.waiting_on;
            world.expect(found.as_deref() == Some(wanted), || {
                format!("{family:?}, {what}: waiting on {found:?}, not {wanted}")
            });
        }
        let rows = world.rows(&["list", "-a", "-i", "--json"])?;
        let accepting = rows.iter().find(|row| {
            row.state == "established"
                && Some(row.local_port) == local(&listener).ok().map(|a| a.port())
        });
        let found = accepting.and_then(|row| row.waiting_on.as_deref());
        world.expect(found == Some("us"), || {
            format!("{family:?}: not accepted, so it waits for us: {found:?}")
        });
        let other = rows
            .iter()
            .find(|row| row.state != "established" && row.waiting_on.is_some());
        world.expect(other.is_none(), || format!("{other:?} is not established"));
        for connection in [new, asked, was_told, unread, full, lost, dead] {
            world.far.close(connection.far)?;
        }
    }
    Ok(())
}
