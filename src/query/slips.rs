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
