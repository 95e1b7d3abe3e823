//! The help: the table of keys, as it is.

use crate::tui::keys::{self, BINDINGS, Scope};

/// The lines of the help: headings, and keys with what they do.
pub fn lines() -> Vec<(bool, String)> {
    let mut lines = Vec::new();
    for scope in Scope::ALL {
        if !lines.is_empty() {
            lines.push((false, String::new()));
        }
        lines.push((true, scope.heading().to_owned()));
        for binding in BINDINGS.iter().filter(|binding| binding.scope == scope) {
            lines.push((
                false,
                format!("  {:<12}{}", keys::names(binding), binding.help),
            ));
        }
    }
    lines
}
