//! When there are no descriptors left. A test binary of its own, since the limit is the whole process's.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::ends;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use switchback_runtime as rt;
use switchback_runtime::net::{TcpListener, TcpStream};
use switchback_runtime::signal::{SIGUSR1, Signals};

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `f` while the process can open nothing.
fn without_descriptors<T>(f: impl FnOnce() -> T) -> T {
    let before = getrlimit(Resource::Nofile);
    let mut held = Vec::new();
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum: before.maximum }).unwrap();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
        assert!(held.len() < 10_000, "the limit is not kept");
    }
    let value = f();
    drop(held);
    setrlimit(Resource::Nofile, before).unwrap();
    value
}

#[test]
fn running_out_of_descriptors_is_an_error_and_what_runs_goes_on() {
    let _alone = alone();
    ends(|| {
        let error = without_descriptors(|| rt::run(|| unreachable!())).unwrap_err();
        assert!(error.to_string().contains("ulimit -n"), "{error}");
        rt::run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let mut early = TcpStream::connect(address).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            let mut waiting = TcpStream::connect(address).unwrap();
            without_descriptors(|| {
                assert!(TcpStream::connect(address).is_err());
                assert!(TcpListener::bind("127.0.0.1:0").is_err());
                assert!(early.try_clone().is_err());
                assert!(Signals::new(&[SIGUSR1]).is_err());
                let error = listener.accept().unwrap_err();
                assert_eq!(error.raw_os_error(), Some(24), "EMFILE, as std gives it: {error}");
                // The connection there is works on.
                let echo = rt::spawn(move || {
                    let mut byte = [0];
                    accepted.read_exact(&mut byte).unwrap();
                    accepted.write_all(&byte).unwrap();
                });
                rt::yield_now();
                early.write_all(b"x").unwrap();
                early.read_exact(&mut [0]).unwrap();
                echo.join().unwrap();
            });
            // The one that could not be accepted was not lost.
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.write_all(b"y").unwrap();
            waiting.read_exact(&mut [0]).unwrap();
        })
        .unwrap();
    });
}

#[test]
fn what_is_dropped_gives_its_descriptors_back() {
    let _alone = alone();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    ends(move || {
        let before = open();
        for _ in 0..3 {
            rt::run(|| {
                let signals = Signals::new(&[SIGUSR1]).unwrap();
                let waiter = rt::spawn(move || signals.wait());
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (mut server, _) = listener.accept().unwrap();
                rt::spawn(move || server.read(&mut [0]));
                rt::yield_now();
                drop(client);
                assert!(!waiter.is_finished());
            })
            .unwrap();
            assert_eq!(open(), before);
        }
    });
}
