//! The log, as the shim writes it: one frame a line, stamped and bounded.
//!
//! A frame is `<nanoseconds since 1970> <o|e> <length>\n` and so many bytes: a line with its newline, or a part of one
//! without. When the file is full it becomes `log.1`, whose older self is forgotten.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{layout, sys};

/// Bytes of one log file; a container has two.
pub(crate) const LOG_FILE_MAX: u64 = 10 * 1024 * 1024;
/// Bytes of frames that are collected before they are written.
const BUFFER: usize = 16 * 1024;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// The log of one container.
pub(super) struct Logger {
    directory: PathBuf,
    file: File,
    /// Bytes of whole frames in the file.
    size: u64,
    buffer: Vec<u8>,
}

impl Logger {
    /// Goes on with the log in `directory`, or begins it.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(directory.join(layout::LOG))?;
        // A shim before this one may have been killed in the middle of a frame.
        let size = crate::log::read::whole_length(directory)?;
        file.set_len(size)?;
        Ok(Self { directory: directory.to_owned(), file, size, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Adds what the container wrote. Output that cannot be written is lost: a full disk must not stop a container.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let at = sys::now();
        let letter = match stream {
            Stream::Out => 'o',
            Stream::Err => 'e',
        };
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut header = [0_u8; 48];
            let mut rest = &mut header[..];
            // 20 digits, a letter, 20 digits: it fits.
            let _ = writeln!(rest, "{at} {letter} {}", line.len());
            let used = 48 - rest.len();
            self.frame(&header[..used], line);
        }
        self.flush();
    }

    fn frame(&mut self, header: &[u8], line: &[u8]) {
        let length = header.len() + line.len();
        if self.buffer.len() + length > BUFFER {
            self.flush();
        }
        if self.size + (self.buffer.len() + length) as u64 > LOG_FILE_MAX {
            self.flush();
            self.rotate();
        }
        self.buffer.extend_from_slice(header);
        self.buffer.extend_from_slice(line);
    }

    fn flush(&mut self) {
        if self.file.write_all(&self.buffer).is_ok() {
            self.size += self.buffer.len() as u64;
        } else {
            // Half a frame would make all behind it unreadable.
            let _ = self.file.set_len(self.size);
        }
        self.buffer.clear();
    }

    fn rotate(&mut self) {
        let path = self.directory.join(layout::LOG);
        let rotated = std::fs::rename(&path, self.directory.join(layout::LOG_BEFORE))
            .and_then(|()| File::options().append(true).create(true).open(&path));
        match rotated {
            Ok(file) => self.file = file,
            // No room for a new file: the bound matters more than the old lines.
            Err(_) => drop(self.file.set_len(0)),
        }
        self.size = 0;
    }
}
