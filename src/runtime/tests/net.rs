//! TCP between tasks, runtimes and plain threads.

mod common;

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{ends, run, scaled};
use switchback_runtime as rt;
use switchback_runtime::net::{TcpListener, TcpStream};
use switchback_runtime::time::sleep;

/// More than the buffers of both ends hold, so that whoever sends it has to wait.
const HUGE: usize = 16 << 20;

/// The two ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn receive(mut stream: impl Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn tasks_that_always_yield_do_not_keep_a_socket_waiting() {
    run(|| {
        let (near, mut far) = pair();
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..3 {
            let over = over.clone();
            rt::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    rt::yield_now();
                }
            });
        }
        let sender = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            far.write_all(b"x").unwrap();
            far
        });
        assert_eq!(receive(&near, 1), b"x");
        over.store(true, Ordering::Relaxed);
        drop(sender.join().unwrap());
    });
}

#[test]
fn hundreds_of_clients_are_echoed_at_once() {
    let (clients, rounds) = (scaled(400, 30), scaled(20, 5));
    run(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        rt::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                rt::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        let clients: Vec<_> = (0..clients)
            .map(|number| {
                rt::spawn(move || {
                    let mut stream = TcpStream::connect(address).unwrap();
                    for round in 0..rounds {
                        let said = format!("client {number}, round {round}");
                        stream.write_all(said.as_bytes()).unwrap();
                        assert_eq!(receive(&stream, said.len()), said.as_bytes());
                    }
                    stream.shutdown(Shutdown::Write).unwrap();
                    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

#[test]
fn one_task_reads_a_stream_while_another_writes_it() {
    let size = scaled(HUGE, HUGE / 4);
    run(move || {
        let (near, far) = pair();
        let (near, far) = (Arc::new(near), Arc::new(far));
        // Each end sends all before it would read, if there were only one task for both.
        let tasks: Vec<_> = [near, far]
            .into_iter()
            .flat_map(|end| {
                let writer = end.clone();
                [
                    rt::spawn(move || (&*writer).write_all(&vec![7; size]).unwrap()),
                    rt::spawn(move || assert!(receive(&*end, size).iter().all(|&byte| byte == 7))),
                ]
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn several_readers_of_one_socket_are_all_woken() {
    run(|| {
        let (mut near, far) = pair();
        let far = Arc::new(far);
        let readers: Vec<_> = (0..5)
            .map(|_| {
                let far = far.clone();
                rt::spawn(move || receive(&*far, 1)[0])
            })
            .collect();
        sleep(Duration::from_millis(2)).unwrap();
        near.write_all(&[1, 2, 3]).unwrap();
        sleep(Duration::from_millis(2)).unwrap();
        near.write_all(&[4, 5]).unwrap();
        let mut got: Vec<u8> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, [1, 2, 3, 4, 5]);
    });
}

#[test]
fn several_tasks_accept_from_one_listener() {
    run(|| {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let clone = Arc::new(listener.try_clone().unwrap());
        let address = listener.local_addr().unwrap();
        let acceptors: Vec<_> = (0..6)
            .map(|number| {
                let listener = if number % 2 == 0 { listener.clone() } else { clone.clone() };
                rt::spawn(move || listener.accept().unwrap().0)
            })
            .collect();
        rt::yield_now();
        let clients: Vec<_> = (0..6).map(|_| TcpStream::connect(address).unwrap()).collect();
        let accepted: Vec<_> = acceptors.into_iter().map(|task| task.join().unwrap()).collect();
        assert_eq!(accepted.len(), clients.len());
    });
}

#[test]
fn a_read_that_takes_too_long_is_timed_out_and_not_early() {
    run(|| {
        let (mut near, mut far) = pair();
        let timeout = Duration::from_millis(10);
        near.set_read_timeout(Some(timeout)).unwrap();
        assert_eq!(near.try_clone().unwrap().read_timeout().unwrap(), Some(timeout), "clones share it");
        for _ in 0..2 {
            let start = Instant::now();
            assert_eq!(near.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
            assert_eq!(near.peek(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
            assert!(start.elapsed() >= 2 * timeout);
        }
        far.write_all(b"x").unwrap();
        assert_eq!(receive(&near, 1), b"x");
        near.set_read_timeout(None).unwrap();
        rt::spawn(move || {
            sleep(2 * timeout).unwrap();
            far.write_all(b"y").unwrap();
        });
        assert_eq!(receive(&near, 1), b"y");
    });
}

#[test]
fn a_write_that_takes_too_long_is_timed_out() {
    run(|| {
        let (mut near, far) = pair();
        near.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
        // However large the buffers are, they are full some time.
        let error = loop {
            if let Err(error) = near.write(&[0; 65536]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(far);
    });
}

#[test]
fn a_timeout_of_zero_is_invalid_and_changes_nothing() {
    run(|| {
        let (near, _far) = pair();
        let second = Some(Duration::from_secs(1));
        near.set_read_timeout(second).unwrap();
        near.set_write_timeout(second).unwrap();
        assert_eq!(near.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(near.set_write_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!((near.read_timeout().unwrap(), near.write_timeout().unwrap()), (second, second));
        let address = near.peer_addr().unwrap();
        let error = TcpStream::connect_timeout(&address, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        near.set_read_timeout(Some(Duration::MAX)).unwrap();
    });
}

#[test]
fn connect_tries_every_address_and_reports_a_refusal() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(TcpStream::connect(closed).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let timeout = Duration::from_secs(30);
        let refused = TcpStream::connect_timeout(&closed, timeout).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let stream = TcpStream::connect(&[closed, open][..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        TcpStream::connect_timeout(&open, timeout).unwrap();
        assert_eq!(TcpStream::connect(&[][..]).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(TcpListener::bind(open).is_err(), "the address is in use");
    });
}

#[test]
fn an_address_can_be_bound_again_at_once() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        // Closing first leaves the server's end in the state that forbids binding, but for SO_REUSEADDR.
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop((client, listener));
        TcpListener::bind(address).unwrap();
    });
}

#[test]
fn a_reset_by_the_peer_is_an_error_of_whoever_waits() {
    run(|| {
        let (near, far) = pair();
        let reader = rt::spawn(move || (&near).read(&mut [0]).unwrap_err().kind());
        rt::yield_now();
        socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        assert_eq!(reader.join().unwrap(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_shutdown_wakes_the_reader_of_the_same_stream() {
    run(|| {
        let (near, _far) = pair();
        let near = Arc::new(near);
        let shared = near.clone();
        let reader = rt::spawn(move || (&*shared).read(&mut [0]).unwrap());
        rt::yield_now();
        near.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.join().unwrap(), 0);
    });
}

#[test]
fn a_task_whose_socket_is_always_ready_lets_the_others_run() {
    run(|| {
        let (mut near, mut far) = pair();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let other = rt::spawn(move || flag.store(true, Ordering::Relaxed));
        while !stop.load(Ordering::Relaxed) {
            near.write_all(b"x").unwrap();
            assert_eq!(receive(&mut far, 1), b"x");
        }
        other.join().unwrap();
    });
}

#[test]
fn vectored_calls_move_all_their_buffers() {
    run(|| {
        let (mut near, mut far) = pair();
        let sent = near.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cde")]).unwrap();
        assert_eq!(sent, 5);
        let (mut head, mut tail) = ([0; 3], [0; 4]);
        let got = far.read_vectored(&mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)]).unwrap();
        assert_eq!((got, &head, &tail), (5, b"abc", b"de\0\0"));
        near.flush().unwrap();
    });
}

#[test]
fn peek_leaves_what_it_shows() {
    run(|| {
        let (near, mut far) = pair();
        rt::spawn(move || far.write_all(b"ab").unwrap());
        let mut shown = [0; 2];
        assert!(near.peek(&mut shown).unwrap() >= 1);
        assert_eq!(shown[0], b'a');
        assert_eq!(receive(&near, 2), b"ab");
    });
}

#[test]
fn a_descriptor_number_used_again_wakes_no_stranger() {
    let rounds = scaled(200, 20);
    run(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut numbers = Vec::new();
        for round in 0..rounds {
            let (mut near, (mut far, _)) = (TcpStream::connect(address).unwrap(), listener.accept().unwrap());
            numbers.push(far.as_raw_fd());
            // Registers both ends, and leaves an event behind for the end that is closed.
            far.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
            assert_eq!(far.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
            // A duplicate keeps the socket open, and would keep it registered.
            let duplicate: Option<OwnedFd> = (round % 2 == 0).then(|| far.try_clone().unwrap().into());
            near.write_all(b"old").unwrap();
            drop(far);
            let (mut near, (far, _)) = (TcpStream::connect(address).unwrap(), listener.accept().unwrap());
            let reader = rt::spawn(move || receive(&far, 3));
            rt::yield_now();
            near.write_all(b"new").unwrap();
            assert_eq!(reader.join().unwrap(), b"new");
            drop(duplicate);
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.len() < rounds, "no number was used again");
    });
}

#[test]
fn a_socket_moves_between_runtimes_and_plain_threads() {
    ends(|| {
        let (mut near, far) = rt::run(|| {
            let (near, far) = pair();
            // Registered with this runtime.
            near.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            (&near).read(&mut [0]).unwrap_err();
            near.set_read_timeout(None).unwrap();
            (near, far)
        })
        .unwrap();
        let other = thread::spawn(move || {
            rt::run(move || {
                let mut far = far;
                let byte = receive(&mut far, 1);
                far.write_all(&byte).unwrap();
                far
            })
            .unwrap()
        });
        // A plain thread now.
        thread::sleep(Duration::from_millis(2));
        near.write_all(b"a").unwrap();
        assert_eq!(receive(&mut near, 1), b"a");
        let mut far = other.join().unwrap();
        rt::run(move || {
            let reader = rt::spawn(move || receive(&mut near, 1));
            rt::yield_now();
            far.write_all(b"b").unwrap();
            assert_eq!(reader.join().unwrap(), b"b");
        })
        .unwrap();
    });
}

#[test]
fn two_runtimes_and_a_plain_thread_wait_on_the_same_socket() {
    ends(|| {
        let (mut near, far) = pair();
        let far = Arc::new(far);
        let mut threads: Vec<_> = (0..2)
            .map(|_| {
                let far = far.clone();
                thread::spawn(move || rt::run(|| receive(&*far, 1)[0]).unwrap())
            })
            .collect();
        let shared = far.clone();
        threads.push(thread::spawn(move || receive(&*shared, 1)[0]));
        thread::sleep(Duration::from_millis(5));
        near.write_all(&[1, 2]).unwrap();
        thread::sleep(Duration::from_millis(5));
        near.write_all(&[3]).unwrap();
        let mut got: Vec<u8> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, [1, 2, 3]);
    });
}

#[test]
fn plain_threads_block_and_time_out() {
    ends(|| {
        let (mut near, mut far) = pair();
        near.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let start = Instant::now();
        assert_eq!(near.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(5));
        near.set_read_timeout(None).unwrap();
        let thread = thread::spawn(move || {
            far.write_all(&vec![9; HUGE]).unwrap();
        });
        assert_eq!(receive(&mut near, HUGE).len(), HUGE);
        thread.join().unwrap();
    });
}

#[test]
fn standard_sockets_go_in_and_out() {
    ends(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let outside = std::net::TcpStream::connect(address).unwrap();
        let (near, far) = rt::run(|| {
            let listener = TcpListener::from(listener);
            let (far, peer) = listener.accept().unwrap();
            let near = TcpStream::from(outside);
            assert_eq!(peer, near.local_addr().unwrap());
            let reader = rt::spawn(move || {
                assert_eq!(receive(&near, 1), b"x");
                near
            });
            rt::yield_now();
            (&far).write_all(b"x").unwrap();
            (std::net::TcpStream::from(reader.join().unwrap()), std::net::TcpStream::from(far))
        })
        .unwrap();
        // Blocking again: it waits instead of failing.
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            (&far).write_all(b"y").unwrap();
        });
        assert_eq!(receive(&near, 1), b"y");
        writer.join().unwrap();
    });
}

#[test]
fn the_timeout_of_a_standard_socket_comes_along() {
    run(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let near = TcpStream::from(near);
        assert_eq!(near.read_timeout().unwrap(), Some(Duration::from_millis(20)));
        assert_eq!((&near).read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_task_that_panics_may_use_its_socket_meanwhile() {
    run(|| {
        struct SaysFarewell(TcpStream, TcpStream);
        impl Drop for SaysFarewell {
            fn drop(&mut self) {
                let SaysFarewell(near, far) = self;
                near.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                assert_eq!(near.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
                near.write_all(b"farewell").unwrap();
                assert_eq!(receive(far, 8), b"farewell");
            }
        }
        let (near, far) = pair();
        let error = rt::spawn(move || -> () {
            let _says = SaysFarewell(near, far);
            panic!("with a socket in hand");
        });
        assert!(error.join().unwrap_err().is_panic());
    });
}

#[test]
fn a_wait_that_is_unwound_leaves_the_socket_usable() {
    ends(|| {
        let (mut near, far) = pair();
        let far = Arc::new(far);
        let (say, said) = mpsc::channel();
        let shared = far.clone();
        rt::run(move || {
            let reader = shared.clone();
            rt::spawn(move || {
                let _ = catch_unwind(AssertUnwindSafe(|| receive(&*reader, 1)));
                say.send(()).unwrap();
            });
            rt::yield_now();
        })
        .unwrap();
        said.recv().unwrap();
        rt::run(move || {
            let reader = rt::spawn(move || receive(&*far, 1));
            rt::yield_now();
            near.write_all(b"z").unwrap();
            assert_eq!(reader.join().unwrap(), b"z");
        })
        .unwrap();
    });
}
