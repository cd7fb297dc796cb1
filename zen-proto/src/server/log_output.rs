//! The output of the log: a file, a pipe or stderr. It may fail at any time, and may work again later.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fstat, major, minor};
use rustix::io::{Errno, pread, write};

/// Opens a log file, named pipe or device without blocking.
pub(super) fn open(path: &Path) -> Result<File> {
    let open = |is_read: bool| {
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
        File::options().create(true).append(true).read(is_read).custom_flags(flags).open(path)
    };
    // Read access, too: then a named pipe needs no reader (fifo(7)), and the last byte of a file can be read. Without
    // permission to read, it is opened for writing only.
    let file = open(true)
        .or_else(|_| open(false))
        .with_context(|| format!("cannot write the log file {}: choose another --log-file", path.display()))?;
    ensure!(
        !is_stdout(&file),
        "the log file {} is standard output, which is for the ready line only: leave --log-file out to log to stderr",
        path.display()
    );
    Ok(file)
}

/// Returns whether `file` is also stdout, where the ready line goes. /dev/null may be both.
fn is_stdout(file: &File) -> bool {
    match (fstat(file), fstat(io::stdout())) {
        (Ok(file), Ok(stdout)) => {
            let is_null = FileType::from_raw_mode(file.st_mode) == FileType::CharacterDevice
                && (major(file.st_rdev), minor(file.st_rdev)) == NULL;
            !is_null && (file.st_dev, file.st_ino) == (stdout.st_dev, stdout.st_ino)
        }
        _ => false,
    }
}

/// An output for lines, and the number of lines that it did not accept.
pub(super) struct Output {
    target: Box<dyn AsFd + Send>,
    /// Whether the last line was written only in part.
    is_cut: bool,
    /// The number of lost lines that the log does not mention yet.
    pub(super) lost: u64,
}

impl Output {
    pub(super) fn new(target: impl AsFd + Send + 'static) -> Self {
        let is_cut = ends_mid_line(&target).unwrap_or(false);
        Self { target: Box::new(target), is_cut, lost: 0 }
    }

    /// Continues with another file.
    pub(super) fn replace(&mut self, target: File) {
        *self = Self { lost: self.lost, ..Self::new(target) };
    }

    /// Writes `line`. If earlier lines were lost, first writes the line that `lost_count_line` returns for their number. A line
    /// that is written only in part also counts as lost. If `line` is empty, only the number of lost lines is written.
    pub(super) fn put(&mut self, line: &[u8], lost_count_line: impl FnOnce(u64) -> String) {
        let mut text = Vec::new();
        if self.lost > 0 {
            // Another process may have completed the line, or truncated the file.
            self.is_cut = ends_mid_line(&self.target).unwrap_or(self.is_cut);
        }
        if self.is_cut {
            text.push(b'\n');
        }
        if self.lost > 0 {
            text.extend_from_slice(lost_count_line(self.lost).as_bytes());
        }
        let before = text.len();
        text.extend_from_slice(line);

        let taken = self.write(&text);
        if let Some(last) = text[..taken].last() {
            self.is_cut = *last != b'\n';
        }
        if taken >= before {
            self.lost = 0;
        }
        if taken < text.len() && !line.is_empty() {
            self.lost += 1;
        }
    }

    /// Writes as much of `text` as the output accepts, and returns the number of bytes.
    fn write(&self, text: &[u8]) -> usize {
        let mut taken = 0;
        while taken < text.len() {
            match write(&self.target, &text[taken..]) {
                Ok(n @ 1..) => taken += n,
                Err(Errno::INTR) => {}
                // Waits for a slow reader. If the reader has stopped, this waits only for the first line.
                Err(Errno::AGAIN) if self.lost == 0 && self.has_room_within(ROOM_TIMEOUT) => {}
                _ => break,
            }
        }
        taken
    }

    fn has_room_within(&self, time: Duration) -> bool {
        let time = Timespec::try_from(time).ok();
        poll(&mut [PollFd::new(&self.target, PollFlags::OUT)], time.as_ref()) == Ok(1)
    }
}

/// Returns whether the file ends within a line, or `None` if that is unknown.
fn ends_mid_line(target: impl AsFd) -> Option<bool> {
    let status = fstat(&target).ok()?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return None;
    }
    let Some(last) = u64::try_from(status.st_size).ok()?.checked_sub(1) else { return Some(false) };
    let mut byte = [0];
    (pread(&target, &mut byte, last).ok()? == 1).then_some(byte != *b"\n")
}

/// The device number of /dev/null (null(4)).
const NULL: (u32, u32) = (1, 3);

/// The time to wait for room in a full pipe.
const ROOM_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn lost_count_line(lost: u64) -> String {
        format!("{lost} lost\n")
    }

    /// The socket has room for less than a line.
    #[test]
    fn what_a_full_pipe_does_not_take_is_counted() {
        let (mut reader, mut writer) = UnixStream::pair().expect("creates a socket pair");
        let flags = rustix::fs::fcntl_getfl(&writer).expect("it is open");
        rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("the descriptor is open");
        let mut output = Output::new(writer.try_clone().expect("duplicates a descriptor"));
        output.put(b"whole\n", lost_count_line);
        while writer.write(&[b'x'; 4096]).is_ok() {}
        (0..3).for_each(|_| output.put(b"lost\n", lost_count_line));
        assert_eq!(output.lost, 3);

        let mut read = vec![0; 1 << 20];
        let n = reader.read(&mut read).expect("it is full");
        assert!(read[..n].starts_with(b"whole\nxxx"));
        output.put(b"next\n", lost_count_line);
        output.put(b"further\n", lost_count_line);
        let n = reader.read(&mut read).expect("it is not empty");
        assert_eq!(read[..n].escape_ascii().to_string(), "3 lost\\nnext\\nfurther\\n");
    }

    #[test]
    fn a_new_line_begins_after_a_partial_one() {
        let file = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::empty()).expect("creates a file");
        let mut file = File::from(file);
        let said = |mut file: &File| {
            let mut text = String::new();
            file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("it can be read");
            text
        };
        file.write_all(b"whole\nha").expect("there is room");
        let mut output = Output::new(file.try_clone().expect("duplicates a descriptor"));
        output.put(b"fresh\n", lost_count_line);
        output.lost = 2;
        output.put(b"", lost_count_line);
        assert_eq!(said(&file), "whole\nha\nfresh\n2 lost\n");

        // A file that was cut to nothing begins with a line.
        (output.lost, output.is_cut) = (1, true);
        file.set_len(0).and_then(|()| file.rewind()).expect("the descriptor is open");
        output.put(b"next\n", lost_count_line);
        assert_eq!(said(&file), "1 lost\nnext\n");
    }
}
