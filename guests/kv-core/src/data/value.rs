//! A key's value: a string, or a collection.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::{Hash, List, Ranked, Table};
use crate::buffer::{Budget, OutOfMemory};

/// A value.
pub enum Value {
    /// A string; its capacity is paid for.
    Text(Vec<u8>),
    /// A list.
    List(One<List>),
    /// A hash.
    Hash(One<Hash>),
    /// A set.
    Set(One<Table<()>>),
    /// A sorted set.
    Sorted(One<Ranked<Score>>),
}

// A value is stored in the table of keys, whose places are paid for three times.
const _: () = assert!(size_of::<Value>() == size_of::<Vec<u8>>());

impl Value {
    /// Its type, as TYPE returns it.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "string",
            Value::List(_) => "list",
            Value::Hash(_) => "hash",
            Value::Set(_) => "set",
            Value::Sorted(_) => "zset",
        }
    }

    /// Bytes taken from the budget.
    pub fn taken(&self) -> usize {
        match self {
            Value::Text(text) => text.capacity(),
            Value::List(list) => One::<List>::COST + list.get().taken(),
            Value::Hash(hash) => One::<Hash>::COST + hash.get().taken(),
            Value::Set(set) => One::<Table<()>>::COST + set.get().taken(),
            Value::Sorted(set) => One::<Ranked<Score>>::COST + set.get().taken(),
        }
    }
}

/// A box. `Box::new` ends the guest when memory is exhausted, and `Box::try_new` is not stable.
pub struct One<T>(Box<[T]>);

impl<T> One<T> {
    /// Its cost, with the heap's rounding, bytes.
    const COST: usize = size_of::<T>() + 32;

    fn new(content: T, budget: &mut Budget) -> Result<Self, OutOfMemory> {
        let mut one = Vec::new();
        budget.take(Self::COST)?;
        if one.try_reserve_exact(1).is_err() {
            budget.give(Self::COST);
            return Err(OutOfMemory);
        }
        one.push(content);
        Ok(Self(one.into_boxed_slice()))
    }

    fn get(&self) -> &T {
        &self.0[0]
    }

    fn get_mut(&mut self) -> &mut T {
        &mut self.0[0]
    }
}

/// A kind of collection.
pub trait Kind: Sized {
    /// The collection, if `value` is one of this kind.
    fn of(value: &Value) -> Option<&Self>;
    /// The same, to change it.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
    /// A value that is an empty collection; `seed` makes it hard to find members that collide.
    fn new_value(seed: u64, budget: &mut Budget) -> Result<Value, OutOfMemory>;
    /// Is the collection empty? Then its key is removed.
    fn is_empty(&self) -> bool;
}

macro_rules! kind {
    ($kind:ty, $variant:ident, $new:expr) => {
        impl Kind for $kind {
            fn of(value: &Value) -> Option<&Self> {
                if let Value::$variant(one) = value {
                    Some(one.get())
                } else {
                    None
                }
            }

            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                if let Value::$variant(one) = value {
                    Some(one.get_mut())
                } else {
                    None
                }
            }

            fn new_value(seed: u64, budget: &mut Budget) -> Result<Value, OutOfMemory> {
                let new: fn(u64) -> Self = $new;
                Ok(Value::$variant(One::new(new(seed), budget)?))
            }

            fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    };
}

kind!(List, List, |_| List::default());
kind!(Hash, Hash, Hash::new);
kind!(Table<()>, Set, Table::new);
kind!(Ranked<Score>, Sorted, Ranked::new);

impl Hash {
    fn len(&self) -> usize {
        self.table().len()
    }
}

/// A score of a sorted set: never NaN, so that all scores have an order.
#[derive(Clone, Copy, Debug)]
pub struct Score(f64);

impl Score {
    /// A score; `None` for NaN.
    pub fn new(value: f64) -> Option<Self> {
        // So that there is only one zero.
        (!value.is_nan()).then_some(Self(value + 0.0))
    }

    /// Its value.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Score {}
