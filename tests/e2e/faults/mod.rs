//! What the daemon makes of a machine that lets it down: each system call that it makes fails once, in turn, and whole
//! resources run out.

mod changes;
mod clock;
mod following;
mod resources;
mod start;
mod stopped;
mod sweep;
