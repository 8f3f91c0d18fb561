//! What is sent back: status lines, header fields, and the choice of the answer to a request.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use super::conditions::{self, Outcome};
use super::files::{Bytes, Entity, Found};
use super::request::{Method, Request};
use super::{Shared, status};

/// A status code with its reason phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u16, &'static str);

impl Status {
    pub const OK: Status = Status(200, "OK");
    pub const PARTIAL_CONTENT: Status = Status(206, "Partial Content");
    pub const MOVED_PERMANENTLY: Status = Status(301, "Moved Permanently");
    pub const NOT_MODIFIED: Status = Status(304, "Not Modified");
    pub const BAD_REQUEST: Status = Status(400, "Bad Request");
    pub const FORBIDDEN: Status = Status(403, "Forbidden");
    pub const NOT_FOUND: Status = Status(404, "Not Found");
    pub const METHOD_NOT_ALLOWED: Status = Status(405, "Method Not Allowed");
    pub const REQUEST_TIMEOUT: Status = Status(408, "Request Timeout");
    pub const LENGTH_REQUIRED: Status = Status(411, "Length Required");
    pub const PRECONDITION_FAILED: Status = Status(412, "Precondition Failed");
    pub const CONTENT_TOO_LARGE: Status = Status(413, "Content Too Large");
    pub const TARGET_TOO_LONG: Status = Status(414, "URI Too Long");
    pub const RANGE_NOT_SATISFIABLE: Status = Status(416, "Range Not Satisfiable");
    pub const EXPECTATION_FAILED: Status = Status(417, "Expectation Failed");
    pub const FIELDS_TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
    pub const INTERNAL_ERROR: Status = Status(500, "Internal Server Error");
    pub const NOT_IMPLEMENTED: Status = Status(501, "Not Implemented");
    pub const UNAVAILABLE: Status = Status(503, "Service Unavailable");
    pub const VERSION_NOT_SUPPORTED: Status = Status(505, "HTTP Version Not Supported");
}

/// An answer that says why there is no other.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    pub status: Status,
    pub reason: &'static str,
}

impl Refusal {
    pub fn new(status: Status, reason: &'static str) -> Refusal {
        Refusal { status, reason }
    }
}

/// The part of an answer that has not been written behind its head yet.
pub enum Body {
    /// Nothing is left to send.
    Done,
    /// These bytes of this file are.
    Piece(Arc<Entity>, Range<u64>),
}

/// How the connection goes on after an answer, which its head has to say.
#[derive(Clone, Copy, Debug)]
pub struct Persistence {
    pub keep_alive: bool,
    /// The minor version of the request: one of HTTP/1.0 has to be told that the connection stays.
    pub minor: u8,
}

impl Persistence {
    /// The connection is closed after this answer.
    pub const CLOSE: Persistence = Persistence { keep_alive: false, minor: 1 };
}

/// Bodies up to this size are copied behind their head, and sent with it and its pipelined neighbours in one call.
const INLINE_LIMIT: u64 = 8 * 1024;

/// Chooses the answer to `request` and writes its head, and its body if that is short, to the end of `out`.
pub fn answer(shared: &Shared, request: &Request<'_, '_>, then: Persistence, out: &mut Vec<u8>) -> Body {
    match request.method {
        Method::Get | Method::Head => {}
        Method::Unserved => {
            let refusal = Refusal::new(Status::METHOD_NOT_ALLOWED, "only GET and HEAD are served");
            return refuse_with(shared, refusal, then, "Allow: GET, HEAD\r\n", true, out);
        }
        Method::Unknown => {
            let refusal = Refusal::new(Status::NOT_IMPLEMENTED, "this method is not known");
            return refuse_with(shared, refusal, then, "", true, out);
        }
    }
    let with_body = request.method == Method::Get;
    match request.path {
        "/status" => return page(shared, then, "text/html; charset=utf-8", status::PAGE, with_body, out),
        "/status.json" => {
            let json = status::json(shared);
            return page(shared, then, "application/json", &json, with_body, out);
        }
        _ => {}
    }
    match shared.site.find(request.path, request.query) {
        Ok(Found::Entity(entity)) => send_entity(shared, request, then, entity, out),
        Ok(Found::Page(html)) => page(shared, then, "text/html; charset=utf-8", &html, with_body, out),
        Ok(Found::Moved(location)) => {
            let refusal = Refusal::new(Status::MOVED_PERMANENTLY, "the directory is at the same path with a slash");
            let field = format!("Location: {location}\r\n");
            refuse_with(shared, refusal, then, &field, with_body, out)
        }
        Err(refusal) => refuse_with(shared, refusal, then, "", with_body, out),
    }
}

/// Writes a whole answer that gives the reason for a refusal as text.
pub fn refuse(shared: &Shared, refusal: Refusal, then: Persistence, out: &mut Vec<u8>) {
    refuse_with(shared, refusal, then, "", true, out);
}

fn refuse_with(
    shared: &Shared,
    refusal: Refusal,
    then: Persistence,
    fields: &str,
    with_body: bool,
    out: &mut Vec<u8>,
) -> Body {
    let Refusal { status, reason } = refusal;
    let text = format!("{} {}: {reason}\n", status.0, status.1);
    start(shared, status, then, out);
    out.extend_from_slice(fields.as_bytes());
    content(out, "text/plain; charset=utf-8", text.len() as u64);
    end(out);
    if with_body {
        out.extend_from_slice(text.as_bytes());
    }
    Body::Done
}

/// A page made for this answer, which nobody is to keep.
fn page(shared: &Shared, then: Persistence, kind: &str, text: &str, with_body: bool, out: &mut Vec<u8>) -> Body {
    start(shared, Status::OK, then, out);
    out.extend_from_slice(b"Cache-Control: no-store\r\n");
    content(out, kind, text.len() as u64);
    end(out);
    if with_body {
        out.extend_from_slice(text.as_bytes());
    }
    Body::Done
}

fn send_entity(
    shared: &Shared,
    request: &Request<'_, '_>,
    then: Persistence,
    entity: Arc<Entity>,
    out: &mut Vec<u8>,
) -> Body {
    let (status, span) = match conditions::outcome(request, &entity, SystemTime::now()) {
        Outcome::Whole => (Status::OK, 0..entity.len),
        Outcome::Part(span) => (Status::PARTIAL_CONTENT, span),
        Outcome::NotModified => {
            start(shared, Status::NOT_MODIFIED, then, out);
            validators(out, &entity);
            end(out);
            return Body::Done;
        }
        Outcome::Failed => {
            let refusal = Refusal::new(Status::PRECONDITION_FAILED, "the file is not the one asked for");
            return refuse_with(shared, refusal, then, "", request.method == Method::Get, out);
        }
        Outcome::Unsatisfiable => {
            let refusal = Refusal::new(Status::RANGE_NOT_SATISFIABLE, "the file ends before this range");
            let field = format!("Content-Range: bytes */{}\r\n", entity.len);
            return refuse_with(shared, refusal, then, &field, true, out);
        }
    };
    start(shared, status, then, out);
    validators(out, &entity);
    out.extend_from_slice(b"Accept-Ranges: bytes\r\n");
    if status == Status::PARTIAL_CONTENT {
        write(out, format_args!("Content-Range: bytes {}-{}/{}\r\n", span.start, span.end - 1, entity.len));
    }
    content(out, &entity.kind, span.end - span.start);
    end(out);
    if request.method == Method::Head || span.is_empty() {
        return Body::Done;
    }
    match &entity.bytes {
        Bytes::Memory(bytes) if span.end - span.start <= INLINE_LIMIT => {
            out.extend_from_slice(&bytes[span.start as usize..span.end as usize]);
            Body::Done
        }
        _ => Body::Piece(entity, span),
    }
}

fn start(shared: &Shared, status: Status, then: Persistence, out: &mut Vec<u8>) {
    write(out, format_args!("HTTP/1.1 {} {}\r\nServer: switchback\r\nDate: ", status.0, status.1));
    shared.clock.write(out);
    out.extend_from_slice(b"\r\nX-Content-Type-Options: nosniff\r\n");
    match (then.keep_alive, then.minor) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, 0) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, _) => {}
    }
}

fn validators(out: &mut Vec<u8>, entity: &Entity) {
    write(out, format_args!("ETag: {}\r\nLast-Modified: {}\r\n", entity.etag, entity.modified_text));
}

fn content(out: &mut Vec<u8>, kind: &str, len: u64) {
    write(out, format_args!("Content-Type: {kind}\r\nContent-Length: {len}\r\n"));
}

fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _: io::Result<()> = out.write_fmt(text);
}

/// The time of day as HTTP writes it, made anew once a second.
pub struct Clock(Mutex<(u64, String)>);

impl Clock {
    pub fn new() -> Clock {
        Clock(Mutex::new((0, String::new())))
    }

    fn write(&self, out: &mut Vec<u8>) {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut made = super::lock(&self.0);
        if made.0 != second || made.1.is_empty() {
            *made = (second, httpdate::fmt_http_date(now));
        }
        out.extend_from_slice(made.1.as_bytes());
    }
}
