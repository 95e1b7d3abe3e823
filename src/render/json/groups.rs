//! `linger.groups/1`: how many sockets there are of each kind.

use std::io::{self, Write};

use super::column::Column;
use super::{Head, Object, Tail, write_value};
use crate::fields::{Field, Record};
use crate::render::groups::{Counted, Group};

/// The schema of `list --group-by`.
pub const GROUPS: &str = "linger.groups/1";

/// What `columns` say of the row, as members of an object; none of them is longer than a row.
///
/// # Errors
/// None that a buffer has.
pub fn members(columns: &[&'static Field], record: &Record<'_>) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut object = Object::begin(&mut bytes)?;
    for field in columns {
        Column::new(field).write(&mut object, &field.value(record).grouped())?;
    }
    // Without the brace, which the counts follow.
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    Ok(text.strip_prefix('{').unwrap_or_default().to_owned())
}

fn write_group(out: &mut impl Write, group: &Group) -> io::Result<()> {
    let comma = if group.members.is_empty() { "" } else { "," };
    write!(
        out,
        "{{{}{comma}\"sockets\":{}}}",
        group.members, group.sockets
    )
}

/// Writes a document with what the groups were made by, all sockets, the groups, and what `--top` left out; without
/// `head`, a line for each group.
///
/// # Errors
/// Those of `out`.
pub fn write_groups(
    out: &mut impl Write,
    head: Option<&Head<'_>>,
    by: &[&'static Field],
    counted: &Counted,
    tail: &Tail<'_>,
) -> io::Result<()> {
    let Some(head) = head else {
        for group in &counted.groups {
            write_group(out, group)?;
            out.write_all(b"\n")?;
        }
        return Ok(());
    };
    let mut text = Vec::new();
    write_value(&mut text, head)?;
    text.pop();
    out.write_all(&text)?;
    let by: Vec<&str> = by.iter().map(|field| field.id).collect();
    out.write_all(b",\"by\":")?;
    write_value(out, &by)?;
    write!(out, ",\"total\":{},\"groups\":[", counted.total)?;
    for (at, group) in counted.groups.iter().enumerate() {
        out.write_all(if at == 0 { b"\n" } else { b",\n" })?;
        write_group(out, group)?;
    }
    write!(
        out,
        "\n],\"more\":{{\"groups\":{},\"sockets\":{}}}",
        counted.more_groups, counted.more_sockets
    )?;
    tail.write(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::tests::Fixture;
    use crate::fields::{all, by_id};
    use crate::render::groups::{Groups, Members};
    use crate::render::json::tests::head;
    use serde_json::{Value as Json, json};

    #[test]
    fn a_document_of_groups() {
        let by = ["state", "peer", "process"].map(|id| by_id(id).unwrap());
        let mut groups = Groups::new(by.to_vec(), Members::Json);
        for _ in 0..2 {
            Fixture::new().with(|record| groups.push(record)).unwrap();
        }
        let counted = groups.counted(None);
        let tail = Tail {
            complete: true,
            warnings: &[],
            ..Tail::default()
        };
        let mut out = Vec::new();
        write_groups(&mut out, Some(&head()), &by, &counted, &tail).unwrap();
        let document: Json = serde_json::from_slice(&out).unwrap();
        assert_eq!(document["by"], json!(["state", "peer", "process"]));
        assert_eq!(
            document["groups"],
            json!([{
                "state": "established", "peer_address": "10.0.0.7", "peer_port": 51_000,
                "owners": [{"pid": 101, "comm": "nginx"}], "sockets": 2,
            }])
        );
        assert_eq!(
            (&document["total"], &document["more"]["groups"]),
            (&json!(2), &json!(0))
        );
        let mut lines = Vec::new();
        write_groups(&mut lines, None, &by, &counted, &tail).unwrap();
        let line: Json = serde_json::from_slice(&lines).unwrap();
        assert_eq!(line["sockets"], 2);
    }

    #[test]
    fn every_column_can_be_grouped_by_and_is_json() {
        let mut fixture = Fixture::new();
        for absent in [false, true] {
            if absent {
                fixture.info.clear();
                fixture.memory.clear();
                fixture.socket.inode = 0;
            }
            for field in all() {
                let text = fixture.with(|record| members(&[field], record)).unwrap();
                let object: Json = serde_json::from_str(&format!("{{{text}}}")).unwrap();
                assert!(!object.as_object().unwrap().is_empty(), "{}", field.id);
            }
        }
    }
}
