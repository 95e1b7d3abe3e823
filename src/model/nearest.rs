//! What was probably meant by a misspelt word.

/// The names nearest to `word`, best first, at most three; none if nothing is near. Case does not matter, and `-` and
/// `_` are the same.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    // Longer than any name; the cost is quadratic.
    const LONGEST: usize = 64;
    let word = fold(word);
    if word.is_empty() || word.len() > LONGEST {
        return Vec::new();
    }
    let limit = (word.len() / 3).max(1);
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let folded = fold(name);
            let distance = distance(&word, &folded);
            let begins = word.len() >= 3 && folded.starts_with(&word);
            (distance <= limit || begins)
                .then_some((distance.min(if begins { limit } else { distance }), name))
        })
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    near.dedup_by_key(|(_, name)| *name);
    near.into_iter().map(|(_, name)| name).take(3).collect()
}

fn fold(text: &str) -> Vec<char> {
    text.chars()
        .flat_map(char::to_lowercase)
        .map(|c| if c == '_' { '-' } else { c })
        .collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (row, &x) in a.iter().enumerate() {
        let mut current = Vec::with_capacity(last.len());
        current.push(row + 1);
        let mut left = row + 1;
        let mut other = None;
        for (column, &y) in b.iter().enumerate() {
            let at =
                |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&last, column) + usize::from(x != y);
            let mut best = replaced.min(at(&last, column + 1) + 1).min(left + 1);
            if previous == Some(y) && other == Some(x) {
                best = best.min(at(&before, column.saturating_sub(1)) + 1);
            }
            current.push(best);
            left = best;
            other = Some(y);
        }
        previous = Some(x);
        before = std::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = [
        "listen",
        "closing",
        "close-wait",
        "time-wait",
        "established",
    ];

    #[test]
    fn slips_of_the_fingers_are_recognised() {
        let table: &[(&str, &str)] = &[
            ("lisen", "listen"),
            ("litsen", "listen"),
            ("LISTENN", "listen"),
            ("close_wiat", "close-wait"),
            ("timewait", "time-wait"),
            ("estab", "established"),
        ];
        for (word, meant) in table {
            assert_eq!(nearest(word, NAMES).first(), Some(meant), "{word}");
        }
    }

    #[test]
    fn what_is_far_is_not_offered() {
        assert!(nearest("dport", NAMES).is_empty());
        assert!(nearest("", NAMES).is_empty());
        assert!(nearest(&"l".repeat(1 << 20), NAMES).is_empty());
    }

    #[test]
    fn a_swap_counts_once() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("ab"), &chars("ba")), 1);
        assert_eq!(distance(&chars("abc"), &chars("")), 3);
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
    }
}
