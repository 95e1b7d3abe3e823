//! The server to clients that behave.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::exporter::{CAPTURE, Exporter, PATIENCE, ask, connect, ends, is_whole, linger, value};

#[test]
fn pages_and_methods() {
    let exporter = Exporter::start(&["--from", CAPTURE]);
    let metrics = exporter.get("/metrics?name[]=x");
    assert_eq!(metrics.status, 200);
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(is_whole(&metrics.body), "{metrics:?}");
    let landing = exporter.get("/");
    assert_eq!(
        landing.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(landing.status == 200 && landing.body.contains("href=\"/metrics\""));
    assert_eq!(exporter.get("/-/healthy").status, 200);
    assert_eq!(exporter.get("/metrics/").status, 404);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "NONSENSE"] {
        let head = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n");
        let answer = ask(exporter.address(), &head);
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
    for path in ["/metrics", "/", "/-/healthy"] {
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n");
        let answer = ask(exporter.address(), &head);
        assert_eq!((answer.status, &answer.body[..]), (200, ""), "{path}");
    }
    let other = Exporter::start(&["--from", CAPTURE, "--web.telemetry-path", "/a\"<b>"]);
    assert_eq!(other.get("/metrics").status, 404);
    assert!(other.get("/").body.contains("href=\"/a&quot;&lt;b&gt;\""));
}

#[test]
fn a_connection_serves_many_scrapes() {
    let exporter = Exporter::start(&["--from", CAPTURE]);
    let mut stream = connect(exporter.address());
    for _ in 0..3 {
        stream
            .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"linger is alive\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "it is closed");
            text.push(byte[0]);
        }
    }
}

#[test]
fn a_scrape_that_has_no_time_is_told_so() {
    let exporter = Exporter::start(&[]);
    let head = |seconds: &str| {
        format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: {seconds}\r\n"
        )
    };
    assert_eq!(ask(exporter.address(), &head("0.000001")).status, 503);
    assert_eq!(ask(exporter.address(), &head("60")).status, 200);
}

#[test]
fn a_body_is_not_read() {
    let exporter = Exporter::start(&["--from", CAPTURE]);
    let mut stream = connect(exporter.address());
    write!(
        stream,
        "GET /-/healthy HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\nx"
    )
    .unwrap();
    let mut text = String::new();
    // It is closed behind the answer, perhaps with a reset because of what was sent.
    let _ = stream.read_to_string(&mut text);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
}

#[test]
fn scrapes_at_once_are_all_answered_afresh() {
    let exporter = Exporter::start(&[]);
    let start = Barrier::new(20);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                start.wait();
                let answer = exporter.get("/metrics");
                assert!(answer.status == 200 && is_whole(&answer.body), "{answer:?}");
                // It was there before anybody asked.
                let series = format!("linger_listener_backlog{{port=\"{port}\"}}");
                assert!(value(&answer.body, &series).is_some(), "{}", answer.body);
            });
        }
    });
}

#[test]
fn one_address_means_all_and_several_are_several() {
    let all = Exporter::of(
        linger(&["export", "--web.listen-address", ":0", "--from", CAPTURE]),
        1,
    );
    let port = all.address().port();
    let healthy = |address: SocketAddr| {
        let head = "GET /-/healthy HTTP/1.1\r\nHost: x\r\n";
        assert_eq!(ask(address, head).status, 200, "{address}");
    };
    healthy((Ipv4Addr::LOCALHOST, port).into());
    let v6 = TcpListener::bind("[::1]:0").is_ok();
    if v6 {
        healthy((Ipv6Addr::LOCALHOST, port).into());
    }
    let second = if v6 { "[::1]:0" } else { "127.0.0.2:0" };
    let two = [
        "export",
        "--from",
        CAPTURE,
        "--web.listen-address",
        "127.0.0.1:0",
    ];
    let mut two = linger(&two);
    two.args(["--web.listen-address", second]);
    let two = Exporter::of(two, 2);
    assert_ne!(two.addresses[0].ip(), two.addresses[1].ip());
    two.addresses.iter().copied().for_each(healthy);
}

#[test]
fn an_address_that_is_taken_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = linger(&["export", "--web.listen-address", &address.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains(&format!("cannot listen on '{address}'")),
        "{said}"
    );
    assert!(
        said.contains(&format!("hint: 'linger :{}'", address.port())),
        "{said}"
    );
}

#[test]
fn a_signal_ends_it_at_once_whoever_is_connected() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut exporter = Exporter::start(&["--from", CAPTURE]);
        let mut idle = connect(exporter.address());
        idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let slow = connect(exporter.address());
        (&slow).write_all(b"GET /metr").unwrap();
        assert_eq!(exporter.get("/-/healthy").status, 200);
        let began = Instant::now();
        exporter.signal(signal);
        let status = exporter.ends(PATIENCE);
        assert_eq!(status.code(), Some(0), "{signal:?}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
    }
}

#[test]
fn a_service_is_ready_once_it_answers() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = linger(&[
        "export",
        "--from",
        CAPTURE,
        "--web.listen-address",
        "127.0.0.1:0",
    ]);
    command.env("NOTIFY_SOCKET", &socket);
    let mut exporter = Exporter::of(command, 1);
    let heard = || {
        let mut buffer = [0; 256];
        let n = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).trim().to_owned()
    };
    assert_eq!(heard(), "READY=1");
    assert_eq!(exporter.get("/-/healthy").status, 200);
    exporter.signal(Signal::TERM);
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(exporter.ends(PATIENCE).code(), Some(0));
}

#[test]
fn a_signal_ends_it_before_it_listens() {
    let scratch = tempfile::tempdir().unwrap();
    // Whoever reads it waits for somebody who writes.
    let pipe = scratch.path().join("config");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let config = pipe.to_str().unwrap();
    let mut child = linger(&[
        "export",
        "--config",
        config,
        "--web.listen-address",
        "127.0.0.1:0",
    ])
    .spawn()
    .unwrap();
    let hears = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
        caught & 1 << (Signal::TERM.as_raw() - 1) != 0
    };
    let until = Instant::now() + PATIENCE;
    while !hears() {
        assert!(Instant::now() < until, "it hears no signals");
        thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(ends(&mut child, PATIENCE).code(), Some(0));
}

#[test]
fn rates_have_a_window_from_the_first_scrape_on() {
    let one_look = |text: &str| value(text, "linger_finding_unknown{id=\"reset-storm\"}");
    let exporter = Exporter::start(&["--only", "reset-storm"]);
    assert_eq!(one_look(&exporter.get("/metrics").body), Some(0.0));
}
