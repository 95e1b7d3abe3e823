//! Packets that this host drops before TCP sees them.

use crate::analyze::rates::{self, Rate};
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Moved, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Evidence, Finding, Severity, Subject};

const BACKLOG: &[&str] = &["Softnet.dropped"];
/// Of this namespace: a socket's own queue was full, there was no memory for it.
const SOCKETS: &[&str] = &["TcpExt.TCPBacklogDrop", "TcpExt.PFMemallocDrop"];
const FILTER: &[&str] = &["TcpExt.IPReversePathFilter"];
const SQUEEZED: &[&str] = &["Softnet.time_squeeze"];

pub const DETECTOR: Detector = Detector {
    id: "host-receive-drops",
    aliases: &[],
    summary: "this host itself drops packets that it has received",
    signals: "Between two looks: packets dropped because a processor's backlog was full (softnet_stat, of the whole \
              machine), because a socket's backlog was full or memory short, and by the reverse-path filter. \
              Rounds that ended with work left (time_squeeze) are info.",
    explanation: "The network card delivers more than the processor takes over, and what does not fit is lost before \
                  TCP sees it. Peers retransmit, so it looks like loss on the network although it is here. \
                  softnet_stat counts for the whole machine, whatever the namespace.",
    grounds: &[
        "Linux kernel, net/core/dev.c: enqueue_to_backlog()",
        "Linux kernel, Documentation/networking/scaling.rst",
    ],
    advice: &[
        "spread the load over processors: more receive queues, RPS, interrupt affinity",
        "raise net.core.netdev_max_backlog; net.core.netdev_budget where rounds end with work left",
    ],
    folklore: &["TCP's buffer sizes do not help: the packets never reach TCP"],
    states: &[],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "rate",
            default: 10.0,
            unit: Unit::PerSecond,
            doc: "packets dropped: enough to be felt as loss; fewer count if they go on over two intervals",
        },
        Threshold {
            key: "squeezed",
            default: 100.0,
            unit: Unit::PerSecond,
            doc: "rounds that ended with work left, of all processors: worth knowing, nothing is lost yet",
        },
    ],
    blind: &[],
    needs: Needs {
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "packets dropped by the backlog in one second",
        limit: 10,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let (backlog, sockets) = (Rate::of(context, BACKLOG), Rate::of(context, SOCKETS));
    let (filter, squeezed) = (Rate::of(context, FILTER), Rate::of(context, SQUEEZED));
    let fast = |rate: &Rate| rate.moved > 0 && rate.per_second() >= limits.get("rate");
    let found = if fast(&backlog) || backlog.moved > 0 && rates::lasts(context, BACKLOG) {
        Some((Severity::Warning, backlog, What::Backlog))
    } else if fast(&sockets) {
        Some((Severity::Warning, sockets, What::Sockets))
    } else if backlog.moved > 0 {
        Some((Severity::Info, backlog, What::Backlog))
    } else if fast(&filter) {
        Some((Severity::Info, filter, What::Filter))
    } else if squeezed.moved > 0 && squeezed.per_second() >= limits.get("squeezed") {
        Some((Severity::Info, squeezed, What::Squeezed))
    } else {
        None
    };
    if let Some((severity, rate, what)) = found {
        return Verdict::of(vec![finding(context, limits, severity, rate, what)]);
    }
    let open = [BACKLOG, SOCKETS, FILTER]
        .into_iter()
        .find(|names| !matches!(context.moved(names), Moved::By(_)));
    open.and_then(|names| rates::settled(context, names, "packets dropped on receipt"))
        .unwrap_or(Verdict::Quiet)
}

/// What dropped them.
#[derive(Clone, Copy)]
enum What {
    Backlog,
    Sockets,
    Filter,
    Squeezed,
}

fn finding(
    context: &Context<'_>,
    limits: &Limits,
    severity: Severity,
    rate: Rate,
    what: What,
) -> Finding {
    let facts = &context.snapshot.facts;
    let source = match what {
        What::Backlog => "softnet_stat dropped",
        What::Sockets => "TcpExt.TCPBacklogDrop, TcpExt.PFMemallocDrop",
        What::Filter => "TcpExt.IPReversePathFilter",
        What::Squeezed => "softnet_stat time_squeeze",
    };
    let limit = limits.get(if matches!(what, What::Squeezed) {
        "squeezed"
    } else {
        "rate"
    });
    let mut evidence = vec![
        Evidence::real("rate", rate.per_second(), "1/s", source).limit(limit),
        rate.evidence(),
    ];
    evidence.extend(rates::evidence(
        context,
        &[
            ("dropped_by_full_backlogs", "Softnet.dropped", "packets"),
            ("rounds_with_work_left", "Softnet.time_squeeze", "rounds"),
            (
                "dropped_by_a_socket_backlog",
                "TcpExt.TCPBacklogDrop",
                "packets",
            ),
            (
                "dropped_for_lack_of_memory",
                "TcpExt.PFMemallocDrop",
                "packets",
            ),
            ("out_of_order_data_dropped", "TcpExt.TCPOFODrop", "packets"),
            (
                "reverse_path_filtered",
                "TcpExt.IPReversePathFilter",
                "packets",
            ),
        ],
    ));
    for (name, path, source) in [
        (
            "netdev_max_backlog",
            "net/core/netdev_max_backlog",
            "net.core.netdev_max_backlog",
        ),
        (
            "netdev_budget",
            "net/core/netdev_budget",
            "net.core.netdev_budget",
        ),
        (
            "rp_filter",
            "net/ipv4/conf/all/rp_filter",
            "net.ipv4.conf.all.rp_filter",
        ),
    ] {
        if let Some(value) = facts.sysctl(path) {
            evidence.push(Evidence::count(name, value, "", source));
        }
    }
    let (n, window) = (rate.moved, rate.window());
    let packets = words::count(n, "packet");
    let (title, explanation, advice) = match what {
        What::Backlog => (
            format!(
                "this machine: {packets} dropped before TCP in {window}, a processor's backlog was full"
            ),
            "The card delivered more than a processor took over, and the rest was lost before TCP saw it. Peers \
             retransmit, so it looks like loss on the network although it is here. The counter is of the whole \
             machine, whatever the namespace.",
            [
                "cat /proc/net/softnet_stat    # a line for each processor; the second column is its drops, in hex",
                "more receive queues, RPS or interrupt affinity; then net.core.netdev_max_backlog",
            ],
        ),
        What::Sockets => (
            format!("this namespace: {packets} dropped at a socket's backlog in {window}"),
            "Segments came while a program held the lock of their socket and the socket's own backlog was full, or \
             memory was short. The peers retransmit them. The counters do not say which socket.",
            [
                "nstat -z TcpExtTCPBacklogDrop TcpExtPFMemallocDrop    # again: since the call before",
                "look for a program that reads huge buffers in one call, and for memory that runs out",
            ],
        ),
        What::Filter => (
            format!("this namespace: {packets} dropped by the reverse-path filter in {window}"),
            "Packets came in by an interface by which their sender would not be answered, and rp_filter dropped them. \
             Spoofed senders do that, and asymmetric routes. Connections over such a route never finish their \
             handshake.",
            [
                "ip route get ADDRESS    # of a client that fails: by which interface would it be answered?",
                "set net.ipv4.conf.*.rp_filter=2 only where an asymmetric route is meant",
            ],
        ),
        What::Squeezed => (
            format!(
                "this machine: {} of receive work ended with work left in {window}",
                words::count(n, "round")
            ),
            "A processor used up its budget for received packets and went on in the next round. Nothing is lost by \
             that. It shows that receiving is busy, on the whole machine, whatever the namespace.",
            [
                "cat /proc/net/softnet_stat    # a line for each processor; the third column counts these rounds, in hex",
                "net.core.netdev_budget, or more receive queues, if packets are dropped as well",
            ],
        ),
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([title]),
        subject: Subject::Host,
        evidence,
        explanation: explanation.to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Operator,
        advice: advice
            .into_iter()
            .chain(["do not: change TCP's buffer sizes for it; these packets never got that far"])
            .map(str::to_owned)
            .collect(),
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.pulse(&[("Softnet.dropped", n.into())], |_| {});
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    fn found(moved: &[(&str, i64)]) -> Option<Finding> {
        let mut scenario = Scenario::default();
        scenario.pulse(moved, |_| {});
        scenario.judge(DETECTOR.id).findings.pop()
    }

    // The backlog of a processor is the machine's, and no namespace can fill it: these facts are edited.

    #[test]
    fn what_is_felt_as_loss_warns_with_edited_facts() {
        let severity = |n| found(&[("Softnet.dropped", n)]).map(|finding| finding.severity);
        assert_eq!(severity(0), None);
        assert_eq!(severity(9), Some(Severity::Info));
        assert_eq!(severity(10), Some(Severity::Warning));
        let finding = found(&[("Softnet.dropped", 12)]).unwrap();
        assert_eq!(finding.subject, Subject::Host);
        assert!(
            finding
                .title
                .starts_with("this machine: 12 packets dropped"),
            "{}",
            finding.title
        );
    }

    #[test]
    fn a_few_that_go_on_warn_with_edited_facts() {
        let after = |by: [i64; 2]| {
            let mut scenario = Scenario::default();
            for by in by {
                scenario.remember(60);
                let facts = &mut scenario.snapshot.facts;
                *facts.counters.get_mut("Softnet.dropped").unwrap() += by;
            }
            let findings = scenario.analyze(&Settings::default()).findings;
            findings.first().map(|finding| finding.severity)
        };
        assert_eq!(after([1, 1]), Some(Severity::Warning));
        assert_eq!(after([0, 1]), Some(Severity::Info));
        assert_eq!(after([1, 0]), None);
    }

    #[test]
    fn squeezed_rounds_and_the_reverse_path_filter_are_info_with_edited_facts() {
        let squeezed = |n| found(&[("Softnet.time_squeeze", n)]).map(|f| f.severity);
        assert_eq!(squeezed(99), None);
        assert_eq!(squeezed(100), Some(Severity::Info));
        let filter = found(&[("TcpExt.IPReversePathFilter", 500)]).unwrap();
        assert_eq!(filter.severity, Severity::Info);
        assert!(
            filter.title.starts_with("this namespace: 500"),
            "{}",
            filter.title
        );
        assert_eq!(found(&[("TcpExt.IPReversePathFilter", 9)]), None);
    }

    #[test]
    fn a_socket_backlog_is_of_this_namespace_with_edited_facts() {
        let severity = |n| found(&[("TcpExt.TCPBacklogDrop", n)]).map(|f| f.severity);
        assert_eq!(severity(10), Some(Severity::Warning));
        assert_eq!(severity(9), None);
    }

    #[test]
    fn drops_since_boot_are_not_of_now() {
        let mut scenario = Scenario::default();
        *scenario
            .snapshot
            .facts
            .counters
            .get_mut("Softnet.dropped")
            .unwrap() = 9;
        let analysis = scenario.analyze(&Settings::default());
        assert!(
            analysis
                .unknown
                .iter()
                .any(|unknown| unknown.id == DETECTOR.id)
        );
    }
}
