//! What a program does, predicted without coroutines.
//!
//! A program's state is a stack of [`Frame`]s, each a function that takes how the frame above it ended. A coroutine that
//! suspends is the part of that stack above its [prompt](Model::prompts), cut off and kept; to resume it is to put it
//! back. Nothing here knows how a switch, an unwinder or a coroutine's memory works.

use std::collections::BTreeMap;

use crate::program::{DEPTH, Event, FUEL, INSISTENCE, Kind, Op, PANICS_ARE_SEEN, Payload, Program, SLOTS, What, mix};

/// What is predicted of a program.
pub struct Prediction {
    pub events: Vec<Event>,
    /// A coroutine could not be unwound: what is on its stack is never dropped.
    pub leaks: bool,
    /// A scoped coroutine cannot be unwound, so that the process would be ended.
    pub aborts: bool,
}

pub fn predict(program: &Program) -> Prediction {
    let mut model = Model {
        program: program.clone(),
        frames: Vec::new(),
        prompts: Vec::new(),
        suspended: None,
        slots: Default::default(),
        lent: BTreeMap::new(),
        fuel: FUEL,
        names: 0,
        panics: 0,
        prediction: Prediction { events: Vec::new(), leaks: false, aborts: false },
    };
    model.push(Model::over);
    let start = model.call(0, 1, &Place::default(), None);
    model.go(start);
    while let Some(held) = model.take(0) {
        model.push(Model::over);
        let start = model.drop_coroutine(held);
        model.go(start);
    }
    model.prediction
}

/// How something ended: with a value, or with a panic.
type Outcome = Result<u64, Payload>;

/// What is to be done when the frame above has ended.
type Frame = Box<dyn FnOnce(&mut Model, Outcome) -> Outcome>;

/// What is to be done with a coroutine that was ended, and the panic that came out.
type Ended = Box<dyn FnOnce(&mut Model, Held, Option<Payload>) -> Outcome>;

struct Model {
    program: Program,
    frames: Vec<Frame>,
    /// The running coroutines, outermost first: the name of each, and how many frames lie below its own.
    prompts: Vec<(u64, usize)>,
    /// What a coroutine that has just suspended is, and the value that it sent.
    suspended: Option<(Continuation, u64)>,
    slots: [Option<Held>; SLOTS],
    /// The scoped coroutines that are not running.
    lent: BTreeMap<u64, Held>,
    fuel: u32,
    names: u64,
    /// Panics that are under way.
    panics: u32,
    prediction: Prediction,
}

/// Part of a stack of frames, and the coroutines that run in it, counted from its beginning.
struct Continuation {
    frames: Vec<Frame>,
    prompts: Vec<(u64, usize)>,
}

struct Held {
    name: u64,
    kind: Kind,
    state: State,
}

enum State {
    Unstarted {
        body: u8,
        captured: Vec<Local>,
        outer: Vec<u64>,
    },
    Suspended(Continuation),
    Finished,
    /// It could not be unwound.
    Lost,
    Running,
}

enum Local {
    Guard(u64),
    Finally { name: u64, body: u8, place: Place },
    Kept(Held),
}

/// Where a body runs: in which coroutines, outermost first, and how deep.
#[derive(Clone, Default)]
struct Place {
    scope: Vec<u64>,
    depth: u32,
}

impl Place {
    fn deeper(&self) -> Place {
        Place { scope: self.scope.clone(), depth: self.depth + 1 }
    }
}

struct Body {
    number: u8,
    next: usize,
    value: u64,
    locals: Vec<Local>,
    place: Place,
    lent: Option<u64>,
}

/// What came of resuming a coroutine.
enum Answer {
    Yielded(u64),
    Returned(u64),
    Panicked(Payload),
}

impl Model {
    fn go(&mut self, start: Outcome) {
        let mut outcome = start;
        while let Some(frame) = self.frames.pop() {
            outcome = frame(self, outcome);
        }
    }

    fn push(&mut self, frame: impl FnOnce(&mut Model, Outcome) -> Outcome + 'static) {
        self.frames.push(Box::new(frame));
    }

    fn write(&mut self, event: Event) {
        self.prediction.events.push(event);
    }

    fn new_name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn panic(&mut self, payload: Payload) -> Outcome {
        self.panics += 1;
        Err(payload)
    }

    fn message(&mut self, text: &str) -> Outcome {
        self.panic(Payload::Message(text.to_string()))
    }

    /// A `catch_unwind` that passes nothing on.
    fn catch(&mut self, outcome: Outcome) -> Outcome {
        if outcome.is_err() {
            self.panics -= 1;
        }
        outcome
    }

    fn over(&mut self, outcome: Outcome) -> Outcome {
        let outcome = self.catch(outcome);
        self.write(Event::Over(outcome));
        Ok(0)
    }

    /// Starts a body, whose outcome goes to the frame pushed last.
    fn call(&mut self, body: u8, value: u64, place: &Place, lent: Option<u64>) -> Outcome {
        self.run(Body { number: body, next: 0, value, locals: Vec::new(), place: place.clone(), lent })
    }

    /// Goes on with a body when what it has called ends, or drops its values if that panicked.
    fn then(&mut self, body: Body, f: impl FnOnce(&mut Model, &mut Body, u64) -> Outcome + 'static) {
        self.push(move |model, outcome| {
            let mut body = body;
            match outcome.and_then(|value| f(model, &mut body, value)) {
                Ok(_) => model.run(body),
                Err(panic) => model.drop_locals(body.locals, Err(panic)),
            }
        });
    }

    fn run(&mut self, body: Body) -> Outcome {
        let mut body = body;
        loop {
            let ops = &self.program.0[usize::from(body.number) % self.program.0.len()];
            let Some(&op) = ops.get(body.next) else { break };
            if self.fuel == 0 {
                break;
            }
            self.fuel -= 1;
            body.next += 1;
            body.value = mix(body.value, op.1);
            body = match self.step(op, body) {
                Step::Next(body) => body,
                Step::Called(outcome) => return outcome,
            };
        }
        self.drop_locals(body.locals, Ok(body.value))
    }

    fn step(&mut self, Op(what, a, b): Op, mut body: Body) -> Step {
        let slot = usize::from(b) % SLOTS;
        let value = body.value;
        let deeper = body.place.deeper();
        /// The body's value becomes that of what it called.
        fn take_value(_: &mut Model, body: &mut Body, value: u64) -> Outcome {
            body.value = value;
            Ok(0)
        }
        let ignore_value = |_: &mut Model, _: &mut Body, _| Ok(0);
        Step::Called(match what {
            What::Call | What::Catch | What::Swallow | What::OnStack | What::Scoped | What::Finally
                if body.place.depth == DEPTH =>
            {
                return self.wrote(Event::TooDeep, body);
            }
            What::Note => return self.wrote(Event::Note(value), body),
            What::Guard => {
                body.locals.push(Local::Guard(self.new_name()));
                return Step::Next(body);
            }
            What::Finally => {
                body.locals.push(Local::Finally { name: self.new_name(), body: a, place: deeper });
                return Step::Next(body);
            }
            What::Create | What::CreateWith => {
                let moved = if what == What::CreateWith { self.take(usize::from(a)) } else { None };
                let name = self.new_name();
                let mut captured: Vec<_> = moved.map(Local::Kept).into_iter().collect();
                captured.push(Local::Guard(name));
                self.write(Event::Created(name));
                let state = State::Unstarted { body: a, captured, outer: Vec::new() };
                self.then(body, ignore_value);
                self.put(slot, Held { name, kind: Kind::of(b), state })
            }
            What::Resume => {
                let Some(held) = self.take(slot) else { return self.wrote(Event::Empty, body) };
                self.then(body, take_value);
                self.resume(held, value, move |model, held, answer| {
                    let finished = held.is_finished();
                    // The panic is caught, and goes on when the coroutine has been put back.
                    let end = match answer {
                        Answer::Panicked(panic) => {
                            model.write(Event::Panicked { finished });
                            Err(panic)
                        }
                        answer => Ok(model.write_answer(answer, finished)),
                    };
                    model.push(move |model, put| {
                        put?;
                        end.or_else(|panic| model.panic(panic))
                    });
                    model.put(slot, held)
                })
            }
            What::ResumeKept => {
                let kept = body.locals.iter().rposition(|local| matches!(local, Local::Kept(_)));
                let Some(place) = kept else { return self.wrote(Event::Empty, body) };
                let state = std::mem::replace(&mut body.kept(place).state, State::Running);
                let Held { name, kind, .. } = *body.kept(place);
                // It comes back to its place, whatever the outcome.
                self.push(move |model, outcome| {
                    let mut body = body;
                    *body.kept(place) = model.lent.remove(&name).expect("it was put there below");
                    match outcome {
                        Ok(value) => model.run(Body { value, ..body }),
                        Err(panic) => model.drop_locals(body.locals, Err(panic)),
                    }
                });
                self.resume_in_place(Held { name, kind, state }, value)
            }
            What::ResumeLent => {
                let Some(name) = body.lent else { return self.wrote(Event::Empty, body) };
                let held = self.lent.remove(&name).expect("it is not running");
                self.then(body, take_value);
                self.resume_in_place(held, value)
            }
            What::Suspend => {
                let Some(name) = body.yielder(b) else { return self.wrote(Event::NoCoroutine, body) };
                self.write(Event::Suspends(value));
                self.then(body, |model, body, value| {
                    body.value = value;
                    model.write(Event::GoesOn(value));
                    Ok(0)
                });
                self.suspend(name, value)
            }
            What::Insist => {
                let Some(name) = body.yielder(0) else { return self.wrote(Event::NoCoroutine, body) };
                self.then(body, take_value);
                self.insist(name, value, INSISTENCE[usize::from(a) % INSISTENCE.len()])
            }
            What::Call => {
                self.then(body, take_value);
                self.call(a, value, &deeper, None)
            }
            What::Catch | What::Swallow => {
                self.then(body, take_value);
                self.push(move |model, outcome| {
                    let Err(payload) = model.catch(outcome.clone()) else { return outcome };
                    model.write(Event::Caught(payload.clone()));
                    match payload == Payload::Unwinding && what == What::Catch {
                        true => model.panic(payload),
                        false => Ok(value),
                    }
                });
                self.call(a, value, &deeper, None)
            }
            What::OnStack => {
                let name = self.new_name();
                self.then(body, take_value);
                self.push(move |model, outcome| {
                    model.write(Event::StackBack(name));
                    outcome
                });
                self.call(a, value, &deeper, None)
            }
            What::Scoped => {
                let name = self.new_name();
                let state =
                    State::Unstarted { body: a, captured: vec![Local::Guard(name)], outer: body.place.scope.clone() };
                self.lent.insert(name, Held { name, kind: Kind::of(b), state });
                self.then(body, take_value);
                self.push(move |model, lent| {
                    let held = model.lent.remove(&name).expect("it is not running when its scope ends");
                    model.push(move |_, end| lent.and_then(|value| end.map(|_| value)));
                    model.push(move |model, end| {
                        model.prediction.aborts |= model.lent.remove(&name).is_some();
                        end
                    });
                    model.drop_coroutine(held)
                });
                self.call(b, value, &deeper, Some(name))
            }
            What::Panic => {
                self.then(body, take_value);
                self.panic(Payload::Own(value))
            }
            What::Drop => {
                let Some(held) = self.take(slot) else { return self.wrote(Event::Empty, body) };
                self.write(Event::Dropping(held.name));
                self.then(body, ignore_value);
                self.drop_coroutine(held)
            }
            What::IntoStack => {
                let Some(held) = self.take(slot) else { return self.wrote(Event::Empty, body) };
                self.then(body, ignore_value);
                self.end(held, |model, held, panic| {
                    if panic.is_none() {
                        model.write(Event::IntoStack { some: held.is_finished() });
                    }
                    model.give_back(held, panic)
                })
            }
            What::Keep => {
                let Some(held) = self.take(slot) else { return self.wrote(Event::Empty, body) };
                body.locals.push(Local::Kept(held));
                return Step::Next(body);
            }
            What::Give => {
                let kept = body.locals.iter().rposition(|local| matches!(local, Local::Kept(_)));
                let Some(place) = kept else { return self.wrote(Event::Empty, body) };
                let Local::Kept(held) = body.locals.remove(place) else { unreachable!("it was found there") };
                self.then(body, ignore_value);
                self.put(slot, held)
            }
        })
    }

    fn wrote(&mut self, event: Event, body: Body) -> Step {
        self.write(event);
        Step::Next(body)
    }

    /// Drops the last of a body's values and then the others; the body's end follows, or the panic of one of them.
    fn drop_locals(&mut self, mut locals: Vec<Local>, end: Outcome) -> Outcome {
        let Some(last) = locals.pop() else { return end };
        self.push(move |model, outcome| {
            let end = outcome.and(end);
            model.drop_locals(locals, end)
        });
        match last {
            Local::Guard(name) => {
                self.write(Event::Dropped(name));
                Ok(0)
            }
            Local::Finally { name, body, place } => {
                self.write(Event::Finally { guard: name, panicking: PANICS_ARE_SEEN && self.panics > 0 });
                self.push(|model, outcome| {
                    if let Err(payload) = model.catch(outcome) {
                        model.write(Event::Caught(payload));
                    }
                    Ok(0)
                });
                self.call(body, name, &place, None)
            }
            Local::Kept(held) => self.drop_coroutine(held),
        }
    }

    fn take(&mut self, slot: usize) -> Option<Held> {
        (slot..slot + SLOTS).find_map(|slot| self.slots[slot % SLOTS].take())
    }

    fn put(&mut self, slot: usize, held: Held) -> Outcome {
        match self.slots[slot].replace(held) {
            Some(before) => self.drop_coroutine(before),
            None => Ok(0),
        }
    }

    fn write_answer(&mut self, answer: Answer, finished: bool) -> u64 {
        let (event, value) = match answer {
            Answer::Yielded(value) => (Event::Yielded { finished, value }, value),
            Answer::Returned(value) => (Event::Returned { finished, value }, value),
            Answer::Panicked(_) => unreachable!("a panic is not written so"),
        };
        self.write(event);
        value
    }

    /// Resumes a coroutine that is then found in `lent` again, and writes down how that went.
    fn resume_in_place(&mut self, held: Held, value: u64) -> Outcome {
        self.resume(held, value, |model, held, answer| {
            let finished = held.is_finished();
            model.lent.insert(held.name, held);
            match answer {
                Answer::Panicked(panic) => model.panic(panic),
                answer => Ok(model.write_answer(answer, finished)),
            }
        })
    }

    fn resume(
        &mut self,
        held: Held,
        value: u64,
        back: impl FnOnce(&mut Model, Held, Answer) -> Outcome + 'static,
    ) -> Outcome {
        if held.is_finished() {
            return back(
                self,
                held,
                Answer::Panicked(Payload::Message("resumed a coroutine that has finished".into())),
            );
        }
        let value = held.kind.carry(value);
        self.enter(held, Ok(value), back)
    }

    /// Lets a coroutine go on with a value or a panic, until it suspends or ends.
    fn enter(
        &mut self,
        mut held: Held,
        outcome: Outcome,
        back: impl FnOnce(&mut Model, Held, Answer) -> Outcome + 'static,
    ) -> Outcome {
        let (name, kind) = (held.name, held.kind);
        let state = std::mem::replace(&mut held.state, State::Running);
        self.push(move |model, outcome| {
            model.prompts.pop();
            let answer = match model.suspended.take() {
                Some((continuation, value)) => {
                    held.state = State::Suspended(continuation);
                    Answer::Yielded(kind.carry(value))
                }
                None => {
                    held.state = State::Finished;
                    match model.catch(outcome) {
                        Ok(value) => Answer::Returned(kind.carry(value)),
                        Err(panic) => Answer::Panicked(panic),
                    }
                }
            };
            back(model, held, answer)
        });
        let base = self.frames.len();
        self.prompts.push((name, base));
        match state {
            State::Unstarted { body, captured, outer } => {
                let scope = outer.into_iter().chain([name]).collect();
                let value = outcome.expect("one that has not started is not unwound");
                self.run(Body {
                    number: body,
                    next: 0,
                    value,
                    locals: captured,
                    place: Place { scope, depth: 0 },
                    lent: None,
                })
            }
            State::Suspended(Continuation { frames, prompts }) => {
                self.frames.extend(frames);
                self.prompts.extend(prompts.into_iter().map(|(name, below)| (name, base + below)));
                outcome
            }
            State::Finished | State::Lost | State::Running => unreachable!("only a suspended one goes on"),
        }
    }

    fn suspend(&mut self, name: u64, value: u64) -> Outcome {
        if self.panics > 0 {
            return self.message("suspended a coroutine while its thread is panicking");
        }
        let place = self.prompts.iter().position(|prompt| prompt.0 == name).expect("it is running");
        let base = self.prompts[place].1;
        let prompts = self.prompts.split_off(place + 1).into_iter().map(|(name, below)| (name, below - base));
        let continuation = Continuation { frames: self.frames.split_off(base), prompts: prompts.collect() };
        self.suspended = Some((continuation, value));
        // It goes to the frame of the prompt, which looks at what is suspended instead.
        Ok(0)
    }

    fn insist(&mut self, name: u64, value: u64, times: u32) -> Outcome {
        if times == 0 {
            return Ok(value);
        }
        self.push(move |model, outcome| match model.catch(outcome) {
            Ok(answer) => Ok(answer),
            Err(payload) => {
                model.write(Event::Caught(payload));
                model.insist(name, value, times - 1)
            }
        });
        self.suspend(name, value)
    }

    /// Ends a coroutine: `then` is called with it and with the panic that came out.
    fn end(
        &mut self,
        mut held: Held,
        then: impl FnOnce(&mut Model, Held, Option<Payload>) -> Outcome + 'static,
    ) -> Outcome {
        match std::mem::replace(&mut held.state, State::Finished) {
            State::Unstarted { captured, .. } => {
                self.push(move |model, outcome| {
                    let panic = model.catch(outcome).err();
                    let panic = model.unless_panicking(panic);
                    then(model, held, panic)
                });
                self.drop_locals(captured, Ok(0))
            }
            State::Suspended(continuation) => {
                held.state = State::Suspended(continuation);
                self.unwind(held, 100, then)
            }
            State::Finished => then(self, held, None),
            State::Lost | State::Running => unreachable!("it is not within reach"),
        }
    }

    fn unwind(
        &mut self,
        mut held: Held,
        attempts: u32,
        then: impl FnOnce(&mut Model, Held, Option<Payload>) -> Outcome + 'static,
    ) -> Outcome {
        if attempts == 0 {
            held.state = State::Lost;
            self.prediction.leaks = true;
            return then(self, held, None);
        }
        let thrown = self.panic(Payload::Unwinding);
        // Boxed, or its type would hold itself.
        let then: Ended = Box::new(then);
        self.enter(held, thrown, move |model, held, answer| match answer {
            Answer::Yielded(_) => model.unwind(held, attempts - 1, then),
            Answer::Returned(_) | Answer::Panicked(Payload::Unwinding) => then(model, held, None),
            Answer::Panicked(panic) => {
                let panic = model.unless_panicking(Some(panic));
                then(model, held, panic)
            }
        })
    }

    fn unless_panicking(&self, panic: Option<Payload>) -> Option<Payload> {
        panic.filter(|_| self.panics == 0)
    }

    fn drop_coroutine(&mut self, held: Held) -> Outcome {
        self.end(held, Model::give_back)
    }

    /// The last of a coroutine that was ended: its stack is given back, its panic goes on.
    fn give_back(&mut self, held: Held, panic: Option<Payload>) -> Outcome {
        match held.state {
            State::Finished => self.write(Event::StackBack(held.name)),
            // Where its scope finds it.
            _ => drop(self.lent.insert(held.name, held)),
        }
        panic.map_or(Ok(0), |panic| self.panic(panic))
    }
}

enum Step {
    Next(Body),
    /// Frames were pushed, and this goes to the last of them.
    Called(Outcome),
}

impl Held {
    fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }
}

impl Body {
    fn kept(&mut self, place: usize) -> &mut Held {
        let Local::Kept(held) = &mut self.locals[place] else { unreachable!("it was found there") };
        held
    }

    fn yielder(&self, outwards: u8) -> Option<u64> {
        let count = self.place.scope.len();
        self.place.scope.iter().rev().nth(usize::from(outwards) % count.max(1)).copied()
    }
}
