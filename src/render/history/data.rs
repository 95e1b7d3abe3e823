//! What is kept between runs, for programs: the parts of `linger.history/1`, and CSV.

use std::io::{self, Write};

use serde::Serialize;

use crate::model::{Series, Severity, Transition};
use crate::render::csv::write_cell;

/// One measure.
#[derive(Debug, Serialize)]
pub struct Measure<'a> {
    name: &'a str,
    points: Vec<Point>,
}

#[derive(Debug, Serialize)]
struct Point {
    taken: String,
    value: f64,
    boot: u32,
}

/// A finding that began, changed or ended.
#[derive(Debug, Serialize)]
pub struct Change<'a> {
    taken: String,
    id: &'a str,
    subject: &'a str,
    from: Option<Severity>,
    to: Option<Severity>,
    title: &'a str,
}

/// `measures` of the document.
pub fn measures(all: &[Series]) -> Vec<Measure<'_>> {
    let points = |series: &Series| {
        let points = series.points.iter().map(|point| Point {
            taken: point.taken.to_string(),
            value: point.value,
            boot: point.boot,
        });
        points.collect()
    };
    let each = all.iter().map(|series| Measure {
        name: &series.name,
        points: points(series),
    });
    each.collect()
}

/// `transitions` of the document.
pub fn changes(all: &[Transition]) -> Vec<Change<'_>> {
    let each = all.iter().map(|transition| Change {
        taken: transition.taken.to_string(),
        id: &transition.id,
        subject: &transition.subject,
        from: transition.from,
        to: transition.to,
        title: &transition.title,
    });
    each.collect()
}

/// One line for each value: when, what, how much, of which boot. `terminal`: for eyes, so that no name may steer it.
///
/// # Errors
/// Those of the writer.
pub fn values_csv(all: &[Series], terminal: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "taken,measure,value,boot")?;
    for series in all {
        for point in &series.points {
            write!(out, "{},", point.taken)?;
            write_cell(out, &series.name, terminal)?;
            writeln!(out, ",{},{}", point.value, point.boot)?;
        }
    }
    Ok(())
}

/// One line for each change of a finding.
///
/// # Errors
/// Those of the writer.
pub fn changes_csv(all: &[Transition], terminal: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "taken,id,subject,from,to,title")?;
    for transition in all {
        let name = |severity: Option<Severity>| severity.map_or("", Severity::name);
        write!(out, "{},", transition.taken)?;
        write_cell(out, &transition.id, terminal)?;
        write!(out, ",")?;
        write_cell(out, &transition.subject, terminal)?;
        write!(out, ",{},{},", name(transition.from), name(transition.to))?;
        write_cell(out, &transition.title, terminal)?;
        writeln!(out)?;
    }
    Ok(())
}
