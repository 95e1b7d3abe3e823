//! Everything that is known of one socket, as lines.

use crate::fields::{self, Record};
use crate::knowledge::{Scene, tell};
use crate::model::owner::unit_of;
use crate::model::words::{count, time};
use crate::model::{Socket, TcpState, Timer};
use crate::render::cell;
use crate::render::findings::Screen;
use crate::render::paint::Paint;
use crate::render::story::story_text;
use crate::render::text::{self, Safe, wrap};
use crate::tui::cursor::Cursor;
use crate::tui::look::{Look, Row};
use crate::tui::tabs::View;

/// Where the text begins, after its label: as in a story.
const LABEL: usize = 11;
/// From so many columns on attributes stand in two columns.
const TWO: usize = 72;

/// The pane of one socket.
#[derive(Clone, Debug, Default)]
pub(super) struct Detail {
    /// its lines, and whether each is a heading; safe to print
    pub(super) lines: Vec<(bool, String)>,
    pub(super) cursor: Cursor,
    /// what it was like in the last look that had it
    pub(super) last: Option<(jiff::Timestamp, TcpState)>,
    /// looks that had it and told no more of it than of others
    brief: u8,
}

impl Detail {
    /// What there is to say of the socket in `row` in lines of `width` columns; of none, that it is gone.
    pub(super) fn fill(&mut self, row: Option<Row>, width: usize, fresh: bool, view: &View<'_>) {
        let look = view.look;
        let Some((row, socket)) = row.and_then(|row| Some((row, look.socket(row)?))) else {
            self.lines = self.gone(width, view);
            return;
        };
        let place = look.place(row);
        let whole = place.is_some_and(|place| place.snapshot.messages.of(row.row).is_some());
        if whole {
            self.brief = 0;
        } else if fresh {
            self.brief = self.brief.saturating_add(1);
        }
        self.last = Some((look.taken, socket.state.shown()));
        // The look that was on its way when it was opened, and the one that was asked for; a frame is read at once.
        let asked = if look.frame.is_some() { 1 } else { 2 };
        let missing = match (whole, socket.cookie, self.brief) {
            (true, ..) => None,
            (_, None, _) => Some("/proc/net tells no more of it"),
            (.., looks) if looks < asked => Some("details come with the next look"),
            _ => Some("no more is told of it here"),
        };
        self.lines = look
            .record(row, |record| lines(look, row, record, width, view))
            .unwrap_or_default();
        self.lines.push((false, String::new()));
        self.lines
            .extend(missing.map(|text| (true, text.to_owned())));
        let all = look.record(row, |record| attributes(record, width));
        self.lines.extend(all.unwrap_or_default());
    }

    fn gone(&self, width: usize, view: &View<'_>) -> Vec<(bool, String)> {
        let text = match self.last {
            Some((at, state)) => format!(
                "This socket is gone. It was last seen in {state} at {}: {}.",
                at.to_zoned(view.zone.clone()).strftime("%H:%M:%S"),
                super::follow::meaning(state)
            ),
            None => "This socket is gone.".to_owned(),
        };
        let text = wrap(&text, width, 0);
        text.lines().map(|line| (false, line.to_owned())).collect()
    }
}

fn lines(
    look: &Look,
    row: Row,
    record: &Record<'_>,
    width: usize,
    view: &View<'_>,
) -> Vec<(bool, String)> {
    let socket = record.socket;
    let mut lines = vec![(
        true,
        format!("{}  {}", socket.state, super::follow::ends(look, row)),
    )];
    let mut pair = |label: &str, text: &str| {
        let text = wrap(text, width, LABEL);
        for (at, line) in text.lines().enumerate() {
            let label = if at == 0 { label } else { "" };
            lines.push((false, format!("{label:<LABEL$}{}", line.trim_start())));
        }
    };
    pair("held by", &holders(record));
    pair("reading", &receiving(socket));
    pair("sending", &sending(socket));
    if let Some(text) = timer(socket) {
        pair("timer", &text);
    }
    lines.extend(story(look, row, socket, width, view));
    lines
}

/// Every process with its descriptors, and whose they are.
fn holders(record: &Record<'_>) -> String {
    let mut text = String::new();
    let Some(holders) = record.holders() else {
        return "nobody looked".to_owned();
    };
    // Writing to a String does not fail.
    let _ = cell::write(&mut text, &fields::Value::Owners(holders), true);
    if let Some(unit) = record.cgroup().and_then(unit_of) {
        text.push_str(&format!("; unit {}", Safe(unit)));
    }
    for id in ["container", "pod", "user"] {
        let Ok(field) = fields::by_id(id) else {
            continue;
        };
        let value = field.value(record);
        if value != fields::Value::Absent {
            text.push_str(&format!("; {id} "));
            let _ = cell::write(&mut text, &value, false);
        }
    }
    text
}

/// What lies in the receive queue means.
fn receiving(socket: &Socket) -> String {
    let queue = u64::from(socket.recv_q);
    let bytes = |n: u64| count(n, "byte");
    match (socket.state, queue) {
        (TcpState::Listen, n) => {
            let of = socket.backlog().map_or(String::new(), |backlog| {
                format!(", of {} at most", count(backlog.into(), "connection"))
            });
            let wait = if n == 1 { "waits" } else { "wait" };
            format!("{} {wait} for accept(){of}", count(n, "connection"))
        }
        (TcpState::CloseWait, 0) => {
            "everything was read, the peer's FIN too: the program knows of the end and has not closed"
                .to_owned()
        }
        (TcpState::CloseWait, 1) => {
            "nothing but the peer's FIN waits to be read: the program has not looked since"
                .to_owned()
        }
        (TcpState::CloseWait, n) => format!(
            "{} and behind them the peer's FIN wait to be read: the program does not read",
            bytes(n - 1)
        ),
        (_, 0) => "nothing waits to be read".to_owned(),
        (TcpState::LastAck | TcpState::Closing, n) => {
            format!("{} came and nobody will read them; an unread FIN counts 1", bytes(n))
        }
        (_, n) => format!("{} came that the program has not read", bytes(n)),
    }
}

/// What lies in the send queue means.
fn sending(socket: &Socket) -> String {
    let queue = u64::from(socket.send_q);
    let bytes = count(queue, "byte");
    match (socket.state, queue) {
        (TcpState::Listen, _) => "a listener sends nothing".to_owned(),
        (TcpState::SynSent, _) => "the SYN is not answered".to_owned(),
        (TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck, n) if n > 0 => {
            format!("{bytes} not acknowledged, the FIN counts 1 of them")
        }
        (_, 0) => "nothing waits for an acknowledgement".to_owned(),
        _ => format!("{bytes} written that the peer has not acknowledged"),
    }
}

/// Which timer runs, and what it will do.
fn timer(socket: &Socket) -> Option<String> {
    let due = time(socket.timer_ms.into());
    let so_far = |what: &str| match socket.retransmits {
        0 => String::new(),
        n => format!(", {} so far", count(n.into(), what)),
    };
    Some(match socket.timer {
        Timer::None => return None,
        Timer::Retransmit => format!("sends again in {due}{}", so_far("retransmission")),
        Timer::Keepalive if socket.state == TcpState::FinWait2 => {
            format!("waits {due} more for the peer's FIN")
        }
        Timer::Keepalive => format!("keepalive in {due}{}", so_far("unanswered probe")),
        Timer::TimeWait => format!("the kernel removes it in {due}"),
        Timer::Persist => format!(
            "asks for room in the peer's window in {due}{}",
            so_far("unanswered probe")
        ),
        Timer::Unknown(number) => format!("number {number}, due in {due}"),
    })
}

fn story(
    look: &Look,
    row: Row,
    socket: &Socket,
    width: usize,
    view: &View<'_>,
) -> Vec<(bool, String)> {
    let Some(place) = look.place(row) else {
        return Vec::new();
    };
    let listens =
        |other: &Socket| other.state == TcpState::Listen && other.local.port == socket.local.port;
    let info = place.snapshot.info(socket);
    let scene = Scene {
        info: info.as_ref(),
        facts: &place.snapshot.facts,
        listened: Some(place.snapshot.sockets.iter().any(listens)),
    };
    let Some(story) = tell(socket, scene) else {
        return vec![(false, "a state that linger does not know".to_owned())];
    };
    let screen = Screen {
        width,
        unicode: view.theme.unicode,
        paint: Paint(false),
    };
    let mut out = Vec::new();
    // Writing to a Vec does not fail.
    let _ = story_text("", &story, screen, &mut out);
    let text = String::from_utf8(out).unwrap_or_default();
    // The head stands above already.
    let lines = text.lines().skip(1);
    lines.map(|line| (false, line.to_owned())).collect()
}

/// Every column that says something, with its unit.
fn attributes(record: &Record<'_>, width: usize) -> Vec<(bool, String)> {
    let mut known = Vec::new();
    for field in fields::all() {
        let value = field.value(record);
        if value == fields::Value::Absent {
            continue;
        }
        let mut text = String::new();
        let _ = cell::write(&mut text, &value, true);
        // An age has its unit in its text already.
        if let (Some(unit), false) = (field.unit, field.id == "age") {
            text.push(' ');
            text.push_str(unit);
        }
        known.push((field.id, text));
    }
    let label = known.iter().map(|(id, _)| id.len()).max().unwrap_or(0) + 2;
    let one = |(id, text): &(&str, String)| format!("{id:<label$}{text}");
    if width < TWO {
        return known.iter().map(|pair| (false, one(pair))).collect();
    }
    let half = width / 2;
    let mut lines: Vec<(bool, String)> = Vec::new();
    let mut open: Option<String> = None;
    for pair in &known {
        let text = one(pair);
        match open.take() {
            Some(first) if text::width(&text) < half => {
                let gap = half.saturating_sub(text::width(&first));
                lines.push((false, format!("{first}{}{text}", " ".repeat(gap))));
            }
            first => {
                lines.extend(first.map(|first| (false, first)));
                if text::width(&text) < half {
                    open = Some(text);
                } else {
                    lines.push((false, text));
                }
            }
        }
    }
    lines.extend(open.map(|text| (false, text)));
    lines
}
