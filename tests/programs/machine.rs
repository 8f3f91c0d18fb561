//! Runs a program on real coroutines.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use switchback::stack::{Mapped, Stack};
use switchback::{Coroutine, Resumed, Scoped, Yielder, on_stack, scoped};

use crate::program::{DEPTH, Event, FUEL, INSISTENCE, Kind, Op, PANICS_ARE_SEEN, Payload, Program, SLOTS, What, mix};

/// Runs it; what it wrote down, and how many of the values it sent were not dropped.
pub fn run(program: &Program) -> (Vec<Event>, usize) {
    let world = Rc::new(World {
        program: program.clone(),
        events: RefCell::default(),
        slots: RefCell::default(),
        stacks: RefCell::default(),
        fuel: Cell::new(FUEL),
        names: Cell::new(0),
    });
    let before = ALIVE.load(Relaxed);
    let start = Frame { world: &world, scope: None, depth: 0 };
    let end = caught(|| start.run(0, 1, Locals::default(), None));
    world.write(Event::Over(end.map_err(|panic| name(&*panic))));
    // The destructors of what is dropped here may fill slots again, while there is fuel.
    while let Some(held) = world.take(0) {
        let end = caught(|| {
            drop(held);
            0
        });
        world.write(Event::Over(end.map_err(|panic| name(&*panic))));
    }
    (world.events.take(), ALIVE.load(Relaxed) - before)
}

/// What all bodies of a program share.
struct World {
    program: Program,
    events: RefCell<Vec<Event>>,
    slots: RefCell<[Option<Held>; SLOTS]>,
    /// Stacks that were given back.
    stacks: RefCell<Vec<Mapped>>,
    fuel: Cell<u32>,
    /// The last name given to a coroutine, a guard or a stack.
    names: Cell<u64>,
}

impl World {
    fn write(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    fn new_name(&self) -> u64 {
        self.names.set(self.names.get() + 1);
        self.names.get()
    }

    /// The coroutine of this slot or else of the next that has one.
    fn take(&self, slot: usize) -> Option<Held> {
        (slot..slot + SLOTS).find_map(|slot| self.slots.borrow_mut()[slot % SLOTS].take())
    }

    fn put(&self, slot: usize, held: Held) {
        let before = self.slots.borrow_mut()[slot].replace(held);
        drop(before);
    }

    fn stack(self: &Rc<Self>, name: u64) -> Reused {
        let free = self.stacks.borrow_mut().pop();
        let stack = free.unwrap_or_else(|| Mapped::new(256 << 10).expect("a stack"));
        Reused { stack: Some(stack), name, world: self.clone() }
    }
}

/// A stack that says when it is given back, spoils what was left on it, and serves again.
struct Reused {
    stack: Option<Mapped>,
    name: u64,
    world: Rc<World>,
}

impl Reused {
    fn inner(&self) -> &Mapped {
        self.stack.as_ref().expect("it is there until it is dropped")
    }
}

// SAFETY: the inner stack keeps the contract, and nobody has it before this one is dropped.
unsafe impl Stack for Reused {
    fn top(&self) -> NonNull<u8> {
        self.inner().top()
    }
    fn limit(&self) -> NonNull<u8> {
        self.inner().limit()
    }
}

impl Drop for Reused {
    fn drop(&mut self) {
        const SPOILT: usize = 8 << 10;
        // SAFETY: the memory below the top is the stack's, whose use is over.
        unsafe { self.top().sub(SPOILT).write_bytes(0xa5, SPOILT) };
        self.world.write(Event::StackBack(self.name));
        self.world.stacks.borrow_mut().extend(self.stack.take());
    }
}

/// A coroutine, owned: with its types hidden.
struct Held {
    name: u64,
    coroutine: Box<dyn Owned>,
}

trait Resume {
    fn resume(&mut self, value: u64) -> Resumed<u64, u64>;
    fn is_finished(&self) -> bool;
}

trait Owned: Resume {
    fn into_stack(self: Box<Self>) -> Option<Reused>;
}

impl<T: Carrier> Resume for Coroutine<T, T, T, Reused> {
    fn resume(&mut self, value: u64) -> Resumed<u64, u64> {
        opened(self.resume(T::wrap(value)))
    }
    fn is_finished(&self) -> bool {
        self.is_finished()
    }
}

impl<T: Carrier> Owned for Coroutine<T, T, T, Reused> {
    fn into_stack(self: Box<Self>) -> Option<Reused> {
        (*self).into_stack()
    }
}

impl<T: Carrier> Resume for Scoped<'_, T, T, T, Reused> {
    fn resume(&mut self, value: u64) -> Resumed<u64, u64> {
        opened(self.resume(T::wrap(value)))
    }
    fn is_finished(&self) -> bool {
        self.is_finished()
    }
}

fn opened<T: Carrier>(resumed: Resumed<T, T>) -> Resumed<u64, u64> {
    match resumed {
        Resumed::Yielded(value) => Resumed::Yielded(value.open()),
        Resumed::Returned(value) => Resumed::Returned(value.open()),
    }
}

trait Suspend {
    fn suspend(&self, value: u64) -> u64;
}

impl<T: Carrier> Suspend for Yielder<T, T> {
    fn suspend(&self, value: u64) -> u64 {
        self.suspend(T::wrap(value)).open()
    }
}

/// The types of values.
trait Carrier: 'static {
    fn wrap(value: u64) -> Self;
    fn open(self) -> u64;
}

impl Carrier for () {
    fn wrap(_: u64) {}
    fn open(self) -> u64 {
        0
    }
}

impl Carrier for u8 {
    fn wrap(value: u64) -> u8 {
        value as u8
    }
    fn open(self) -> u64 {
        self.into()
    }
}

impl Carrier for usize {
    fn wrap(value: u64) -> usize {
        value as usize
    }
    fn open(self) -> u64 {
        self as u64
    }
}

/// Values of type [`Large`], of whom one program at a time has some. Not a thread-local, since a coroutine may be a thread.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

#[repr(align(32))]
struct Large([u64; 5]);

impl Carrier for Large {
    fn wrap(value: u64) -> Large {
        ALIVE.fetch_add(1, Relaxed);
        Large([value, !value, value.rotate_left(8), value ^ 7, value])
    }
    fn open(self) -> u64 {
        let value = self.0[0];
        assert_eq!(self.0, [value, !value, value.rotate_left(8), value ^ 7, value]);
        value
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        assert_ne!(ALIVE.fetch_sub(1, Relaxed), 0, "no value is dropped twice");
    }
}

/// A value of a body.
enum Local<'a> {
    Guard {
        world: Rc<World>,
        name: u64,
    },
    Finally {
        world: Rc<World>,
        name: u64,
        body: u8,
        scope: Option<&'a Scope<'a>>,
        depth: u32,
    },
    /// None once it was given away.
    Kept(Option<Held>),
}

impl Drop for Local<'_> {
    fn drop(&mut self) {
        match self {
            Local::Guard { world, name } => world.write(Event::Dropped(*name)),
            Local::Finally { world, name, body, scope, depth } => {
                world.write(Event::Finally { guard: *name, panicking: PANICS_ARE_SEEN && thread::panicking() });
                let frame = Frame { world, scope: *scope, depth: *depth + 1 };
                if let Err(panic) = caught(|| frame.run(*body, *name, Locals::default(), None)) {
                    world.write(Event::Caught(self::name(&*panic)));
                }
            }
            Local::Kept(_) => {}
        }
    }
}

/// The values of a body, dropped last to first even if one of them panics.
#[derive(Default)]
struct Locals<'a>(Vec<Local<'a>>);

impl Drop for Locals<'_> {
    fn drop(&mut self) {
        if let Some(last) = self.0.pop() {
            let _rest = Locals(mem::take(&mut self.0));
            drop(last);
        }
    }
}

/// The coroutines that a body can suspend, innermost first.
struct Scope<'a> {
    yielder: &'a dyn Suspend,
    outer: Option<&'a Scope<'a>>,
}

/// What a body runs in.
#[derive(Clone, Copy)]
struct Frame<'a> {
    world: &'a Rc<World>,
    scope: Option<&'a Scope<'a>>,
    depth: u32,
}

impl<'a> Frame<'a> {
    fn run(self, body: u8, value: u64, locals: Locals<'a>, mut lent: Option<&mut dyn Resume>) -> u64 {
        let Frame { world, scope, depth } = self;
        let bodies = &world.program.0;
        let mut value = value;
        let mut locals = locals;
        for &Op(what, a, b) in &bodies[usize::from(body) % bodies.len()] {
            let Some(fuel) = world.fuel.get().checked_sub(1) else { break };
            world.fuel.set(fuel);
            value = mix(value, a);
            let slot = usize::from(b) % SLOTS;
            let deeper = Frame { depth: depth + 1, ..self };
            match what {
                What::Call | What::Catch | What::Swallow | What::OnStack | What::Scoped | What::Finally
                    if depth == DEPTH =>
                {
                    world.write(Event::TooDeep);
                }
                What::Note => world.write(Event::Note(value)),
                What::Guard => locals.0.push(Local::Guard { world: world.clone(), name: world.new_name() }),
                What::Finally => {
                    let (world, name) = (world.clone(), world.new_name());
                    locals.0.push(Local::Finally { world, name, body: a, scope, depth });
                }
                What::Create => world.create(a, b, slot, Vec::new()),
                What::CreateWith => {
                    let moved = world.take(usize::from(a)).map(|held| Local::Kept(Some(held)));
                    world.create(a, b, slot, moved.into_iter().collect());
                }
                What::Resume => match world.take(slot) {
                    None => world.write(Event::Empty),
                    Some(mut held) => {
                        let resumed = caught(|| held.coroutine.resume(value));
                        let finished = held.coroutine.is_finished();
                        match resumed {
                            Ok(resumed) => {
                                value = world.write_resumed(resumed, finished);
                                world.put(slot, held);
                            }
                            Err(panic) => {
                                world.write(Event::Panicked { finished });
                                world.put(slot, held);
                                panic::resume_unwind(panic);
                            }
                        }
                    }
                },
                What::ResumeKept => {
                    let kept = locals.0.iter_mut().rev().find_map(|local| match local {
                        Local::Kept(Some(held)) => Some(&mut held.coroutine),
                        _ => None,
                    });
                    match kept {
                        None => world.write(Event::Empty),
                        Some(kept) => {
                            let resumed = kept.resume(value);
                            value = world.write_resumed(resumed, kept.is_finished());
                        }
                    }
                }
                What::ResumeLent => match &mut lent {
                    None => world.write(Event::Empty),
                    Some(lent) => {
                        let resumed = lent.resume(value);
                        value = world.write_resumed(resumed, lent.is_finished());
                    }
                },
                What::Suspend => match self.yielder(b) {
                    None => world.write(Event::NoCoroutine),
                    Some(yielder) => {
                        world.write(Event::Suspends(value));
                        value = yielder.suspend(value);
                        world.write(Event::GoesOn(value));
                    }
                },
                What::Insist => match self.yielder(0) {
                    None => world.write(Event::NoCoroutine),
                    Some(yielder) => {
                        for _ in 0..INSISTENCE[usize::from(a) % INSISTENCE.len()] {
                            match caught(|| yielder.suspend(value)) {
                                Ok(answer) => {
                                    value = answer;
                                    break;
                                }
                                Err(panic) => world.write(Event::Caught(name(&*panic))),
                            }
                        }
                    }
                },
                What::Call => value = deeper.run(a, value, Locals::default(), None),
                What::Catch | What::Swallow => match caught(|| deeper.run(a, value, Locals::default(), None)) {
                    Ok(answer) => value = answer,
                    Err(panic) => {
                        let payload = name(&*panic);
                        world.write(Event::Caught(payload.clone()));
                        if payload == Payload::Unwinding && what == What::Catch {
                            panic::resume_unwind(panic);
                        }
                    }
                },
                What::OnStack => {
                    let mut stack = world.stack(world.new_name());
                    value = on_stack(&mut stack, || deeper.run(a, value, Locals::default(), None));
                }
                What::Scoped => {
                    value = match Kind::of(b) {
                        Kind::Unit => deeper.lend::<()>(a, b, value),
                        Kind::Byte => deeper.lend::<u8>(a, b, value),
                        Kind::Word => deeper.lend::<usize>(a, b, value),
                        Kind::Large => deeper.lend::<Large>(a, b, value),
                    }
                }
                // The hook runs for one of the two.
                What::Panic if b % 2 == 0 => panic::panic_any(value),
                What::Panic => panic::resume_unwind(Box::new(value)),
                What::Drop => match world.take(slot) {
                    None => world.write(Event::Empty),
                    Some(held) => {
                        world.write(Event::Dropping(held.name));
                        drop(held);
                    }
                },
                What::IntoStack => match world.take(slot) {
                    None => world.write(Event::Empty),
                    Some(held) => {
                        let stack = held.coroutine.into_stack();
                        world.write(Event::IntoStack { some: stack.is_some() });
                    }
                },
                What::Keep => match world.take(slot) {
                    None => world.write(Event::Empty),
                    Some(held) => locals.0.push(Local::Kept(Some(held))),
                },
                What::Give => {
                    let kept = locals.0.iter_mut().rev().find_map(|local| match local {
                        Local::Kept(held) => held.take(),
                        _ => None,
                    });
                    match kept {
                        None => world.write(Event::Empty),
                        Some(held) => world.put(slot, held),
                    }
                }
            }
        }
        value
    }

    fn yielder(self, outwards: u8) -> Option<&'a dyn Suspend> {
        let scopes = std::iter::successors(self.scope, |scope| scope.outer);
        let count = scopes.clone().count();
        scopes.map(|scope| scope.yielder).nth(usize::from(outwards) % count.max(1))
    }

    fn lend<T: Carrier>(self, body: u8, lender: u8, value: u64) -> u64 {
        let Frame { world, scope: outer, .. } = self;
        let name = world.new_name();
        let captured = Locals(vec![Local::Guard { world: world.clone(), name }]);
        scoped(
            world.stack(name),
            move |yielder: &Yielder<T, T>, first: T| {
                // What was captured is borrowed for as long as the scope, the yielder for less.
                let captured: Locals<'_> = captured;
                let scope = Scope { yielder, outer };
                T::wrap(Frame { world, scope: Some(&scope), depth: 0 }.run(body, first.open(), captured, None))
            },
            |mut coroutine| self.run(lender, value, Locals::default(), Some(&mut coroutine)),
        )
        .expect("it fits")
    }
}

impl World {
    fn create(self: &Rc<Self>, body: u8, kind: u8, slot: usize, moved: Vec<Local<'static>>) {
        let coroutine = match Kind::of(kind) {
            Kind::Unit => self.coroutine::<()>(body, moved),
            Kind::Byte => self.coroutine::<u8>(body, moved),
            Kind::Word => self.coroutine::<usize>(body, moved),
            Kind::Large => self.coroutine::<Large>(body, moved),
        };
        self.put(slot, coroutine);
    }

    fn coroutine<T: Carrier>(self: &Rc<Self>, body: u8, moved: Vec<Local<'static>>) -> Held {
        let name = self.new_name();
        let world = self.clone();
        let mut captured = Locals(moved);
        captured.0.push(Local::Guard { world: world.clone(), name });
        let run = move |yielder: &Yielder<T, T>, first: T| {
            let captured: Locals<'_> = captured;
            let scope = Scope { yielder, outer: None };
            T::wrap(Frame { world: &world, scope: Some(&scope), depth: 0 }.run(body, first.open(), captured, None))
        };
        let coroutine = Coroutine::with_stack(self.stack(name), run).expect("it fits");
        self.write(Event::Created(name));
        Held { name, coroutine: Box::new(coroutine) }
    }

    /// The value that came.
    fn write_resumed(&self, resumed: Resumed<u64, u64>, finished: bool) -> u64 {
        let (event, value) = match resumed {
            Resumed::Yielded(value) => (Event::Yielded { finished, value }, value),
            Resumed::Returned(value) => (Event::Returned { finished, value }, value),
        };
        self.write(event);
        value
    }
}

fn caught<R>(f: impl FnOnce() -> R) -> thread::Result<R> {
    panic::catch_unwind(AssertUnwindSafe(f))
}

fn name(panic: &(dyn Any + Send)) -> Payload {
    if let Some(value) = panic.downcast_ref::<u64>() {
        Payload::Own(*value)
    } else if let Some(message) = panic.downcast_ref::<&str>() {
        Payload::Message(message.to_string())
    } else if let Some(message) = panic.downcast_ref::<String>() {
        Payload::Message(message.clone())
    } else {
        Payload::Unwinding
    }
}
