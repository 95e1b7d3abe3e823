//! Where the parts of a capture are: one walk over its headers when it is opened.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Error;
use super::format::{Asked, Kind, Origin};
use super::sections::{Section, Sections};
use crate::model::words::count;
use crate::model::{Coverage, Cpu, Facts, Owners, Unlisted};

/// One sample: where its parts are.
#[derive(Debug, Default)]
pub struct Sample {
    pub taken: Timestamp,
    pub asked: Option<Asked>,
    /// netlink data and tables, in the order of the file
    pub tables: Vec<Section>,
    pub owners: Option<Section>,
    pub unlisted: Option<Section>,
    pub cpu: Option<Section>,
    pub facts: Option<Section>,
    pub coverage: Option<Section>,
}

impl Sample {
    /// The parts that are no dump.
    fn structures(&self) -> impl Iterator<Item = Section> {
        let all = [
            self.owners,
            self.unlisted,
            self.cpu,
            self.facts,
            self.coverage,
        ];
        all.into_iter().flatten()
    }

    /// Checks that its structures, and with `dumps` the dumps too, have the bytes that were written.
    pub fn verify(&self, sections: &mut Sections, dumps: bool) -> Result<(), Error> {
        let dumps = if dumps { &self.tables[..] } else { &[] };
        for part in self.structures().chain(dumps.iter().copied()) {
            sections.verify(&part)?;
        }
        Ok(())
    }
}

/// What the walk has found.
#[derive(Debug, Default)]
pub struct Index {
    pub origin: Origin,
    pub samples: Vec<Sample>,
    /// what is to be said of the end of a sequence that is not whole
    pub torn: Option<String>,
}

impl Index {
    /// Walks the whole file once. What follows the last whole frame of a sequence is left out and said.
    pub fn read(sections: &mut Sections) -> Result<Self, Error> {
        let mut walk = Walk::default();
        let mut torn = None;
        loop {
            match walk.step(sections) {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) if walk.may_end() && is_damage(&error) => {
                    torn = walk.torn(&error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let origin = walk.origin.take().unwrap_or_default();
        if !origin.sequence {
            for sample in &walk.samples {
                decode(sections, sample)?;
            }
        } else {
            walk.samples.truncate(walk.ends.len());
            walk.last(sections, &mut torn)?;
        }
        Ok(Self {
            origin,
            samples: walk.samples,
            torn,
        })
    }
}

/// Where the walk is.
#[derive(Debug, Default)]
struct Walk {
    origin: Option<Origin>,
    samples: Vec<Sample>,
    /// behind each whole frame of a sequence: where, and how many bytes of the file are left
    ends: Vec<(u64, u64)>,
    /// sections so far
    count: u32,
}

impl Walk {
    fn is_sequence(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.sequence)
    }

    /// Whether there is something to read whatever comes next.
    const fn may_end(&self) -> bool {
        !self.ends.is_empty()
    }

    /// The next section. `true` if it was the last one.
    fn step(&mut self, sections: &mut Sections) -> Result<bool, Error> {
        let section = sections.next(self.count)?;
        let kind = sections.known(&section)?;
        let sequence = self.is_sequence();
        // Whatever is between two frames belongs to none.
        let between = sequence && self.samples.len() == self.ends.len();
        match (kind, &self.origin, self.samples.last_mut()) {
            (None, ..) => sections.verify(&section)?, // of a later version
            (Some(Kind::Host), None, _) => self.origin = Some(host(sections, &section)?),
            (Some(Kind::Host), Some(_), _) => return sections.wrong(&section, "it is there twice"),
            (Some(_), None, _) => return sections.wrong(&section, "it comes before the host"),
            (Some(Kind::Sample), ..) => {
                if sequence && !between {
                    return sections.wrong(&section, "the frame before it has no end");
                }
                let taken = sections.payload(&section)?.try_into();
                let Ok(taken) = taken.map(i64::from_le_bytes) else {
                    return sections.wrong(&section, "it is no time");
                };
                self.samples.push(Sample {
                    taken: timestamp(taken),
                    ..Sample::default()
                });
            }
            (Some(Kind::End), _, last) => {
                let sound = last.is_some();
                if sections.payload(&section)? != self.count.to_le_bytes() {
                    return sections.wrong(&section, "it names another number of sections");
                }
                if !sections.at_end() {
                    return sections.wrong(&section, "something follows it");
                }
                if !sound {
                    return sections.wrong(&section, "the capture has no sample");
                }
                if sequence && !between {
                    return sections.wrong(&section, "the frame before it has no end");
                }
                return Ok(true);
            }
            // Without a sequence it means nothing.
            (Some(Kind::Frame), ..) if !sequence => sections.verify(&section)?,
            (Some(_), _, None) => {
                return sections.wrong(&section, "it comes before the first sample");
            }
            (Some(_), ..) if between => {
                return sections.wrong(&section, "it comes between two frames");
            }
            (Some(Kind::Frame), ..) => {
                if sections.payload(&section)? != self.count.to_le_bytes() {
                    return sections.wrong(&section, "it names another number of sections");
                }
                self.ends.push(sections.rest());
            }
            (Some(kind), _, Some(sample)) => place(sections, sample, kind, section)?,
        }
        self.count += 1;
        Ok(false)
    }

    /// What to say where the walk cannot go on. A sequence that nobody ended, and that ends behind a frame, is whole.
    fn torn(&self, error: &Error) -> Option<String> {
        let (at, left) = self.ends.last()?;
        let why = match error {
            _ if *left == 0 => return None,
            Error::Corrupt { why, .. } => format!("damaged: {why}"),
            _ => "cut off or still being recorded".to_owned(),
        };
        Some(left_out(self.ends.len(), *at, *left, &why))
    }

    /// Leaves out the last frames as long as their bytes are not those that were written.
    fn last(&mut self, sections: &mut Sections, torn: &mut Option<String>) -> Result<(), Error> {
        while let Some(sample) = self.samples.last() {
            match sample.verify(sections, true) {
                Ok(()) => break,
                Err(error) if self.samples.len() > 1 && is_damage(&error) => {
                    self.samples.pop();
                    self.ends.pop();
                    if let Some((at, left)) = self.ends.last() {
                        let why = format!("damaged: {error}");
                        *torn = Some(left_out(self.ends.len(), *at, *left, &why));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn left_out(frames: usize, at: u64, left: u64, why: &str) -> String {
    let bytes = count(left, "byte");
    format!(
        "the file ends within a frame: {bytes} behind frame {frames} (at byte {at}) left out, {why}"
    )
}

/// Whether the file is not as it was written, rather than not to be read.
const fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Truncated { .. } | Error::Corrupt { .. })
}

/// `HOST`, as soon as it is read: nothing else of a foreign machine would make sense.
fn host(sections: &mut Sections, section: &Section) -> Result<Origin, Error> {
    let origin: Origin = sections.decode(section)?;
    let big = origin.big_endian;
    if big != cfg!(target_endian = "big") {
        return Err(Error::ForeignEndian {
            path: sections.path().to_owned(),
            recorded: if big { "big-endian" } else { "little-endian" },
        });
    }
    Ok(origin)
}

/// Keeps the place of a part of a sample.
fn place(
    sections: &mut Sections,
    sample: &mut Sample,
    kind: Kind,
    section: Section,
) -> Result<(), Error> {
    sections.check_length(&section)?;
    let once = match kind {
        Kind::Dump(..) => {
            if kind.table(section.family()).is_none() {
                return sections.wrong(&section, "it names no family");
            }
            sample.tables.push(section);
            return Ok(());
        }
        Kind::Want => {
            let asked = sections.decode(&section)?;
            sample.asked.replace(asked).is_none()
        }
        Kind::Owners => sample.owners.replace(section).is_none(),
        Kind::Unlisted => sample.unlisted.replace(section).is_none(),
        Kind::Cpu => sample.cpu.replace(section).is_none(),
        Kind::Facts => sample.facts.replace(section).is_none(),
        Kind::Coverage => sample.coverage.replace(section).is_none(),
        Kind::Host | Kind::Sample | Kind::Frame | Kind::End => true,
    };
    if once {
        Ok(())
    } else {
        sections.wrong(&section, "its sample has it twice")
    }
}

/// Decodes what is small once, to be sure that it can be.
fn decode(sections: &mut Sections, sample: &Sample) -> Result<(), Error> {
    for section in sample.structures() {
        match section.kind() {
            Some(Kind::Owners) => drop(sections.decode::<Owners>(&section)?),
            Some(Kind::Unlisted) => drop(sections.decode::<Vec<Unlisted>>(&section)?),
            Some(Kind::Cpu) => drop(sections.decode::<BTreeMap<String, Cpu>>(&section)?),
            Some(Kind::Facts) => drop(sections.decode::<Facts>(&section)?),
            Some(Kind::Coverage) => drop(sections.decode::<Coverage>(&section)?),
            _ => {}
        }
    }
    Ok(())
}

pub fn timestamp(nanoseconds: i64) -> Timestamp {
    // 64 bits of nanoseconds are well within the years that a timestamp knows.
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}
