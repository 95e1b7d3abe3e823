//! The keys of `linger.toml` with their documentation: what is read is what the manual page tells.

/// A key of the file, for the reader and for the manual page.
#[derive(Debug)]
pub struct Key {
    /// its name
    pub name: &'static str,
    /// an example
    pub example: &'static str,
    /// what it does
    pub doc: &'static str,
}

/// The keys at the top.
pub const TOP: &[Key] = &[
    Key {
        name: "only",
        example: "only = [\"close-wait-leak\", \"listen-overflow\"]",
        doc: "Run these detectors only. The --only of the command line takes the place of only and skip.",
    },
    Key {
        name: "skip",
        example: "skip = [\"time-wait-flood\"]",
        doc: "Leave these detectors out. The --skip of the command line adds to it.",
    },
    Key {
        name: "expect-listeners",
        example: "expect-listeners = [\"443=nginx\", \"10.0.0.1:5432\"]",
        doc: "What has to be listened on, as [ADDR:]PORT[=UNIT]; listener-vanished is critical where nobody listens. \
              The --expect-listener of the command line adds to it.",
    },
    Key {
        name: "thresholds",
        example: "[thresholds.close-wait-leak]\nage = \"2min\"",
        doc: "The limits of one detector, by the names that linger-findings(7) and the list below have. The \
              --threshold of the command line wins.",
    },
    Key {
        name: "override",
        example: "[[override]]\nprocess = \"java\"\nthresholds.close-wait-leak.age = \"10min\"",
        doc: "Limits for some subjects only: those of one program, unit, port or destination. Of several that fit a \
              finding, the first wins, and a user's file comes before the system's.",
    },
    Key {
        name: "mute",
        example: "[[mute]]\nfinding = \"close-wait-leak\"\nprocess = \"legacy*\"\nreason = \"ticket 4711, fixed in \
                  June\"\nexpires = 2027-06-30",
        doc: "Findings that are not to count, for a time. They are still counted in every output, and what follows \
              from them is still told. Without process, unit, port or destination the mute is for every subject.",
    },
];

/// The keys by which a subject is chosen.
pub const SCOPE: &[Key] = &[
    Key {
        name: "process",
        example: "process = \"java\"",
        doc: "The program's name as the kernel keeps it (15 letters of /proc/PID/comm); * stands for any letters.",
    },
    Key {
        name: "unit",
        example: "unit = \"checkout@*.service\"",
        doc: "The systemd unit of the program; * stands for any letters.",
    },
    Key {
        name: "port",
        example: "port = 443",
        doc: "The port of the listener, or of the destination. A finding about a program has no port.",
    },
    Key {
        name: "destination",
        example: "destination = \"10.0.0.0/8:5432\"",
        doc: "The remote address or network, with or without a port: 10.0.0.5, 10.0.0.5:443, 10.0.0.0/8, \
              10.0.0.0/8:443, [2001:db8::]/32:443.",
    },
];

/// The other key of an override.
pub const OVERRIDE: &[Key] = &[Key {
    name: "thresholds",
    example: "thresholds.listen-overflow.min = 10",
    doc: "The limits, as at the top.",
}];

/// The other keys of a mute.
pub const MUTE: &[Key] = &[
    Key {
        name: "finding",
        example: "finding = \"close-wait-leak\"",
        doc: "The finding's id. Compulsory.",
    },
    Key {
        name: "reason",
        example: "reason = \"ticket 4711\"",
        doc: "Why, for whoever reads it next. Compulsory.",
    },
    Key {
        name: "expires",
        example: "expires = 2027-06-30",
        doc: "The last day (UTC) on which it holds. Compulsory: from the next day on it mutes nothing, and every \
              output says so. What counts is the time of the reading; a capture is judged by its own.",
    },
];
