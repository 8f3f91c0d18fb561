//! The switch as the coroutines use it: with a sanitizer, which must hear of every switch, or without.
//!
//! AddressSanitizer and ThreadSanitizer keep books on the running stack. Each is in a file of its own, with the same
//! items:
//!
//! | item | what it is |
//! |---|---|
//! | `Here` | the running context as the sanitizer knows it: `leave` takes note of it, `back` says that it runs again |
//! | `begin` | says that a context runs for the first time |
//! | `begin_call` | says that a call has come to another stack |
//!
//! Without one, all this is the switch itself. The build script says which it is.

cfg_select! {
    switchback_sanitizer = "address" => { mod address; mod announced; use address as sanitizer; pub use announced::*; }
    switchback_sanitizer = "thread" => { mod thread; mod announced; use thread as sanitizer; pub use announced::*; }
    _ => { mod plain; pub use plain::*; }
}
