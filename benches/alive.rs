//! How many can be alive at once: each kind in a process of its own, until there are enough or one is refused.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::process::Command;

/// So many are enough.
const ENOUGH: usize = 1_000_000;

/// How a process is told to have as many of one kind as it can.
const ALIVE: &str = "--alive=";

/// One of whose kind there are to be many.
pub struct Kind {
    /// As the table names it.
    pub name: &'static str,
    /// Has so many at once, or as many as it can.
    pub have: fn(usize) -> Reached,
}

/// How many there were.
pub struct Reached {
    count: usize,
    /// Mappings that came with them.
    mappings: usize,
    /// What the next one was refused with, if it was.
    refused: Option<String>,
}

/// Makes so many and keeps them, until one is refused.
pub fn have<T, E: Display>(most: usize, mut make: impl FnMut() -> Result<T, E>) -> Reached {
    let mut kept = Vec::with_capacity(most);
    let before = mappings();
    let mut refused = None;
    while kept.len() < most && refused.is_none() {
        match make() {
            Ok(one) => kept.push(one),
            Err(error) => refused = Some(error),
        }
    }
    let (count, mappings) = (kept.len(), mappings().saturating_sub(before));
    // To say what was refused may take a mapping.
    kept.truncate(count / 2);
    let refused = refused.map(|error| error.to_string());
    // The process ends next, which gives back the rest at once.
    std::mem::forget(kept);
    Reached { count, mappings, refused }
}

/// Mappings of this process, counted without another one.
fn mappings() -> usize {
    let Ok(mut maps) = File::open("/proc/self/maps") else { return 0 };
    let mut part = [0; 4096];
    let mut lines = 0;
    while let Ok(length @ 1..) = maps.read(&mut part) {
        lines += part[..length].iter().filter(|&&byte| byte == b'\n').count();
    }
    lines
}

/// Prints a line for each kind, if the user [chose](crate::filter) what is done here. To be called first: a process that
/// `of_a_process` has started ends here.
///
/// Without cargo's `--bench`, as `cargo test --benches` calls it, there are two of each only, to see that there can be.
pub fn run(what: &str, kinds: &[Kind]) {
    if let Some(name) = std::env::args().find_map(|argument| argument.strip_prefix(ALIVE).map(str::to_owned)) {
        let kind = kinds.iter().find(|kind| kind.name == name).expect("a kind that our own process named");
        let Reached { count, mappings, refused } = (kind.have)(ENOUGH);
        println!("{count} | {mappings} | {}", refused.as_deref().unwrap_or("enough"));
        std::process::exit(0);
    }
    if !what.contains(&crate::filter()) {
        return;
    }
    if std::env::args().any(|argument| argument == "--bench") {
        println!("| {what} | stacks | mappings | and then |\n|---|---|---|---|");
        kinds.iter().for_each(|kind| println!("| {} | {} |", kind.name, of_a_process(kind)));
        println!();
    } else {
        kinds.iter().for_each(|kind| assert_eq!((kind.have)(2).count, 2, "{}", kind.name));
    }
}

fn of_a_process(kind: &Kind) -> String {
    let program = std::env::current_exe().expect("the path of this program");
    let output = Command::new(program).arg(format!("{ALIVE}{}", kind.name)).output().expect("this program, again");
    assert!(output.status.success(), "{}: {}", kind.name, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
