//! One connection, from its first byte to its last, in the order things happen.
//!
//! Each wait has a deadline: for the first byte of a request, for the rest of its head, for its body, for each
//! piece of the answer to be taken. A deadline is a point in time, and what is left until then is computed anew
//! before each call, so that a client that sends one byte now and then gains nothing by it.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use switchback_runtime as rt;
use switchback_runtime::time::{Duration, Instant};

use super::answer::{self, Body, Persistence, Refusal, Status};
use super::files::{Bytes, Entity};
use super::request::{self, HEAD_LIMIT, Length, Request};
use super::{Peer, Shared};

/// The size a connection's input begins with, and returns to: enough for the requests of a browser.
const INPUT_START: usize = 4 * 1024;
/// Finished answers are sent once they are this many bytes, even if there are more requests to answer first.
const OUTPUT_FULL: usize = 16 * 1024;
/// A file is read and sent in pieces of this size.
const PIECE: usize = 64 * 1024;
/// So many pipelined requests are answered before other coroutines get their turn.
const TURN: u64 = 32;

/// What is left to do with a connection once nothing more is answered on it.
enum End {
    /// The client is gone, or has sent its last request: nothing.
    Over,
    /// We are the side that closes: let the client see the last answer first.
    Linger,
}

/// Answers the requests that come on a connection until it ends.
pub fn serve(shared: &Shared, peer: &Peer) {
    let mut connection = Connection {
        shared,
        peer,
        input: Input { bytes: vec![0; INPUT_START], span: 0..0 },
        out: Vec::new(),
        head_deadline: None,
        requests: 0,
    };
    // An error here is the client's: it has reset the connection or takes too long. It costs this task alone.
    if let Ok(End::Linger) = connection.converse() {
        let _ = connection.linger();
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    peer: &'a Peer,
    input: Input,
    /// Answers that have not been sent yet.
    out: Vec<u8>,
    /// When the head that has begun to come must be whole; `None` between requests.
    head_deadline: Option<Instant>,
    requests: u64,
}

impl Connection<'_> {
    fn converse(&mut self) -> io::Result<End> {
        loop {
            let mut storage = request::storage();
            match request::parse(self.input.pending(), &mut storage) {
                Ok(Some(request)) => {
                    self.head_deadline = None;
                    self.requests += 1;
                    self.shared.counts.requests.fetch_add(1, Ordering::Relaxed);
                    let head_len = request.head_len;
                    let keep_alive = match request.body {
                        Length::Bytes(0) => {
                            let (body, keep_alive) = choose(self.shared, &request, &mut self.out);
                            self.input.consume(head_len);
                            self.send_body(body)?;
                            keep_alive
                        }
                        Length::Bytes(len) => {
                            let expects_continue = request.expects_continue;
                            self.answer_after_body(head_len, len, expects_continue)?
                        }
                        Length::Chunked => {
                            refuse_chunked(self.shared, &request, &mut self.out);
                            false
                        }
                    };
                    if !keep_alive {
                        self.flush()?;
                        return Ok(End::Linger);
                    }
                    // A client whose socket is always ready must not keep the others waiting: neither with many requests
                    // nor with large answers.
                    let full = self.out.len() >= OUTPUT_FULL;
                    if full {
                        self.flush()?;
                    }
                    if full || self.requests.is_multiple_of(TURN) {
                        rt::yield_now();
                    }
                }
                Ok(None) => {
                    self.flush()?;
                    match self.more_of_head()? {
                        More::Bytes => {}
                        More::End | More::Late if self.input.pending().is_empty() => return Ok(End::Over),
                        More::End => return self.give_up(Status::BAD_REQUEST, "the request ends in its head"),
                        More::Late => {
                            return self.give_up(Status::REQUEST_TIMEOUT, "the request took too long to come");
                        }
                    }
                }
                Err(refusal) => return self.give_up(refusal.status, refusal.reason),
            }
        }
    }

    /// Answers that nothing more on this connection will be understood.
    fn give_up(&mut self, status: Status, reason: &'static str) -> io::Result<End> {
        answer::refuse(self.shared, Refusal::new(status, reason), Persistence::CLOSE, &mut self.out);
        self.flush()?;
        Ok(End::Linger)
    }

    /// Reads until there is reason to look at the head again: a line has ended, or a limit may have been met.
    fn more_of_head(&mut self) -> io::Result<More> {
        loop {
            if self.input.pending().is_empty() && self.head_deadline.is_none() {
                // The client may be silent for as long as it is open, but must then send a head without delay.
                let limits = &self.shared.limits;
                let silence = if self.requests == 0 { limits.head } else { limits.idle };
                let read = self.read_while_idle(Instant::now() + silence)?;
                match read {
                    More::Bytes => self.head_deadline = Some(Instant::now() + limits.head),
                    other => return Ok(other),
                }
                self.input.skip_empty_lines();
                return Ok(More::Bytes);
            }
            let deadline = *self.head_deadline.get_or_insert_with(|| Instant::now() + self.shared.limits.head);
            let seen = self.input.pending().len();
            match self.read(deadline)? {
                More::Bytes => {}
                other => return Ok(other),
            }
            let pending = self.input.pending();
            let worth_a_look = seen == 0 || pending[seen..].contains(&b'\n') || pending.len() > request::TARGET_LIMIT;
            self.input.skip_empty_lines();
            if worth_a_look {
                return Ok(More::Bytes);
            }
        }
    }

    /// Waits for a request to begin; when the server is told to stop, this wait ends.
    fn read_while_idle(&mut self, deadline: Instant) -> io::Result<More> {
        // Pairs with `Handle::stop`, which sets `stopping` before it looks at `idle`: one of the two sees the other.
        self.peer.idle.store(true, Ordering::SeqCst);
        if self.shared.stopping.load(Ordering::SeqCst) {
            return Ok(More::End);
        }
        let read = self.read(deadline);
        self.peer.idle.store(false, Ordering::SeqCst);
        read
    }

    /// One read, which ends at `deadline` at the latest.
    fn read(&mut self, deadline: Instant) -> io::Result<More> {
        let Some(left) = left_until(deadline) else { return Ok(More::Late) };
        let mut stream = &self.peer.stream;
        stream.set_read_timeout(Some(left))?;
        loop {
            return match stream.read(self.input.room()) {
                Ok(0) => Ok(More::End),
                Ok(count) => {
                    self.input.span.end += count;
                    Ok(More::Bytes)
                }
                Err(error) if is_timeout(&error) => Ok(More::Late),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Answers a request whose body has to come, and be thrown away, first. Whether the connection stays is returned.
    fn answer_after_body(&mut self, head_len: usize, len: u64, expects_continue: bool) -> io::Result<bool> {
        // The body goes through the buffer that holds the head.
        let head = self.input.pending()[..head_len].to_vec();
        self.input.consume(head_len);
        let mut storage = request::storage();
        let Ok(Some(request)) = request::parse(&head, &mut storage) else {
            unreachable!("the same bytes were a whole head before")
        };
        if expects_continue && self.input.pending().is_empty() {
            if !request.method.is_served() {
                // The client waits for a word, and this one is no: whether it sends the body then is open.
                choose_with(self.shared, &request, false, &mut self.out);
                return Ok(false);
            }
            self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.flush()?;
        let deadline = Instant::now() + self.shared.limits.body;
        let mut left = len;
        loop {
            let here = left.min(self.input.pending().len() as u64);
            self.input.consume(here as usize);
            left -= here;
            if left == 0 {
                break;
            }
            match self.read(deadline)? {
                More::Bytes => {}
                More::End => return Err(ErrorKind::UnexpectedEof.into()),
                More::Late => {
                    let refusal = Refusal::new(Status::REQUEST_TIMEOUT, "the body took too long to come");
                    answer::refuse(self.shared, refusal, Persistence::CLOSE, &mut self.out);
                    return Ok(false);
                }
            }
        }
        let (body, keep_alive) = choose(self.shared, &request, &mut self.out);
        self.send_body(body)?;
        Ok(keep_alive)
    }

    /// Sends what `choose` has left of a body, behind all that waits to be sent.
    fn send_body(&mut self, body: Body) -> io::Result<()> {
        let Body::Piece(entity, span) = body else { return Ok(()) };
        match &entity.bytes {
            Bytes::Memory(bytes) => {
                let bytes = &bytes[span.start as usize..span.end as usize];
                self.send(&self.out, bytes)?;
                self.clear_out();
                Ok(())
            }
            Bytes::File(_) => self.stream_file(&entity, span),
        }
    }

    /// Sends a part of a file piece by piece, the head of the answer with the first.
    fn stream_file(&mut self, entity: &Arc<Entity>, span: Range<u64>) -> io::Result<()> {
        let Bytes::File(file) = &entity.bytes else { return Ok(()) };
        let mut piece = vec![0; PIECE];
        let mut at = span.start;
        while at < span.end {
            let want = (span.end - at).min(PIECE as u64) as usize;
            let count = file.read_at(&mut piece[..want], at)?;
            if count == 0 {
                // It has become shorter than the head says. To end the connection is all that can say so now.
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.send(&self.out, &piece[..count])?;
            self.clear_out();
            at += count as u64;
            // To a fast client no send waits: others have their turn all the same.
            rt::yield_now();
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.send(&self.out, &[])?;
            self.clear_out();
        }
        Ok(())
    }

    /// Sends two runs of bytes as one; the client has the time of one piece to take them.
    fn send(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + self.shared.limits.write;
        let mut stream = &self.peer.stream;
        let total = first.len() + second.len();
        let mut sent = 0;
        while sent < total {
            let left = left_until(deadline).ok_or(ErrorKind::TimedOut)?;
            stream.set_write_timeout(Some(left))?;
            let result = if second.is_empty() {
                stream.write(&first[sent..])
            } else if sent >= first.len() {
                stream.write(&second[sent - first.len()..])
            } else {
                stream.write_vectored(&[IoSlice::new(&first[sent..]), IoSlice::new(second)])
            };
            match result {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.shared.counts.sent.fetch_add(total as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Empties the output; a connection that waits keeps no more than an ordinary answer's room.
    fn clear_out(&mut self) {
        if self.out.capacity() > 4 * 1024 {
            self.out = Vec::new();
        } else {
            self.out.clear();
        }
    }

    /// Closes our side and waits, not long, for the client to close its own. To close with bytes unread would
    /// reset the connection, and could take the last answer from the client before it has read it.
    fn linger(&mut self) -> io::Result<()> {
        self.peer.stream.shutdown(Shutdown::Write)?;
        let deadline = Instant::now() + self.shared.limits.linger;
        loop {
            self.input.span = 0..0;
            match self.read(deadline)? {
                More::Bytes => rt::yield_now(),
                More::End | More::Late => return Ok(()),
            }
        }
    }
}

/// A chunked body is not read, so nothing behind it can be either.
fn refuse_chunked(shared: &Shared, request: &Request<'_, '_>, out: &mut Vec<u8>) {
    if request.method.is_served() {
        let refusal = Refusal::new(Status::LENGTH_REQUIRED, "a body is only read with a Content-Length");
        answer::refuse(shared, refusal, Persistence::CLOSE, out);
    } else {
        choose_with(shared, request, false, out);
    }
}

/// What a read has brought.
enum More {
    Bytes,
    /// The client sends no more.
    End,
    /// The deadline has passed.
    Late,
}

/// Answers a request; whether the connection stays open after it is the second of what is returned.
fn choose(shared: &Shared, request: &Request<'_, '_>, out: &mut Vec<u8>) -> (Body, bool) {
    let keep_alive = request.keep_alive && !shared.stopping.load(Ordering::Relaxed);
    (choose_with(shared, request, keep_alive, out), keep_alive)
}

fn choose_with(shared: &Shared, request: &Request<'_, '_>, keep_alive: bool, out: &mut Vec<u8>) -> Body {
    answer::answer(shared, request, Persistence { keep_alive, minor: request.minor }, out)
}

fn left_until(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

/// The standard library's sockets answer a timeout with the one kind, the runtime's with the other.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// Bytes that were read and not yet understood.
struct Input {
    bytes: Vec<u8>,
    /// Where in `bytes` they are.
    span: Range<usize>,
}

impl Input {
    fn pending(&self) -> &[u8] {
        &self.bytes[self.span.clone()]
    }

    fn consume(&mut self, count: usize) {
        self.span.start += count;
        if self.span.is_empty() {
            self.span = 0..0;
            if self.bytes.len() > INPUT_START {
                self.bytes = vec![0; INPUT_START];
            }
        }
    }

    /// Empty lines before a request are skipped, as RFC 9112 (section 2.2) asks.
    fn skip_empty_lines(&mut self) {
        loop {
            match self.pending() {
                [b'\r', b'\n', ..] => self.consume(2),
                [b'\n', ..] => self.consume(1),
                _ => return,
            }
        }
    }

    /// Room for more bytes behind those pending. There always is some: a head that fills `HEAD_LIMIT` is refused.
    fn room(&mut self) -> &mut [u8] {
        if self.span.end == self.bytes.len() {
            self.bytes.copy_within(self.span.clone(), 0);
            self.span = 0..self.span.len();
            if self.span.end == self.bytes.len() {
                let len = (self.bytes.len() * 2).min(HEAD_LIMIT);
                self.bytes.resize(len, 0);
            }
        }
        &mut self.bytes[self.span.end..]
    }
}
