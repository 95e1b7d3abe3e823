//! What is answered to the dialog that is open.

use super::App;
use crate::query::Filter;
use crate::render::text::wrap;
use crate::tui::dialogs::{self, Asking, Dialog, Prompt};
use crate::tui::keys::Action;
use crate::tui::msg::Effect;

impl App {
    /// What a key means to the dialog that is open.
    pub(super) fn answer(&mut self, action: Action) -> Vec<Effect> {
        let page = usize::from(self.layout().body.height);
        let Some(dialog) = &mut self.dialog else {
            return Vec::new();
        };
        match (dialog, action) {
            // What comes of it will be said here.
            (Dialog::Sure(sure), Action::Cancel) if sure.is_waiting() => {}
            (_, Action::Cancel) => {
                self.dialog = None;
                // Names that are still being looked up for it change nothing any more.
                self.awaited = None;
            }
            (Dialog::Prompt(prompt), Action::Accept) => {
                let (asking, text) = (prompt.asking, prompt.line.text().to_owned());
                return self.accept(asking, text);
            }
            (Dialog::Prompt(prompt), Action::Earlier | Action::Later) => {
                prompt.recall(action == Action::Earlier, &self.typed);
            }
            (Dialog::Prompt(prompt), action) => prompt.act(action),
            (Dialog::Menu(menu), Action::Accept) => {
                let (question, chosen) = (menu.question, menu.chosen());
                self.dialog = None;
                self.sockets.chose(question, &chosen);
                self.refit();
            }
            (Dialog::Menu(menu), action) => menu.act(action, page),
            (Dialog::Sure(sure), Action::Accept) => {
                if sure.is_done() {
                    self.dialog = None;
                } else if let Some(doomed) = sure.agreed() {
                    return vec![Effect::Kill(doomed)];
                }
            }
            (Dialog::Sure(sure), action) => sure.act(action, page),
            (Dialog::Help(cursor), action) => {
                cursor.scroll(action, dialogs::help::lines().len(), page.saturating_sub(2));
            }
        }
        Vec::new()
    }

    fn accept(&mut self, asking: Asking, text: String) -> Vec<Effect> {
        match asking {
            Asking::Filter => match Filter::parse(std::slice::from_ref(&text)) {
                Ok(filter) => {
                    self.awaited = Some(text.clone());
                    return vec![Effect::Resolve { text, filter }];
                }
                Err(error) => {
                    let width = self.columns();
                    let hint = wrap(&format!("hint: {}", error.hint()), width, 0);
                    let said = format!("{error}\n{hint}");
                    self.ask(Asking::Filter, &text, Some(said));
                }
            },
            Asking::Sort => match self.sockets.sort_by(text.trim()) {
                Ok(()) => {
                    self.remember(asking, &text);
                    self.dialog = None;
                    self.refit();
                }
                Err(error) => self.ask(asking, &text, Some(error)),
            },
            Asking::Export => {
                self.remember(asking, &text);
                self.dialog = None;
                if !text.trim().is_empty() {
                    return vec![Effect::Export(text.trim().to_owned())];
                }
            }
            Asking::Seek => {
                let frame = self
                    .look
                    .as_ref()
                    .and_then(|look| Some((look.frame?, look.taken)));
                match frame.map(|frame| dialogs::seek(text.trim(), frame, &self.setup.zone)) {
                    Some(Ok(seek)) => {
                        self.remember(asking, &text);
                        self.dialog = None;
                        return vec![Effect::Seek(seek)];
                    }
                    Some(Err(error)) => self.ask(asking, &text, Some(error)),
                    None => self.dialog = None,
                }
            }
        }
        Vec::new()
    }

    pub(super) fn ask(&mut self, asking: Asking, text: &str, error: Option<String>) {
        self.dialog = Some(Dialog::Prompt(Prompt::new(asking, text, error)));
    }

    pub(super) fn remember(&mut self, asking: Asking, text: &str) {
        let entry = (asking, text.to_owned());
        if !text.is_empty() && self.typed.last() != Some(&entry) {
            self.typed.push(entry);
        }
    }
}
