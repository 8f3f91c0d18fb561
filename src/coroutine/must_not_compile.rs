//! Programs that would be unsound, and that the types keep from compiling. Each differs from one that compiles in the
//! line that is marked, so that none fails for another reason.

/// A coroutine stays on its thread: what it holds may be tied to it.
///
/// ```compile_fail,E0277
/// let coroutine = switchback::Coroutine::new(|_: &switchback::Yielder<(), ()>, ()| ()).unwrap();
/// std::thread::spawn(move || drop(coroutine)); // not Send
/// ```
///
/// ```
/// let coroutine = switchback::Coroutine::new(|_: &switchback::Yielder<(), ()>, ()| ()).unwrap();
/// drop(coroutine);
/// ```
struct _CoroutineIsNotSend;

/// ```compile_fail,E0277
/// let coroutine = switchback::Coroutine::new(|_: &switchback::Yielder<(), ()>, ()| ()).unwrap();
/// std::thread::scope(|s| { s.spawn(|| coroutine.is_finished()); }); // not Sync
/// ```
struct _CoroutineIsNotSync;

/// ```compile_fail,E0277
/// switchback::Coroutine::new(|yielder: &switchback::Yielder<(), ()>, ()| {
///     std::thread::scope(|s| { s.spawn(|| yielder.suspend(())); }); // not Sync
/// });
/// ```
struct _YielderIsNotSync;

/// An owned coroutine can be forgotten, so it must not borrow.
///
/// ```compile_fail,E0373
/// let local = 1;
/// let coroutine = switchback::Coroutine::new(|_: &switchback::Yielder<(), ()>, ()| {
///     let _ = &local; // borrowed
/// });
/// ```
///
/// ```
/// let local = 1;
/// let coroutine = switchback::Coroutine::new(move |_: &switchback::Yielder<(), ()>, ()| {
///     let _ = &local;
/// });
/// ```
struct _CoroutineDoesNotBorrow;

/// ```compile_fail,E0597
/// use switchback::{Coroutine, Yielder};
/// let mut coroutine = Coroutine::new(|_: &Yielder<&'static str, ()>, _: &'static str| ()).unwrap();
/// let local = String::new();
/// coroutine.resume(&local); // an input that is not 'static
/// ```
///
/// ```
/// use switchback::{Coroutine, Yielder};
/// let mut coroutine = Coroutine::new(|_: &Yielder<&'static str, ()>, _: &'static str| ()).unwrap();
/// coroutine.resume("static");
/// ```
struct _CoroutineTakesNoBorrows;

/// A yielder is of use inside its coroutine only.
///
/// ```compile_fail,E0521
/// use switchback::{Coroutine, Yielder};
/// use std::{cell::Cell, rc::Rc};
/// let kept = Rc::new(Cell::new(None::<&Yielder<(), ()>>));
/// let keep = kept.clone();
/// Coroutine::new(move |yielder: &Yielder<(), ()>, ()| keep.set(Some(yielder))); // escapes
/// ```
struct _YielderDoesNotEscape;

/// ```compile_fail,E0597
/// use switchback::{Coroutine, Yielder};
/// Coroutine::new(|yielder: &Yielder<(), &'static u32>, ()| {
///     let local = std::hint::black_box(1);
///     yielder.suspend(&local); // the local may be gone while the resumer still looks at it
/// });
/// ```
struct _LocalsAreNotYielded;

/// A scoped coroutine ends with its scope.
///
/// ```compile_fail
/// use switchback::{scoped, Yielder, stack::Mapped};
/// let stack = Mapped::new(65536).unwrap();
/// let kept = scoped(stack, |_: &Yielder<(), ()>, ()| (), |coroutine| coroutine); // escapes
/// ```
///
/// ```
/// use switchback::{scoped, Yielder, stack::Mapped};
/// let stack = Mapped::new(65536).unwrap();
/// let kept = scoped(stack, |_: &Yielder<(), ()>, ()| (), |coroutine| coroutine.is_finished());
/// ```
struct _ScopedDoesNotEscape;

/// Were two scoped coroutines swapped, each would be ended by the other's scope, too late for what it borrows.
///
/// ```compile_fail
/// use switchback::{scoped, Yielder, stack::Mapped};
/// scoped(Mapped::new(65536).unwrap(), |_: &Yielder<(), ()>, ()| (), |mut outer| {
///     scoped(Mapped::new(65536).unwrap(), |_: &Yielder<(), ()>, ()| (), |mut inner| {
///         std::mem::swap(&mut outer, &mut inner); // of different scopes
///     });
/// });
/// ```
///
/// ```
/// use switchback::{scoped, Yielder, stack::Mapped};
/// scoped(Mapped::new(65536).unwrap(), |_: &Yielder<(), ()>, ()| (), |mut outer| {
///     scoped(Mapped::new(65536).unwrap(), |_: &Yielder<(), ()>, ()| (), |mut inner| {
///         (outer.resume(()), inner.resume(()));
///     });
/// });
/// ```
struct _ScopedIsNotSwapped;

/// ```compile_fail,E0277
/// use switchback::{scoped, Yielder, stack::Mapped};
/// scoped(Mapped::new(65536).unwrap(), |_: &Yielder<(), ()>, ()| (), |mut coroutine| {
///     std::thread::scope(|s| { s.spawn(move || coroutine.resume(())); }); // not Send
/// });
/// ```
struct _ScopedIsNotSend;

/// A stack in use is not lent twice.
///
/// ```compile_fail,E0499
/// use switchback::{on_stack, stack::Mapped};
/// let mut stack = Mapped::new(65536).unwrap();
/// on_stack(&mut stack, || on_stack(&mut stack, || ())); // borrowed already
/// ```
struct _StackIsNotLentTwice;
