//! A model checker: both halves of the protocol, as they ship, under every order of steps and of a
//! limited number of faults.
//!
//! Where `simulation` plays long schedules at random, the model plays all short ones. The world is a
//! value ([`world::World`]). A step ([`step::Step`]) is the smallest thing that can happen, and
//! `stateright` visits every state to which steps lead. Each process has its own clock, which moves
//! only where time matters; so a process that takes no step is a process that hangs.
//!
//! The properties are in [`properties`]. A counterexample is printed as the steps that lead to it.
//!
//! What is left out, and why it loses nothing: a backend's taking an output and the report of it are
//! one step, as are an arbiter's answer and its arrival except for claims, and a heartbeat behind a
//! heartbeat on one connection is one. Of the beats on their way to a side only the newest arrives.
//! Damage on a connection is a cut. What is left out and may lose something: full windows and gates,
//! which need long logs; the rounds of a copy, whose memory is all made where the machine is stopped, and
//! has no pieces but where a setting says so; and faults beyond a setting's budgets.

mod backup_side;
mod beginning;
mod channel;
mod guest;
mod primary_side;
mod process;
mod properties;
mod report;
mod step;
mod storage;
mod tests;
mod witness;
mod world;

use crate::mutant::Mutant;
use guest::Guest;
use properties::{ALWAYS, Named};
use stateright::{Model, Property};
use step::{Faults, Step};
use world::World;

const VM: &str = "demo";

/// What is explored.
#[derive(Clone, Debug)]
struct Setting {
    guest: Guest,
    begins: Begins,
    faults: Faults,
    /// Do beats by UDP arrive?
    beats: bool,
    /// Pieces of a copy's memory, each as large as the window.
    pieces: usize,
    /// Conditions that some state must reach.
    reaches: Vec<Named>,
    /// A fault that is planted into the protocol.
    mutant: Option<Mutant>,
}

/// The members with which it starts.
#[derive(Clone, Copy, Debug)]
enum Begins {
    Strangers,
    Pair,
    /// A primary that was started alone, and a backup that wants to join.
    Solo,
    /// A backup that went live, and a new backup that wants to join.
    Survivor,
}

impl Model for Setting {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![match self.begins {
            Begins::Strangers => World::strangers(self),
            Begins::Pair => World::paired(self),
            Begins::Solo => World::solo(self),
            Begins::Survivor => World::survived(self),
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend(world.steps(self.guest));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        world.after(self, step)
    }

    fn properties(&self) -> Vec<Property<Setting>> {
        let always = ALWAYS.iter().map(|&(name, c)| Property::always(name, c));
        let sometimes = self.reaches.iter();
        let sometimes = sometimes.map(|&(name, c)| Property::sometimes(name, c));
        always.chain(sometimes).collect()
    }
}
