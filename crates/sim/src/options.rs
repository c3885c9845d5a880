//! Decides what cluster a seed runs: how many nodes, what durability, which faults.

use crate::mutation::Mutation;
use crate::rng::Rng;
use std::time::Duration;
use tandem_core::spec::Durability;

/// The bound in time of `Async`.
pub const LAG_MAX: Duration = Duration::from_secs(2);

/// Which nodes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Three with data.
    Three,
    /// Two with data, and a witness.
    TwoAndWitness,
    /// Five with data.
    Five,
}

impl Shape {
    /// As on the command line.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "3" => Some(Self::Three),
            "2+w" => Some(Self::TwoAndWitness),
            "5" => Some(Self::Five),
            _ => None,
        }
    }

    /// The word on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Three => "3",
            Self::TwoAndWitness => "2+w",
            Self::Five => "5",
        }
    }

    /// How many nodes.
    pub const fn nodes(self) -> usize {
        match self {
            Self::Three | Self::TwoAndWitness => 3,
            Self::Five => 5,
        }
    }
}

/// What a run is made of, apart from its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// None is chosen by the seed.
    pub shape: Option<Shape>,
    /// None is chosen by the seed.
    pub durability: Option<Durability>,
    /// What is broken on purpose.
    pub mutation: Option<Mutation>,
    /// Lines of trace to keep.
    pub trace: usize,
    /// No random faults: only those that are placed by the caller.
    pub calm: bool,
}

impl Options {
    /// The cluster of a seed.
    pub fn choose(&self, rng: &mut Rng) -> (Shape, Durability) {
        let drawn = match rng.below(10) {
            0..6 => Shape::Three,
            6..8 => Shape::TwoAndWitness,
            _ => Shape::Five,
        };
        let shape = self.shape.unwrap_or(drawn);
        let most = if shape == Shape::Five { 2 } else { 1 };
        let acks = rng.between(1, most) as usize;
        let drawn = match (shape, rng.below(10)) {
            (_, 0..2) => {
                Durability::Async { lag_bytes_max: rng.between(20, 200), lag_max: LAG_MAX }
            }
            (Shape::TwoAndWitness, _) | (_, 2..4) => Durability::Preferred { acks },
            _ => Durability::Quorum { acks },
        };
        (shape, self.durability.unwrap_or(drawn))
    }
}
