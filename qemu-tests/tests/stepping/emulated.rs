//! Stepping a process in QEMU's user mode: its debug server, which speaks GDB's remote protocol.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Stepper;

/// An emulator of its own, with its program. Ended when dropped.
pub struct Process {
    emulator: Child,
    server: UnixStream,
    socket: PathBuf,
}

/// The number that the debugger's description of the architecture gives the stack pointer.
const STACK_POINTER: u8 = cfg_select! {
    target_arch = "aarch64" => { 31 }
    target_arch = "arm" => { 13 }
    target_arch = "riscv64" => { 2 }
    target_arch = "loongarch64" => { 3 }
    target_arch = "x86_64" => { 7 }
};

impl Process {
    pub fn start(runner: &str, program: &Path, arguments: &[&str], variable: &str) -> Process {
        let name = format!("switchback-{}-{}", std::process::id(), arguments.concat().len());
        let socket = std::env::temp_dir().join(name);
        let mut words = runner.split_whitespace();
        let mut emulator = Command::new(words.next().expect("the emulator"))
            .arg("-g")
            .arg(&socket)
            .args(words)
            .arg(program)
            .args(arguments)
            .env(variable, "1")
            .stdout(Stdio::null())
            .spawn()
            .expect("the emulator starts");
        let server = loop {
            match UnixStream::connect(&socket) {
                Ok(server) => break server,
                Err(_) => assert!(matches!(emulator.try_wait(), Ok(None)), "the emulator ended at once"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        Process { emulator, server, socket }
    }

    /// Sends a packet and returns what the answering one holds.
    fn ask(&mut self, question: &str) -> String {
        let sum = question.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.server, "${question}#{sum:02x}").expect("the server takes it");
        let mut answer = Vec::new();
        // Both sides acknowledge with a plus what the other has sent.
        while self.byte() != b'$' {}
        loop {
            match self.byte() {
                b'#' => break,
                byte => answer.push(byte),
            }
        }
        // Two digits of checksum.
        self.byte();
        self.byte();
        self.server.write_all(b"+").expect("the server takes it");
        String::from_utf8(answer).expect("answers are text")
    }

    /// Lets it run; true if it stopped at a mark, false after one step.
    fn go_on(&mut self, how: &str) -> bool {
        let answer = self.ask(how);
        // "T", the signal and more; the protocol has numbers of its own for signals.
        match answer.get(..3) {
            Some("T05") => false,
            Some("T1e") => true,
            _ => panic!("it stopped with {answer}"),
        }
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.server.read_exact(&mut byte).expect("the server answers");
        byte[0]
    }
}

impl Stepper for Process {
    fn run_to_mark(&mut self) {
        assert!(self.go_on("c"), "it runs to the first mark");
    }

    fn step(&mut self) -> bool {
        self.go_on("s")
    }

    fn finish(&mut self) -> bool {
        // "W" and the exit status. To detach instead would crash QEMU 10.
        self.ask("c") == "W00" && self.emulator.wait().expect("it ends").success()
    }

    fn stack_pointer(&mut self) -> u64 {
        // Little-endian, as are all these targets.
        let digits = self.ask(&format!("p{STACK_POINTER:x}"));
        let bytes = (0..digits.len() / 2).map(|n| u64::from_str_radix(&digits[2 * n..][..2], 16).expect("two digits"));
        bytes.rev().fold(0, |value, byte| value << 8 | byte)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let answer = self.ask(&format!("M{address:x},{:x}:{digits}", bytes.len()));
        assert_eq!(answer, "OK", "at {address:#x}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // None of these matters if it has ended.
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}
