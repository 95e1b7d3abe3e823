//! What `linger watch --help` and the manual page say beyond the options: keys from the table that the dashboard obeys,
//! what is printed when it ends, which files it writes, what signals do.

use std::io;

use super::EXAMPLES;
use crate::cli::man::{again, item, paragraph, section, subsection};
use crate::tui::dialogs::help;
use crate::tui::keys;
use crate::tui::tabs::TabId;

/// What stands below the options of `--help`: the keys, and then what `-h` has too.
pub fn long_help() -> String {
    let keys = help::lines().into_iter().map(|(heading, line)| {
        if heading {
            format!("Keys, {line}:\n")
        } else {
            format!("{line}\n")
        }
    });
    keys.chain([format!("\n{EXAMPLES}")]).collect()
}

/// The sections of the manual page before its examples.
pub fn write(out: &mut Vec<u8>) -> io::Result<()> {
    tabs(out)?;
    section(out, "KEYS")?;
    paragraph(
        out,
        "? shows them on the screen. Keys on one line do the same; ^C is Ctrl and c, S-Tab is Shift and Tab, a capital is \
        Shift and the letter. The mouse chooses tabs and lines, and its wheel moves, unless --no-mouse leaves it to the terminal.",
    )?;
    for (scope, bindings) in keys::by_scope() {
        subsection(out, scope.heading())?;
        for binding in bindings {
            item(out, &keys::names(binding), binding.help)?;
        }
    }
    Ok(())
}

fn tabs(out: &mut Vec<u8>) -> io::Result<()> {
    section(out, "TABS")?;
    for tab in TabId::ALL {
        item(out, tab.slug(), answers(tab))?;
    }
    Ok(())
}

/// What a tab is for.
const fn answers(tab: TabId) -> &'static str {
    match tab {
        TabId::Overview => {
            "What is wrong here, and since when? The states, each with its change since the last look and its last five \
            minutes; the findings; listeners by their queues; the programs and peers with most sockets; and what could not be seen."
        }
        TabId::Machine => {
            "Where do connections get stuck? The state machine of TCP with the number of sockets in each state, and how many \
            took which way since the last look. What is chosen is explained."
        }
        TabId::Sockets => {
            "Which sockets are these? Rows with a filter, an order, columns and groups of one's own; the details of one, and \
            one followed until it is gone; the end of some, after a preview."
        }
        TabId::Findings => {
            "What does it mean, who must act, and what next? Every finding in full, as diagnose has it, and the way to the \
            sockets behind it."
        }
        TabId::Closings => {
            "Who closes, how often, and who does not? Closes by the second, from the time that TIME-WAIT sockets have left, \
            and how long what awaits a close has waited."
        }
    }
}

/// What the exit status means here, and the sections behind it.
pub fn end(out: &mut Vec<u8>) -> io::Result<()> {
    paragraph(
        out,
        "0 if it was left by a key or a signal, or has printed its frames; 1 if there is no terminal, or the machine or the \
        recording cannot be read; 2 for wrong usage.",
    )?;
    again(
        out,
        "A view that is partial for lack of privileges is no failure: the screen says what it does not show, and JSON has \
        \"complete\": false.",
    )?;
    section(out, "SIGNALS")?;
    for (name, doc) in [
        (
            "SIGINT, SIGTERM, SIGHUP, SIGQUIT",
            "The dashboard ends, as by q, and the terminal is as it was before. A terminal that is closed ends it too. --batch \
            is ended by them as any program is.",
        ),
        (
            "SIGTSTP, SIGCONT",
            "It stops, with the terminal as it was before, and draws anew when it goes on.",
        ),
        ("SIGWINCH", "It fits itself to the new size."),
    ] {
        item(out, name, doc)?;
    }
    section(out, "FILES")?;
    item(
        out,
        "kill-DATETTIMEZ.linger",
        "The capture that is written before sockets are destroyed, with their owners: into $STATE_DIRECTORY, else \
        /var/lib/linger for root, else $XDG_STATE_HOME/linger or ~/.local/state/linger. Where it cannot be written nothing \
        is destroyed. linger-kill(8) has the rules.",
    )?;
    item(
        out,
        "linger-DATE-TIME-TAB.json",
        "What e proposes to write, in the working directory: what the tab shows, as JSON. Another name that ends in .linger \
        makes it a capture of the machine. What exists is not written over, and only its owner may read it.",
    )
}
