//! What touches BPF: load, attach, pin, typed maps, expiry, counters.
