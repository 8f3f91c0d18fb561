//! A server of files that differ in what matters, and a client that takes answers apart.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use switchback_runtime as rt;

use crate::server::{Handle, Limits, Server, Stopped};

/// Ends a test that hangs.
pub const HANG: Duration = Duration::from_secs(60);

/// More than the socket buffers of both ends hold, so that its sender has to wait for the reader.
pub const HUGE: u64 = 48 * 1024 * 1024;

/// A directory that is removed with everything in it.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("http-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server at work.
pub struct Running {
    pub addr: SocketAddr,
    pub handle: Arc<Handle>,
    pub thread: Option<JoinHandle<Stopped>>,
    pub directory: Directory,
}

impl Running {
    /// Serves a directory with a page, and files of all the sizes that make a difference.
    pub fn start() -> Running {
        Running::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Running {
        let directory = Directory::new();
        directory.write("index.html", "<h1>front page</h1>");
        directory.write("hello.txt", "hello, world");
        directory.write("medium.bin", medium());
        directory.write("large.bin", large());
        directory.write("names/a b&<c>.txt", "named oddly");
        File::create(directory.0.join("huge.bin")).unwrap().set_len(HUGE).unwrap();
        Running::serve(directory, limits, |_| ())
    }

    /// `before` runs in a coroutine of the server's runtime, and gets its handle.
    pub fn serve(directory: Directory, limits: Limits, before: impl FnOnce(&Arc<Handle>) + Send + 'static) -> Running {
        let root = directory.0.clone();
        let (say, said) = mpsc::channel();
        let thread = thread::spawn(move || {
            rt::run(move || {
                let server = Server::bind("127.0.0.1:0", Some(root), limits).unwrap();
                let handle = Arc::new(server.handle());
                before(&handle);
                say.send((server.local_addr().unwrap(), handle)).unwrap();
                server.serve()
            })
            .unwrap()
        });
        let (addr, handle) = said.recv().unwrap();
        Running { addr, handle, thread: Some(thread), directory }
    }

    pub fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.addr).unwrap())
    }

    /// One request on a connection of its own; `fields` are whole lines.
    pub fn ask(&self, method: &str, target: &str, fields: &str) -> Answer {
        let mut client = self.connect();
        client.send(&format!("{method} {target} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n{fields}\r\n"));
        let answer = client.answer_to(method);
        client.expect_end();
        answer
    }

    pub fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "")
    }

    /// What is sent back for these bytes, which must be an answer that ends the connection.
    pub fn refusal_of(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect();
        client.0.write_all(bytes.as_ref()).unwrap();
        let answer = client.answer_to("GET");
        assert_eq!(answer.field("connection"), Some("close"));
        client.expect_end();
        answer
    }

    /// A figure of `/status.json`.
    pub fn figure(&self, name: &str) -> f64 {
        figure(&self.get("/status.json").text(), name)
    }

    /// Waits until so many connections are open, and returns the status that says so. The one that asks is among them.
    pub fn wait_until_open(&self, count: u32) -> String {
        let start = Instant::now();
        let mut client = self.connect();
        loop {
            let json = client.get("/status.json").text();
            let open = figure(&json, "connections");
            if open == f64::from(count) {
                return json;
            }
            assert!(start.elapsed() < HANG, "{open} connections stay open");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until all connections are closed but the one that asks.
    pub fn wait_until_alone(&self) {
        self.wait_until_open(1);
    }

    pub fn stop(mut self) -> Stopped {
        self.handle.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the server panicked");
        }
    }
}

/// Sent from memory, but not in one run with its head.
pub fn medium() -> Vec<u8> {
    large()[..20_000].to_vec()
}

/// Streamed.
pub fn large() -> Vec<u8> {
    (0..200_000_u32).map(|n| (n ^ n >> 8) as u8).collect()
}

/// The number behind a name in JSON.
pub fn figure(json: &str, name: &str) -> f64 {
    let (_, rest) = json.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {json}"));
    let end = rest.find([',', '}']).unwrap();
    rest[..end].parse().unwrap_or_else(|_| panic!("{name} is {}", &rest[..end]))
}

pub struct Client(pub TcpStream);

impl Client {
    pub fn new(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    pub fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// Reads one answer and nothing behind it.
    pub fn answer_to(&mut self, method: &str) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap_or_else(|error| {
                panic!("{error} in the head of an answer, after {:?}", String::from_utf8_lossy(&head))
            });
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let fields =
            lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_lowercase(), v.into())).collect();
        let mut answer = Answer { status, fields, body: Vec::new() };
        if method != "HEAD" && status != 304 && status != 100 {
            answer.body = vec![0; answer.field("content-length").unwrap().parse().unwrap()];
            self.0.read_exact(&mut answer.body).unwrap();
        }
        answer
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: here\r\n\r\n"));
        self.answer_to("GET")
    }

    /// The server closes the connection in order, and sends nothing before.
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("the connection ends, and is not reset");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    pub fn reset(self) {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}
