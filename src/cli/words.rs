//! From the words as typed to a command: `linger -tlnp`, `linger 443`, `linger state close-wait` are short forms.

use std::ffi::OsString;

use clap::CommandFactory;

use super::args::Cli;

/// What the first word, or its absence, says.
#[derive(Debug, PartialEq, Eq)]
pub enum Intent {
    /// hand the arguments to clap as they now are
    Run(Vec<OsString>),
    /// a single word that is no command: a subject if there is such a thing, else a slip
    Word {
        /// the word
        word: String,
        /// the arguments with `subject` in front
        subject: Vec<OsString>,
        /// the arguments with `list` in front, where the word has blanks or operators and so may be a filter
        list: Option<Vec<OsString>>,
    },
}

/// Which options take a value, so that a value is not taken for a word.
struct Options {
    long: Vec<(String, bool)>,
    short: Vec<(char, bool)>,
}

impl Options {
    fn of(command: &clap::Command) -> Self {
        let (mut long, mut short) = (Vec::new(), Vec::new());
        for arg in command.get_arguments() {
            let takes = arg.get_action().takes_values();
            long.extend(arg.get_long().map(|name| (name.to_owned(), takes)));
            short.extend(arg.get_short().map(|name| (name, takes)));
        }
        Self { long, short }
    }

    fn long(&self, name: &str) -> Option<bool> {
        self.long
            .iter()
            .find(|(long, _)| long == name)
            .map(|(_, takes)| *takes)
    }

    fn short(&self, name: char) -> Option<bool> {
        self.short
            .iter()
            .find(|(short, _)| *short == name)
            .map(|(_, takes)| *takes)
    }

    fn has(&self, token: &str) -> bool {
        match token.strip_prefix("--") {
            Some(long) => self.long(long.split('=').next().unwrap_or(long)).is_some(),
            None => token.chars().skip(1).any(|c| self.short(c).is_some()),
        }
    }
}

/// The arguments of `check`, which has a parser of its own, if that is the command. Common options may stand before it.
pub fn check(arguments: &[OsString]) -> Option<Vec<OsString>> {
    if arguments.iter().all(|word| word != "check") {
        return None;
    }
    let cli = Cli::command();
    let status = Options::of(cli.find_subcommand("status")?);
    let mut at = 0;
    while let Some(text) = arguments.get(at).and_then(|word| word.to_str()) {
        if text == "check" {
            let mut rest = arguments.to_vec();
            rest.remove(at);
            return Some(rest);
        }
        let takes = match text.strip_prefix("--") {
            // What nobody knows is for the parser of `check` to say: a scheduler reads the exit code of the others as CRITICAL.
            Some(long) => !long.contains('=') && status.long(long).unwrap_or(false),
            // The value of a letter is what follows it, or the next word.
            None => {
                let letters = text.strip_prefix('-').filter(|rest| !rest.is_empty())?;
                let mut takes = false;
                for (place, letter) in letters.char_indices() {
                    if status.short(letter).unwrap_or(false) {
                        takes = place + letter.len_utf8() == letters.len();
                        break;
                    }
                }
                takes
            }
        };
        at += if takes { 2 } else { 1 };
    }
    None
}

/// Reads the arguments behind the program's name.
pub fn intent(arguments: Vec<OsString>) -> Intent {
    let cli = Cli::command();
    let options = |name: &str| cli.find_subcommand(name).map(Options::of);
    let (Some(list), Some(status), Some(diagnose), Some(kill)) = (
        options("list"),
        options("status"),
        options("diagnose"),
        options("kill"),
    ) else {
        return Intent::Run(arguments);
    };
    let takes = |long: Option<&str>, short: char| {
        let of = |o: &Options| long.map_or_else(|| o.short(short), |name| o.long(name));
        of(&list)
            .or_else(|| of(&status))
            .or_else(|| of(&diagnose))
            .or_else(|| of(&kill))
            .unwrap_or(false)
    };

    let takes_known = |short: char| {
        list.short(short)
            .or_else(|| status.short(short))
            .or_else(|| diagnose.short(short))
    };

    let mut words: Vec<usize> = Vec::new();
    let mut lists = false;
    let mut asks = false;
    let mut at = 0;
    while let Some(token) = arguments.get(at) {
        at += 1;
        let Some(text) = token.to_str() else {
            words.push(at - 1);
            continue;
        };
        if text == "--" {
            words.extend(at..arguments.len());
            break;
        }
        if let Some(long) = text.strip_prefix("--") {
            asks |= matches!(long, "help" | "version");
            if !long.contains('=') && takes(Some(long), ' ') {
                at += 1;
            }
        } else if text.len() > 1 && text.starts_with('-') {
            let mut letters = text.chars().skip(1).peekable();
            while let Some(letter) = letters.next() {
                asks |= matches!(letter, 'h' | 'V');
                if takes(None, letter) {
                    if letters.peek().is_none() {
                        at += 1;
                    }
                    break;
                }
            }
        } else {
            words.push(at - 1);
            continue;
        }
        // A letter that nobody knows is one of ss's: `list` is where it would belong.
        let stranger =
            !text.starts_with("--") && text.chars().skip(1).all(|c| takes_known(c).is_none());
        lists |= stranger || list.has(text) && !status.has(text) && !diagnose.has(text);
    }

    let with = |command: &str, without: Option<usize>| {
        let kept = arguments
            .iter()
            .enumerate()
            .filter(|(index, _)| Some(*index) != without);
        let mut all = vec![OsString::from(command)];
        all.extend(kept.map(|(_, argument)| argument.clone()));
        all
    };
    let Some(first) = words.first().copied() else {
        return Intent::Run(match (asks, lists) {
            (true, _) => arguments,
            (false, true) => with("list", None),
            (false, false) => with("status", None),
        });
    };
    let word = arguments
        .get(first)
        .and_then(|word| word.to_str())
        .unwrap_or_default();
    if cli
        .get_subcommands()
        .any(|command| command.get_name() == word)
    {
        return Intent::Run(with(word, Some(first)));
    }
    if word == "help" {
        let mut rest = with("help", Some(first)).split_off(1);
        rest.push(OsString::from("--help"));
        return Intent::Run(rest);
    }
    // A filter has several words, and options of `list` say that rows are wanted.
    let clause = ["state", "exclude", "excl", "autobound"].contains(&word);
    if words.len() > 1 || lists || clause {
        return Intent::Run(with("list", None));
    }
    // Blanks or operators within the word: a quoted filter, or a program like `tmux: server`.
    let filter = word.contains(|c: char| c.is_whitespace() || "=<>!~()".contains(c));
    Intent::Word {
        word: word.to_owned(),
        subject: with("subject", None),
        list: filter.then(|| with("list", None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> String {
        let arguments = line
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(OsString::from)
            .collect();
        match intent(arguments) {
            Intent::Run(arguments) => arguments
                .iter()
                .map(|a| a.to_string_lossy())
                .collect::<Vec<_>>()
                .join(" "),
            Intent::Word { word, .. } => format!("word {word}"),
        }
    }

    #[test]
    fn short_forms_become_commands() {
        let table = [
            ("", "status"),
            ("-j", "status -j"),
            ("--only close-wait-leak", "status --only close-wait-leak"),
            ("-tlnp", "list -tlnp"),
            ("-tan4", "list -tan4"),
            ("-4", "list -4"),
            ("-x", "list -x"),
            ("help", "--help"),
            ("state", "list state"),
            ("autobound", "list autobound"),
            ("-F web.filter", "list -F web.filter"),
            ("--filter=- -tan", "list --filter=- -tan"),
            ("help diagnose", "diagnose --help"),
            ("-uln", "list -uln"),
            ("state close-wait", "list state close-wait"),
            (
                "-tan state close-wait --json",
                "list -tan state close-wait --json",
            ),
            ("--from f.linger list -t", "list --from f.linger -t"),
            ("--json diagnose", "diagnose --json"),
            ("diagnose --samples 3", "diagnose --samples 3"),
            ("--help", "--help"),
            ("443", "word 443"),
            (":443", "word :443"),
            ("nginx --json", "word nginx"),
            ("--from x nginx", "word nginx"),
            ("--from=x nginx", "word nginx"),
            ("-p nginx", "list -p nginx"),
            ("list diagnose", "list diagnose"),
            (
                "kill state close-wait dport = :443 --yes",
                "kill state close-wait dport = :443 --yes",
            ),
            (
                "--state-dir x kill -u dst ::1",
                "kill --state-dir x -u dst ::1",
            ),
            ("list kill", "list kill"),
        ];
        for (typed, meant) in table {
            assert_eq!(run(typed), meant, "{typed}");
        }
    }
}
