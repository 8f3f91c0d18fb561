//! The page that lists a directory, and how names of files are written in targets and in HTML.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The most names a listing shows; a directory may hold any number.
const NAMES_LIMIT: usize = 1_000;

/// Lists `directory`, which was asked for by the names in `segments`: directories first, then files, each in order.
pub fn page(directory: &Path, segments: &[OsString]) -> io::Result<String> {
    let mut entries = Vec::new();
    let mut left_out = false;
    for entry in directory.read_dir()? {
        let entry = entry?;
        if entries.len() == NAMES_LIMIT {
            left_out = true;
            break;
        }
        // What a link leads to decides; one that leads nowhere is listed as the file it is not.
        let is_directory = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
            Ok(kind) => kind.is_dir(),
            Err(_) => false,
        };
        entries.push((!is_directory, entry.file_name()));
    }
    entries.sort();

    let title: String =
        std::iter::once("/".into()).chain(segments.iter().map(|segment| format!("{}/", segment.display()))).collect();
    let title = escape(&title);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}</title>\n\
         <style>body {{ font: 1rem/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 50rem; padding: 0 1rem; \
         overflow-wrap: anywhere }} ul {{ list-style: none; padding: 0 }}</style>\n\
         <h1>{title}</h1>\n<ul>\n"
    );
    if !segments.is_empty() {
        html.push_str("<li><a href=\"../\">../</a>\n");
    }
    for (is_file, name) in &entries {
        let slash = if *is_file { "" } else { "/" };
        // The leading `./` keeps a name with a colon in it from being read as a scheme.
        html.push_str("<li><a href=\"./");
        percent_encode(name, &mut html);
        let _ = writeln!(html, "{slash}\">{}{slash}</a>", escape(&name.to_string_lossy()));
    }
    html.push_str("</ul>\n");
    if left_out {
        let _ = writeln!(html, "<p>There are more than the {NAMES_LIMIT} names shown.</p>");
    }
    Ok(html)
}

/// The target that names the directory reached through these names.
pub fn target_of(segments: &[OsString]) -> String {
    let mut target = String::from("/");
    for segment in segments {
        percent_encode(segment, &mut target);
        target.push('/');
    }
    target
}

/// The bytes that an encoded piece of a path stands for; `None` if a `%` is not followed by two hexadecimal digits.
pub fn percent_decode(encoded: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    Some(decoded)
}

/// Writes a name so that it is one segment of a path, whatever bytes it has.
fn percent_encode(name: &OsStr, target: &mut String) {
    for &byte in name.as_bytes() {
        // The characters RFC 3986 (section 2.3) reserves for nothing.
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            target.push(char::from(byte));
        } else {
            let _ = write!(target, "%{byte:02X}");
        }
    }
}

/// Text as it stands in HTML, in an element or in a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
