//! A disk for tests of devices.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::sync::{Arc, Mutex};

use crate::{Block, BlockError, BlockInfo, IoVector, Operation, Request};

/// A disk in memory that carries requests out when it is told to.
#[derive(Clone, Default)]
pub struct Memory {
    /// Its contents.
    pub bytes: Arc<Mutex<Vec<u8>>>,
    /// What it was not told to carry out yet.
    pub held: Arc<Mutex<Vec<Request>>>,
    /// What it did.
    pub log: Arc<Mutex<Vec<Operation>>>,
    /// How often later requests were to wait for earlier ones.
    pub barriers: Arc<Mutex<u32>>,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Whether reads take no waiting.
    pub is_quick: bool,
    /// What fails, if anything.
    pub fails: Arc<Mutex<Option<BlockError>>>,
    on_resize: Arc<Mutex<Vec<Listener>>>,
}

type Listener = Arc<dyn Fn() + Send + Sync>;

impl Memory {
    /// A disk whose bytes are the numbers of their sectors.
    pub fn new(len: usize) -> Self {
        let disk = Memory::default();
        *disk.bytes.lock().unwrap() = (0..len).map(|i| (i / 512) as u8).collect();
        disk
    }

    /// Carries out everything, also what comes of it.
    pub fn work(&self) {
        loop {
            let held = std::mem::take(&mut *self.held.lock().unwrap());
            if held.is_empty() {
                return;
            }
            for request in held {
                let Some(_pass) = request.gate.pass() else {
                    (request.done)(Err(BlockError::Cancelled));
                    continue;
                };
                let mut bytes = self.bytes.lock().unwrap();
                let len = request.memory.len() as usize;
                let moved = match request.operation {
                    Operation::Read { offset } => {
                        request.memory.copy_in(0, &bytes[offset as usize..][..len])
                    }
                    Operation::Write { offset } => request
                        .memory
                        .copy_out(0, &mut bytes[offset as usize..][..len]),
                    Operation::Flush => Some(()),
                    Operation::Discard { offset, len }
                    | Operation::WriteZeroes { offset, len, .. } => {
                        bytes[offset as usize..][..len as usize].fill(0);
                        Some(())
                    }
                };
                drop(bytes);
                if let Some(error) = *self.fails.lock().unwrap() {
                    (request.done)(Err(error));
                    continue;
                }
                self.log.lock().unwrap().push(request.operation);
                (request.done)(moved.ok_or(BlockError::BadBuffer));
            }
        }
    }
}

impl Block for Memory {
    fn info(&self) -> BlockInfo {
        BlockInfo {
            id: "d0".into(),
            file: String::new(),
            format: "raw".into(),
            read_only: self.read_only,
            discard: true,
            write_back: true,
        }
    }
    fn len(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }
    fn submit(&self, request: Request) {
        self.held.lock().unwrap().push(request);
    }
    fn read_now(&self, offset: u64, memory: &IoVector) -> bool {
        let bytes = self.bytes.lock().unwrap();
        self.is_quick
            && memory
                .copy_in(0, &bytes[offset as usize..][..memory.len() as usize])
                .is_some()
    }
    fn barrier(&self) {
        *self.barriers.lock().unwrap() += 1;
    }
    fn drain(&self) {
        self.work();
    }
    fn resize(&self, len: u64) -> Result<(), BlockError> {
        self.bytes.lock().unwrap().resize(len as usize, 0);
        let listeners = self.on_resize.lock().unwrap().clone();
        listeners.iter().for_each(|listener| listener());
        Ok(())
    }
    fn on_resize(&self, listener: Listener) {
        self.on_resize.lock().unwrap().push(listener);
    }
}
