//! The ring: the memory that is shared with the kernel, and all the `unsafe` code that this needs.
//!
//! All memory that the kernel may still read or write belongs to the [`Ring`], which is never dropped.

use std::alloc::{Layout, alloc_zeroed};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;

/// A ring of requests and completions, and the buffers that the kernel receives into.
pub(crate) struct Ring {
    ring: IoUring,
    /// The bytes of each request to send, kept until it is done.
    sending: Slab<Vec<u8>>,
    /// Empty vectors to use again in `sending`.
    spare: Vec<Vec<u8>>,
    /// The memory of all buffers, one after the other.
    buffers: *mut u8,
    /// The ring of free buffers ("provided buffers" in io_uring), from which the kernel takes one when bytes arrive. It
    /// has `BUFFER_COUNT` entries.
    free_buffers: *mut BufRingEntry,
    /// The number of entries of `free_buffers` that were ever written, modulo 2^16. The kernel reads only the entries
    /// before it.
    tail: u16,
}

/// A completed request.
pub(crate) enum Completion {
    /// A client was accepted, or accept failed. `false` means that the request has ended.
    Accepted(io::Result<OwnedFd>, bool),
    /// Bytes of this client were received into a buffer. `None` is the end of file.
    Received(usize, io::Result<Option<Buffer>>),
    /// The number of bytes that were sent to this client.
    Sent(usize, io::Result<usize>),
    /// A request was cancelled.
    Cancelled,
}

/// A buffer with received bytes. [`Ring::return_buffer`] returns it to the kernel.
pub(crate) struct Buffer {
    number: u16,
    length: usize,
}

#[allow(unsafe_code)]
impl Ring {
    /// Sets up the ring for this thread alone. The kernel completes requests while the thread waits in `enter`.
    pub(crate) fn new() -> io::Result<&'static mut Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(4 * REQUESTS);
        let ring = builder.build(REQUESTS)?;
        let pages = Layout::array::<BufRingEntry>(BUFFER_COUNT.into()).and_then(|layout| layout.align_to(PAGE));
        // SAFETY: the layout is not empty. If the result is null, the registration below fails.
        let free_buffers: *mut BufRingEntry = unsafe { alloc_zeroed(pages.map_err(io::Error::other)?) }.cast();
        let buffers = Vec::leak(vec![0; usize::from(BUFFER_COUNT) * BUFFER_SIZE]).as_mut_ptr();
        // SAFETY: the entries are aligned to a page, zeroed, and never freed. The buffers are never freed either.
        unsafe { ring.submitter().register_buf_ring_with_flags(free_buffers as u64, BUFFER_COUNT, BUFFER_GROUP, 0)? };
        let (sending, spare) = (Slab::new(), Vec::new());
        let ring = Box::leak(Box::new(Self { ring, sending, spare, buffers, free_buffers, tail: 0 }));
        (0..BUFFER_COUNT).for_each(|number| ring.return_buffer(Buffer { number, length: 0 }));
        Ok(ring)
    }

    /// Requests that the kernel accept every client of `listener`, until [`cancel_accept`](Self::cancel_accept).
    pub(crate) fn accept(&mut self, listener: impl AsFd) -> io::Result<()> {
        self.push(&opcode::AcceptMulti::new(raw_fd(listener)).flags(CLOEXEC).build().user_data(ACCEPT))
    }

    /// Cancels the request of [`accept`](Self::accept).
    pub(crate) fn cancel_accept(&mut self) -> io::Result<()> {
        self.push(&opcode::AsyncCancel::new(ACCEPT).build().user_data(CANCEL))
    }

    /// Requests the next bytes of a client. The kernel chooses a buffer when they arrive, so an idle client has none.
    pub(crate) fn receive(&mut self, client: usize, stream: impl AsFd) -> io::Result<()> {
        let receive =
            opcode::Recv::new(raw_fd(stream), std::ptr::null_mut(), BUFFER_SIZE as u32).buf_group(BUFFER_GROUP);
        self.push(&receive.build().flags(squeue::Flags::BUFFER_SELECT).user_data((client as u64) << 32 | RECEIVE))
    }

    /// Requests that a copy of `bytes` be sent. The kernel reads it later, when the client's own bytes may have moved.
    pub(crate) fn send(&mut self, client: usize, stream: impl AsFd, bytes: &[u8]) -> io::Result<()> {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.extend_from_slice(&bytes[..bytes.len().min(MAX_SEND_SIZE)]);
        let (start, length) = (copy.as_ptr(), copy.len());
        let slot = self.sending.insert(copy);
        let send = opcode::Send::new(raw_fd(stream), start, length as u32).flags(MSG_NOSIGNAL);
        self.push(&send.build().user_data((client as u64) << 32 | slot as u64))
    }

    /// Hands the new requests to the kernel, and sleeps until a request is done, for at most `timeout`. An iteration of
    /// the loop usually makes no other system call.
    pub(crate) fn enter(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::from(timeout);
        match self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)) {
            Err(error) if !TRANSIENT.contains(&error.raw_os_error().unwrap_or_default()) => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the next completed request.
    pub(crate) fn next_completion(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let (client, request) = ((entry.user_data() >> 32) as usize, entry.user_data() & u64::from(u32::MAX));
        let result = match entry.result() {
            error @ ..0 => Err(io::Error::from_raw_os_error(-error)),
            value => Ok(value),
        };
        Some(match request {
            ACCEPT => {
                // SAFETY: the kernel has opened this descriptor for this process, and reports it once.
                let stream = result.map(|it| unsafe { OwnedFd::from_raw_fd(it) });
                Completion::Accepted(stream, cqueue::more(entry.flags()))
            }
            CANCEL => Completion::Cancelled,
            RECEIVE => {
                let buffer = cqueue::buffer_select(entry.flags());
                Completion::Received(client, result.map(|n| buffer.map(|number| Buffer { number, length: n as usize })))
            }
            slot => {
                let mut sent = self.sending.remove(slot as usize);
                sent.clear();
                self.spare.push(sent);
                Completion::Sent(client, result.map(|n| n as usize))
            }
        })
    }

    /// Returns the bytes in a buffer.
    pub(crate) fn bytes(&self, buffer: &Buffer) -> &[u8] {
        // SAFETY: the kernel chose this number, and its numbers are smaller than BUFFER_COUNT.
        let start = unsafe { self.buffers.add(usize::from(buffer.number) * BUFFER_SIZE) };
        // SAFETY: the kernel has written `length` bytes, and writes no more until the buffer is given back.
        unsafe { std::slice::from_raw_parts(start, buffer.length) }
    }

    /// Lets the kernel receive into the buffer again.
    pub(crate) fn return_buffer(&mut self, buffer: Buffer) {
        // SAFETY: as in `bytes`.
        let start = unsafe { self.buffers.add(usize::from(buffer.number) * BUFFER_SIZE) };
        // SAFETY: the remainder is smaller than BUFFER_COUNT.
        let entry = unsafe { self.free_buffers.add(usize::from(self.tail % BUFFER_COUNT)) };
        // SAFETY: the kernel does not read entries beyond the tail, and all buffers together fit.
        let entry = unsafe { &mut *entry };
        entry.set_addr(start as u64);
        entry.set_len(BUFFER_SIZE as u32);
        entry.set_bid(buffer.number);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `self.free_buffers` is the first entry. The kernel's tail is a field of this entry.
        let tail = unsafe { BufRingEntry::tail(self.free_buffers) }.cast::<AtomicU16>();
        // SAFETY: it is aligned and never freed. It is atomic, because the kernel may read it at any time.
        unsafe { &*tail }.store(self.tail, Ordering::Release);
    }

    fn push(&mut self, request: &squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        // SAFETY: a request to send points to bytes that stay in `sending` until it is done. No other request points to
        // memory of this process.
        unsafe { self.ring.submission().push(request) }.map_err(io::Error::other)
    }
}

fn raw_fd(descriptor: impl AsFd) -> Fd {
    Fd(descriptor.as_fd().as_raw_fd())
}

/// The number of requests that one system call can hand over. Further requests need another call.
const REQUESTS: u32 = 1024;

/// The number of buffers. When all are in use, a client's request ends with `ENOBUFS` and is made again.
const BUFFER_COUNT: u16 = 256;

/// The size of a buffer in bytes.
const BUFFER_SIZE: usize = 4096;

/// The largest number of bytes that one request sends.
const MAX_SEND_SIZE: usize = 4096;

/// The alignment in bytes that the kernel requires for the ring of free buffers.
const PAGE: usize = 4096;

/// The number of the only group of buffers.
const BUFFER_GROUP: u16 = 0;

/// The kind of a request, in the lower half of its `user_data`. Any other value there is a slot of `sending`: the
/// request sends. The upper half is the client.
const RECEIVE: u64 = u32::MAX as u64;
const ACCEPT: u64 = u32::MAX as u64 - 1;
const CANCEL: u64 = u32::MAX as u64 - 2;

/// `SOCK_CLOEXEC` and `MSG_NOSIGNAL`.
const CLOEXEC: i32 = 0o2_000_000;
const MSG_NOSIGNAL: i32 = 0x4000;

/// `ETIME`, `EINTR` and `EBUSY`: the timeout passed, a signal arrived, or completions must be read first.
const TRANSIENT: [i32; 3] = [62, 4, 16];
