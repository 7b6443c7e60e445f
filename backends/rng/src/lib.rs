//! Randomness for guests: the host's, a file's, or a daemon's.
//!
//! Devices get a [`Randomness`] and never ask the host themselves, so that a test or a replay can
//! put another in its place.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

mod egd;

pub use egd::Egd;

/// Called from a thread of the back end's, with no lock held.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A source of random bytes. What the `rng` property of a device names.
pub trait Randomness: Send {
    /// Fills the start of `out` with what is there, and says how much that was. Never waits. After
    /// less than all, `wake` is called once there is more.
    fn fill(&mut self, out: &mut [u8]) -> usize;

    /// Who is called when there is more.
    fn set_wake(&mut self, wake: Wake);
}

/// The host kernel's generator (`rng-builtin`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Builtin;

impl Randomness for Builtin {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        let mut done = 0usize;
        while done < out.len() {
            let rest = out.get_mut(done..).unwrap_or_default();
            match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(0) => break,
                Ok(n) => done = done.saturating_add(n),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    log::error!("the host has no randomness: {error}");
                    break;
                }
            }
        }
        done
    }

    fn set_wake(&mut self, _: Wake) {}
}

/// A fixed sequence that looks random: for tests and reproducible runs. Not for secrets.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Seeded(seed)
    }
}

impl Randomness for Seeded {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        for byte in out.iter_mut() {
            // splitmix64
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (z >> 56) as u8;
        }
        out.len()
    }

    fn set_wake(&mut self, _: Wake) {}
}

/// Bytes read ahead from a file.
const AHEAD: usize = 4096;

/// Why a file cannot be a source of randomness.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host refuses.
    #[error("cannot open '{file}' for randomness")]
    Open {
        /// File name.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Default)]
struct Pool {
    bytes: VecDeque<u8>,
    /// Someone got less than asked for.
    wanted: bool,
    wake: Option<Wake>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    pool: Mutex<Pool>,
    room: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file or device of the host (`rng-random`), read by a thread that may wait for it.
pub struct FromFile {
    shared: Arc<Shared>,
}

impl FromFile {
    /// Opens a file; QEMU's default is `/dev/urandom`.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let open_error = |source| OpenError::Open {
            file: path.display().to_string(),
            source,
        };
        // Without waiting: a FIFO has no writer yet. Reads wait on the thread.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(open_error)?;
        rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::empty())
            .map_err(|e| open_error(e.into()))?;
        let shared = Arc::new(Shared::default());
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("rng-random".into())
            .spawn(move || read_ahead(file, &weak))
            .map_err(open_error)?;
        Ok(FromFile { shared })
    }
}

fn read_ahead(mut file: File, shared: &Weak<Shared>) {
    let mut buffer = [0u8; 512];
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        {
            let mut pool = shared.lock();
            while pool.bytes.len() >= AHEAD && !pool.ended {
                pool = shared
                    .room
                    .wait(pool)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if pool.ended {
                return;
            }
        }
        let count = match file.read(&mut buffer) {
            Ok(0) => {
                log::warn!("the file given to rng-random has no more bytes");
                return;
            }
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => {
                log::error!("cannot read the file given to rng-random: {e}");
                return;
            }
        };
        let wake = {
            let mut pool = shared.lock();
            pool.bytes.extend(buffer.get(..count).unwrap_or_default());
            let wanted = std::mem::take(&mut pool.wanted);
            pool.wake.clone().filter(|_| wanted)
        };
        if let Some(wake) = wake {
            wake();
        }
    }
}

impl Randomness for FromFile {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        let mut pool = self.shared.lock();
        let count = out.len().min(pool.bytes.len());
        for (slot, byte) in out.iter_mut().zip(pool.bytes.drain(..count)) {
            *slot = byte;
        }
        pool.wanted = count < out.len();
        drop(pool);
        self.shared.room.notify_one();
        count
    }

    fn set_wake(&mut self, wake: Wake) {
        self.shared.lock().wake = Some(wake);
    }
}

impl Drop for FromFile {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_source_fills_all_and_never_alike() {
        let (mut a, mut b) = ([0; 300], [0; 300]);
        assert_eq!((Builtin.fill(&mut a), Builtin.fill(&mut b)), (300, 300));
        assert_ne!(a, b);
    }

    #[test]
    fn a_seed_gives_the_same_bytes_again() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        Seeded::new(7).fill(&mut a);
        Seeded::new(7).fill(&mut b);
        assert_eq!(a, b);
        assert_ne!(a, [0; 32]);
    }

    #[test]
    fn a_file_wakes_whoever_got_too_little() {
        let mut file = FromFile::open(Path::new("/dev/urandom")).unwrap();
        let (tx, rx) = std::sync::mpsc::channel();
        file.set_wake(Arc::new(move || tx.send(()).unwrap()));
        let mut left = 3 * AHEAD;
        while left != 0 {
            let got = file.fill(&mut vec![0; left]);
            left -= got;
            if left != 0 {
                rx.recv().unwrap();
            }
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = FromFile::open(Path::new("/nonexistent")).err().unwrap();
        assert_eq!(
            error.to_string(),
            "cannot open '/nonexistent' for randomness"
        );
    }
}
