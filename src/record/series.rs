//! A sequence of whole looks in one file, each behind the one before it, so that what is whole stays readable whatever
//! happens to the recording.

use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use super::format::{FORMAT, HEADER, Kind, MAGIC};
use super::{Error, Writer};
use crate::model::Host;

/// What `END!` takes in the file.
const END: u64 = HEADER as u64 + size_of::<u32>() as u64;

/// A sequence that is being written. The file has its name from the start, but for one that takes the name of another
/// file: that waits until there is a whole frame to replace it by. Whatever is behind the last whole frame when this is
/// dropped is cut off; a file without any frame is removed.
#[derive(Debug)]
pub struct Series {
    writer: Writer,
    named: bool,
    frames: u64,
    /// where the last whole frame ends, and how many sections there are up to there
    kept: (u64, u32),
    /// bytes that the file may have
    max: u64,
}

impl Series {
    /// Begins a sequence that never gets larger than `max` bytes; of the name what [`Writer::create`] says.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotAFile`], [`Error::Full`], and what the system refuses.
    pub fn create(path: &Path, force: bool, host: &Host, max: u64) -> Result<Self, Error> {
        let replaces = path.symlink_metadata().is_ok();
        let mut writer = Writer::create(path, force)?;
        let preamble = (MAGIC.len() + size_of_val(&FORMAT)) as u64;
        writer.room = Some(max.saturating_sub(preamble + END));
        writer.origin(host, true)?;
        let written = writer.file.flush();
        written.map_err(|source| writer.io("write", source))?;
        let mut series = Self {
            named: false,
            frames: 0,
            kept: (0, 0),
            max,
            writer,
        };
        if !replaces {
            series.writer.name()?;
            series.named = true;
        }
        Ok(series)
    }

    /// Takes the parts of the frame that is written now, from [`Writer::begin_sample`] on.
    pub const fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Ends a frame and gives it to the system. After an error there is nothing to go on with but [`Series::finish`]:
    /// this frame is not kept.
    ///
    /// # Errors
    /// [`Error::Full`] if the file would be larger than it may be, and whatever went wrong since the last frame.
    pub fn keep(&mut self) -> Result<(), Error> {
        let writer = &mut self.writer;
        if let Some(error) = writer.failed.take() {
            return Err(error);
        }
        if writer.full {
            return Err(Error::Full {
                path: writer.path.clone(),
            });
        }
        if writer.broken {
            return Err(Error::Order("a part of it could not be written"));
        }
        if !writer.sample {
            return Err(Error::Order("a frame has a sample"));
        }
        writer.flush()?;
        let sections = writer.sections.to_le_bytes();
        writer.section(Kind::Frame, None, &sections)?;
        writer.sample = false;
        let written = writer.file.flush();
        written.map_err(|source| writer.io("write", source))?;
        if !self.named {
            writer.name()?;
            self.named = true;
        }
        let room = writer.room.unwrap_or(0);
        let at = self.max.saturating_sub(END).saturating_sub(room);
        self.kept = (at, writer.sections);
        self.frames += 1;
        writer.finished = true;
        Ok(())
    }

    /// Ends the sequence behind its last whole frame. How many frames it has, and how many bytes.
    ///
    /// # Errors
    /// When there is no frame, or the end cannot be written; the frames stay all the same.
    pub fn finish(mut self) -> Result<(u64, u64), Error> {
        if self.frames == 0 {
            return Err(Error::Order("it has no frame"));
        }
        self.cut()?;
        let writer = &mut self.writer;
        writer.room = None;
        let sections = writer.sections.to_le_bytes();
        writer.section(Kind::End, None, &sections)?;
        let written = writer
            .file
            .flush()
            .and_then(|()| writer.file.get_ref().sync_all());
        written.map_err(|source| writer.io("write", source))?;
        self.kept.0 += END;
        Ok((self.frames, self.kept.0))
    }

    /// How many frames are kept.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Whether the file has no room for the frame that was written last.
    pub const fn is_full(&self) -> bool {
        self.writer.full
    }

    /// Cuts off what is behind the last whole frame.
    fn cut(&mut self) -> Result<(), Error> {
        let (at, sections) = self.kept;
        let writer = &mut self.writer;
        let cut = writer.file.get_ref().try_clone().and_then(|again| {
            let file = std::mem::replace(&mut writer.file, BufWriter::new(again));
            // What waits to be written must not be written any more.
            let (mut file, _) = file.into_parts();
            file.set_len(at)?;
            file.seek(SeekFrom::Start(at))
        });
        cut.map_err(|source| writer.io("write", source))?;
        writer.pending = None;
        writer.content.clear();
        writer.sections = sections;
        writer.sample = false;
        Ok(())
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        if self.frames > 0 {
            // Where it fails, a reader leaves out what is torn.
            let _ = self.cut();
        }
    }
}

#[cfg(test)]
mod tests;
