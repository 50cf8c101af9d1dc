//! The daemon's HTTP interface on a unix socket, and its client.
