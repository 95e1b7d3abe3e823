//! When a limit will be reached, at the pace of what was seen.

use crate::model::Evidence;

/// Seconds until `limit` is reached if it goes on as it went from `before` to `now` in `window` seconds. `None`: it
/// does not grow, is there already, or nothing was seen of time.
pub fn seconds_left(before: f64, now: f64, window: f64, limit: f64) -> Option<f64> {
    let rate = (now - before) / window;
    (window > 0.0 && rate > 0.0 && now < limit).then(|| (limit - now) / rate)
}

/// The same as evidence, where it is a time that concerns anybody: within a day.
pub fn evidence(
    name: &'static str,
    (before, now): (u64, u64),
    window: f64,
    limit: u64,
    source: &'static str,
) -> Option<Evidence> {
    let left = seconds_left(before as f64, now as f64, window, limit as f64)?;
    (left <= 86_400.0).then(|| Evidence::real(name, left, "s", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_towards_its_limit_has_a_time_left() {
        assert_eq!(seconds_left(10.0, 20.0, 5.0, 100.0), Some(40.0));
        assert_eq!(seconds_left(20.0, 20.0, 5.0, 100.0), None);
        assert_eq!(seconds_left(20.0, 10.0, 5.0, 100.0), None);
        assert_eq!(seconds_left(10.0, 100.0, 5.0, 100.0), None, "it is there");
        assert_eq!(seconds_left(10.0, 20.0, 0.0, 100.0), None);
        assert_eq!(
            evidence("x", (0, 1), 1.0, 86_401, "y").map(|e| e.name),
            Some("x")
        );
        assert_eq!(
            evidence("x", (0, 1), 1.0, 86_402, "y"),
            None,
            "more than a day"
        );
    }
}
