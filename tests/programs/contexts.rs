//! Random graphs of contexts that enter each other, switch to each other and leave.

use std::fmt;

use quickcheck::{Arbitrary, Gen};
use switchback::context::{Context, Left, Running};
use switchback::stack::Mapped;

/// What each context does; the first list is what their thread does.
#[derive(Clone, PartialEq)]
pub struct Graph(pub Vec<Vec<Step>>);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Enters a context, as its root.
    Enter(u8),
    SwitchTo(u8),
    /// Leaves to the root; the thread itself has none.
    Leave,
}

/// What a context, by its number, came across.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Begins(usize, u64),
    /// It was continued by a switch or an entry after its own switch or leave.
    Continues(usize, u64),
    /// What it entered, or something that came later, left or ended.
    Left {
        root: usize,
        word: u64,
        ended: bool,
    },
    /// The context asked for is not waiting.
    NotWaiting(usize),
    Ends(usize),
}

impl Arbitrary for Graph {
    fn arbitrary(random: &mut Gen) -> Graph {
        let size = random.size();
        let contexts = 2 + usize::arbitrary(random) % 6;
        let steps = |random: &mut Gen| {
            (0..usize::arbitrary(random) % size).map(|_| Step::arbitrary(random)).collect::<Vec<_>>()
        };
        let mut lists: Vec<_> = (0..contexts).map(|_| steps(random)).collect();
        // The thread has to enter somebody for anything to happen.
        lists[0].extend((0..size).map(|_| Step::Enter(u8::arbitrary(random))));
        Graph(lists)
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Graph>> {
        let this = self.clone();
        Box::new((0..this.0.len()).flat_map(move |n| {
            let this = this.clone();
            this.0[n].shrink().map(move |steps| {
                let mut graph = this.clone();
                graph.0[n] = steps;
                graph
            })
        }))
    }
}

impl Arbitrary for Step {
    fn arbitrary(random: &mut Gen) -> Step {
        let context = u8::arbitrary(random);
        *random
            .choose(&[Step::Enter(context), Step::SwitchTo(context), Step::SwitchTo(context), Step::Leave])
            .expect("four")
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Step>> {
        match *self {
            // Small enough for any graph: 7 contexts at the most.
            Step::Enter(context) => Box::new((0..context.min(7)).map(Step::Enter)),
            Step::SwitchTo(context) => Box::new((0..context.min(7)).map(Step::SwitchTo)),
            Step::Leave => Box::new(std::iter::empty()),
        }
    }
}

impl Graph {
    pub fn encode(&self) -> String {
        let step = |step: &Step| match step {
            Step::Enter(context) => format!("e{context:02x}"),
            Step::SwitchTo(context) => format!("s{context:02x}"),
            Step::Leave => "l00".to_string(),
        };
        self.0.iter().map(|steps| steps.iter().map(step).collect::<String>()).collect::<Vec<_>>().join(".")
    }

    pub fn decode(text: &str) -> Graph {
        let step = |text: &str| {
            let context = u8::from_str_radix(&text[1..3], 16).expect("two digits");
            match &text[..1] {
                "e" => Step::Enter(context),
                "s" => Step::SwitchTo(context),
                _ => Step::Leave,
            }
        };
        Graph(text.split('.').map(|steps| (0..steps.len() / 3).map(|n| step(&steps[3 * n..])).collect()).collect())
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, steps) in self.0.iter().enumerate() {
            writeln!(f, "  {n}: {steps:?}")?;
        }
        Ok(())
    }
}

/// What the contexts of a graph share. Only one of them runs at a time. Aligned so that its address has room for more.
#[repr(align(64))]
struct World {
    graph: Graph,
    waiting: Vec<Option<Context>>,
    events: Vec<Event>,
    /// Goes up with each switch, and is what one sends to another.
    sent: u64,
    /// The context that left or ended last.
    back: usize,
    /// The one asked to run last: one that begins is that.
    next: usize,
}

/// Runs the graph; what it came across.
pub fn run(graph: &Graph) -> Vec<Event> {
    let stacks: Vec<_> = graph.0.iter().map(|_| Mapped::new(128 << 10).expect("a stack")).collect();
    let waiting = stacks.iter().map(|stack| {
        // SAFETY: the stacks outlive everything that is run here.
        Some(unsafe { Context::new(stack, begin) }.expect("it fits"))
    });
    let mut world =
        World { graph: graph.clone(), waiting: waiting.collect(), events: Vec::new(), sent: 0, back: 0, next: 0 };
    // The thread is nobody's to continue.
    world.waiting[0] = None;
    // SAFETY: the world outlives everything that is run here, on this thread.
    unsafe { steps(&raw mut world, 0, None) };
    world.events
}

unsafe extern "C" fn begin(word: *mut (), running: Running) -> *mut () {
    let world = word.map_addr(|address| address & !63).cast::<World>();
    // SAFETY: the word is the graph's world, which nobody else uses while this context runs.
    unsafe {
        assert_eq!(word, self::word(world));
        let me = (*world).next;
        (*world).write(Event::Begins(me, (*world).sent));
        steps(world, me, Some(running));
        (*world).write(Event::Ends(me));
        (*world).back = me;
        (*world).sent += 1;
        self::word(world)
    }
}

/// What is sent next: leads to the world, and differs from what was sent before.
///
/// # Safety
///
/// The world must be valid, and nobody else use it meanwhile.
unsafe fn word(world: *mut World) -> *mut () {
    // SAFETY: the caller's promise.
    world.wrapping_byte_add(unsafe { (*world).sent } as usize % 64).cast()
}

/// # Safety
///
/// The world must be valid, nobody else use it meanwhile, and `running` be that of the context `me`.
unsafe fn steps(world: *mut World, me: usize, running: Option<Running>) {
    // SAFETY: the caller's promise; each reference into the world ends before another context runs. Contexts are
    // continued with the word they expect, the world's address, on the thread of them all.
    unsafe {
        let list = (&(*world).graph.0)[me].clone();
        // Alive across every switch.
        let mut count = 0_u64;
        for step in &list {
            count += 1;
            match (*step, running) {
                (Step::Enter(context), _) => {
                    let Some(next) = (*world).take(context) else { continue };
                    (*world).sent += 1;
                    let left = next.enter(word(world));
                    let back = (*world).back;
                    let ended = match left {
                        Left::Suspended(context, word) => {
                            assert_eq!(word, self::word(world));
                            assert!((&mut (*world).waiting)[back].replace(context).is_none());
                            false
                        }
                        Left::Ended(word) => {
                            assert_eq!(word, self::word(world));
                            true
                        }
                    };
                    (*world).write(Event::Left { root: me, word: (*world).sent, ended });
                }
                (Step::SwitchTo(context), Some(running)) => {
                    let Some(next) = (*world).take(context) else { continue };
                    (*world).sent += 1;
                    assert!((&mut (*world).waiting)[me].replace(running.context()).is_none());
                    let word = running.switch_to(next, self::word(world));
                    assert_eq!(word, self::word(world));
                    (*world).write(Event::Continues(me, (*world).sent));
                }
                (Step::Leave, Some(running)) => {
                    (*world).back = me;
                    (*world).sent += 1;
                    let word = running.leave(self::word(world));
                    assert_eq!(word, self::word(world));
                    (*world).write(Event::Continues(me, (*world).sent));
                }
                (_, None) => {}
            }
        }
        assert_eq!(count, list.len() as u64);
    }
}

impl World {
    fn write(&mut self, event: Event) {
        self.events.push(event);
    }

    fn take(&mut self, context: u8) -> Option<Context> {
        let context = usize::from(context) % self.waiting.len();
        let taken = self.waiting[context].take();
        match taken {
            Some(_) => self.next = context,
            None => self.write(Event::NotWaiting(context)),
        }
        taken
    }
}

/// What it comes across, as a table of who waits and a list of who is whose root say.
pub fn predict(graph: &Graph) -> Vec<Event> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Fresh,
        Waiting,
        /// Running, entered by somebody who runs, or ended.
        Away,
    }
    let mut events = Vec::new();
    let mut states = vec![State::Fresh; graph.0.len()];
    states[0] = State::Away;
    let mut at = vec![0; graph.0.len()];
    let mut roots = Vec::new();
    let mut running = 0;
    let mut sent = 0;
    loop {
        let step = graph.0[running].get(at[running]);
        at[running] += 1;
        match step {
            Some(Step::Leave | Step::SwitchTo(_)) if running == 0 => {}
            Some(&(Step::Enter(context) | Step::SwitchTo(context))) => {
                let next = usize::from(context) % states.len();
                if states[next] == State::Away {
                    events.push(Event::NotWaiting(next));
                    continue;
                }
                sent += 1;
                if let Some(Step::Enter(_)) = step {
                    roots.push(running);
                } else {
                    states[running] = State::Waiting;
                }
                events.push(match states[next] {
                    State::Fresh => Event::Begins(next, sent),
                    _ => Event::Continues(next, sent),
                });
                states[next] = State::Away;
                running = next;
            }
            end => {
                if running == 0 {
                    return events;
                }
                sent += 1;
                match end {
                    Some(_) => states[running] = State::Waiting,
                    None => events.push(Event::Ends(running)),
                }
                running = roots.pop().expect("whoever is not the thread has a root");
                events.push(Event::Left { root: running, word: sent, ended: end.is_none() });
            }
        }
    }
}
