//! Names of addresses, for those who ask for them: looked up by a few threads at once, and only until a deadline.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use dns_lookup::LookupErrorKind;

/// Look-ups at a time: one that waits for a dead server holds up its thread alone.
const WORKERS: usize = 16;

/// Addresses that are remembered; a listing of more has names for the first ones.
const MOST: usize = 65_536;

/// What a resolver says of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// its name, in the words of others
    Name(String),
    /// it has none
    Nameless,
    /// that could not be found out
    Failed,
}

/// Knows the names of addresses.
pub trait Resolver: Send + Sync + 'static {
    /// The name of `ip`. May take any time.
    fn name(&self, ip: IpAddr) -> Answer;
}

/// The resolver of this machine: getnameinfo(3), and so `/etc/hosts` and name servers, as nsswitch.conf(5) has it.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Resolver for System {
    fn name(&self, ip: IpAddr) -> Answer {
        match dns_lookup::lookup_addr(&ip) {
            Ok(name) => Answer::Name(name),
            Err(error) => match error.kind() {
                LookupErrorKind::NoName | LookupErrorKind::NoData => Answer::Nameless,
                _ => Answer::Failed,
            },
        }
    }
}

/// The addresses whose names are wanted, each once, in the order in which they came.
#[derive(Debug, Default)]
pub struct Wanted {
    order: Vec<IpAddr>,
    known: HashSet<IpAddr>,
    /// whether there were more than are remembered
    more: bool,
}

impl Wanted {
    /// Adds an address. One that stands for none has no name; a v4-mapped one has that of its IPv4 address.
    pub fn add(&mut self, ip: IpAddr) {
        let ip = ip.to_canonical();
        if ip.is_unspecified() || self.known.contains(&ip) {
            return;
        }
        if self.order.len() >= MOST {
            self.more = true;
            return;
        }
        self.known.insert(ip);
        self.order.push(ip);
    }
}

/// The names that were found.
#[derive(Debug, Default)]
pub struct Hosts {
    names: HashMap<IpAddr, String>,
    /// what was not found out in time
    note: Option<String>,
}

impl Hosts {
    /// The name of `ip`, in the words of others.
    pub fn name(&self, ip: IpAddr) -> Option<&str> {
        self.names.get(&ip.to_canonical()).map(String::as_str)
    }

    /// A sentence on the names that are missing, if there are any.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

/// Looks up the names of `wanted` until `limit` has passed. What is not known then stays without a name; threads that
/// still wait are left to themselves and begin nothing new.
pub fn resolve(wanted: Wanted, resolver: impl Resolver, limit: Duration) -> Hosts {
    let deadline = Instant::now() + limit;
    let (order, more) = (Arc::new(wanted.order), wanted.more);
    let all = order.len();
    let mut hosts = Hosts::default();
    let (next, resolver) = (Arc::new(AtomicUsize::new(0)), Arc::new(resolver));
    let (answers, answered) = mpsc::channel();
    for _ in 0..WORKERS.min(all) {
        let (order, next) = (Arc::clone(&order), Arc::clone(&next));
        let (answers, resolver) = (answers.clone(), Arc::clone(&resolver));
        let work = move || {
            while let Some(ip) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                // Nobody listens any more after the deadline.
                if answers.send((*ip, resolver.name(*ip))).is_err() {
                    return;
                }
            }
        };
        // Without a thread there are fewer names, which is said.
        let _ = thread::Builder::new().name("names".to_owned()).spawn(work);
    }
    drop(answers);
    let (mut settled, mut failed) = (0, 0);
    while settled + failed < all {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok((ip, answer)) = answered.recv_timeout(left) else {
            break;
        };
        match answer {
            // A name that is an address would pass for one.
            Answer::Name(name) if !name.is_empty() && name.parse::<IpAddr>().is_err() => {
                hosts.names.insert(ip, name);
                settled += 1;
            }
            Answer::Name(_) | Answer::Nameless => settled += 1,
            Answer::Failed => failed += 1,
        }
    }
    // Those who are about to begin another one find nothing left.
    next.store(all, Ordering::Relaxed);
    let open = all - settled;
    hosts.note = match (open > 0, more) {
        (false, false) => None,
        (false, true) => Some(format!(
            "names were looked up of the first {MOST} addresses only"
        )),
        (true, _) => Some(format!(
            "{open} of {all}{} name{} not resolved in {} s: shown as numbers",
            if more { "+" } else { "" },
            if all == 1 { " was" } else { "s were" },
            limit.as_secs_f64()
        )),
    };
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers by the last number of the address, and counts how often it is asked.
    struct Fake {
        asked: Arc<AtomicUsize>,
        delay: fn(u8) -> Duration,
        answer: fn(u8) -> Answer,
    }

    impl Resolver for Fake {
        fn name(&self, ip: IpAddr) -> Answer {
            let last = match ip {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(ip) => ip.octets()[15],
            };
            self.asked.fetch_add(1, Ordering::SeqCst);
            thread::sleep((self.delay)(last));
            (self.answer)(last)
        }
    }

    fn named(last: u8) -> Answer {
        Answer::Name(format!("host-{last}.example"))
    }

    fn run(
        addresses: impl Iterator<Item = IpAddr>,
        limit: Duration,
        delay: fn(u8) -> Duration,
        answer: fn(u8) -> Answer,
    ) -> (Hosts, usize) {
        let mut wanted = Wanted::default();
        addresses.for_each(|ip| wanted.add(ip));
        let asked = Arc::new(AtomicUsize::new(0));
        let fake = Fake {
            asked: Arc::clone(&asked),
            delay,
            answer,
        };
        let hosts = resolve(wanted, fake, limit);
        (hosts, asked.load(Ordering::SeqCst))
    }

    fn v4(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn each_address_is_looked_up_once_whatever_its_family_says() {
        let mapped: IpAddr = "::ffff:10.0.0.7".parse().unwrap();
        let nobody: [IpAddr; 2] = ["0.0.0.0".parse().unwrap(), "::".parse().unwrap()];
        let all = [v4(7), mapped, v4(7), v4(8)].into_iter().chain(nobody);
        let (hosts, asked) = run(all, PATIENCE, |_| Duration::ZERO, named);
        assert_eq!((asked, hosts.note()), (2, None));
        assert_eq!(hosts.name(v4(7)), Some("host-7.example"));
        assert_eq!(hosts.name(mapped), Some("host-7.example"));
        assert_eq!(hosts.name(v4(9)), None);
        let (hosts, asked) = run(std::iter::empty(), PATIENCE, |_| Duration::ZERO, named);
        assert_eq!((asked, hosts.note()), (0, None));
    }

    #[test]
    fn at_the_deadline_the_rest_stays_a_number_and_is_counted() {
        let began = Instant::now();
        let slow = |last| {
            if last % 2 == 0 {
                Duration::ZERO
            } else {
                PATIENCE
            }
        };
        // Fewer slow ones than threads, so that the others are answered.
        let all = (0..20).map(v4);
        let (hosts, _) = run(all, Duration::from_millis(1500), slow, named);
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
        assert_eq!(
            hosts.note(),
            Some("10 of 20 names were not resolved in 1.5 s: shown as numbers")
        );
        assert_eq!(hosts.names.len(), 10);
    }

    #[test]
    fn threads_that_outlive_the_deadline_begin_nothing_new() {
        let limit = Duration::from_millis(50);
        let (_, asked) = run((0..200).map(v4), limit, |_| PATIENCE, named);
        assert!(asked <= WORKERS, "{asked}");
    }

    #[test]
    fn no_name_is_an_answer_and_a_failure_is_none() {
        let answer = |last| match last {
            1 => Answer::Nameless,
            2 => Answer::Failed,
            3 => Answer::Name("10.9.9.9".to_owned()),
            4 => Answer::Name(String::new()),
            5 => Answer::Name("\u{1b}[31m\u{202e}".to_owned()),
            _ => named(last),
        };
        let (hosts, _) = run((1..7).map(v4), PATIENCE, |_| Duration::ZERO, answer);
        assert_eq!(
            hosts.note(),
            Some("1 of 6 names were not resolved in 60 s: shown as numbers")
        );
        assert_eq!(hosts.name(v4(3)), None, "it would pass for an address");
        assert_eq!(hosts.name(v4(4)), None);
        // Made safe where it is shown.
        assert_eq!(hosts.name(v4(5)), Some("\u{1b}[31m\u{202e}"));
        let (hosts, _) = run([v4(1)].into_iter(), PATIENCE, |_| Duration::ZERO, answer);
        assert_eq!(hosts.note(), None);
    }

    #[test]
    fn memory_is_bounded_and_what_is_left_out_is_said() {
        let all = (0..MOST as u32 + 10).map(|n| IpAddr::from((0x0a00_0001 + n).to_be_bytes()));
        let (hosts, asked) = run(all, PATIENCE, |_| Duration::ZERO, |_| Answer::Nameless);
        assert_eq!(asked, MOST);
        assert!(
            hosts
                .note()
                .is_some_and(|note| note.contains("first 65536"))
        );
    }
}
