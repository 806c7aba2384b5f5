//! The databases.

use alloc::vec::Vec;
use core::array;

use super::copy_with_room;
use super::ranked::Ranked;
use super::table::Table;
use super::value::{Kind, Value};
use super::watch::Watches;
use crate::buffer::{Budget, OutOfMemory};
use crate::error::Error;
use crate::number::{self, Digits};
use crate::resp::MAX_BULK;

/// Number of databases: SELECT 0 to 15.
pub const DATABASES: usize = 16;

/// A database.
struct Db {
    values: Table<Value>,
    /// The keys that expire, and their times: milliseconds since 1970.
    deadlines: Ranked<i64>,
}

/// All databases.
pub struct Keyspace {
    dbs: [Db; DATABASES],
    budget: Budget,
    watches: Watches,
    seed: u64,
    now_ms: i64,
    expired: u64,
}

impl Keyspace {
    /// Empty databases that may grow to `limit` bytes together. `seed` makes it hard to find keys that
    /// collide.
    pub fn new(limit: usize, seed: u64) -> Self {
        Self {
            dbs: array::from_fn(|_| Db::new(seed)),
            budget: Budget::new(limit),
            watches: Watches::default(),
            seed,
            now_ms: 0,
            expired: 0,
        }
    }

    /// Bytes in use, and the limit.
    pub fn memory(&self) -> (usize, usize) {
        (self.budget.used(), self.budget.limit())
    }

    /// The number of keys in database `index`, and how many of them expire.
    pub fn size(&self, index: usize) -> (usize, usize) {
        let db = &self.dbs[index];
        (db.values.len(), db.deadlines.len())
    }

    /// Number of keys that have expired so far.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// Sets the time, milliseconds since 1970. Removes the keys that have expired.
    pub fn set_time(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        for index in 0..DATABASES {
            loop {
                let db = &mut self.dbs[index];
                match db.deadlines.at(0) {
                    Some((_, deadline)) if deadline < now_ms => {}
                    Some(_) | None => break,
                }
                let Some((key, _)) = db.deadlines.remove_at(0, &mut self.budget) else {
                    break;
                };
                db.take(&key, &mut self.budget);
                self.watches.touch(index, &key);
                self.expired += 1;
            }
        }
    }

    /// The millisecond since 1970 after which the next key expires.
    pub fn next_deadline(&self) -> Option<i64> {
        let first = |db: &Db| db.deadlines.at(0).map(|(_, deadline)| deadline);
        self.dbs.iter().filter_map(first).min()
    }

    /// Ends all watches of `client`.
    pub fn unwatch(&mut self, client: u64) {
        self.watches.forget(client, &mut self.budget);
    }

    /// Database `db`, as commands use it.
    pub fn view(&mut self, db: usize) -> View<'_> {
        View { all: self, db }
    }
}

impl Db {
    const fn new(seed: u64) -> Self {
        Self {
            values: Table::new(seed),
            deadlines: Ranked::new(seed),
        }
    }

    /// Removes the value of `key`, and gives its bytes back to the budget.
    fn take(&mut self, key: &[u8], budget: &mut Budget) -> bool {
        let Some(value) = self.values.remove(key, budget) else {
            return false;
        };
        budget.give(value.taken());
        true
    }

    fn remove(&mut self, key: &[u8], budget: &mut Budget) -> bool {
        let there = self.take(key, budget);
        if there && self.deadlines.len() > 0 {
            self.deadlines.remove(key, budget);
        }
        there
    }

    fn taken(&self) -> usize {
        let values: usize = self.values.iter().map(|(_, value)| value.taken()).sum();
        self.values.taken() + self.deadlines.taken() + values
    }
}

/// The database that a connection has selected.
pub struct View<'a> {
    all: &'a mut Keyspace,
    db: usize,
}

impl View<'_> {
    /// All databases.
    pub fn keyspace(&mut self) -> &mut Keyspace {
        self.all
    }

    /// The time, milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.all.now_ms
    }

    fn db(&self) -> &Db {
        &self.all.dbs[self.db]
    }

    /// The keys and values.
    pub fn table(&self) -> &Table<Value> {
        &self.db().values
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Value> {
        self.table().get(key)
    }

    /// The string at `key`.
    pub fn text(&self, key: &[u8]) -> Result<Option<&[u8]>, Error> {
        match self.get(key) {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Error::WrongType),
            None => Ok(None),
        }
    }

    /// The collection at `key`.
    pub fn collection<T: Kind>(&self, key: &[u8]) -> Result<Option<&T>, Error> {
        match self.get(key) {
            Some(value) => T::of(value).map(Some).ok_or(Error::WrongType),
            None => Ok(None),
        }
    }

    /// Sets `key` to a string, whatever its value was. Its expiry time does not change.
    pub fn set(&mut self, key: &[u8], text: &[u8]) -> Result<(), OutOfMemory> {
        let Keyspace { dbs, budget, .. } = &mut *self.all;
        let values = &mut dbs[self.db].values;
        match values.get_mut(key) {
            Some(Value::Text(old)) if fits(old, text) => {
                old.clear();
                old.extend_from_slice(text);
            }
            Some(old) => {
                let new = Value::Text(copy_with_room(text, text.len(), budget)?);
                budget.give(old.taken());
                *old = new;
            }
            None => {
                let text = copy_with_room(text, text.len(), budget)?;
                match values.prepare(key, budget) {
                    Ok(key) => values.put(key, Value::Text(text)),
                    Err(error) => {
                        budget.give(text.capacity());
                        return Err(error);
                    }
                }
            }
        }
        self.touch(key);
        Ok(())
    }

    /// Writes `bytes` into the string at `key`, from `offset` on, which may be beyond its end. Returns
    /// the new length.
    pub fn write(&mut self, key: &[u8], offset: usize, bytes: &[u8]) -> Result<usize, Error> {
        let end = offset.saturating_add(bytes.len());
        if end > MAX_BULK {
            return Err(Error::TooLong);
        }
        if self.text(key)?.is_none() {
            self.set(key, b"")?;
        }
        let Keyspace { dbs, budget, .. } = &mut *self.all;
        let Some(Value::Text(text)) = dbs[self.db].values.get_mut(key) else {
            return Err(Error::WrongType);
        };
        let length = end.max(text.len());
        if length > text.capacity() {
            // Half as much again, so that many small pieces cause few copies. But not for the first
            // piece, which may be the only one.
            let room = match text.is_empty() {
                true => length,
                false => (length + length / 2).min(MAX_BULK),
            };
            let new = copy_with_room(text, room, budget)?;
            budget.give(text.capacity());
            *text = new;
        }
        text.resize(length, 0);
        text[offset..end].copy_from_slice(bytes);
        self.touch(key);
        Ok(length)
    }

    /// Adds `amount` to the number at `key`, which is 0 if missing. Returns the sum.
    pub fn add(&mut self, key: &[u8], amount: i64) -> Result<i64, Error> {
        let old = match self.text(key)? {
            Some(text) => number::parse(text).ok_or(Error::NoInteger)?,
            None => 0,
        };
        let sum = old.checked_add(amount).ok_or(Error::Overflow)?;
        self.set(key, Digits::of(sum).as_bytes())?;
        Ok(sum)
    }

    /// Changes the collection at `key`, if there is one. `change` returns whether it changed anything,
    /// and a result. If the collection is empty afterwards, the key is removed.
    pub fn change<T: Kind, R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut T, &mut Budget) -> Result<(bool, R), Error>,
    ) -> Result<Option<R>, Error> {
        let Keyspace { dbs, budget, .. } = &mut *self.all;
        let Some(value) = dbs[self.db].values.get_mut(key) else {
            return Ok(None);
        };
        let collection = T::of_mut(value).ok_or(Error::WrongType)?;
        let outcome = change(collection, budget);
        if collection.is_empty() {
            self.remove(key);
        } else if !matches!(outcome, Ok((false, _))) {
            // A change that failed may have changed something before it failed.
            self.touch(key);
        }
        outcome.map(|(_, result)| Some(result))
    }

    /// The same, but a missing collection is created empty.
    pub fn change_or_make<T: Kind, R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut T, &mut Budget) -> Result<(bool, R), Error>,
    ) -> Result<R, Error> {
        if self.get(key).is_none() {
            let Keyspace {
                dbs, budget, seed, ..
            } = &mut *self.all;
            let values = &mut dbs[self.db].values;
            let empty = T::new_value(*seed, budget)?;
            match values.prepare(key, budget) {
                Ok(key) => values.put(key, empty),
                Err(error) => {
                    budget.give(empty.taken());
                    return Err(error.into());
                }
            }
        }
        let result = self.change(key, change)?;
        Ok(result.expect("the key is there"))
    }

    /// Removes `key`. Returns whether it existed.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Keyspace { dbs, budget, .. } = &mut *self.all;
        let there = dbs[self.db].remove(key, budget);
        if there {
            self.touch(key);
        }
        there
    }

    /// Moves the value and the expiry time of `key`, which must exist, to the key `new`.
    pub fn rename(&mut self, key: &[u8], new: &[u8]) -> Result<(), OutOfMemory> {
        if key == new {
            return Ok(());
        }
        let deadline = self.deadline(key);
        let Keyspace { dbs, budget, .. } = &mut *self.all;
        let db = &mut dbs[self.db];
        let new_key = db.values.prepare(new, budget)?;
        if let Some(deadline) = deadline
            && let Err(error) = db.deadlines.set(new, deadline, budget)
        {
            budget.give(Table::<Value>::ENTRY_COST + new_key.len());
            return Err(error);
        }
        db.take(new, budget);
        if deadline.is_none() {
            db.deadlines.remove(new, budget);
        }
        db.deadlines.remove(key, budget);
        if let Some(value) = db.values.remove(key, budget) {
            db.values.put(new_key, value);
        }
        self.touch(key);
        self.touch(new);
        Ok(())
    }

    /// When `key` expires, milliseconds since 1970.
    pub fn deadline(&self, key: &[u8]) -> Option<i64> {
        self.db().deadlines.score(key)
    }

    /// Makes `key`, if it exists, expire at `deadline`, milliseconds since 1970. A deadline in the past
    /// removes the key.
    pub fn expire(&mut self, key: &[u8], deadline: i64) -> Result<(), OutOfMemory> {
        if self.get(key).is_none() {
            return Ok(());
        }
        if deadline <= self.all.now_ms {
            self.remove(key);
            return Ok(());
        }
        let Keyspace { dbs, budget, .. } = &mut *self.all;
        dbs[self.db].deadlines.set(key, deadline, budget)?;
        self.touch(key);
        Ok(())
    }

    /// Removes the expiry time of `key`. Returns whether it had one.
    pub fn persist(&mut self, key: &[u8]) -> bool {
        let Keyspace { dbs, budget, .. } = &mut *self.all;
        let deadlines = &mut dbs[self.db].deadlines;
        let would = deadlines.len() > 0 && deadlines.remove(key, budget).is_some();
        if would {
            self.touch(key);
        }
        would
    }

    /// Removes all keys.
    pub fn clear(&mut self) {
        let Keyspace {
            dbs,
            budget,
            watches,
            seed,
            ..
        } = &mut *self.all;
        let db = &mut dbs[self.db];
        watches.touch_all(self.db, |key| db.values.has(key));
        budget.give(db.taken());
        *db = Db::new(*seed);
    }

    /// Makes connection `client` watch `key`.
    pub fn watch(&mut self, client: u64, key: &[u8]) -> Result<(), OutOfMemory> {
        let Keyspace {
            watches, budget, ..
        } = &mut *self.all;
        watches.add(client, self.db, key, budget)
    }

    /// Was a key that `client` watches changed since then?
    pub fn touched(&self, client: u64) -> bool {
        self.all.watches.touched(client)
    }

    fn touch(&mut self, key: &[u8]) {
        self.all.watches.touch(self.db, key);
    }
}

/// Does `text` fit into the memory of `old`, without leaving most of it unused?
fn fits(old: &Vec<u8>, text: &[u8]) -> bool {
    text.len() <= old.capacity() && text.len() >= old.capacity() / 2
}
