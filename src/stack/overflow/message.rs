//! What is said of an overflow.

use core::fmt::{self, Write};

use super::Bounds;
use crate::stack::named::Name;

/// Says that a stack has overflowed, by one write to the standard error. Async-signal-safe.
///
/// # Safety
///
/// The stack must be mapped, and what runs there must not go on meanwhile.
pub(super) unsafe fn print(stack: Bounds) {
    // SAFETY: the caller's promise; no mapping is smaller than a page.
    let name = unsafe { Name::at(stack.top) };
    let line = line(name.as_bytes(), stack);
    // SAFETY: the buffer has that many bytes.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length) };
}

fn line(name: &[u8], stack: Bounds) -> Line {
    let mut line = Line { bytes: [0; 192], length: 0 };
    line.push(b"coroutine '");
    line.push(if name.is_empty() { b"<unnamed>" } else { name });
    // It never fails.
    let _ = writeln!(line, "' overflowed its stack ({} at {:#x})", Size(stack.top - stack.limit), stack.limit);
    line
}

/// Room for the longest name and the largest numbers.
struct Line {
    bytes: [u8; 192],
    length: usize,
}

impl Line {
    /// Appends what there is room for.
    fn push(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
        self.length += length;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// A number of bytes, in the largest unit of which it is a multiple.
struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"];
        let unit = (self.0.trailing_zeros() as usize / 10).min(units.len() - 1);
        write!(f, "{} {}", self.0 >> (10 * unit), units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, reserve: usize) -> String {
        let limit = 0x7000;
        let line = line(name.as_bytes(), Bounds { guard: 0x6000, limit, top: limit + reserve });
        str::from_utf8(&line.bytes[..line.length]).expect("the name is text").to_owned()
    }

    #[test]
    fn sizes_are_exact_in_the_largest_unit() {
        assert_eq!(said("a", 64 << 10), "coroutine 'a' overflowed its stack (64 KiB at 0x7000)\n");
        for (reserve, size) in [
            (4 << 10, "4 KiB"),
            (1 << 20, "1 MiB"),
            ((1 << 20) + (4 << 10), "1028 KiB"),
            (60 << 20, "60 MiB"),
            (1 << 30, "1 GiB"),
        ] {
            assert!(said("a", reserve).contains(&format!("({size} at ")), "{reserve}: {}", said("a", reserve));
        }
    }

    #[test]
    fn the_longest_line_fits() {
        let size = usize::MAX - 0x7000;
        let line = said(&"x".repeat(64), size);
        assert!(line.ends_with(")\n") && line.len() <= 192 - (u64::MAX.to_string().len() - size.to_string().len()));
    }
}
