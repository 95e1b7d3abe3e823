//! The server to clients that do not behave.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::exporter::{CAPTURE, Exporter, PATIENCE, after, connect, is_whole, linger};

/// How many there are.
const HOSTILE: usize = 200;

/// How long a scrape may take beside them, without the time in which others had the processors.
const BOUND: Duration = Duration::from_secs(1);

/// How long Prometheus waits for a scrape, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a client does to hurt; it ends when the server has ended it, or with the test.
type Hurt = fn(&mut TcpStream, &AtomicBool) -> std::io::Result<()>;

const KINDS: &[Hurt] = &[
    // A header that never ends, a byte at a time.
    |stream, stop| {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ")?;
        while !stop.load(Ordering::Relaxed) {
            stream.write_all(b"a")?;
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    },
    // Many questions at once, and no answer is read.
    |stream, stop| {
        while !stop.load(Ordering::Relaxed) {
            stream.write_all(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200))?;
        }
        Ok(())
    },
    // The same of metrics.
    |stream, stop| {
        while !stop.load(Ordering::Relaxed) {
            stream.write_all(&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20))?;
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    },
    // A header of a megabyte.
    |stream, stop| {
        stream.write_all(b"GET /metrics HTTP/1.1\r\n")?;
        for _ in 0..1024 {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            stream.write_all(format!("X-Long: {}\r\n", "x".repeat(1024)).as_bytes())?;
        }
        Ok(())
    },
    // No HTTP.
    |stream, _| {
        stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0xff, b'\n', b'\r', 0x00].repeat(50))?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    },
    // Half a request, and no more will come.
    |stream, _| {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHo")?;
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    },
    // Nothing at all.
    |stream, _| stream.read_to_end(&mut Vec::new()).map(drop),
    // A body that goes on and on.
    |stream, stop| {
        stream.write_all(
            b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        while !stop.load(Ordering::Relaxed) {
            stream.write_all(b"400\r\n")?;
            stream.write_all(&[b'x'; 0x400])?;
            stream.write_all(b"\r\n")?;
        }
        Ok(())
    },
    // Comes and goes.
    |stream, _| stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
];

/// Hurts until told to stop, each time on a new connection.
fn hurt(address: SocketAddr, kind: Hurt, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            let timeout = Some(Duration::from_millis(500));
            let _ = stream.set_read_timeout(timeout);
            let _ = stream.set_write_timeout(timeout);
            let _ = kind(&mut stream, stop);
        }
        // These are many machines in one: it must have some time for the server too.
        thread::sleep(Duration::from_millis(250));
    }
}

/// Ends what hurts, however the test ends.
struct Peace<'a>(&'a AtomicBool);

impl Drop for Peace<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// For how long the threads of a process, and this one, have been ready to run and had no processor: a busy machine is not
/// the server's fault.
fn starved(exporter: &Exporter) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", exporter.child.id())).unwrap();
    let theirs = tasks.map(|task| task.unwrap().path().join("schedstat"));
    let files = theirs.chain(["/proc/thread-self/schedstat".into()]);
    let waited = files.map(|file| {
        let text = std::fs::read_to_string(file).unwrap();
        let nanoseconds = text.split(' ').nth(1).unwrap();
        Duration::from_nanos(nanoseconds.parse().unwrap())
    });
    waited.sum()
}

fn descriptors(exporter: &Exporter) -> usize {
    let directory = format!("/proc/{}/fd", exporter.child.id());
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_good_client_is_served_beside_two_hundred_that_are_not() {
    let mut exporter = Exporter::start(&[]);
    let address = exporter.address();
    let stop = AtomicBool::new(false);
    let mut took = Vec::new();
    let mut most = 0;
    thread::scope(|scope| {
        let _peace = Peace(&stop);
        for (n, kind) in (0..HOSTILE).zip(KINDS.iter().cycle()) {
            let stop = &stop;
            let thread = thread::Builder::new()
                .stack_size(128 * 1024)
                .name(n.to_string());
            thread
                .spawn_scoped(scope, move || hurt(address, *kind, stop))
                .unwrap();
        }
        let until = Instant::now() + Duration::from_secs(12);
        while Instant::now() < until {
            let (began, before) = (Instant::now(), starved(&exporter));
            let answer = exporter.get("/metrics");
            let elapsed = began.elapsed();
            assert!(
                elapsed < TIMEOUT,
                "Prometheus would have given up: {elapsed:?}"
            );
            took.push(elapsed.saturating_sub(starved(&exporter) - before));
            assert!(answer.status == 200 && is_whole(&answer.body), "{answer:?}");
            most = most.max(descriptors(&exporter));
            thread::sleep(Duration::from_millis(100));
        }
    });
    let longest = took.iter().max().unwrap();
    let memory = exporter.most_memory();
    println!(
        "{} scrapes, the longest {longest:?}, {memory} MiB, {most} descriptors",
        took.len()
    );
    assert!(*longest < BOUND, "{took:?}");
    assert!(memory < 64, "{memory} MiB");
    // Its connections, and what it needs for itself.
    assert!(most < 64 + 30, "{most} descriptors");
    assert!(exporter.child.try_wait().unwrap().is_none());
}

#[test]
fn a_header_has_five_seconds_however_slowly_it_comes() {
    let exporter = Exporter::start(&["--from", CAPTURE]);
    let mut stream = connect(exporter.address());
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "it is not ended");
        let _ = stream.write_all(b"G");
        match stream.read(&mut [0; 64]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    assert!(
        began.elapsed() > Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn an_idle_connection_lives_longer_than_a_header_may_take() {
    let exporter = Exporter::start(&["--from", CAPTURE]);
    let mut stream = connect(exporter.address());
    let mut text = [0; 4096];
    for _ in 0..2 {
        stream
            .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        assert!(stream.read(&mut text).unwrap() > 0, "it is ended");
        thread::sleep(Duration::from_millis(6500));
    }
}

#[test]
fn questions_that_do_not_wait_for_answers_are_not_all_answered() {
    let exporter = Exporter::start(&["--from", CAPTURE]);
    let mut stream = connect(exporter.address());
    let question = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
    let _ = stream.write_all(&question.repeat(100));
    let mut text = Vec::new();
    // It is closed, perhaps with a reset because of what was not read.
    let _ = stream.read_to_end(&mut text);
    let answers = String::from_utf8_lossy(&text)
        .matches("HTTP/1.1 200 OK")
        .count();
    assert!(answers <= 2, "{answers}");
    assert_eq!(exporter.get("/-/healthy").status, 200);
}

#[test]
fn a_long_header_is_refused() {
    let exporter = Exporter::start(&["--from", CAPTURE]);
    let ask = |length: usize| {
        let mut stream = connect(exporter.address());
        let head = format!(
            "GET /-/healthy HTTP/1.1\r\nHost: x\r\nX: {}\r\nConnection: close\r\n\r\n",
            "x".repeat(length)
        );
        let _ = stream.write_all(head.as_bytes());
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        String::from_utf8_lossy(&text)
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(ask(12 * 1024), "200");
    // It says why, if what was sent behind it does not reset the connection first.
    let refused = ask(20 * 1024);
    assert!(["431", ""].contains(&&refused[..]), "{refused}");
    assert_eq!(ask(1), "200", "and others are served");
}

#[test]
fn without_descriptors_it_waits_and_does_not_spin() {
    let arguments = [
        "export",
        "--from",
        CAPTURE,
        "--web.listen-address",
        "127.0.0.1:0",
    ];
    let exporter = Exporter::of(after("ulimit -n 16", &arguments), 1);
    let crowd: Vec<TcpStream> = (0..40).map(|_| connect(exporter.address())).collect();
    let line = exporter.line();
    assert!(
        line.starts_with("linger: cannot take connections: "),
        "{line}"
    );
    let before = exporter.spent();
    thread::sleep(Duration::from_secs(2));
    let spent = exporter.spent() - before;
    assert!(spent < Duration::from_millis(500), "{spent:?}");
    drop(crowd);
    assert_eq!(exporter.get("/-/healthy").status, 200);
}

#[test]
fn standard_error_may_be_gone() {
    let mut command = linger(&[
        "export",
        "--from",
        CAPTURE,
        "--web.listen-address",
        "127.0.0.1:0",
    ]);
    let mut child = command
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut byte = [0];
    let mut stderr = child.stderr.take().unwrap();
    while !text.ends_with("/metrics\n") {
        stderr.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    drop(stderr);
    let url = text
        .lines()
        .last()
        .unwrap()
        .rsplit("http://")
        .next()
        .unwrap();
    let address: SocketAddr = url.trim_end_matches("/metrics").parse().unwrap();
    let answer = crate::exporter::ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_whole(&answer.body));
}
