//! Did you mean: the known names nearest to a mistyped word.

/// Longer words are no slip of a finger and not worth the time.
const LONGEST: usize = 48;

/// How many names are offered at most.
const OFFERED: usize = 3;

/// The names in `names` that `word` may have been meant to be, nearest first, at most three.
///
/// Case and the choice of `-` or `_` do not matter. A name is near if few letters are wrong for the word's length,
/// or if the word is the beginning of it.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let word = fold(word);
    if word.is_empty() || word.len() > LONGEST {
        return Vec::new();
    }
    let allowed = match word.len() {
        0..=3 => 1,
        4..=5 => 2,
        _ => 3,
    };
    let mut found: Vec<(usize, &str)> = Vec::new();
    for name in names {
        let folded = fold(name);
        let wrong = distance(&word, &folded);
        // A word of which nothing is left but the length is not a slip.
        // Of few letters the first is seldom the wrong one.
        let alike = word.len() > 3 || word.first() == folded.first();
        let slip = alike && wrong <= allowed && wrong < word.len().max(folded.len());
        let begun = word.len() >= 3 && folded.starts_with(&word);
        if (slip || begun) && !found.iter().any(|(_, known)| *known == name) {
            found.push((if begun { wrong.min(1) } else { wrong }, name));
        }
    }
    // What is clearly nearer drives out what is merely possible.
    let best = found.iter().map(|(wrong, _)| *wrong).min().unwrap_or(0);
    found.retain(|(wrong, _)| *wrong <= best + 1);
    found.sort_by_key(|(wrong, _)| *wrong);
    found
        .into_iter()
        .map(|(_, name)| name)
        .take(OFFERED)
        .collect()
}

fn fold(text: &str) -> Vec<char> {
    text.trim()
        .chars()
        .map(|c| if c == '_' { '-' } else { c })
        .flat_map(char::to_lowercase)
        .take(LONGEST + 1)
        .collect()
}

/// The least number of letters to insert, delete, replace or swap with their neighbour to get from `a` to `b`
/// (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut a_before = None;
    for (row, a_here) in a.iter().enumerate() {
        let mut here = Vec::with_capacity(b.len() + 1);
        here.push(row + 1);
        let mut b_before = None;
        for (column, b_here) in b.iter().enumerate() {
            let get = |line: &[usize], at: usize| line.get(at).copied().unwrap_or(usize::MAX / 2);
            let replaced = get(&last, column) + usize::from(a_here != b_here);
            let mut least = replaced
                .min(get(&last, column + 1) + 1)
                .min(get(&here, column) + 1);
            if a_before == Some(b_here) && b_before == Some(a_here) {
                least = least.min(get(&before_last, column.wrapping_sub(1)) + 1);
            }
            here.push(least);
            b_before = Some(b_here);
        }
        a_before = Some(a_here);
        before_last = std::mem::replace(&mut last, here);
    }
    last.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(a: &str, b: &str) -> usize {
        distance(&fold(a), &fold(b))
    }

    #[test]
    fn each_kind_of_slip_costs_one() {
        assert_eq!(wrong("listen", "listen"), 0);
        assert_eq!(wrong("lisen", "listen"), 1, "left out");
        assert_eq!(wrong("liisten", "listen"), 1, "too many");
        assert_eq!(wrong("lisfen", "listen"), 1, "wrong");
        assert_eq!(wrong("litsen", "listen"), 1, "swapped");
        assert_eq!(wrong("", "abc"), 3);
        assert_eq!(wrong("kitten", "sitting"), 3);
        assert_eq!(wrong("FIN_WAIT_2", "fin-wait-2"), 0);
    }

    #[test]
    fn the_nearest_name_comes_first_and_far_ones_not_at_all() {
        let names = ["status", "list", "diagnose", "watch", "check", "explain"];
        let table: &[(&str, &[&str])] = &[
            ("lsit", &["list"]),
            ("diag", &["diagnose"]),
            ("chekc", &["check"]),
            ("STATSU", &["status"]),
            ("explian", &["explain"]),
            ("nginx", &[]),
            ("", &[]),
            ("8080", &[]),
        ];
        for (word, expected) in table {
            assert_eq!(nearest(word, names), *expected, "{word}");
        }
    }

    #[test]
    fn short_words_are_near_to_few() {
        let names = ["tos", "dst", "src", "pid", "tcp", "state"];
        for (word, expected) in [
            ("foo", &[][..]),
            ("cmd", &[]),
            ("get", &[]),
            ("ost", &[]),
            ("tpc", &["tcp"]),
            ("dts", &["dst"]),
            ("sta", &["state"]),
        ] {
            assert_eq!(nearest(word, names), *expected, "{word}");
        }
    }

    #[test]
    fn names_as_near_are_offered_together_and_once() {
        assert_eq!(
            nearest("fin-wait-3", ["fin-wait-1", "fin-wait-2", "fin-wait-1"]),
            ["fin-wait-1", "fin-wait-2"]
        );
        let many: Vec<String> = (0..20).map(|n| format!("name{n}")).collect();
        assert_eq!(nearest("name", many.iter().map(String::as_str)).len(), 3);
    }

    #[test]
    fn a_word_of_any_length_and_kind_is_answered() {
        assert!(nearest(&"x".repeat(1 << 20), ["xxx"]).is_empty());
        assert!(nearest("\u{202e}\u{1b}[2J", ["list"]).is_empty());
        assert_eq!(nearest("lis\u{e9}", ["list"]), ["list"]);
    }
}
