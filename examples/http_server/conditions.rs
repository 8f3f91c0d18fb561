//! Conditional and range requests: which part of a file to send, if any (RFC 9110, sections 13 and 14).

use std::ops::Range;
use std::time::{Duration, SystemTime};

use super::files::Entity;
use super::request::{Method, Request};

/// What the fields of a request make of the file it asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Whole,
    /// These bytes of it; at least one.
    Part(Range<u64>),
    /// The client has this version already.
    NotModified,
    /// The client wants another version than there is.
    Failed,
    /// The range it asks for has no byte in the file.
    Unsatisfiable,
}

/// Evaluates the conditions in the order of RFC 9110, section 13.2.2.
pub fn outcome(request: &Request<'_, '_>, entity: &Entity, now: SystemTime) -> Outcome {
    if request.values("if-match").next().is_some() {
        if !request.values("if-match").any(|tags| lists(tags, &entity.etag, Compare::Strong)) {
            return Outcome::Failed;
        }
    } else if let Some(since) = date(request.value("if-unmodified-since"))
        && is_newer(entity, since)
    {
        return Outcome::Failed;
    }
    if request.values("if-none-match").next().is_some() {
        if request.values("if-none-match").any(|tags| lists(tags, &entity.etag, Compare::Weak)) {
            return Outcome::NotModified;
        }
    } else if let Some(since) = date(request.value("if-modified-since"))
        && !is_newer(entity, since)
    {
        return Outcome::NotModified;
    }
    // Ranges are defined for GET alone: HEAD is answered as if there were none.
    if request.method != Method::Get {
        return Outcome::Whole;
    }
    match request.value("range") {
        Some(range) if range_still_holds(request, entity, now) => select(range, entity.len),
        _ => Outcome::Whole,
    }
}

/// Whether the version that the client has a part of is the one there is.
fn range_still_holds(request: &Request<'_, '_>, entity: &Entity, now: SystemTime) -> bool {
    let Some(validator) = request.value("if-range") else {
        return request.values("if-range").next().is_none();
    };
    if validator.starts_with(b"\"") || validator.starts_with(b"W/") {
        return validator == entity.etag.as_bytes();
    }
    // A date tells versions apart only once the second it names is over.
    let settled = entity.modified + Duration::from_secs(1) <= now;
    settled && validator == entity.modified_text.as_bytes()
}

/// A range of bytes out of `len`. What is not one single range of bytes is ignored, as if it had not been asked for.
fn select(value: &[u8], len: u64) -> Outcome {
    let Some((unit, range)) = str::from_utf8(value).ok().and_then(|value| value.split_once('=')) else {
        return Outcome::Whole;
    };
    let Some((first, last)) = range.trim_ascii().split_once('-') else {
        return Outcome::Whole;
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Outcome::Whole;
    }
    let span = match (position(first), position(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(len),
        (Some(first), None) if last.is_empty() => first..len,
        (None, Some(suffix)) if first.is_empty() => len.saturating_sub(suffix)..len,
        _ => return Outcome::Whole,
    };
    if span.is_empty() { Outcome::Unsatisfiable } else { Outcome::Part(span) }
}

/// Reads a position in a file; one too large to count with is past the end of every file.
fn position(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    Strong,
    Weak,
}

/// Whether a list of entity tags has this (strong) one, or is `*`.
fn lists(tags: &[u8], etag: &str, compare: Compare) -> bool {
    if tags.trim_ascii() == b"*" {
        return true;
    }
    let mut rest = tags;
    loop {
        while let [b' ' | b'\t' | b',', after @ ..] = rest {
            rest = after;
        }
        let weak = rest.starts_with(b"W/");
        if weak {
            rest = &rest[2..];
        }
        // A tag may have commas in it: its end is its second quote.
        let Some(end) = rest.iter().skip(1).position(|&byte| byte == b'"').filter(|_| rest[0] == b'"') else {
            return false;
        };
        let (tag, after) = rest.split_at(end + 2);
        if tag == etag.as_bytes() && !(weak && compare == Compare::Strong) {
            return true;
        }
        rest = after;
    }
}

fn date(value: Option<&[u8]>) -> Option<SystemTime> {
    httpdate::parse_http_date(str::from_utf8(value?).ok()?).ok()
}

/// Whether the file was changed after `since`, which has no fractions of a second.
fn is_newer(entity: &Entity, since: SystemTime) -> bool {
    entity.modified.duration_since(since).is_ok_and(|later| later >= Duration::from_secs(1))
}
