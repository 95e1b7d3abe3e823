//! linger against the kernel: each test opens real sockets in network namespaces of its own and asks the program
//! about them.
//!
//! The usual test harness runs tests as threads of one process. Here a test *is* a process, because descriptors,
//! `RLIMIT_NOFILE`, `/proc/PID/ns/net` and blame belong to processes; `harness` starts, limits and reports them.
//! Root is not needed where user namespaces are allowed; where neither works the tests are skipped, which
//! `CI=true` turns into a failure. Needs `ip` (`apt-get install iproute2`).
//!
//! * `harness`: cargo's arguments, one process for each test, the report.
//! * `world`: two namespaces joined by a veth pair; the program is run in the near one.
//! * `kernel`: `/proc/net/tcp` read anew, so that a test knows its scenario is in place without asking linger.
//! * `ss`: the tables of ss, to compare with.
//! * `answers`: linger's JSON, as far as the tests depend on it.
//! * the rest: the tests.

#[path = "live/answers.rs"]
mod answers;
#[path = "live/attributes.rs"]
mod attributes;
#[path = "live/blame.rs"]
mod blame;
#[path = "live/bytecode.rs"]
mod bytecode;
#[path = "live/check.rs"]
mod check;
#[path = "live/closing.rs"]
mod closing;
#[path = "live/collect.rs"]
mod collect;
#[path = "live/collectors.rs"]
mod collectors;
#[path = "live/controls.rs"]
mod controls;
#[path = "live/counters.rs"]
mod counters;
#[path = "live/diff.rs"]
mod diff;
#[path = "live/differential.rs"]
mod differential;
#[path = "live/differential_filters.rs"]
mod differential_filters;
#[path = "live/everywhere.rs"]
mod everywhere;
#[path = "live/export.rs"]
mod export;
#[path = "live/findings.rs"]
mod findings;
#[path = "live/fingers.rs"]
mod fingers;
#[path = "live/harness.rs"]
mod harness;
#[path = "live/healthy.rs"]
mod healthy;
#[path = "live/history.rs"]
mod history;
#[path = "live/host.rs"]
mod host;
#[path = "live/hostile.rs"]
mod hostile;
#[path = "live/kernel.rs"]
mod kernel;
#[path = "live/kill.rs"]
mod kill;
#[path = "live/kill_refused.rs"]
mod kill_refused;
#[path = "live/many.rs"]
mod many;
#[path = "live/names.rs"]
mod names;
#[path = "live/netns.rs"]
mod netns;
#[path = "live/owners.rs"]
mod owners;
#[path = "live/pair.rs"]
mod pair;
#[path = "live/protocols.rs"]
mod protocols;
#[path = "live/record.rs"]
mod record;
#[path = "live/refused.rs"]
mod refused;
#[path = "live/remembered.rs"]
mod remembered;
#[path = "live/scene.rs"]
mod scene;
#[path = "schema/mod.rs"]
mod schema;
#[path = "live/series.rs"]
mod series;
#[path = "live/silence.rs"]
mod silence;
#[path = "live/ss.rs"]
mod ss;
#[path = "live/ssdump.rs"]
mod ssdump;
#[path = "live/stalls.rs"]
mod stalls;
#[path = "live/states.rs"]
mod states;
#[path = "live/stories.rs"]
mod stories;
#[path = "live/sys.rs"]
mod sys;
#[path = "live/tmux.rs"]
mod tmux;
#[path = "live/waiting.rs"]
mod waiting;
#[path = "live/watch.rs"]
mod watch;
#[path = "live/whose.rs"]
mod whose;
#[path = "live/workloads.rs"]
mod workloads;
#[path = "live/world.rs"]
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::main(&[
        states::TESTS,
        collect::TESTS,
        collectors::TESTS,
        protocols::TESTS,
        findings::TESTS,
        blame::TESTS,
        check::TESTS,
        history::TESTS,
        closing::TESTS,
        healthy::TESTS,
        controls::TESTS,
        workloads::TESTS,
        many::TESTS,
        owners::TESTS,
        remembered::TESTS,
        names::TESTS,
        host::TESTS,
        refused::TESTS,
        counters::TESTS,
        hostile::TESTS,
        record::TESTS,
        series::TESTS,
        diff::TESTS,
        export::TESTS,
        ssdump::TESTS,
        stories::TESTS,
        silence::TESTS,
        waiting::TESTS,
        watch::TESTS,
        stalls::TESTS,
        pair::TESTS,
        whose::TESTS,
        attributes::TESTS,
        differential::TESTS,
        differential_filters::TESTS,
        bytecode::TESTS,
        fingers::TESTS,
        kill::TESTS,
        kill_refused::TESTS,
        netns::TESTS,
        everywhere::TESTS,
    ])
}
