//! What people type who do not know the language yet: each is understood, or answered with what can be typed.

use super::Filter;

fn shown(text: &str) -> String {
    Filter::parse(&[text.to_owned()]).unwrap().to_string()
}

/// The first line of the error, and the hint.
fn slip(text: &str) -> (String, String) {
    let error = Filter::parse(&[text.to_owned()]).unwrap_err();
    let message = error.to_string();
    (
        message.lines().next().unwrap_or_default().to_owned(),
        error.hint(),
    )
}

fn all_slip(table: &[(&str, &str, &str)]) {
    for (text, says, hint) in table {
        let (message, hinted) = slip(text);
        assert_eq!(message, *says, "{text}");
        assert!(hinted.contains(hint), "{text}: {hinted}");
    }
}

#[test]
fn flags_and_fixed_names_take_their_values_alone() {
    for (text, means) in [
        ("v6only = 1", "v6only = yes"),
        ("v6only TRUE", "v6only = yes"),
        ("v6only 0", "v6only = no"),
        ("v6only != false", "not v6only = no"),
        ("v6only ~ y*", "v6only ~ y*"),
        ("family = IPv4", "family = ipv4"),
        ("netid u_str", "netid = u_str"),
        ("waiting_on = peer-window", "waiting-on = peer-window"),
        ("protocol ~ tpc*", "protocol ~ tpc*"),
    ] {
        assert_eq!(shown(text), means, "{text}");
    }
    all_slip(&[
        ("v6only = maybe", "'maybe' is not yes or no", "v6only = yes"),
        ("v6only = 2", "'2' is not yes or no", "v6only = yes"),
        (
            "family = ipv5",
            "'ipv5' is not a value of this column",
            "did you mean 'ipv4' or 'ipv6'? 'family' is one of ipv4 ipv6",
        ),
        (
            "protocol != tpc",
            "'tpc' is not a value of this column",
            "did you mean 'tcp'",
        ),
        (
            "netid = stream",
            "'stream' is not a value of this column",
            "u_str",
        ),
        (
            "waiting-on = me",
            "'me' is not a value of this column",
            "is one of peer us",
        ),
    ]);
}

#[test]
fn a_port_alone_is_that_of_either_end() {
    for (text, means) in [
        ("port = 443", "sport = :443 or dport = :443"),
        ("port :443", "sport = :443 or dport = :443"),
        ("port != https", "not (sport = :https or dport = :https)"),
        ("port >= 1024", "sport >= :1024 or dport >= :1024"),
        (
            "port 1 process = x",
            "(sport = :1 or dport = :1) and process = x",
        ),
        ("port 1 or pid = 2", "sport = :1 or dport = :1 or pid = 2"),
    ] {
        assert_eq!(shown(text), means, "{text}");
        assert_eq!(shown(means), means, "{text}");
    }
    all_slip(&[("port = y/", "'y/' is not a port", "port = :443")]);
}

#[test]
fn a_cookie_is_read_as_it_is_shown() {
    for text in ["cookie 7ad639", "cookie = 0x7AD639", "cookie 0X7ad639"] {
        assert_eq!(shown(text), "cookie = 0x7ad639", "{text}");
    }
    assert_eq!(shown("cookie != 12"), "not cookie = 0x12");
    assert_eq!(shown("cookie = 0x12"), "cookie = 0x12");
    all_slip(&[
        ("cookie = sk", "'sk' is not a cookie", "cookie = 7ad639"),
        (
            "cookie 10000000000000000",
            "'10000000000000000' is not a cookie",
            "cookie = ",
        ),
        (
            "sk:7ad639",
            "'sk:7ad639' is not understood",
            "write 'cookie = 7ad639'",
        ),
    ]);
}

#[test]
fn hints_can_be_typed() {
    for (text, tail) in [
        ("8080", "write 'port = 8080', or 'pid = 8080'"),
        (":8080", "write 'port = :8080'"),
        ("TCP:443", "write 'port = 443'"),
        ("tcp:https", "write 'port = https'"),
        ("python3", "write 'process = python3'"),
        ("node", "did you mean 'inode', or 'process = node'?"),
        ("foo", "write 'process = foo'"),
        ("get", "write 'process = get'"),
        ("cmd", "write 'process = cmd'"),
        ("/run/x.sock", "write 'src /run/x.sock'"),
        ("@/tmp/.X11-unix/X0", "write 'src @/tmp/.X11-unix/X0'"),
        ("rel.sock", "write 'src unix:rel.sock'"),
        ("run/x", "write 'src unix:run/x'"),
        ("pid:11307", "write 'pid = 11307'"),
        ("process:nginx", "write 'process = nginx'"),
        ("state:listen", "write 'state listen'"),
        ("db-7.example.org:5432", "write 'src db-7.example.org:5432'"),
        ("10.0.0.0/8", "write 'src 10.0.0.0/8'"),
    ] {
        let (_, hint) = slip(text);
        assert!(hint.starts_with(tail), "{text}: {hint}");
        for typed in hint.split('\'').skip(1).step_by(2).take(1) {
            if typed != "inode" {
                shown(typed);
            }
        }
    }
    for (text, option) in [("tcp", "-t"), ("UDP", "-u"), ("unix", "-x")] {
        let (_, hint) = slip(text);
        assert!(hint.contains(&format!("with {option}")), "{text}: {hint}");
    }
    // What is compared is a column, and no program.
    assert!(!slip("foo = 1").1.contains("process = foo"));
    assert!(slip("sprot = 1").1.starts_with("did you mean 'sport'? "));
}

#[test]
fn a_column_that_cannot_be_compared_is_not_said_to_be_unknown() {
    for text in ["shutdown = <->", "shutdown", "not SHUTDOWN ~ x"] {
        let (message, hint) = slip(text);
        assert!(
            message.eq_ignore_ascii_case("'shutdown' cannot be compared with anything"),
            "{text}: {message}"
        );
        assert!(hint.contains("-c shutdown"), "{text}: {hint}");
    }
}
