//! What Prometheus answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{Client, encoded};

/// Nothing takes so long on a machine that is not ill: a scrape is due every second.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where the Prometheus of the test listens.
pub const PROMETHEUS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);

pub struct Stored(Client);

impl Stored {
    /// Waits until Prometheus is ready.
    pub fn connect() -> Self {
        let end = Instant::now() + PATIENCE;
        let client = loop {
            match Client::connect(PROMETHEUS) {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < end, "no Prometheus: {error}"),
            }
            thread::sleep(Duration::from_millis(50));
        };
        let mut stored = Self(client);
        while stored.0.get("/-/ready").unwrap().0 != 200 {
            assert!(Instant::now() < end, "Prometheus does not get ready");
            thread::sleep(Duration::from_millis(50));
        }
        stored
    }

    pub fn get(&mut self, path: &str) -> Value {
        let (status, body) = self.0.get(path).unwrap();
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// What a query returns now.
    pub fn query(&mut self, expr: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/query?query={}", encoded(expr)));
        assert_eq!(answer["status"], "success", "{expr}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// Waits until the query's one value is as it has to be, and returns it.
    pub fn until(&mut self, expr: &str, holds: impl Fn(f64) -> bool) -> f64 {
        let end = Instant::now() + PATIENCE;
        loop {
            let result = self.query(expr);
            if let [one] = &result[..] {
                let value = one["value"][1].as_str().unwrap().parse().unwrap();
                if holds(value) {
                    return value;
                }
            }
            assert!(
                Instant::now() < end,
                "{expr} is not as it has to be: {result:?}"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The values of a label in what a query returns.
    pub fn labels(&mut self, expr: &str, label: &str) -> BTreeSet<String> {
        let values = self.query(expr);
        let values = values
            .iter()
            .filter_map(|one| one["metric"][label].as_str());
        values.map(str::to_owned).collect()
    }
}
