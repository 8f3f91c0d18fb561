//! The example server, asked over real sockets by plain threads.
//!
//! The server runs in this process, on a runtime of its own for each test. Deadlines in the client only end a hang;
//! the server's are set short where a test is about them.

#[path = "../../../examples/http_server/mod.rs"]
mod server;

#[path = "http_server/harness.rs"]
mod harness;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Answer, Client, Directory, HANG, HUGE, Running, figure, large, medium};
use server::{Limits, Server};
use switchback_runtime as rt;

// Files.

#[test]
fn a_file_comes_with_its_type_length_and_validators() {
    let server = Running::start();
    let answer = server.get("/hello.txt?a=query");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "hello, world");
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.field("content-length"), Some("12"));
    assert_eq!(answer.field("accept-ranges"), Some("bytes"));
    assert!(answer.field("etag").unwrap().starts_with('"'));
    httpdate::parse_http_date(answer.field("last-modified").unwrap()).unwrap();
    httpdate::parse_http_date(answer.field("date").unwrap()).unwrap();
    assert_eq!(server.get("/large.bin").field("content-type"), Some("application/octet-stream"));
}

#[test]
fn a_large_file_arrives_whole() {
    let server = Running::start();
    assert!(server.get("/medium.bin").body == medium());
    assert!(server.get("/large.bin").body == large());
    let huge = server.get("/huge.bin").body;
    assert_eq!(huge.len() as u64, HUGE);
    // By runs and not by bytes: under emulation, without optimization, that is the difference of many seconds.
    assert!(huge.chunks(4096).all(|run| run == &[0; 4096][..run.len()]));
}

#[test]
fn head_answers_with_the_fields_of_get_and_without_its_body() {
    let server = Running::start();
    for target in ["/", "/hello.txt", "/medium.bin", "/large.bin", "/names/", "/names", "/missing", "/..", "/status"] {
        let [get, head] = ["GET", "HEAD"].map(|method| server.ask(method, target, "Range: bytes=x\r\n"));
        assert_eq!(get.status, head.status, "{target}");
        let without_date =
            |answer: &Answer| answer.fields.iter().filter(|(name, _)| name != "date").cloned().collect::<Vec<_>>();
        assert_eq!(without_date(&get), without_date(&head), "{target}");
        assert!(!get.body.is_empty(), "{target}");
    }
    // Ranges are defined for GET alone.
    let head = server.ask("HEAD", "/hello.txt", "Range: bytes=0-1\r\n");
    assert_eq!((head.status, head.field("content-length")), (200, Some("12")));
}

#[test]
fn a_directory_is_its_index_or_else_a_list_whose_links_lead_to_its_files() {
    let server = Running::start();
    let index = server.get("/");
    assert_eq!(index.text(), "<h1>front page</h1>");
    assert_eq!(index.field("content-type"), Some("text/html; charset=utf-8"));

    server.directory.write("names/../names/sub dir/x", "x");
    let list = server.get("/names/").text();
    assert!(list.contains(">a b&amp;&lt;c&gt;.txt</a>"), "{list}");
    assert!(list.contains(">sub dir/</a>"), "{list}");
    let links: Vec<&str> = list.split("<a href=\"./").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(links, ["sub%20dir/", "a%20b%26%3Cc%3E.txt"]);
    assert_eq!(server.get(&format!("/names/{}", links[1])).text(), "named oddly");
    assert_eq!(server.get(&format!("/names/{}", links[0])).status, 200);
}

#[test]
fn a_directory_without_its_slash_is_redirected_to_this_server_and_no_other() {
    let server = Running::start();
    server.directory.write("example.org/x", "x");
    server.directory.write("sub dir/x", "x");
    for (target, location) in [
        ("/names", "/names/"),
        ("/names?a=b&c", "/names/?a=b&c"),
        ("/sub%20dir", "/sub%20dir/"),
        ("//example.org", "/example.org/"),
        ("/.//example.org", "/example.org/"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.field("location")), (301, Some(location)), "{target}");
    }
    assert_eq!(server.get("/hello.txt/").status, 404);
}

#[test]
fn nothing_outside_the_directory_can_be_reached() {
    let outside = Directory::new();
    outside.write("secret.txt", "secret");
    let server = Running::start();
    let root = &server.directory.0;
    std::os::unix::fs::symlink(&outside.0, root.join("out")).unwrap();
    std::os::unix::fs::symlink(outside.0.join("secret.txt"), root.join("out.txt")).unwrap();
    std::os::unix::fs::symlink("hello.txt", root.join("in.txt")).unwrap();
    std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
    let sibling = outside.0.file_name().unwrap().to_str().unwrap();

    assert_eq!(server.get("/in.txt").text(), "hello, world");
    for target in [
        "/..",
        "/../",
        "/names/../hello.txt",
        &format!("/../{sibling}/secret.txt"),
        &format!("/names/../../{sibling}/secret.txt"),
        &format!("/..%2f{sibling}/secret.txt"),
        &format!("/%2e%2e/{sibling}/secret.txt"),
        &format!("/%2E%2E%2F{sibling}%2Fsecret.txt"),
        &format!("/{}", outside.0.join("secret.txt").display()),
        "/out",
        "/out/",
        "/out/secret.txt",
        "/out.txt",
        "/loop",
    ] {
        let answer = server.get(target);
        assert!(matches!(answer.status, 403 | 404), "{target}: {}", answer.status);
        assert!(!answer.text().contains("secret"), "{target}");
    }
    for target in ["/hello.txt%00", "/%00", "/%", "/%4", "/%zz", "/hello%2"] {
        assert_eq!(server.get(target).status, 400, "{target}");
    }
    assert_eq!(server.get(&format!("/{}", "x".repeat(300))).status, 404);
}

#[test]
fn what_is_not_a_file_is_not_opened() {
    let server = Running::start();
    let _socket = std::os::unix::net::UnixListener::bind(server.directory.0.join("socket")).unwrap();
    assert_eq!(server.get("/socket").status, 403);
}

#[test]
fn a_changed_file_is_sent_anew_with_another_etag() {
    let server = Running::start();
    let before = server.get("/hello.txt");
    server.directory.write("hello.txt", "HELLO, WORLD");
    let start = Instant::now();
    // It may be kept for a second.
    let after = loop {
        let answer = server.get("/hello.txt");
        if answer.text() != "hello, world" {
            break answer;
        }
        assert!(start.elapsed() < HANG, "the old file stays");
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(after.text(), "HELLO, WORLD");
    assert_ne!(before.field("etag"), after.field("etag"));
}

#[test]
fn files_dated_outside_the_years_that_http_can_write_are_served() {
    let server = Running::start();
    for (name, seconds) in [("old", -86_400 * 3650_i64), ("new", 86_400 * 365 * 9000)] {
        server.directory.write(name, "x");
        let time = std::time::SystemTime::UNIX_EPOCH;
        let time = if seconds < 0 {
            time - Duration::from_secs(seconds.unsigned_abs())
        } else {
            time + Duration::from_secs(seconds.unsigned_abs())
        };
        let file = File::options().write(true).open(server.directory.0.join(name)).unwrap();
        // Not every file system can hold such dates.
        let _ = file.set_modified(time);
        assert_eq!(server.get(&format!("/{name}")).status, 200, "{name}");
    }
}

#[test]
fn without_a_directory_there_is_a_built_in_page() {
    let (say, said) = mpsc::channel();
    let thread = thread::spawn(move || {
        rt::run(move || {
            let server = Server::bind("127.0.0.1:0", None, Limits::default()).unwrap();
            say.send((server.local_addr().unwrap(), server.handle())).unwrap();
            server.serve()
        })
        .unwrap()
    });
    let (addr, handle) = said.recv().unwrap();
    let mut client = Client::new(TcpStream::connect(addr).unwrap());
    assert!(client.get("/").text().contains("Switchback"));
    assert_eq!(client.get("/Cargo.toml").status, 404);
    handle.stop();
    thread.join().unwrap();
}

// Conditions and ranges.

#[test]
fn a_range_is_sent_alone_and_says_where_it_lies() {
    let server = Running::start();
    for (name, bytes) in [("hello.txt", b"hello, world".to_vec()), ("medium.bin", medium()), ("large.bin", large())] {
        let len = bytes.len();
        for (range, span) in [
            ("0-0".to_owned(), 0..1),
            ("0-4".into(), 0..5),
            ("7-".into(), 7..len),
            ("-5".into(), len - 5..len),
            (format!("-{}", len + 1), 0..len),
            ("3-99999999999999999999999".into(), 3..len),
            (format!("{}-{}", len - 1, len - 1), len - 1..len),
        ] {
            let answer = server.ask("GET", &format!("/{name}"), &format!("Range: bytes={range}\r\n"));
            assert_eq!(answer.status, 206, "{range}");
            assert!(answer.body == bytes[span.clone()], "{range}");
            let place = format!("bytes {}-{}/{len}", span.start, span.end - 1);
            assert_eq!(answer.field("content-range"), Some(place.as_str()), "{range}");
        }
    }
}

#[test]
fn a_range_outside_the_file_is_416_and_says_how_long_the_file_is() {
    let server = Running::start();
    server.directory.write("empty", "");
    for (name, range, len) in [
        ("hello.txt", "12-", 12),
        ("hello.txt", "12-20", 12),
        ("hello.txt", "-0", 12),
        ("hello.txt", "99999999999999999999999-", 12),
        ("empty", "0-", 0),
        ("empty", "-1", 0),
    ] {
        let answer = server.ask("GET", &format!("/{name}"), &format!("Range: bytes={range}\r\n"));
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.field("content-range"), Some(format!("bytes */{len}").as_str()), "{range}");
    }
    let empty = server.get("/empty");
    assert_eq!((empty.status, empty.body.len()), (200, 0));
}

#[test]
fn what_is_not_one_range_of_bytes_gets_the_whole_file() {
    let server = Running::start();
    for range in
        ["bytes=0-1,3-4", "bytes=5-3", "bytes=a-b", "bytes=-", "bytes=--1", "bytes=1", "lines=0-1", "bytes 0-1", ""]
    {
        let answer = server.ask("GET", "/hello.txt", &format!("Range: {range}\r\n"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello, world"), "{range}");
    }
    let twice = server.ask("GET", "/hello.txt", "Range: bytes=0-1\r\nRange: bytes=0-1\r\n");
    assert_eq!(twice.status, 200);
}

#[test]
fn if_range_sends_the_range_only_of_the_version_it_names() {
    let server = Running::start();
    let old = std::time::SystemTime::now() - Duration::from_secs(1000);
    File::options().write(true).open(server.directory.0.join("hello.txt")).unwrap().set_modified(old).unwrap();
    let whole = server.get("/hello.txt");
    let (etag, modified) = (whole.field("etag").unwrap(), whole.field("last-modified").unwrap());
    for (validator, status) in [
        (etag, 206),
        (&format!("W/{etag}")[..], 200),
        ("\"another\"", 200),
        (modified, 206),
        ("Thu, 01 Jan 2099 00:00:00 GMT", 200),
        ("nonsense", 200),
    ] {
        let answer = server.ask("GET", "/hello.txt", &format!("Range: bytes=0-1\r\nIf-Range: {validator}\r\n"));
        assert_eq!(answer.status, status, "{validator}");
    }
}

#[test]
fn a_client_that_has_the_file_already_is_told_so() {
    let server = Running::start();
    let whole = server.get("/hello.txt");
    let (etag, modified) = (whole.field("etag").unwrap(), whole.field("last-modified").unwrap());
    let (past, future) = ("Thu, 01 Jan 1998 00:00:00 GMT", "Thu, 01 Jan 2099 00:00:00 GMT");
    for (fields, status) in [
        (format!("If-None-Match: {etag}"), 304),
        (format!("If-None-Match: W/{etag}"), 304),
        (format!("If-None-Match: \"a,b\" , {etag}"), 304),
        (format!("If-None-Match: \"a\"\r\nIf-None-Match: {etag}"), 304),
        ("If-None-Match: *".into(), 304),
        ("If-None-Match: \"another\"".into(), 200),
        (format!("If-None-Match: {}", etag.trim_matches('"')), 200),
        ("If-None-Match: \"unfinished".into(), 200),
        (format!("If-Modified-Since: {modified}"), 304),
        (format!("If-Modified-Since: {future}"), 304),
        (format!("If-Modified-Since: {past}"), 200),
        ("If-Modified-Since: nonsense".into(), 200),
        // The tag says more than the date.
        (format!("If-None-Match: \"another\"\r\nIf-Modified-Since: {future}"), 200),
        (format!("If-Match: {etag}"), 200),
        ("If-Match: *".into(), 200),
        (format!("If-Match: W/{etag}"), 412),
        ("If-Match: \"another\"".into(), 412),
        (format!("If-Unmodified-Since: {past}"), 412),
        (format!("If-Unmodified-Since: {modified}"), 200),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = server.ask(method, "/hello.txt", &format!("{fields}\r\n"));
            assert_eq!(answer.status, status, "{method} with {fields}");
            if status == 304 {
                assert_eq!(answer.field("etag"), Some(etag), "{fields}");
                assert_eq!(answer.field("content-length"), None, "{fields}");
            }
        }
    }
}

// Connections.

#[test]
fn a_connection_serves_one_request_after_another() {
    let server = Running::start();
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/hello.txt").text(), "hello, world");
        assert_eq!(client.get("/missing").status, 404);
        assert!(client.get("/large.bin").body == large());
    }
    assert_eq!(server.figure("connections_accepted"), 2.0);
}

#[test]
fn a_connection_ends_when_the_client_wants_it_to() {
    let server = Running::start();
    for (request, stays) in [
        ("GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: here\r\nConnection: x, Close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: here\r\n\r\n", true),
    ] {
        let mut client = server.connect();
        client.send(request);
        let answer = client.answer_to("GET");
        if stays {
            assert_ne!(answer.field("connection"), Some("close"), "{request}");
            assert_eq!(answer.field("connection").is_some(), request.contains("1.0"), "{request}");
            assert_eq!(client.get("/hello.txt").status, 200, "{request}");
        } else {
            assert_eq!(answer.field("connection"), Some("close"), "{request}");
            client.expect_end();
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Running::start();
    let mut client = server.connect();
    let one = "GET /hello.txt HTTP/1.1\r\nHost: here\r\n\r\n";
    let with_body = "GET /missing HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nGET /";
    let medium_one = "GET /medium.bin HTTP/1.1\r\nHost: here\r\n\r\n";
    let big = "GET /large.bin HTTP/1.1\r\nHost: here\r\n\r\n";
    let head = "HEAD /large.bin HTTP/1.1\r\nHost: here\r\n\r\n";
    let rounds = 50;
    client.send(&[one, with_body, "\r\n", medium_one, big, head].concat().repeat(rounds));
    for _ in 0..rounds {
        assert_eq!(client.answer_to("GET").text(), "hello, world");
        assert_eq!(client.answer_to("GET").status, 404);
        assert!(client.answer_to("GET").body == medium());
        assert!(client.answer_to("GET").body == large());
        assert_eq!(client.answer_to("HEAD").status, 200);
    }
    client.0.shutdown(Shutdown::Write).unwrap();
    client.expect_end();
}

#[test]
fn a_request_may_come_one_byte_at_a_time() {
    let server = Running::start();
    let mut client = server.connect();
    let request = "\r\nGET /hello.txt HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc";
    for byte in request.repeat(2).into_bytes() {
        client.0.write_all(&[byte]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.answer_to("GET").text(), "hello, world");
    assert_eq!(client.answer_to("GET").text(), "hello, world");
}

#[test]
fn a_request_ends_lines_as_old_clients_do() {
    let server = Running::start();
    let mut client = server.connect();
    client.send("GET /hello.txt HTTP/1.1\nHost: here\n\n");
    assert_eq!(client.answer_to("GET").text(), "hello, world");
}

#[test]
fn a_target_may_be_absolute() {
    let server = Running::start();
    for (target, status) in [
        ("http://here/hello.txt", 200),
        ("HTTP://here:80/hello.txt?q", 200),
        ("https://here", 200),
        ("http://here?q", 200),
        ("http:///hello.txt", 400),
        ("http://a b/", 400),
        ("http://user@here/", 400),
        ("ftp://here/", 400),
        ("hello.txt", 400),
        ("*", 400),
    ] {
        assert_eq!(server.get(target).status, status, "{target}");
    }
}

#[test]
fn bodies_are_read_and_thrown_away() {
    let server = Running::start();
    let mut client = server.connect();
    let body = "x".repeat(1024 * 1024);
    client.send(&format!("GET /hello.txt HTTP/1.1\r\nHost: here\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(client.answer_to("GET").text(), "hello, world");
    client.send("POST /hello.txt HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.answer_to("POST").status, 405);
    assert_eq!(client.get("/hello.txt").status, 200);
}

#[test]
fn a_client_that_expects_to_be_told_to_continue_is_told() {
    let server = Running::start();
    let mut client = server.connect();
    client.send("GET /hello.txt HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n");
    assert_eq!(client.answer_to("GET").status, 100);
    client.send("abc");
    assert_eq!(client.answer_to("GET").text(), "hello, world");
    // It has not waited: there is no need.
    client.send("GET /hello.txt HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc");
    assert_eq!(client.answer_to("GET").status, 200);
    // No body, no word.
    client.send("GET /hello.txt HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer_to("GET").status, 200);

    let refused =
        server.refusal_of("PUT /x HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(refused.status, 405);
    let refused = server.refusal_of("GET / HTTP/1.1\r\nHost: here\r\nExpect: miracles\r\n\r\n");
    assert_eq!(refused.status, 417);
}

// Bad input.

#[test]
fn what_is_not_a_request_is_400() {
    let server = Running::start();
    for request in [
        "nonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.1 x\r\nHost: here\r\n\r\n",
        "GET / HTP/1.1\r\nHost: here\r\n\r\n",
        "GET / HTTP/1.1\r\nHost here\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : here\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: here\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: here\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: here\r\nX: a\rb\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03",
        // One Host, in HTTP/1.1.
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: here\r\nHost: here\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: he re\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: here/there\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: here\r\nHost: there\r\n\r\n",
    ] {
        assert_eq!(server.refusal_of(request).status, 400, "{request:?}");
    }
    assert_eq!(server.refusal_of("GET / HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn a_body_that_could_be_delimited_in_two_ways_is_refused() {
    let server = Running::start();
    for (version, fields, status) in [
        ("1.1", "Content-Length: 3\r\nTransfer-Encoding: chunked", 400),
        ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 3", 400),
        ("1.1", "Content-Length: 3\r\nContent-Length: 3", 400),
        ("1.1", "Content-Length: 3\r\nContent-Length: 4", 400),
        ("1.1", "Content-Length: 3, 3", 400),
        ("1.1", "Content-Length: +3", 400),
        ("1.1", "Content-Length: -3", 400),
        ("1.1", "Content-Length: 0x3", 400),
        ("1.1", "Content-Length: 3 3", 400),
        ("1.1", "Content-Length:", 400),
        ("1.1", "Content-Length: 99999999999999999999999", 400),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("1.0", "Transfer-Encoding: chunked", 400),
        ("1.1", "Transfer-Encoding: gzip, chunked", 501),
        ("1.1", "Transfer-Encoding: xchunked", 501),
        ("1.1", "Transfer-Encoding: identity", 501),
        ("1.1", "Transfer-Encoding: Chunked", 411),
        ("1.1", "Content-Length: 1048577", 413),
    ] {
        let smuggled = "3\r\nabc\r\n0\r\n\r\nGET /hello.txt HTTP/1.1\r\nHost: here\r\n\r\n";
        let answer = server.refusal_of(format!("GET / HTTP/{version}\r\nHost: here\r\n{fields}\r\n\r\n{smuggled}"));
        assert_eq!(answer.status, status, "{fields:?}");
    }
    let answer = server.refusal_of("POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(answer.status, 405);
}

#[test]
fn methods_that_are_not_served_are_told_from_those_that_do_not_exist() {
    let server = Running::start();
    for (method, status) in [
        ("POST", 405),
        ("PUT", 405),
        ("DELETE", 405),
        ("OPTIONS", 405),
        ("TRACE", 405),
        ("PATCH", 405),
        ("BREW", 501),
        ("get", 501),
    ] {
        let answer = server.ask(method, "/hello.txt", "");
        assert_eq!(answer.status, status, "{method}");
        assert_eq!(answer.field("allow"), (status == 405).then_some("GET, HEAD"), "{method}");
    }
    assert_eq!(server.ask("OPTIONS", "*", "").status, 405);
    // Bytes of a tunnel are no requests.
    let tunnel = "CONNECT there:443 HTTP/1.1\r\nHost: there:443\r\n\r\nGET / HTTP/1.1\r\nHost: here\r\n\r\n";
    assert_eq!(server.refusal_of(tunnel).status, 405);
}

#[test]
fn other_versions_of_http_are_505() {
    let server = Running::start();
    for line in [
        "GET / HTTP/2.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/0.9\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: here\r\n\r\n",
    ] {
        assert_eq!(server.refusal_of(line).status, 505, "{line:?}");
    }
}

#[test]
fn a_head_up_to_the_limit_is_served_and_one_over_it_is_431() {
    let server = Running::start();
    let head_of = |len: usize| {
        let (start, end) = ("GET /hello.txt HTTP/1.1\r\nHost: here\r\nConnection: close\r\nX: ", "\r\n\r\n");
        format!("{start}{}{end}", "x".repeat(len - start.len() - end.len()))
    };
    assert_eq!(server.refusal_of(head_of(16 * 1024 - 1)).status, 200);
    assert_eq!(server.refusal_of(head_of(16 * 1024 + 1)).status, 431);
    // The client sees the answer although most of what it sent was never read.
    assert_eq!(server.refusal_of(head_of(1024 * 1024)).status, 431);

    let fields = |count: usize| {
        format!("GET /hello.txt HTTP/1.1\r\nHost: here\r\nConnection: close\r\n{}\r\n", "X: y\r\n".repeat(count - 2))
    };
    assert_eq!(server.refusal_of(fields(100)).status, 200);
    assert_eq!(server.refusal_of(fields(101)).status, 431);
}

#[test]
fn a_target_up_to_the_limit_is_looked_up_and_one_over_it_is_414() {
    let server = Running::start();
    let target_of = |len: usize| format!("/hello.txt?{}", "q".repeat(len - "/hello.txt?".len()));
    assert_eq!(server.get(&target_of(8192)).status, 200);
    assert_eq!(server.get(&target_of(8193)).status, 414);
    assert_eq!(server.refusal_of(format!("GET {}", target_of(15_000))).status, 414);
}

#[test]
fn a_request_that_ends_in_its_head_is_400() {
    let server = Running::start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost:");
    client.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.answer_to("GET").status, 400);
    client.expect_end();
}

// Slow and vanishing clients.

#[test]
fn a_head_that_trickles_in_is_408_at_its_deadline() {
    let server = Running::with_limits(Limits { head: Duration::from_millis(300), ..Limits::default() });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nX: ");
    let start = Instant::now();
    client.0.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    // Were each byte to begin the time anew, this would go on until the head is over its limit.
    while client.0.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
        assert!(start.elapsed() < HANG, "the server waits for ever");
        client.send("x");
    }
    client.0.set_read_timeout(Some(HANG)).unwrap();
    assert_eq!(client.answer_to("GET").status, 408);
    client.expect_end();
}

#[test]
fn a_silent_client_is_closed_without_a_word() {
    let server = Running::with_limits(Limits { head: Duration::from_millis(100), ..Limits::default() });
    server.connect().expect_end();
}

#[test]
fn a_connection_that_stays_unused_is_closed_without_a_word() {
    let server = Running::with_limits(Limits { idle: Duration::from_millis(100), ..Limits::default() });
    let mut client = server.connect();
    assert_eq!(client.get("/hello.txt").status, 200);
    client.expect_end();
}

#[test]
fn a_body_that_does_not_come_is_408() {
    let server = Running::with_limits(Limits { body: Duration::from_millis(100), ..Limits::default() });
    let answer = server.refusal_of("GET / HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(answer.status, 408);
}

#[test]
fn a_client_that_reads_nothing_is_dropped() {
    let server = Running::with_limits(Limits { write: Duration::from_millis(100), ..Limits::default() });
    let mut client = server.connect();
    client.send("GET /huge.bin HTTP/1.1\r\nHost: here\r\n\r\n");
    server.wait_until_alone();
    let mut rest = Vec::new();
    let _ = client.0.read_to_end(&mut rest);
    assert!((rest.len() as u64) < HUGE, "the answer was sent whole to a client that did not read");
}

#[test]
fn a_client_that_does_not_close_is_left_after_a_while() {
    let server = Running::with_limits(Limits { linger: Duration::from_millis(100), ..Limits::default() });
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer_to("GET").status, 200);
    server.wait_until_alone();
}

#[test]
fn a_reset_in_the_middle_of_an_answer_costs_one_connection() {
    let server = Running::start();
    let mut other = server.connect();
    assert_eq!(other.get("/hello.txt").status, 200);
    for _ in 0..5 {
        let mut client = server.connect();
        client.send("GET /huge.bin HTTP/1.1\r\nHost: here\r\n\r\n");
        client.0.read_exact(&mut [0; 1000]).unwrap();
        client.reset();
    }
    let mut client = server.connect();
    client.send("GET / HT");
    client.reset();
    assert_eq!(other.get("/hello.txt").text(), "hello, world");
    drop(other);
    server.wait_until_alone();
}

#[test]
fn a_long_answer_does_not_keep_others_waiting() {
    let server = Running::start();
    let mut busy = server.connect();
    busy.send("GET /huge.bin HTTP/1.1\r\nHost: here\r\n\r\n");
    busy.0.read_exact(&mut [0; 1000]).unwrap();
    assert_eq!(server.get("/hello.txt").text(), "hello, world");
}

// Running out.

/// A limit of the process is lowered here, so this test runs in a process of its own.
#[test]
fn out_of_descriptors_new_connections_wait_and_open_ones_go_on() {
    const NAME: &str = "out_of_descriptors_new_connections_wait_and_open_ones_go_on";
    const INSIDE: &str = "SWITCHBACK_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        let program = std::env::current_exe().unwrap();
        // Under emulation a program can only be started by naming the emulator.
        let runner = std::env::var("SWITCHBACK_RUNNER").unwrap_or_default();
        let mut words = runner.split_whitespace().map(PathBuf::from).chain([program]);
        let inside = Command::new(words.next().unwrap())
            .args(words)
            .args(["--exact", NAME, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let [said, complained] = [inside.stdout, inside.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(inside.status.success() && said.contains("1 passed"), "{said}\n{complained}");
        assert_eq!(complained.matches("new connections have to wait").count(), 1, "{complained}");
        return;
    }

    use rustix::process::{Resource, getrlimit, setrlimit};
    let server = Running::start();
    let mut open = server.connect();
    assert_eq!(open.get("/status.json").status, 200);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();

    let usual = getrlimit(Resource::Nofile);
    let mut none = usual;
    none.current = Some(3);
    setrlimit(Resource::Nofile, none).unwrap();
    socket.connect(&server.addr.into()).unwrap();
    let mut late = Client::new(socket.into());
    late.send("GET /hello.txt HTTP/1.1\r\nHost: here\r\n\r\n");
    for _ in 0..20 {
        assert_eq!(open.get("/status.json").status, 200);
        assert_eq!(open.get("/large.bin").status, 503);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(figure(&open.get("/status.json").text(), "connections"), 1.0);

    setrlimit(Resource::Nofile, usual).unwrap();
    assert_eq!(late.answer_to("GET").text(), "hello, world");
    assert_eq!(open.get("/large.bin").status, 200);
}

#[test]
fn what_cannot_be_served_is_said_in_a_sentence() {
    let server = Running::start();
    let (taken, root) = (server.addr.to_string(), server.directory.0.clone());
    rt::run(move || {
        let error = |addr: &str, root: &Path| {
            let root = Some(root.to_owned());
            Server::bind(addr, root, Limits::default()).err().expect("it cannot be served").to_string()
        };
        assert!(error(&taken, &root).starts_with(&format!("cannot listen on {taken}: ")));
        let missing = root.join("missing");
        assert!(error("127.0.0.1:0", &missing).starts_with("cannot serve the directory /"));
        assert!(error("127.0.0.1:0", &root.join("hello.txt")).contains("hello.txt: "));
    })
    .unwrap();
}

// Status.

#[test]
fn the_status_page_needs_nothing_from_elsewhere() {
    let server = Running::start();
    let page = server.get("/status");
    assert_eq!((page.status, page.field("content-type")), (200, Some("text/html; charset=utf-8")));
    let page = page.text().replace("http://www.w3.org/2000/svg", "");
    assert!(page.contains("/status.json"));
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="));
}

#[test]
fn the_status_counts_connections_tasks_and_requests() {
    let server = Running::start();
    let answer = server.get("/status.json");
    assert_eq!(answer.field("content-type"), Some("application/json"));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    let before = answer.text();
    let mut clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/hello.txt").status, 200);
    }
    // Ten clients and the one that asks.
    let json = server.wait_until_open(11);
    // Theirs, the one that accepts and the one that writes the figures down.
    assert_eq!(figure(&json, "tasks"), 13.0);
    assert_eq!(figure(&json, "stacks"), 13.0);
    assert!(figure(&json, "requests") >= figure(&before, "requests") + 11.0);
    assert!(figure(&json, "connections_accepted") >= 12.0);
    assert!(figure(&json, "bytes_sent") > figure(&before, "bytes_sent"));
    assert!(figure(&json, "uptime_seconds") >= 0.0);
    assert!(json.contains(&format!("\"architecture\":\"{}\"", std::env::consts::ARCH)));
    if Path::new("/proc/self/status").exists() {
        let grown = (figure(&json, "resident_bytes") - figure(&json, "resident_bytes_at_start")).max(0.0);
        assert_eq!(figure(&json, "resident_bytes_per_task"), (grown / 13.0).floor());
    }
    drop(clients);
    server.wait_until_open(1);
}

#[test]
fn the_status_remembers_what_was() {
    let server = Running::start();
    let start = Instant::now();
    let json = loop {
        let json = server.get("/status.json").text();
        if !json.contains("\"tasks\":[]") {
            break json;
        }
        assert!(start.elapsed() < HANG, "no figures are written down");
        thread::sleep(Duration::from_millis(50));
    };
    for column in ["requests_per_second", "connections", "tasks", "stacks", "resident_bytes_per_task"] {
        let (_, history) = json.split_once("\"history\":").unwrap();
        let (_, column) = history.split_once(&format!("\"{column}\":[")).unwrap();
        let first = column.split([',', ']']).next().unwrap();
        assert!(first == "null" || first.parse::<f64>().is_ok(), "{json}");
    }
    assert!(figure(&json, "requests_per_second") > 0.0);
}

// The end.

#[test]
fn stopping_finishes_open_answers_and_closes_unused_connections() {
    let server = Running::start();
    let mut idle = server.connect();
    assert_eq!(idle.get("/hello.txt").status, 200);
    let mut unused = server.connect();
    let mut busy = server.connect();
    busy.send("GET /huge.bin HTTP/1.1\r\nHost: here\r\n\r\n");
    busy.0.read_exact(&mut [0; 1000]).unwrap();
    let mut begun = server.connect();
    begun.send("GET /hello.txt HTTP/1.1\r\n");
    server.wait_until_open(5);
    // When it has answered what was asked later, the server has read what has begun; else that would be unused too.
    assert_eq!(server.get("/hello.txt").status, 200);

    let addr = server.addr;
    server.handle.stop();
    idle.expect_end();
    unused.expect_end();
    begun.send("Host: here\r\n\r\n");
    let answer = begun.answer_to("GET");
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("hello, world", Some("close")));
    begun.expect_end();
    assert!(TcpStream::connect(addr).is_err(), "a new connection is accepted");
    drop(begun);
    let mut rest = Vec::new();
    // The head is over 100 bytes, and 1000 bytes of the answer have been read.
    busy.0.set_read_timeout(Some(HANG)).unwrap();
    let mut chunk = vec![0; 64 * 1024];
    while (rest.len() as u64) < HUGE - 1000 {
        let count = busy.0.read(&mut chunk).unwrap();
        assert_ne!(count, 0, "the open answer ends after {} bytes", rest.len());
        rest.extend_from_slice(&chunk[..count]);
    }
    drop(busy);
    let stopped = server.stop();
    // One that has asked for the status may not be gone yet, and is waited for too.
    assert!(stopped.finished >= 2, "{stopped:?}");
    assert_eq!(stopped.cut_off, 0);
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let server = Running::with_limits(Limits { drain: Duration::from_millis(100), ..Limits::default() });
    let mut busy = server.connect();
    busy.send("GET /huge.bin HTTP/1.1\r\nHost: here\r\n\r\n");
    busy.0.read_exact(&mut [0; 1000]).unwrap();
    let stopped = server.stop();
    assert_eq!((stopped.finished, stopped.cut_off), (0, 1));
    let mut rest = Vec::new();
    let _ = busy.0.read_to_end(&mut rest);
    assert!((rest.len() as u64) < HUGE - 1000);
}

#[test]
fn a_signal_stops_the_server() {
    use rt::signal::{SIGTERM, Signals};
    let directory = Directory::new();
    directory.write("hello.txt", "hello, world");
    let mut server = Running::serve(directory, Limits::default(), |handle| {
        let signals = Signals::new(&[SIGTERM]).unwrap();
        let handle = Arc::clone(handle);
        rt::spawn(move || handle.stop_at(&signals));
    });
    let mut idle = server.connect();
    assert_eq!(idle.get("/hello.txt").status, 200);
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
    idle.expect_end();
    let stopped = server.thread.take().unwrap().join().unwrap();
    assert_eq!((stopped.requests, stopped.connections, stopped.cut_off), (1, 1, 0));
}
