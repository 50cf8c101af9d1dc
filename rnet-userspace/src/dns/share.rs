//! How many questions are under way upstream, in all and of each client: what one container asks is not to shut out the
//! others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Questions that may be under way.
pub(super) struct Shares {
    in_all: usize,
    of_one: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    in_all: usize,
    /// Clients with none are not there.
    of: HashMap<IpAddr, usize>,
}

/// One question under way, until dropped.
pub(super) struct Share<'s> {
    shares: &'s Shares,
    client: IpAddr,
}

impl Shares {
    pub(super) fn new(in_all: usize, of_one: usize) -> Self {
        Self { in_all, of_one, taken: Mutex::default() }
    }

    /// Nothing if the client, or all together, have as many under way as they may.
    pub(super) fn take(&self, client: IpAddr) -> Option<Share<'_>> {
        let mut taken = self.taken();
        let own = taken.of.get(&client).copied().unwrap_or_default();
        if taken.in_all >= self.in_all || own >= self.of_one {
            return None;
        }
        taken.in_all += 1;
        taken.of.insert(client, own + 1);
        Some(Share { shares: self, client })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing in here panics half way.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        taken.in_all -= 1;
        if let Some(own) = taken.of.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.of.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_takes_what_is_for_all() {
        let shares = Shares::new(5, 2);
        let client = |n| IpAddr::from([10, 0, 0, n]);
        let greedy: Vec<_> = (0..9).filter_map(|_| shares.take(client(1))).collect();
        assert_eq!(greedy.len(), 2);
        let others: Vec<_> = (2..9).filter_map(|n| shares.take(client(n))).collect();
        assert_eq!(others.len(), 3, "in all there are five");
        drop(greedy);
        assert!(shares.take(client(9)).is_some());
        drop(others);
        let taken = shares.taken();
        assert!(taken.of.is_empty() && taken.in_all == 0);
    }
}
