//! A machine moves between the engine and the host's KVM, and back.

use anyhow::{Result, ensure};
use test_boot::{Folder, has_kvm, kernels};
use test_saved::{Rig, Storm, through_bytes};

/// Mutations of every section.
const CASES: usize = 20;
/// Letters that the guest writes, one at each tick.
const TICKS: u32 = 120;

/// The command line of a guest that lives from its timer.
fn command_line(machine: &str, folder: &Folder) -> Result<Vec<String>> {
    let kernel = folder.join("kernel");
    std::fs::write(&kernel, kernels::ticks(TICKS))?;
    let words = ["-machine", machine, "-cpu", "qemu64", "-m", "8"].map(str::to_owned);
    let kernel = ["-kernel".to_owned(), kernel.display().to_string()];
    Ok(words.into_iter().chain(kernel).collect())
}

/// The guest runs a while on each in turn, from one saved machine to the next.
fn ticks_on_each(machine: &str, accelerators: &[&str]) -> Result<()> {
    let folder = Folder::new()?;
    let args = command_line(machine, &folder)?;
    let letters = (b'a'..=b'z').cycle().take(TICKS as usize);
    let wanted: String = letters.map(char::from).chain(['\n']).collect();
    let mut text = String::new();
    let mut saved = None;
    for (n, accelerator) in accelerators.iter().enumerate() {
        let mut rig = Rig::on(accelerator, &args)?;
        if let Some(saved) = &saved {
            rig.restore(saved)?;
        }
        let upto = wanted.len() * (n + 1) / accelerators.len();
        let share = upto.saturating_sub(text.len());
        let goes_on = rig.run_to_output(share)?;
        ensure!(goes_on, "on {accelerator}: {:?}", rig.ended());
        saved = Some(through_bytes(rig.save()?)?);
        text.push_str(rig.text());
        ensure!(
            wanted.starts_with(&text),
            "on {accelerator} it wrote {:?}, all was {text:?}",
            rig.text()
        );
    }
    ensure!(text == wanted, "{text:?}");
    Ok(())
}

/// Every place of the interrupt controllers, with the engine before, between and after.
const ACCELERATORS: &[&str] = &[
    "tcg",
    "kvm,kernel-irqchip=on",
    "kvm,kernel-irqchip=split",
    "tcg",
    "kvm,kernel-irqchip=off",
    "kvm,kernel-irqchip=on",
    "tcg",
];

#[test]
fn a_pc_moves_between_engine_and_kvm() -> Result<()> {
    if !has_kvm() {
        return Ok(());
    }
    ticks_on_each("pc", ACCELERATORS)
}

#[test]
fn a_q35_moves_between_engine_and_kvm() -> Result<()> {
    if !has_kvm() {
        return Ok(());
    }
    ticks_on_each("q35", ACCELERATORS)
}

#[test]
fn mutated_sections_end_in_errors_or_guests_on_kvm_too() -> Result<()> {
    if !has_kvm() {
        return Ok(());
    }
    let folder = Folder::new()?;
    let args = command_line("pc", &folder)?;
    let mut rig = Rig::on("kvm", &args)?;
    rig.run_to_output(9)?;
    let saved = through_bytes(rig.save()?)?;
    let tally = Storm::new(rig.machine(), &saved, 5).run(CASES)?;
    assert!(tally.taken > 0 && tally.refused > 0, "{tally:?}");
    Ok(())
}
