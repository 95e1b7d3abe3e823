//! Colour, where it is wanted. Meaning never rests on it.

use crate::model::Severity;

/// Whether to colour.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paint(pub bool);

impl Paint {
    fn code(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A heading or name.
    pub fn bold(self, text: &str) -> String {
        self.code("1", text)
    }

    /// What may be passed over.
    pub fn dim(self, text: &str) -> String {
        self.code("2", text)
    }

    /// By severity.
    pub fn severity(self, severity: Severity, text: &str) -> String {
        match severity {
            Severity::Critical => self.code("1;31", text),
            Severity::Warning => self.code("1;33", text),
            Severity::Info => self.code("36", text),
        }
    }
}
