//! Going back: a follower's state, kept with the machine's.

use super::{Entries, Followed, Follower};
use ft_protocol::log::{Entry, OutputMark};
use lockstep_machine::world::Outlet;
use std::collections::VecDeque;

/// A follower between two positions, without its entries and its outlet: it can go back there.
#[derive(Clone, Debug)]
pub struct FollowerState {
    ahead: Option<Entry>,
    horizon: u64,
    exhausted: bool,
    unconfirmed: VecDeque<OutputMark>,
    followed: Followed,
}

impl<S: Entries, O: Outlet> Follower<S, O> {
    /// Its state. The place of its entries is to be kept with it.
    ///
    /// # Panics
    /// If something at a position is under way.
    pub fn save(&self) -> FollowerState {
        assert!(self.vector.is_none() && self.expected_digest.is_none());
        FollowerState {
            ahead: self.ahead.clone(),
            horizon: self.horizon,
            exhausted: self.exhausted,
            unconfirmed: self.unconfirmed.clone(),
            followed: self.followed,
        }
    }

    /// Goes back to, or ahead to, this state, whatever happened since.
    pub fn restore(&mut self, state: &FollowerState) {
        let state = state.clone();
        self.ahead = state.ahead;
        (self.horizon, self.exhausted) = (state.horizon, state.exhausted);
        self.unconfirmed = state.unconfirmed;
        (self.vector, self.expected_digest, self.expected_end) = (None, None, None);
        self.followed = state.followed;
    }

    /// The next entry, if it was read already.
    pub fn ahead(&self) -> Option<&Entry> {
        self.ahead.as_ref()
    }

    /// The entries.
    pub fn entries(&mut self) -> &mut S {
        &mut self.entries
    }
}
