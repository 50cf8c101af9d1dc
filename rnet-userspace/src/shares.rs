//! What several clients have of something that there is only so much of: none is to shut out the others.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// So many for all together, and so many of them for each client.
#[derive(Debug)]
pub(crate) struct Shares<C> {
    in_all: usize,
    of_one: usize,
    taken: Mutex<Taken<C>>,
}

#[derive(Debug)]
struct Taken<C> {
    in_all: usize,
    /// Clients with none are not there.
    of: HashMap<C, usize>,
}

/// One of them, until dropped.
#[derive(Debug)]
pub(crate) struct Share<C: Eq + Hash> {
    shares: Arc<Shares<C>>,
    client: C,
}

/// Who has them, where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taker {
    /// The client itself has as many as one may have.
    Itself(usize),
    /// All together have as many as there are.
    All(usize),
}

impl<C: Clone + Eq + Hash> Shares<C> {
    pub(crate) fn new(in_all: usize, of_one: usize) -> Arc<Self> {
        let taken = Mutex::new(Taken { in_all: 0, of: HashMap::new() });
        Arc::new(Self { in_all, of_one, taken })
    }

    /// One for this client.
    ///
    /// # Errors
    /// The client, or all together, have as many as they may.
    pub(crate) fn take(self: &Arc<Self>, client: C) -> Result<Share<C>, Taker> {
        let mut taken = self.taken();
        let own = taken.of.get(&client).copied().unwrap_or_default();
        if own >= self.of_one {
            return Err(Taker::Itself(self.of_one));
        }
        if taken.in_all >= self.in_all {
            return Err(Taker::All(self.in_all));
        }
        taken.in_all += 1;
        taken.of.insert(client.clone(), own + 1);
        Ok(Share { shares: Arc::clone(self), client })
    }

    /// How many are taken.
    pub(crate) fn in_use(&self) -> usize {
        self.taken().in_all
    }
}

impl<C> Shares<C> {
    fn taken(&self) -> MutexGuard<'_, Taken<C>> {
        // Nothing in here panics half way.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Eq + Hash> Drop for Share<C> {
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
        let greedy: Vec<_> = (0..9).filter_map(|_| shares.take(1).ok()).collect();
        assert_eq!(greedy.len(), 2);
        assert_eq!(shares.take(1).unwrap_err(), Taker::Itself(2));
        let others: Vec<_> = (2..9).filter_map(|client| shares.take(client).ok()).collect();
        assert_eq!(others.len(), 3, "in all there are five");
        assert_eq!((shares.take(9).unwrap_err(), shares.in_use()), (Taker::All(5), 5));
        drop(greedy);
        assert!(shares.take(9).is_ok());
        drop(others);
        let taken = shares.taken();
        assert!(taken.of.is_empty() && taken.in_all == 0);
    }
}
