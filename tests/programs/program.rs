//! Random programs: what a property test runs, and how it gets simpler.

use std::fmt;

use quickcheck::{Arbitrary, Gen};

/// A list of bodies that call, create and destroy by each other's numbers. The first one runs first.
#[derive(Clone, PartialEq)]
pub struct Program(pub Vec<Vec<Op>>);

/// One step of a body, with two numbers whose meaning depends on it. Numbers of bodies and slots are taken modulo their
/// count, and an empty slot means the next that is not, so that most programs do something.
#[derive(Clone, Copy, PartialEq)]
pub struct Op(pub What, pub u8, pub u8);

/// What a step does. A *slot* is one of a few places that all coroutines share and that hold a coroutine each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// Writes down the body's value.
    Note,
    /// A value that writes down when it is dropped.
    Guard,
    /// A coroutine that will run a body, into a slot; whatever is there is dropped.
    Create,
    /// The same with the coroutine of another slot, if there is one, moved into it.
    CreateWith,
    /// Resumes the coroutine of a slot, which is empty meanwhile.
    Resume,
    /// Suspends the coroutine the body runs in, or, in a scoped one, one around it.
    Suspend,
    /// Runs another body.
    Call,
    /// The same in a `catch_unwind` that lets the unwinding of a dropped coroutine go on.
    Catch,
    /// The same in one that swallows that too.
    Swallow,
    Panic,
    /// Drops the coroutine of a slot.
    Drop,
    /// Takes the stack of a slot's coroutine.
    IntoStack,
    /// Takes the coroutine out of a slot, to be dropped with the body's other values.
    Keep,
    /// Puts the last one kept back into a slot; whatever is there is dropped.
    Give,
    /// Resumes the last one kept, where it is.
    ResumeKept,
    /// Runs another body on another stack.
    OnStack,
    /// Lends a scoped coroutine that will run one body to another body.
    Scoped,
    /// Resumes the scoped coroutine lent to the body.
    ResumeLent,
    /// A value that runs a body when it is dropped, and swallows its panic.
    Finally,
    /// Suspends and, if it is unwound, does so again, up to a number of times.
    Insist,
}

impl What {
    pub const ALL: [What; 20] = {
        use What::*;
        [
            Note, Guard, Create, CreateWith, Resume, Suspend, Call, Catch, Swallow, Panic, Drop, IntoStack, Keep, Give,
            ResumeKept, OnStack, Scoped, ResumeLent, Finally, Insist,
        ]
    };

    /// How often it comes, relative to the others.
    fn weight(self) -> usize {
        match self {
            What::Create | What::Suspend => 6,
            What::Resume => 10,
            What::Scoped | What::ResumeLent | What::Catch | What::ResumeKept | What::Keep => 3,
            What::Insist => 1,
            _ => 2,
        }
    }
}

/// How often an [`What::Insist`] suspends: just below, at and above the number of times that a dropped coroutine is
/// unwound before its stack is leaked.
pub const INSISTENCE: [u32; 6] = [1, 2, 3, 99, 100, 101];

impl Program {
    /// As text, so that it can be run in another process.
    pub fn encode(&self) -> String {
        let bodies = self.0.iter().map(|body| {
            body.iter().map(|op| format!("{:02x}{:02x}{:02x}", op.0 as u8, op.1, op.2)).collect::<String>()
        });
        bodies.collect::<Vec<_>>().join(".")
    }

    pub fn decode(text: &str) -> Program {
        let byte = |text: &str, n: usize| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).expect("two digits");
        let op = |text: &str, n: usize| {
            Op(What::ALL[usize::from(byte(text, 3 * n))], byte(text, 3 * n + 1), byte(text, 3 * n + 2))
        };
        Program(text.split('.').map(|body| (0..body.len() / 6).map(|n| op(body, n)).collect()).collect())
    }
}

impl Arbitrary for Program {
    fn arbitrary(random: &mut Gen) -> Program {
        let size = random.size();
        let bodies = 2 + usize::arbitrary(random) % (size / 2);
        let body = |random: &mut Gen| (0..usize::arbitrary(random) % size).map(|_| Op::arbitrary(random)).collect();
        Program((0..bodies).map(|_| body(random)).collect())
    }

    /// Bodies are emptied, not removed, while others may mean them by number; the last ones are.
    fn shrink(&self) -> Box<dyn Iterator<Item = Program>> {
        let this = self.clone();
        let shorter = (1..this.0.len()).map({
            let this = this.clone();
            move |length| Program(this.0[..length].to_vec())
        });
        let simpler = (0..this.0.len()).flat_map(move |n| {
            let this = this.clone();
            this.0[n].shrink().map(move |body| {
                let mut program = this.clone();
                program.0[n] = body;
                program
            })
        });
        Box::new(shorter.chain(simpler))
    }
}

impl Arbitrary for Op {
    fn arbitrary(random: &mut Gen) -> Op {
        let total: usize = What::ALL.iter().map(|what| what.weight()).sum();
        let mut at = usize::arbitrary(random) % total;
        let what = What::ALL.into_iter().find(|what| {
            let found = at < what.weight();
            at = at.wrapping_sub(what.weight());
            found
        });
        Op(what.expect("it is less than the total"), u8::arbitrary(random), u8::arbitrary(random))
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Op>> {
        let Op(what, a, b) = *self;
        let smaller = (a, b).shrink().map(move |(a, b)| Op(what, a, b));
        // Most things are done by a simpler step as well, or are not what matters.
        let simpler = (what != What::Note).then_some(Op(What::Note, 0, 0));
        Box::new(simpler.into_iter().chain(smaller))
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}, {})", self.0, self.1, self.2)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, body) in self.0.iter().enumerate() {
            writeln!(f, "  {n}: {body:?}")?;
        }
        Ok(())
    }
}

/// What programs and their model have in common.
pub const SLOTS: usize = 4;
/// Whether a destructor learns that its thread is panicking. A coroutine that is a thread sees no panics but its own.
pub const PANICS_ARE_SEEN: bool = !cfg!(any(miri, switchback_threads));
/// Steps that a program may take in all. Less than twice the number of times that a coroutine may swallow its
/// unwinding, or a scoped one could end the process.
pub const FUEL: u32 = 180;
/// Bodies that may be active on one stack.
pub const DEPTH: u32 = 8;

/// The type of the values that a coroutine takes, yields and returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Unit,
    Byte,
    Word,
    /// Several words, aligned more than any of them, with a destructor.
    Large,
}

impl Kind {
    pub fn of(number: u8) -> Kind {
        [Kind::Word, Kind::Large, Kind::Byte, Kind::Unit][usize::from(number / 64)]
    }

    /// What arrives when `value` is sent.
    pub fn carry(self, value: u64) -> u64 {
        match self {
            Kind::Unit => 0,
            Kind::Byte => u64::from(value as u8),
            Kind::Word => value as usize as u64,
            Kind::Large => value,
        }
    }
}

/// What a program writes down.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Note(u64),
    Dropped(u64),
    Created(u64),
    Empty,
    Suspends(u64),
    GoesOn(u64),
    NoCoroutine,
    Yielded {
        finished: bool,
        value: u64,
    },
    Returned {
        finished: bool,
        value: u64,
    },
    Panicked {
        finished: bool,
    },
    Caught(Payload),
    TooDeep,
    Dropping(u64),
    IntoStack {
        some: bool,
    },
    Finally {
        guard: u64,
        panicking: bool,
    },
    /// The stack of this coroutine, or of this call, was given back.
    StackBack(u64),
    Over(Result<u64, Payload>),
}

/// What a panic carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    Own(u64),
    Message(String),
    /// The unwinding of a dropped coroutine.
    Unwinding,
}

/// The value that a step makes of the one before, so that what is sent depends on all that has happened.
pub fn mix(value: u64, number: u8) -> u64 {
    (value ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}
