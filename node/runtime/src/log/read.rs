//! Frames out of the log's files.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use covey_state::time::Stamp;

use super::{LogLine, LogQuery};
use crate::layout;

/// Bytes of a frame's header line, at most.
const HEADER_MAX: u64 = 64;
/// Bytes of a frame: more than the shim ever puts into one.
const FRAME_MAX: u64 = 64 * 1024;

/// Reads one frame after the other, over the change of files.
pub(super) struct Reader {
    directory: PathBuf,
    /// The file that is read, and where in it the next frame begins.
    file: Option<BufReader<File>>,
    offset: u64,
}

/// Where a frame begins.
#[derive(Clone, Copy)]
struct Position {
    before: bool,
    offset: u64,
}

impl Reader {
    /// Begins where the query's tail does.
    pub(super) fn open(directory: &Path, query: &LogQuery) -> io::Result<Self> {
        let start = match query.tail {
            Some(0) => Position { before: false, offset: size(directory)? },
            Some(tail) => tail_start(directory, query, tail)?,
            None => Position { before: true, offset: 0 },
        };
        let mut reader = Self { directory: directory.to_owned(), file: None, offset: start.offset };
        if start.before {
            reader.file = open(directory, layout::LOG_BEFORE)?;
        }
        if reader.file.is_none() {
            reader.file = open(directory, layout::LOG)?;
        }
        reader.rewind()?;
        Ok(reader)
    }

    /// The next frame; `None`: not now.
    pub(super) fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            if let Some(file) = &mut self.file {
                if let Some((line, length)) = frame(file)? {
                    self.offset += length;
                    return Ok(Some(line));
                }
                // Half a frame, or none: it is read again when there is more.
                self.rewind()?;
                let Some(next) = self.next_file()? else { return Ok(None) };
                // What came between the last read and the change of files.
                if let Some((line, length)) = self.file.as_mut().map(frame).transpose()?.flatten() {
                    self.offset += length;
                    return Ok(Some(line));
                }
                self.file = Some(next);
            } else {
                let Some(file) = open(&self.directory, layout::LOG)? else { return Ok(None) };
                self.file = Some(file);
            }
            self.offset = 0;
        }
    }

    fn rewind(&mut self) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.seek(SeekFrom::Start(self.offset)).map(drop),
            None => Ok(()),
        }
    }

    /// The file after this one, if this one grows no more.
    fn next_file(&self) -> io::Result<Option<BufReader<File>>> {
        let (Some(next), Some(this)) = (open(&self.directory, layout::LOG)?, &self.file) else {
            return Ok(None);
        };
        let same = next.get_ref().metadata()?.ino() == this.get_ref().metadata()?.ino();
        Ok((!same).then_some(next))
    }
}

fn open(directory: &Path, name: &str) -> io::Result<Option<BufReader<File>>> {
    match File::open(directory.join(name)) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn size(directory: &Path) -> io::Result<u64> {
    Ok(open(directory, layout::LOG)?
        .map(|file| file.get_ref().metadata())
        .transpose()?
        .map_or(0, |m| m.len()))
}

/// Bytes of whole frames at the beginning of the log in `directory`.
pub(crate) fn whole_length(directory: &Path) -> io::Result<u64> {
    let Some(mut file) = open(directory, layout::LOG)? else { return Ok(0) };
    let mut whole = 0;
    while let Ok(Some((_, length))) = frame(&mut file) {
        whole += length;
    }
    Ok(whole)
}

/// One frame and its length in the file; `None` where there is no whole one.
fn frame(file: &mut BufReader<File>) -> io::Result<Option<(LogLine, u64)>> {
    let mut header = Vec::with_capacity(HEADER_MAX as usize);
    let read = file.by_ref().take(HEADER_MAX).read_until(b'\n', &mut header)?;
    if header.last() != Some(&b'\n') {
        return Ok(None);
    }
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the log is damaged");
    let text = str::from_utf8(&header).map_err(|_| damaged())?;
    let mut fields = text.trim_end().split(' ');
    let (Some(at), Some(stream), Some(length)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(damaged());
    };
    let at = Stamp(at.parse().map_err(|_| damaged())?);
    let length: u64 = length.parse().ok().filter(|length| *length <= FRAME_MAX).ok_or_else(damaged)?;
    let mut bytes = Vec::with_capacity(length as usize);
    file.by_ref().take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Ok(None);
    }
    let line = LogLine { at, stderr: stream == "e", bytes: Bytes::from(bytes) };
    Ok(Some((line, read as u64 + length)))
}

/// Where the last `tail` lines that the query wants begin.
fn tail_start(directory: &Path, query: &LogQuery, tail: usize) -> io::Result<Position> {
    let mut starts: VecDeque<Position> = VecDeque::new();
    let mut end = Position { before: false, offset: 0 };
    for (name, before) in [(layout::LOG_BEFORE, true), (layout::LOG, false)] {
        let Some(mut file) = open(directory, name)? else { continue };
        let (mut offset, mut whole) = (0, [true; 2]);
        while let Some((line, length)) = frame(&mut file)? {
            if query.wants(&line) {
                // Parts of a line are one line.
                let begun = &mut whole[usize::from(line.stderr)];
                if *begun {
                    starts.push_back(Position { before, offset });
                    if starts.len() > tail {
                        starts.pop_front();
                    }
                }
                *begun = line.bytes.last() == Some(&b'\n');
            }
            offset += length;
        }
        end = Position { before, offset };
    }
    Ok(starts.front().copied().unwrap_or(end))
}
