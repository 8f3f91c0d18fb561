//! Signals as events. One test a signal: they are the whole process's.

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{ends, run};
use signal_hook::low_level::raise;
use switchback_runtime as rt;
use switchback_runtime::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, Signals};

#[test]
fn a_signal_wakes_the_task_that_waits_and_the_others_run_meanwhile() {
    run(|| {
        let signals = Signals::new(&[SIGUSR1]).unwrap();
        let (tell, told) = mpsc::channel();
        rt::spawn(move || while tell.send(signals.wait().unwrap()).is_ok() {});
        for _ in 0..3 {
            rt::time::sleep(Duration::from_millis(2)).unwrap();
            assert!(told.try_recv().is_err());
            raise(SIGUSR1).unwrap();
            // Two that come before the first has been taken would count as one.
            while told.try_recv() != Ok(SIGUSR1) {
                rt::time::sleep(Duration::from_millis(1)).unwrap();
            }
        }
    });
}

#[test]
fn a_signal_that_came_before_the_wait_is_not_lost_and_counts_once() {
    run(|| {
        let signals = Signals::new(&[SIGHUP, SIGUSR2]).unwrap();
        raise(SIGUSR2).unwrap();
        raise(SIGUSR2).unwrap();
        assert_eq!(signals.wait().unwrap(), SIGUSR2);
        raise(SIGHUP).unwrap();
        assert_eq!(signals.wait().unwrap(), SIGHUP);
    });
}

#[test]
fn all_that_listen_get_the_signal_and_a_plain_thread_can_wait() {
    ends(|| {
        let signals = Signals::new(&[SIGINT]).unwrap();
        let thread = thread::spawn(move || signals.wait().unwrap());
        let got = rt::run(|| {
            let signals = Signals::new(&[SIGTERM, SIGINT]).unwrap();
            rt::spawn(|| raise(SIGINT).unwrap());
            signals.wait().unwrap()
        })
        .unwrap();
        assert_eq!((got, thread.join().unwrap()), (SIGINT, SIGINT));
    });
}

#[test]
fn a_number_that_is_no_signal_to_wait_for_is_an_error() {
    for wrong in [9, 19, 11, 0, -1, 1000] {
        let error = Signals::new(&[SIGTERM, wrong]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{wrong}: {error}");
    }
}
