//! The head of a request: what it asks for, and where it ends.
//!
//! Everything that decides where the next request begins is settled here, and refused when two readers could
//! settle it differently (RFC 9112, sections 6.1 to 6.3): that is how requests are smuggled past a proxy.

use std::mem::MaybeUninit;

use super::answer::{Refusal, Status};

/// The most bytes of a request line and its header fields together; past it the answer is 431.
pub const HEAD_LIMIT: usize = 16 * 1024;
/// The most bytes of a request target, which RFC 9112 (section 3) asks to be at least 8000; past it the answer is 414.
pub const TARGET_LIMIT: usize = 8 * 1024;
/// The most header fields of a request; past it the answer is 431.
pub const FIELDS_LIMIT: usize = 100;
/// The most bytes of a body that is read and thrown away to keep the connection; past it the answer is 413.
pub const BODY_LIMIT: u64 = 1024 * 1024;

/// Methods of RFC 9110 and RFC 5789: those we do not serve are answered 405, all others 501.
const KNOWN_METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Where [`parse`] puts the fields it finds. It lives on the caller's stack: 3200 bytes on 64-bit targets.
pub type Storage<'b> = [MaybeUninit<httparse::Header<'b>>; FIELDS_LIMIT];

/// Room for the fields of one request.
pub fn storage<'b>() -> Storage<'b> {
    [const { MaybeUninit::uninit() }; FIELDS_LIMIT]
}

/// What a method lets us do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    /// Defined for HTTP, but not served here.
    Unserved,
    Unknown,
}

impl Method {
    pub fn is_served(self) -> bool {
        matches!(self, Method::Get | Method::Head)
    }
}

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Bytes(u64),
    Chunked,
}

/// One request head, borrowed from the bytes it was read into.
pub struct Request<'h, 'b> {
    pub method: Method,
    /// The path as it was sent, still percent-encoded; it begins with `/`, or is `*`.
    pub path: &'b str,
    /// What followed the first `?`.
    pub query: Option<&'b str>,
    /// The minor version: 0 or 1.
    pub minor: u8,
    /// Whether the client leaves the connection open for another request.
    pub keep_alive: bool,
    pub body: Length,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Bytes of the head, up to and including the empty line.
    pub head_len: usize,
    fields: &'h [httparse::Header<'b>],
}

impl<'b> Request<'_, 'b> {
    /// The values of all fields of this name, in the order they were sent.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'b [u8]> + 'a {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The value of the only field of this name: none if there are several, which then say nothing clear.
    pub fn value(&self, name: &str) -> Option<&'b [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }
}

/// Reads one head from the front of `bytes`; `None` if it is not all there yet.
///
/// # Errors
///
/// A refusal, after which nothing on the connection can be understood any more: it has to be closed.
pub fn parse<'h, 'b>(bytes: &'b [u8], storage: &'h mut Storage<'b>) -> Result<Option<Request<'h, 'b>>, Refusal> {
    let mut parsed = httparse::Request::new(&mut []);
    let head_len = match parsed.parse_with_uninit_headers(bytes, storage) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return within_limits(bytes).map(|()| None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::new(Status::FIELDS_TOO_LARGE, TOO_MANY_FIELDS)),
        Err(httparse::Error::Version) => return Err(refuse_version(bytes)),
        Err(_) => return Err(Refusal::new(Status::BAD_REQUEST, "this is not an HTTP request")),
    };
    if head_len > HEAD_LIMIT {
        return Err(Refusal::new(Status::FIELDS_TOO_LARGE, HEAD_TOO_LARGE));
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::new(Status::BAD_REQUEST, "the request line is not whole"));
    };
    if target.len() > TARGET_LIMIT {
        return Err(Refusal::new(Status::TARGET_TOO_LONG, TARGET_TOO_LONG));
    }
    let fields: &'h [httparse::Header<'b>] = parsed.headers;
    let mut framing = Framing::read(fields, minor)?;
    // What a client sends after CONNECT may be the tunnel's bytes already, not another request.
    framing.keep_alive &= method != "CONNECT";
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        known if KNOWN_METHODS.contains(&known) => Method::Unserved,
        _ => Method::Unknown,
    };
    let (path, query) = match method {
        Method::Get | Method::Head => split_target(target)?,
        // Other methods have targets of other forms (`*`, `host:port`), and are refused whatever theirs is.
        Method::Unserved | Method::Unknown => ("*", None),
    };
    Ok(Some(Request {
        method,
        path,
        query,
        minor,
        keep_alive: framing.keep_alive,
        body: framing.body,
        expects_continue: framing.expects_continue,
        head_len,
        fields,
    }))
}

const HEAD_TOO_LARGE: &str = "the request line and header fields are over 16384 bytes; send fewer or shorter fields";
const TOO_MANY_FIELDS: &str = "there are over 100 header fields; send fewer";
const TARGET_TOO_LONG: &str = "the request target is over 8192 bytes; send a shorter one";

/// A head that has not come whole yet must still be able to come whole within the limits.
fn within_limits(bytes: &[u8]) -> Result<(), Refusal> {
    // The longest method and version we could meet add less than this to the target.
    const LINE_LIMIT: usize = TARGET_LIMIT + 64;
    if bytes.len() > LINE_LIMIT && !bytes.contains(&b'\n') {
        return Err(Refusal::new(Status::TARGET_TOO_LONG, TARGET_TOO_LONG));
    }
    if bytes.len() >= HEAD_LIMIT {
        return Err(Refusal::new(Status::FIELDS_TOO_LARGE, HEAD_TOO_LARGE));
    }
    Ok(())
}

/// Tells another version of HTTP from something that is no version at all.
fn refuse_version(bytes: &[u8]) -> Refusal {
    let line = bytes.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or(bytes);
    let mut words = line.split(|&byte| byte == b' ').skip(2);
    match (words.next(), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Refusal::new(Status::VERSION_NOT_SUPPORTED, "this server speaks HTTP/1.1 and HTTP/1.0")
        }
        _ => Refusal::new(Status::BAD_REQUEST, "the request line is not a method, a target and an HTTP version"),
    }
}

/// What the fields say about the connection and the body.
struct Framing {
    keep_alive: bool,
    body: Length,
    expects_continue: bool,
}

impl Framing {
    fn read(fields: &[httparse::Header<'_>], minor: u8) -> Result<Framing, Refusal> {
        let bad = |reason| Refusal::new(Status::BAD_REQUEST, reason);
        let (mut hosts, mut length, mut coding) = (0, None, None);
        let (mut close, mut stay, mut expects_continue) = (false, false, false);
        for field in fields {
            let name = field.name;
            if name.eq_ignore_ascii_case("host") {
                hosts += 1;
                if !is_host(field.value) {
                    return Err(bad("the Host field is not a host"));
                }
            } else if name.eq_ignore_ascii_case("content-length") {
                let value = decimal(field.value).ok_or_else(|| bad("Content-Length is not one number"))?;
                if length.replace(value).is_some() {
                    return Err(bad("Content-Length is given twice"));
                }
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if coding.replace(field.value).is_some() {
                    return Err(bad("Transfer-Encoding is given twice"));
                }
            } else if name.eq_ignore_ascii_case("connection") {
                for option in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    close |= option.eq_ignore_ascii_case(b"close");
                    stay |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if name.eq_ignore_ascii_case("expect") && minor == 1 {
                // A client of HTTP/1.0 cannot mean it, and is to be answered as if it had not said so.
                if !field.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::new(Status::EXPECTATION_FAILED, "only 100-continue can be expected"));
                }
                expects_continue = true;
            }
        }
        if hosts > 1 || hosts == 0 && minor == 1 {
            return Err(bad("a request of HTTP/1.1 has one Host field"));
        }
        let body = match (coding, length) {
            (Some(_), Some(_)) => return Err(bad("Transfer-Encoding and Content-Length exclude each other")),
            (Some(_), None) if minor == 0 => return Err(bad("HTTP/1.0 has no Transfer-Encoding")),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Length::Chunked,
            (Some(_), None) => {
                return Err(Refusal::new(Status::NOT_IMPLEMENTED, "this transfer coding is not supported"));
            }
            (None, Some(length)) if length > BODY_LIMIT => {
                return Err(Refusal::new(Status::CONTENT_TOO_LARGE, "the body is over 1048576 bytes"));
            }
            (None, length) => Length::Bytes(length.unwrap_or(0)),
        };
        Ok(Framing { keep_alive: !close && (minor == 1 || stay), body, expects_continue })
    }
}

/// Digits and nothing else: no sign, no list, no number too large to count with.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}

/// Whether a value could be a host and port. It is not used for anything, so its characters are looked at and no more.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(byte))
}

/// Splits a target into path and query, whether it is sent as `/path` or as `http://host/path`.
fn split_target(target: &str) -> Result<(&str, Option<&str>), Refusal> {
    let after_scheme = ["http://", "https://"].into_iter().find_map(|scheme| {
        let head = target.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
    });
    let target = match after_scheme {
        None => target,
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            if end == 0 || !is_host(&rest.as_bytes()[..end]) {
                return Err(Refusal::new(Status::BAD_REQUEST, "the request target has no host"));
            }
            // `http://host` and `http://host?query` ask for the path `/`.
            if rest[end..].starts_with('/') { &rest[end..] } else { return Ok(("/", query_of(&rest[end..]))) }
        }
    };
    if !target.starts_with('/') {
        return Err(Refusal::new(Status::BAD_REQUEST, "the request target is not a path"));
    }
    let end = target.find(['?', '#']).unwrap_or(target.len());
    Ok((&target[..end], query_of(&target[end..])))
}

fn query_of(rest: &str) -> Option<&str> {
    rest.strip_prefix('?').map(|query| query.split('#').next().unwrap_or(query))
}
