//! Metrics of real sockets: what a scrape tells is what the kernel has, now and after it has changed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::harness::Test;
use crate::kernel::{until, until_count};
use crate::world::{Family, World, listen};

pub const TESTS: &[Test] = &[
    Test {
        name: "metrics_are_what_the_kernel_has",
        run: metrics_are_what_the_kernel_has,
    },
    Test {
        name: "metrics_of_another_namespace_are_served_here",
        run: metrics_of_another_namespace_are_served_here,
    },
];

/// `TCP_CLOSE_WAIT`
const CLOSE_WAIT: u8 = 8;

/// Nobody accepts there.
const FULL: u16 = 8443;

/// Nobody closes there.
const STUCK: u16 = 8080;

/// A running exporter.
struct Exporter {
    child: Child,
    address: String,
}

impl Exporter {
    fn start(world: &World, arguments: &[&str]) -> Result<Self> {
        let mut all = vec!["export", "--web.listen-address", "127.0.0.1:0"];
        all.extend(arguments);
        let mut child = world.command(&all).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("no stderr")?;
        let mut exporter = Self {
            child,
            address: String::new(),
        };
        let mut said = String::new();
        for line in BufReader::new(stderr).lines() {
            let line = line?;
            if let Some(url) = line.strip_prefix("linger: listening on http://") {
                exporter.address = url.trim_end_matches("/metrics").to_owned();
                return Ok(exporter);
            }
            said.push_str(&line);
        }
        bail!("it does not listen: {said}")
    }

    fn scrape(&self) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.starts_with("HTTP/1.1 200 "), "{text}");
        Ok(text)
    }

    /// Scrapes until the series have these values.
    fn until(&self, wanted: &[(&str, f64)]) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let text = self.scrape()?;
            let wrong = wrong(&text, wanted);
            if wrong.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{wrong:?}\n{text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The series that have not these values, with those that they have.
fn wrong<'a>(text: &str, wanted: &[(&'a str, f64)]) -> Vec<(&'a str, Option<f64>)> {
    let value = |series: &str| {
        let start = format!("{series} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start))?;
        line.parse::<f64>().ok()
    };
    let all = wanted.iter().map(|(series, n)| (series, value(series), n));
    all.filter(|(_, found, wanted)| *found != Some(**wanted))
        .map(|(series, found, _)| (*series, found))
        .collect()
}

/// Six connections that the near end does not close.
fn stuck(world: &World) -> Result<(socket2::Socket, Vec<crate::world::Connection>)> {
    let listener = listen(Family::V4.near(STUCK), 16)?;
    let mut stuck = Vec::new();
    for _ in 0..6 {
        let connection = world.serve(&listener)?;
        world.far.close(connection.far)?;
        stuck.push(connection);
    }
    until_count(CLOSE_WAIT, 6)?;
    Ok((listener, stuck))
}

fn metrics_are_what_the_kernel_has(world: &mut World) -> Result<()> {
    let (_listener, mut stuck) = stuck(world)?;
    let _full = listen(Family::V4.near(FULL), 2)?;
    for _ in 0..3 {
        world.far.connect(Family::V4.near(FULL))?;
    }
    let queue = format!("linger_listener_accept_queue{{port=\"{FULL}\"}}");
    let limit = format!("linger_listener_backlog{{port=\"{FULL}\"}}");
    let by_port = format!("linger_listener_sockets{{port=\"{STUCK}\",state=\"close_wait\"}}");
    let listens = format!("linger_listener_sockets{{port=\"{STUCK}\",state=\"listen\"}}");
    let all = |left: f64| {
        [
            ("linger_source_up", 1.0),
            (queue.as_str(), 3.0),
            (limit.as_str(), 2.0),
            (by_port.as_str(), left),
            (listens.as_str(), 1.0),
            (
                "linger_tcp_sockets{family=\"ipv4\",state=\"close_wait\"}",
                left,
            ),
            (
                "linger_tcp_sockets{family=\"ipv4\",state=\"syn_sent\"}",
                0.0,
            ),
        ]
    };
    let exporter = Exporter::start(world, &[])?;
    exporter.until(&all(6.0))?;
    // A full queue that nobody empties is found, and by no other severity.
    let text = exporter.scrape()?;
    let found = text.lines().any(|line| {
        line.starts_with("linger_finding_active{id=\"listen-overflow\"") && !line.ends_with(" 0")
    });
    world.expect(found, || format!("the full queue is no finding:\n{text}"));
    // One that is closed is gone from the next scrape.
    stuck.pop();
    until("one less in CLOSE-WAIT", || {
        let left = crate::kernel::count(CLOSE_WAIT)?;
        Ok((left != 5).then(|| format!("{left}")))
    })?;
    let text = exporter.scrape()?;
    let wrong = wrong(&text, &all(5.0));
    world.expect(wrong.is_empty(), || format!("{wrong:?}\n{text}"));

    // The file says the same.
    let file = world.scratch.path().join("linger.prom");
    let name = file.to_str().context("a path")?;
    let output = world.linger(&["export", "--textfile", name])?;
    ensure!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&file)?;
    let wrong = self::wrong(&text, &all(5.0));
    world.expect(wrong.is_empty(), || format!("{wrong:?}\n{text}"));
    // From /proc, limits are not told, and sockets that are only bound are not seen.
    let output = world.linger(&["export", "--textfile", "-", "--collector", "procfs"])?;
    let text = String::from_utf8(output.stdout)?;
    world.expect(
        text.contains(&format!("{queue} 3\n"))
            && !text.contains("backlog{")
            && !text.contains("bound_inactive"),
        || text.clone(),
    );
    Ok(())
}

fn metrics_of_another_namespace_are_served_here(world: &mut World) -> Result<()> {
    let (_listener, _stuck) = stuck(world)?;
    // Its own server is in this namespace, and its sockets are not among those that it tells of.
    let exporter = world.far.run(|_| {
        let tid = std::fs::read_link("/proc/thread-self")?;
        Ok(tid.to_string_lossy().into_owned())
    })?;
    let path = format!("/proc/{exporter}/ns/net");
    let exporter = Exporter::start(world, &["--netns", &path, "--no-owners"])?;
    exporter.until(&[
        ("linger_source_up", 1.0),
        (
            "linger_tcp_sockets{family=\"ipv4\",state=\"close_wait\"}",
            0.0,
        ),
        ("linger_tcp_sockets{family=\"ipv4\",state=\"listen\"}", 0.0),
        (
            "linger_tcp_sockets{family=\"ipv4\",state=\"fin_wait2\"}",
            6.0,
        ),
    ])
}
