//! Options of ss, netstat and lsof that linger does not have: what does here what fingers wanted.

use std::ffi::OsString;

use clap::CommandFactory;

use super::args::Cli;
use super::failure::Failure;

/// Options, and what to do. `linger WORD` is shown only once there is such a command; what stands behind `|` until then.
pub const FOREIGN: &[(&[&str], &str)] = &[
    (
        &["-s", "--summary", "--statistics"],
        "'linger status' counts the sockets; 'nstat -az' shows the counters",
    ),
    (
        &["-E", "--events"],
        "'linger trace' shows sockets as they close|linger does not show sockets as they close: 'ss -tE' does",
    ),
    (
        &["-K", "--kill"],
        "'linger kill FILTER' shows what it would close; with --yes it does",
    ),
    (
        &["-D", "--diag"],
        "'linger record FILE' writes what the kernel said, for --from",
    ),
    (
        &["-T", "--threads"],
        "-p shows the process, whose threads share its sockets",
    ),
    (
        &["-Q", "--no-queues"],
        "choose the columns: -c state,local,peer",
    ),
    (
        &["-b", "--bpf", "--bpf-maps"],
        "filters of BPF are not read: 'ss -0b' shows them",
    ),
    (
        &["-Z", "-z", "--context", "--contexts"],
        "contexts of SELinux are not read: 'ss -Z' shows them",
    ),
    (
        &["-d", "--dccp"],
        "linger does not read DCCP sockets: Linux 6.16 has removed the protocol",
    ),
    (
        &["--tipc", "--tipcinfo"],
        "linger does not read TIPC sockets: 'ss --tipc' shows them",
    ),
    (
        &["--xdp"],
        "linger does not read XDP sockets: 'ss --xdp' shows them",
    ),
    (&["--tos", "--cgroup", "--inet-sockopt"], "-e shows it"),
    (
        &["--continuous"],
        "'linger watch' shows it again and again|again and again: watch -n1 linger ...",
    ),
    (&["-g", "--groups"], "multicast groups: ip maddr"),
    (&["--route"], "routes: ip route"),
    (
        &["-I", "--interfaces"],
        "interfaces and their counters: ip -s link",
    ),
    (&["--masquerade"], "masqueraded connections: conntrack -L"),
    (
        &["-v", "--verbose"],
        "leave it out: what could not be seen is always said",
    ),
    (
        &["-W", "--wide"],
        "leave it out: addresses are never cut; '--output wide' adds columns",
    ),
    (
        &["--format", "--out"],
        "--output table, wide, json, jsonl or csv",
    ),
    (
        &["--port", "--sport", "--dport"],
        "a port is a test, not an option: 'port = 443', 'sport = 443' or 'dport = 443'",
    ),
    (
        &["--state", "--states"],
        "states are words of the filter: 'state close-wait'",
    ),
    (
        &["--pid"],
        "a process is a test, not an option: 'pid = 4242' or 'process = nginx'; -p shows it",
    ),
    (
        &["--process", "--name", "--comm"],
        "-p shows the processes, and 'process = nginx' tests them",
    ),
    (
        &["--all-namespaces", "--all-netns"],
        "--netns all lists every network namespace",
    ),
    (
        &["--dry-run", "-y", "--force", "--preview"],
        "'linger kill FILTER' previews what it would close; only with --yes it does",
    ),
    (&["-U"], "UDP-Lite is --udplite"),
    (&["--programs", "--program"], "-p shows the processes"),
    (&["--timers"], "-o shows the timers"),
    (
        &["--noheader", "--no-headers", "--no-heading"],
        "-H leaves the line of column names out",
    ),
    (
        &[
            "--numeric-hosts",
            "--numeric-ports",
            "--numeric-users",
            "-P",
        ],
        "leave it out: numbers are shown unasked",
    ),
];

/// What an option of another program is here, if it is one.
pub fn hint(option: &str) -> Option<String> {
    let (_, text) = FOREIGN
        .iter()
        .find(|(options, _)| options.contains(&option))?;
    let (now, until_then) = match text.split_once('|') {
        Some((now, until_then)) => (now, until_then),
        None => return Some((*text).to_owned()),
    };
    let there = now
        .strip_prefix("'linger ")
        .and_then(|rest| rest.split([' ', '\'']).next())
        .is_none_or(|word| Cli::command().find_subcommand(word).is_some());
    Some(if there { now } else { until_then }.to_owned())
}

/// Says what is meant by arguments that would be taken for something else.
///
/// # Errors
/// For `-ojson` and `-i:443`.
pub fn check(arguments: &[OsString]) -> Result<(), Failure> {
    for argument in arguments.iter().filter_map(|argument| argument.to_str()) {
        if argument == "--" {
            break;
        }
        if let Some(form) = argument.strip_prefix("-o")
            && is_form(form)
        {
            return Err(not_a_form(form));
        }
        if let Some(what) = argument.strip_prefix("-i") {
            let folded = what.to_ascii_lowercase();
            let rest = folded
                .strip_prefix("tcp")
                .or_else(|| folded.strip_prefix("udp"))
                .unwrap_or(&folded);
            if let Some(port) = rest.strip_prefix([':', '@']) {
                return Err(Failure::usage(
                    format!("'{argument}': -i takes no value here, it shows tcp_info"),
                    format!(
                        "'linger :{port}' shows everything about a port; 'linger list sport = :{port}' its sockets"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Whether the word is a form of output, which some programs take behind `-o`.
pub fn is_form(word: &str) -> bool {
    ["json", "jsonl", "csv", "wide", "table", "yaml"].contains(&word)
}

/// `-o json`: here `-o` shows timers.
pub fn not_a_form(form: &str) -> Failure {
    Failure::usage(
        format!("-o shows the timers and takes no value, so '{form}' is no filter"),
        match form {
            "yaml" => "there are --output table, wide, json, jsonl and csv".to_owned(),
            form => format!("write '--output {form}'"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_linger_has_is_foreign() {
        let cli = Cli::command();
        let list = cli.find_subcommand("list").unwrap();
        for argument in list.get_arguments() {
            let short = argument.get_short().map(|letter| format!("-{letter}"));
            let long = argument.get_long().map(|name| format!("--{name}"));
            for option in [short, long].into_iter().flatten() {
                assert!(hint(&option).is_none(), "{option}");
            }
        }
    }

    #[test]
    fn a_hint_names_only_commands_that_there_are() {
        for (options, _) in FOREIGN {
            let hint = hint(options[0]).unwrap();
            assert!(!hint.contains('|'));
            if let Some((_, rest)) = hint.split_once("'linger ") {
                let word = rest.split([' ', '\'']).next().unwrap();
                assert!(Cli::command().find_subcommand(word).is_some(), "{hint}");
            }
        }
    }

    #[test]
    fn values_of_other_programs_are_noticed() {
        let check = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            check(&words).map_err(|error| error.to_string())
        };
        assert!(check(&["-ojson"]).unwrap_err().contains("--output json"));
        assert!(
            check(&["-t", "-iTCP:443"])
                .unwrap_err()
                .contains("linger :443")
        );
        assert!(check(&["-i:22"]).is_err());
        for fine in [&["-oi"][..], &["-it"], &["--", "-ojson"], &["-on"]] {
            assert_eq!(check(fine), Ok(()), "{fine:?}");
        }
    }
}
