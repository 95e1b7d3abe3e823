//! What fingers type that know ss, netstat, lsof and kubectl; and the forms of the output.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::*;

/// The rows of CSV, each by the names of its columns.
fn csv(line: &str) -> Vec<BTreeMap<String, String>> {
    let text = quiet(line);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows = reader.deserialize().map(Result::unwrap);
    rows.collect()
}

fn jsonl(line: &str) -> Vec<Value> {
    let text = quiet(line);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_default())
        .collect()
}

#[test]
fn options_combine_as_in_ss_and_netstat() {
    let rows = |line: &str| quiet(&from(line)).lines().count() - 1;
    assert_eq!(rows("-tan"), 12);
    for same in [
        "-tann",
        "-antt",
        "-a -t -n",
        "--tcp --all --numeric",
        "-at46",
        "-A tcp -a",
        "-anO",
        "-f inet -6 -a",
    ] {
        assert_eq!(rows(same), 12, "{same}");
    }
    assert_eq!(rows("-tanH"), 11, "without the header");
    assert_eq!(rows("-at4") + rows("-a -f inet6"), 12);
    assert_eq!(rows("-tlp"), 2);
}

#[test]
fn sockets_that_a_capture_lacks_are_a_failure_if_named_and_else_a_note() {
    for line in ["-tulpn", "-u", "-xlp", "-A tcp,unix"] {
        let said = run(&from(line));
        assert_eq!(said.code, Some(1), "{line}: {said:?}");
        assert!(said.err.contains("were not recorded"), "{line}: {said:?}");
    }
    for line in ["-l", "-ln", "-A inet"] {
        let said = run(&from(line));
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
        assert!(
            said.err.starts_with("note: ") && said.out.contains(":8080"),
            "{line}: {said:?}"
        );
        let document = json(&from(&format!("{line} --json")));
        assert_eq!(document["complete"], false, "{line}");
    }
    let alone = run(&from("-tl"));
    assert_eq!((alone.code, &alone.err[..]), (Some(0), ""));
}

#[test]
fn options_of_other_programs_name_what_does_it_here() {
    for (line, what, hint) in [
        ("-s", "'-s'", "linger status"),
        ("-tE", "'-E'", "as they close"),
        ("-tK dport = :22", "'-K'", "FILTER"),
        ("-D dump", "'-D'", "linger record FILE"),
        ("-Z", "'-Z'", "ss -Z"),
        ("-b", "'-b'", "ss -0b"),
        ("-T", "'-T'", "-p"),
        ("-d", "'-d'", "DCCP"),
        ("-g", "'-g'", "ip maddr"),
        ("-v", "'-v'", "leave it out"),
        ("-W", "'-W'", "never cut"),
        ("--kill", "'--kill'", "FILTER"),
        ("--summary", "'--summary'", "linger status"),
        ("--program -t", "'--program'", "-p"),
        ("list --format json", "'--format'", "--output table"),
        ("list --port 443", "'--port'", "'port = 443'"),
        ("--port=443", "'--port'", "'port = 443'"),
        ("--all-namespaces", "'--all-namespaces'", "--netns all"),
        ("list --state listen", "'--state'", "'state close-wait'"),
        ("list --pid 1", "'--pid'", "'pid = 4242'"),
        ("kill --dry-run port = 1", "'--dry-run'", "only with --yes"),
        ("kill -y port = 1", "'-y'", "only with --yes"),
        ("list netns = trial-a", "netns", "with --netns all"),
        ("-tanc", "--columns", "linger watch"),
        ("-t -o json", "'json'", "--output json"),
        ("-ojson", "'json'", "--output json"),
        ("-i :443", "':443'", "port = :443"),
        ("-i TCP:443", "'TCP:443'", "'port = 443'"),
        ("-iTCP:443", "-i takes no value", "linger :443"),
        ("-A tpc", "no table 'tpc'", "'tcp'"),
        ("-A tipc", "does not read TIPC", "ss --tipc"),
        ("-A xdp -t", "does not read XDP", "ss --xdp"),
        ("-A dccp", "does not read DCCP", "Linux 6.16"),
        ("-f inte", "no family 'inte'", "'inet'"),
        ("-t -f unix", "family 'unix'", "-f"),
        ("-x4", "over IP", "-t, -u"),
        ("--json --output csv", "two forms", "leave one"),
        ("--output cvs", "'cvs'", "csv"),
    ] {
        fails(&from(line), 2, what, hint);
    }
}

#[test]
fn csv_has_the_rows_of_jsonl() {
    for options in ["-ta", "-tapeim", "-tap -c state,local,process,pid,age"] {
        let rows = csv(&from(&format!("{options} --output csv")));
        let objects = jsonl(&from(&format!("{options} --output jsonl")));
        assert_eq!(rows.len(), 12);
        assert_eq!(rows.len(), objects.len());
        for (row, object) in rows.iter().zip(&objects) {
            assert_eq!(row["state"], object["state"]);
            let owner = object["owners"].get(0);
            match row.get("process") {
                Some(process) if process.is_empty() => assert!(owner.is_none(), "{row:?}"),
                Some(process) => assert_eq!(*process, "example[4242]"),
                None => assert_eq!(options, "-ta"),
            }
            if options.contains("-c") {
                assert_eq!(
                    row["local"].rsplit_once(':').unwrap().1,
                    object["local_port"].to_string()
                );
                continue;
            }
            for (column, key) in [
                ("protocol", "protocol"),
                ("family", "family"),
                ("local-address", "local_address"),
                ("local-port", "local_port"),
                ("peer-port", "peer_port"),
                ("recv-q", "recv_q"),
                ("inode", "inode"),
                ("cookie", "cookie"),
                ("uid", "uid"),
            ] {
                let text = match &object[key] {
                    Value::String(text) => text.clone(),
                    Value::Null => String::new(),
                    Value::Number(n) if column == "inode" && n.as_u64() == Some(0) => String::new(),
                    other => other.to_string(),
                };
                assert_eq!(row[column], text, "{options} {column}: {object}");
            }
            let expires = object["timer"]["expires_ms"].as_u64();
            assert_eq!(
                row["timer-expires"],
                expires.map_or(String::new(), |ms| ms.to_string())
            );
            if options.contains('i') {
                let age = object["state_age_ms"].as_u64();
                assert_eq!(row["age"], age.map_or(String::new(), |ms| ms.to_string()));
                let rtt = object["tcp_info"]["rtt_us"].as_u64();
                assert_eq!(
                    row["rtt_us"],
                    rtt.map_or(String::new(), |us| us.to_string())
                );
            }
        }
    }
}

#[test]
fn csv_sorts_groups_and_leaves_its_header_out() {
    let rows = csv(&from("-ta --sort -local-port --top 3 --output csv"));
    let ports: Vec<u16> = rows
        .iter()
        .map(|row| row["local-port"].parse().unwrap())
        .collect();
    assert!(
        ports.len() == 3 && ports.is_sorted_by(|a, b| a >= b),
        "{ports:?}"
    );
    let bare = quiet(&from("-taH --output csv"));
    assert!(!bare.contains("local-address") && bare.lines().count() == 12);
    let groups = csv(&from("-ta --group-by state,process --output csv"));
    let sum: u32 = groups
        .iter()
        .map(|group| group["sockets"].parse::<u32>().unwrap())
        .sum();
    assert_eq!(sum, 12);
    assert!(groups.iter().all(|group| group.len() == 3), "{groups:?}");
    assert_eq!(
        quiet(&from("-taH --group-by state --output csv --top 1")),
        "established,4\n"
    );
}

#[test]
fn wide_has_more_columns_and_never_wraps() {
    let wide = quiet(&from("-taim --output wide"));
    let heads = wide.lines().next().unwrap();
    for head in ["State", "Process", "User", "Unit", "Age", "Timer", "Inode"] {
        assert!(heads.contains(head), "{heads}");
    }
    assert_eq!(wide.lines().count(), 13);
    assert!(wide.contains("example[4242]") && wide.contains(" skmem:("));
    let oneline = quiet(&from("-taimO"));
    assert_eq!(oneline.lines().count(), 13, "{oneline}");
    assert!(
        quiet(&from("-taim")).lines().count() > 13,
        "the other wraps"
    );
}

#[test]
fn a_pipe_is_never_folded_and_the_manual_has_every_option() {
    assert_eq!(quiet(&from("-t state time-wait")).lines().count(), 3);
    let page = quiet("man list");
    for word in [
        "FROM SS AND NETSTAT",
        "FILTER",
        "unix_dgram",
        "OUTPUT",
        "synchronized",
        "ip maddr",
    ] {
        assert!(page.contains(word), "{word}");
    }
    let help = quiet("list --help");
    for option in [
        "-u, --udp",
        "-w, --raw",
        "-x, --unix",
        "-0, --packet",
        "-M, --mptcp",
        "-S, --sctp",
        "--vsock",
        "-f, --family",
        "-A, --query",
        "-O, --oneline",
    ] {
        assert!(help.contains(option), "{option}");
    }
}
