//! Runs a machine to power-off, and on the way saves it and goes on in a fresh one: `moves POINTS ACCELERATOR WORDS`.
//!
//! `POINTS` are numbers of bytes that the guest has written, with commas between; `WORDS` are the command line. A
//! program of its own: `kvm_outer_arm.rs` of `tests/boot` runs it where there is a true KVM.

use anyhow::{Context as _, Result, ensure};
use test_saved::{Rig, through_bytes};

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let points = words.next().context("no points")?;
    let accelerator = words.next().context("no accelerator")?;
    let words: Vec<String> = words.collect();
    let mut rig = Rig::on(&accelerator, &words)?;
    let mut text = String::new();
    for point in points.split(',') {
        let point: usize = point.parse().context("a point is a number of bytes")?;
        let goes_on = rig.run_to_output(point.saturating_sub(text.len()))?;
        ensure!(
            goes_on,
            "it ended before {point} bytes:\n{text}{}",
            rig.text()
        );
        text.push_str(rig.text());
        let saved = through_bytes(rig.save()?)?;
        // One of a kind is enough for a small host.
        drop(rig);
        rig = Rig::on(&accelerator, &words)?;
        rig.restore(&saved)?;
    }
    rig.run_to_power_off()
        .with_context(|| format!("after:\n{text}"))?;
    println!("{text}{}MOVED", rig.text());
    Ok(())
}
