//! What a run costs that reads and writes the history: `cargo bench --bench history`.
//!
//! Sixty runs of a check, five minutes apart, beside 20,000 sockets in CLOSE-WAIT, each with 200 measures.

use std::error::Error;
use std::fs;
use std::time::Instant;

use jiff::Timestamp;
use linger::history::store::{NAME, Options, Place, Producer, Run, Store};
use linger::history::{Held, Sample};
use linger::model::Endpoint;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap_or_default()
}

fn place() -> Place {
    Place {
        boot_id: "a boot".to_owned(),
        netns: 1,
    }
}

fn told(second: i64) -> Run<'static> {
    Run {
        taken: at(second),
        producer: Producer::Check,
        complete: true,
        values: &[],
        findings: &[],
        judged: &[],
        sample: None,
        view: 0,
        reader: 0,
        own: &[],
        apart: false,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let held = |cookie: u64| Held {
        cookie: 1_000_000 + cookie * 37,
        port: 30_000 + (cookie % 30_000) as u16,
        remote: Endpoint::v4([10, 2, (cookie >> 8) as u8, cookie as u8], 443),
    };
    let mut sample = Sample {
        close_wait: (0..20_000).map(held).collect(),
        ..Sample::default()
    };
    for i in 0..400 {
        let name = format!("TcpExt.SomeCounterOfTheKernel{i}");
        sample.facts.counters.insert(name, i * 1000);
    }
    let values: Vec<(String, f64)> = (0..200).map(|i| (format!("tcp.m{i}"), 7.0)).collect();
    let mut times = Vec::new();
    for n in 0..60 {
        let began = Instant::now();
        let mut store = Store::open(dir.path(), Options::default())?.0;
        let opened = began.elapsed();
        let recalled = store.samples(&place(), at(n * 300 - 7200), 0)?.len();
        let read = began.elapsed() - opened;
        let told = Run {
            values: &values,
            sample: Some(&sample),
            ..told(n * 300)
        };
        store.write(&place(), &told)?;
        let written = began.elapsed() - opened - read;
        drop(store);
        times.push((began.elapsed(), opened, recalled, read, written));
    }
    times.sort();
    let Some((all, opened, recalled, read, written)) = times.get(times.len() / 2).copied() else {
        return Ok(());
    };
    println!("median {all:?}: open {opened:?}, recall of {recalled} {read:?}, write {written:?}");
    println!("slowest {:?}", times.last().map(|last| last.0));
    let size = fs::metadata(dir.path().join(NAME))?.len();
    println!("the file takes {} KiB", size >> 10);
    Ok(())
}
