//! What requests cost, and the limit of it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::cache::Usage;
use super::config::Prices;

/// What a judge has asked and what that cost, in the currency of the prices; 0 without prices.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spent {
    /// Requests that were sent, tries included.
    pub requests: u64,
    /// Questions that the cache answered.
    pub cached: u64,
    /// Tokens that servers said they read and wrote, for answers from the cache too.
    pub prompt_tokens: u64,
    pub answer_tokens: u64,
    /// What these tokens cost.
    pub cost: f64,
    /// The most that requests can have cost whose answer, or its count of tokens, never arrived: the server may have billed them.
    pub unconfirmed: f64,
}

/// Lets requests pass as long as they cannot exceed the limit.
///
/// A request first reserves the most that it can cost: every byte of the question a token, and the longest answer.
pub struct Purse {
    prices: Option<Prices>,
    limit: Option<f64>,
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Default)]
struct State {
    spent: Spent,
    reserved: f64,
    flying: usize,
}

/// How a request ended, for the bill.
pub enum Bill {
    Free,
    Tokens(Usage),
    Unknown,
}

impl Purse {
    pub fn new(prices: Option<Prices>, limit: Option<f64>) -> Self {
        Self { prices, limit, state: Mutex::default(), settled: Condvar::new() }
    }

    pub fn spent(&self) -> Spent {
        self.state().spent
    }

    /// An answer that was paid for earlier.
    pub fn cached(&self, usage: Option<Usage>) {
        let mut state = self.state();
        state.spent.cached += 1;
        if let Some(usage) = usage {
            self.add(&mut state.spent, usage);
        }
    }

    /// Counts a request of at most so many tokens in, if the limit allows it; false if it does not. While requests are
    /// under way that may turn out cheaper than reserved, it waits for them.
    #[must_use]
    pub fn reserve(&self, most: Usage) -> bool {
        let most = self.price(most);
        let mut state = self.state();
        let fits = |state: &State| {
            self.limit.is_none_or(|limit| state.spent.cost + state.spent.unconfirmed + state.reserved + most <= limit)
        };
        while !fits(&state) && state.flying > 0 {
            state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let fits = fits(&state);
        if fits {
            state.spent.requests += 1;
            state.reserved += most;
            state.flying += 1;
        }
        fits
    }

    /// The request that reserved `most` is over.
    pub fn settle(&self, most: Usage, bill: Bill) {
        let mut state = self.state();
        state.flying -= 1;
        // Without requests under way nothing is reserved, whatever rounding says.
        state.reserved = if state.flying == 0 { 0.0 } else { state.reserved - self.price(most) };
        match bill {
            Bill::Free => {}
            Bill::Tokens(usage) => self.add(&mut state.spent, usage),
            Bill::Unknown => state.spent.unconfirmed += self.price(most),
        }
        self.settled.notify_all();
    }

    fn add(&self, spent: &mut Spent, usage: Usage) {
        spent.prompt_tokens = spent.prompt_tokens.saturating_add(usage.prompt);
        spent.answer_tokens = spent.answer_tokens.saturating_add(usage.answer);
        spent.cost += self.price(usage);
    }

    fn price(&self, usage: Usage) -> f64 {
        self.prices.map_or(0.0, |prices| prices.prompt * usage.prompt as f64 + prices.answer * usage.answer as f64)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while it held this lock left plain numbers behind: they are still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_those_under_way_and_never_exceeds_the_limit() {
        let purse = Purse::new(Some(Prices { prompt: 1.0, answer: 2.0 }), Some(10.0));
        let most = Usage { prompt: 2, answer: 2 };
        assert!(purse.reserve(most));
        std::thread::scope(|scope| {
            // 6 of 10 are reserved: the second waits until the first turns out to have cost 3.
            let second = scope.spawn(|| purse.reserve(most));
            std::thread::sleep(std::time::Duration::from_millis(30));
            assert!(!second.is_finished());
            purse.settle(most, Bill::Tokens(Usage { prompt: 1, answer: 1 }));
            assert!(second.join().unwrap());
        });
        purse.settle(most, Bill::Unknown);
        let spent = purse.spent();
        assert_eq!((spent.requests, spent.cost, spent.unconfirmed), (2, 3.0, 6.0));
        assert!(!purse.reserve(most) && purse.spent().requests == 2);
        assert!(purse.reserve(Usage { prompt: 1, answer: 0 }));
        purse.settle(Usage { prompt: 1, answer: 0 }, Bill::Free);
        assert_eq!(purse.spent().cost, 3.0);
    }
}
