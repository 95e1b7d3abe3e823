//! A few sockets below a finding.

use super::cell;
use super::text::width;
use crate::fields::{self, NoNames, Record};
use crate::model::{AgeFacts, Attributes, Ends, Snapshot, words};

/// A few rows of a snapshot as lines below their heads, for a finding; its indent leaves no room for the long heads of
/// `list`.
pub fn sample(rows: &[u32], snapshot: &Snapshot) -> Vec<String> {
    const COLUMNS: [(&str, &str); 5] = [
        ("state", "State"),
        ("recv-q", "Recv-Q"),
        ("send-q", "Send-Q"),
        ("local", "Local"),
        ("peer", "Peer"),
    ];
    let ages = AgeFacts::new(&snapshot.facts);
    let attributes = Attributes::default();
    let heads = COLUMNS.iter().map(|(_, head)| (*head).to_owned());
    let mut lines: Vec<Vec<String>> = vec![heads.chain(["Age".to_owned()]).collect()];
    for socket in rows.iter().take(5).filter_map(|row| snapshot.socket(*row)) {
        let record = Record {
            socket,
            attributes: &attributes,
            ends: Ends::Ip,
            owners: None,
            ages: &ages,
            names: &NoNames,
        };
        let mut cells: Vec<String> = COLUMNS
            .iter()
            .filter_map(|(id, _)| fields::by_id(id).ok())
            .map(|field| {
                let mut cell = String::new();
                // Writing to a String does not fail.
                let _ = cell::write(&mut cell, &field.value(&record), false);
                cell
            })
            .collect();
        let age = snapshot.age(socket);
        cells.push(age.map_or(String::new(), |age| words::time(age.low_ms)));
        lines.push(cells);
    }
    if lines.len() == 1 {
        return Vec::new();
    }
    let aged = lines
        .iter()
        .skip(1)
        .any(|cells| cells.last().is_some_and(|age| !age.is_empty()));
    let longest: Vec<usize> = (0..=COLUMNS.len())
        .map(|at| {
            lines
                .iter()
                .filter_map(|cells| cells.get(at))
                .map(|cell| width(cell))
                .max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    let shown = if aged {
        COLUMNS.len() + 1
    } else {
        COLUMNS.len()
    };
    let line = |cells: &Vec<String>| {
        let mut line = String::new();
        for (cell, longest) in cells.iter().zip(&longest).take(shown) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(
                ' ',
                longest.saturating_sub(width(cell)) + 2,
            ));
        }
        line.trim_end().to_owned()
    };
    lines.iter().map(line).collect()
}
