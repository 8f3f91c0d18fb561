//! Serves the files of a directory to web browsers: a coroutine per connection, in plain blocking-style code.
//!
//! ```text
//! cargo run --release --example http_server -- [DIR] [--addr 127.0.0.1:8080]
//! ```
//!
//! `/status` shows what the server and the runtime under it are doing. Ctrl-C ends the server in order.

#[path = "http_server/mod.rs"]
mod server;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use switchback_runtime as rt;
use switchback_runtime::signal::{SIGINT, SIGTERM, Signals};

use server::{Limits, Server, Stopped};

const USAGE: &str = "\
usage: http_server [DIR] [--addr HOST:PORT]

  DIR               the directory to serve; by default the project's docs/, or a built-in page if that is not there
  --addr HOST:PORT  where to listen, 127.0.0.1:8080 by default; port 0 takes any free one
  --help            prints this";

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            say(USAGE);
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("http_server: {mistake}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    raise_descriptor_limit();
    match rt::run(|| serve(arguments)).flatten() {
        Ok(stopped) => {
            say(&format!(
                "stopped: {} requests on {} connections answered; of those open at the end, {} finished, {} cut off",
                stopped.requests, stopped.connections, stopped.finished, stopped.cut_off
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("http_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: Arguments) -> io::Result<Stopped> {
    let shown = arguments.root.as_deref().map_or("a built-in page".into(), |root| root.display().to_string());
    let server = Server::bind(&arguments.addr, arguments.root, Limits::default())?;
    let signals = Signals::new(&[SIGINT, SIGTERM])?;
    let handle = server.handle();
    rt::spawn(move || {
        if let Err(error) = handle.stop_at(&signals) {
            eprintln!("http_server: cannot wait for signals: {error}");
        }
    });
    let addr = server.local_addr()?;
    say(&format!("serving {shown} on http://{addr} (status: http://{addr}/status)"));
    Ok(server.serve())
}

/// Prints a line; that nobody reads it is no reason for a server to end, as it would be for `println!`.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

struct Arguments {
    root: Option<PathBuf>,
    addr: String,
}

impl Arguments {
    /// `None` if all that is asked for is help.
    fn parse(mut words: impl Iterator<Item = std::ffi::OsString>) -> Result<Option<Arguments>, String> {
        let (mut root, mut addr) = (None, None);
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--help" | "-h") => return Ok(None),
                Some(option) if option.starts_with('-') => {
                    let value = match option.split_once('=') {
                        Some(("--addr", value)) => value.to_owned(),
                        None if option == "--addr" => words
                            .next()
                            .and_then(|value| value.into_string().ok())
                            .ok_or("--addr needs an address such as 127.0.0.1:8080")?,
                        _ => return Err(format!("there is no option {option}")),
                    };
                    if !value
                        .rsplit_once(':')
                        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
                    {
                        return Err(format!("{value} is not an address such as 127.0.0.1:8080"));
                    }
                    addr = Some(value);
                }
                _ if root.is_some() => return Err("only one directory can be served".into()),
                _ => root = Some(PathBuf::from(word)),
            }
        }
        Ok(Some(Arguments { root: root.or_else(default_root), addr: addr.unwrap_or_else(|| "127.0.0.1:8080".into()) }))
    }
}

/// The documentation beside the source this program was built from, if it is still there.
fn default_root() -> Option<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").canonicalize().ok().filter(|docs| docs.is_dir())
}

/// A connection is a descriptor, and shells start programs with room for 1024: take what we may have without asking.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it cannot be raised, the server works with the room there is.
    let _ = setrlimit(Resource::Nofile, limit);
}
