//! Names chosen by an enemy, and users without privilege.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::answers::{Row, json};
use crate::harness::{Skip, Test};
use crate::world::{Family, World, listen, program};

pub const TESTS: &[Test] = &[
    Test {
        name: "hostile_name",
        run: hostile_name,
    },
    Test {
        name: "unprivileged",
        run: unprivileged,
    },
];

/// A colour, a new line, a switch of the writing direction, a bell: 13 of the 15 bytes that a name may have.
const NAME: &str = "\x1b[31m\n\u{202e}PWN\x07";
const PORT: u16 = 7200;

/// What the process with the bad name does: it holds a listener, and accepts nobody, until its stdin ends.
pub fn child() -> Result<()> {
    fs::write("/proc/self/comm", NAME)?;
    let listener = listen(Family::V4.near(PORT), 2)?;
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(listener);
    Ok(())
}

fn hostile_name(world: &mut World) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--hostile-child")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = [0; 6];
    child
        .stdout
        .as_mut()
        .context("no pipe")?
        .read_exact(&mut ready)
        .context("the child is not ready")?;
    ensure!(fs::read(format!("/proc/{}/comm", child.id()))?.starts_with(NAME.as_bytes()));
    // Its queue overflows, so that findings name it too.
    for _ in 0..6 {
        world.far.begin_connect(Family::V4.near(PORT), false)?;
    }
    std::thread::sleep(std::time::Duration::from_millis(500));

    for arguments in [
        ["list", "-ltp", "--color", "never"].as_slice(),
        &["status", "--color", "never"],
        &["diagnose", "--color", "never"],
        &["list", "-ltp", "--json"],
        &["list", "-ltp", "--output", "jsonl"],
        &["status", "--json"],
        &["diagnose", "--json"],
    ] {
        let output = world.linger(arguments)?;
        let command = arguments.join(" ");
        world.expect(output.status.success() && !output.stdout.is_empty(), || {
            format!("linger {command}: {output:?}")
        });
        let said = [output.stdout.as_slice(), &output.stderr].concat();
        let text = String::from_utf8_lossy(&said);
        world.expect(!text.contains(['\x1b', '\x07']), || {
            format!("linger {command}: a control character gets through: {text:?}")
        });
        if arguments.contains(&"--color") {
            world.expect(!text.contains('\u{202e}'), || {
                format!("linger {command}: the writing direction is switched: {text:?}")
            });
            let forged = text
                .lines()
                .any(|line| line.trim_start().starts_with("PWN"));
            world.expect(!forged, || {
                format!("linger {command}: a name begins a line: {text:?}")
            });
            world.expect(text.contains("PWN"), || {
                format!("linger {command}: the rest of the name is shown: {text:?}")
            });
        }
    }
    let rows = world.rows(&["list", "-ltp", "--json"])?;
    let owners: Vec<_> = rows.iter().filter_map(|row| row.owners.clone()).collect();
    let owner = owners.iter().flatten().find(|o| o.pid == child.id());
    world.expect(owner.is_some_and(|o| o.comm.contains("PWN")), || {
        format!("its owner is {} in JSON: {rows:?}", child.id())
    });
    drop(child.stdin.take());
    child.wait()?;
    Ok(())
}

/// Without privilege every socket is seen, but not who holds it: no failure, and no silence about it either.
fn unprivileged(world: &mut World) -> Result<()> {
    let _listener = listen(Family::V4.near(8080), 5)?;
    // The target directory may be out of reach for nobody.
    let directory = world.scratch.path();
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory, everybody.clone())?;
    let copy = directory.join("linger");
    fs::copy(program(), &copy).context("cannot copy linger")?;
    fs::set_permissions(&copy, everybody)?;

    let arguments = ["list", "-tap", "--json"];
    let output = Command::new(&copy)
        .args(arguments)
        .env("HOME", directory)
        .env("XDG_CONFIG_HOME", directory)
        .uid(65534)
        .gid(65534)
        .output();
    let output = match output {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            bail!(Skip(
                "uid 65534 does not exist in this user namespace".to_owned()
            ))
        }
        output => output.context("cannot run linger as nobody")?,
    };
    let document = json(&arguments, &output)?;
    world.expect(!output.stderr.is_empty(), || {
        "a note on stderr says that owners are missing".to_owned()
    });
    world.expect(
        document.get("complete") == Some(&Value::Bool(false)),
        || format!("the view is partial: {:?}", document.get("complete")),
    );
    let warned = document.get("warnings").and_then(Value::as_array);
    world.expect(warned.is_some_and(|warnings| !warnings.is_empty()), || {
        format!("and JSON says why: {:?}", document.get("warnings"))
    });
    let sockets = document.get("sockets").cloned().context("no sockets")?;
    let rows: Vec<Row> = serde_json::from_value(sockets)?;
    let right = rows.iter().any(|row| {
        (row.state.as_str(), row.local_port) == ("listen", 8080)
            && row.owners.as_ref().is_none_or(Vec::is_empty)
    });
    world.expect(right, || format!("the listener is listed: {rows:?}"));
    Ok(())
}
