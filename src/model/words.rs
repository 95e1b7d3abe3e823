//! Numbers and times as people read them.

/// `30,112`.
pub fn thousands(n: impl Into<u64>) -> String {
    let digits = n.into().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `0.4 s`, `12 s`, `51 min`, `3.2 h`, `2.5 days`.
pub fn time(ms: u64) -> String {
    let seconds = ms as f64 / 1000.0;
    match ms {
        0..10_000 => format!("{seconds:.1} s"),
        10_000..120_000 => format!("{seconds:.0} s"),
        120_000..7_200_000 => format!("{:.0} min", seconds / 60.0),
        7_200_000..172_800_000 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} days", seconds / 86400.0),
    }
}

/// `1 socket`, `2 sockets`, `2 processes`.
pub fn count(n: u64, noun: &str) -> String {
    let plural = match n {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{} {noun}{plural}", thousands(n))
}

/// The share in percent, rounded down: 100 % means all.
pub fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let table = [
            (400, "0.4 s"),
            (12_000, "12 s"),
            (3_060_000, "51 min"),
            (11_520_000, "3.2 h"),
            (216_000_000, "2.5 days"),
        ];
        for (ms, text) in table {
            assert_eq!(time(ms), text);
        }
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(thousands(1_234_567u64), "1,234,567");
        assert_eq!(thousands(999u64), "999");
        assert_eq!(count(1, "socket"), "1 socket");
        assert_eq!(count(30_112, "socket"), "30,112 sockets");
        assert_eq!(count(1, "process"), "1 process");
        assert_eq!(count(111, "process"), "111 processes");
        assert_eq!((percent(199, 200), percent(1, 0)), (99, 0));
    }
}
