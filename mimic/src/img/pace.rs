//! A limit to the speed of long work (`-r`).

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Bytes a second that are written, at most.
pub(super) struct Pace {
    rate: Option<u64>,
    begun: Instant,
    written: u64,
}

impl Pace {
    /// The rate that `-r` gives.
    pub(super) fn new(rate: Option<&str>) -> Result<Self> {
        let rate = rate.map(super::size).transpose()?;
        if rate == Some(0) {
            bail!("'-r 0': nothing would ever be written; leave it out for no limit");
        }
        Ok(Pace {
            rate,
            begun: Instant::now(),
            written: 0,
        })
    }

    /// So much was written: waits until it may have been.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.written = self.written.saturating_add(bytes);
        if let Some(rate) = self.rate {
            let early = due(self.written, rate).saturating_sub(self.begun.elapsed());
            if !early.is_zero() {
                std::thread::sleep(early);
            }
        }
    }
}

/// How long so many bytes take.
fn due(bytes: u64, rate: u64) -> Duration {
    Duration::try_from_secs_f64(bytes as f64 / rate as f64).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time() {
        assert_eq!(due(3 << 20, 2 << 20), Duration::from_millis(1500));
        assert_eq!(due(0, 1), Duration::ZERO);
    }

    #[test]
    fn no_rate_at_all_is_refused() {
        assert!(Pace::new(Some("0")).is_err());
        assert!(Pace::new(Some("fast")).is_err());
        let mut pace = Pace::new(None).unwrap();
        pace.wrote(u64::MAX);
    }
}
