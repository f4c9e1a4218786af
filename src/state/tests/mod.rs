//! The core under a virtual clock. Each test names the number of the contract that it proves.
//!
//! [`Bench`] plays the shell: it owns the clock, drains the actions after every call, audits the books, and keeps what
//! the state asked for until the test asks for it. The methods that the tests share are in `bench.rs`.

mod acquire;
mod bench;
mod books;
mod endings;
mod groups;
mod lifecycle;
mod load;
mod model;
mod own;
mod plan;
mod protocol;
mod room;
mod sequences;
mod soft;
mod timeouts;
mod useful;
mod waiters;
