//! The requests that a device has under way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::request::{BlockError, Gate, Operation, Request};
use crate::{IoVector, SharedBlock};

type Poke = Arc<dyn Fn(u64) + Send + Sync>;
type Finished = Arc<Mutex<Vec<(u64, Result<(), BlockError>)>>>;

/// Requests under way, by number. The device is poked when some have ended, and takes them.
#[derive(Default)]
pub struct Flights {
    poke: Option<(Poke, u64)>,
    gate: Gate,
    finished: Finished,
    next: u64,
    /// The disks that have them, by number.
    flights: BTreeMap<u64, SharedBlock>,
}

impl Flights {
    /// Whom to poke, with which token.
    pub fn connect(&mut self, poke: Poke, token: u64) {
        self.poke = Some((poke, token));
    }

    /// Hands a request to a disk and returns its number.
    pub fn submit(&mut self, disk: &SharedBlock, operation: Operation, memory: IoVector) -> u64 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        let (finished, poke) = (self.finished.clone(), self.poke.clone());
        disk.submit(Request {
            operation,
            memory,
            gate: self.gate.clone(),
            done: Box::new(move |result| {
                let is_first = {
                    let mut list = finished.lock().unwrap_or_else(PoisonError::into_inner);
                    list.push((number, result));
                    list.len() == 1
                };
                if let Some((poke, token)) = poke.filter(|_| is_first) {
                    poke(token);
                }
            }),
        });
        self.flights.insert(number, disk.clone());
        number
    }

    /// What has ended since the last call, and how.
    pub fn take(&mut self) -> Vec<(u64, Result<(), BlockError>)> {
        let mut list =
            std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
        // Not there: it was given up.
        list.retain(|(number, _)| self.flights.remove(number).is_some());
        list
    }

    /// Gives all requests up: none of them touches memory when this returns, and later ones come
    /// after them.
    pub fn cancel(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        self.gate.shut();
        self.gate = Gate::default();
        for disk in std::mem::take(&mut self.flights).into_values() {
            disk.barrier();
        }
    }
}
