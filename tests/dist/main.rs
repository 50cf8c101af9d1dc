//! The packages, as whoever installs them meets them: on a freshly installed Debian 12 of each test's own, which is what it
//! was when they are gone. `cargo xtask test dist` makes what is tested here.
#![expect(clippy::unwrap_used, reason = "every function here is part of a test")]

mod archive;
mod package;
mod running;
mod scripts;
mod system;
