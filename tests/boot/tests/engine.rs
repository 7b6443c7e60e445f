//! The engine's ways to run a whole machine: `-accel tcg` with its properties.

use std::time::Duration;

use serde_json::json;
use test_boot::{Error, Guest, Vm};

/// Everything is interpreted beside being run, on hosts that may be busy.
const PATIENCE: Duration = Duration::from_secs(900);

/// Boots, looks at the machine by QMP and powers it off.
fn boots_with(
    machine: &str,
    accel: &str,
    cpus: u32,
    look: impl Fn(&mut test_boot::Qmp) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let mut vm = Vm::new(machine)
        .args("-m 256")
        .option("-accel", accel)
        .cpus(cpus)
        .option("-L", &guest.seabios)
        .linux(&guest)
        .append("quiet")
        .patience(PATIENCE)
        .with_qmp()
        .boot()?;
    let up = format!("GUEST-UP x86_64 {} cpus={cpus} mem=", guest.release);
    vm.expect(&up)?;
    assert_eq!(vm.shell("echo $((6 * 7)) $(nproc)")?, format!("42 {cpus}"));
    look(&mut vm.qmp()?)?;
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()
}

/// A count of `info jit`, of all CPUs.
fn count(report: &str, what: &str) -> u64 {
    let lines = report.lines().filter_map(|line| {
        let value = line.trim().strip_prefix(what)?;
        value.trim().parse::<u64>().ok()
    });
    lines.sum()
}

#[test]
fn generated_code_and_the_interpreter_agree_on_a_whole_boot() -> Result<(), Error> {
    boots_with("microvm", "tcg,check=on", 1, |qmp| {
        let report = qmp.hmp("info jit")?;
        let [compared, not, regions] =
            ["times compared", "not compared", "regions compiled"].map(|what| count(&report, what));
        assert!(compared > 1_000_000, "{report}");
        assert!(not < compared / 50, "{report}");
        assert!(regions > 10, "{report}");
        Ok(())
    })
}

#[test]
fn four_cpus_take_turns_on_one_thread() -> Result<(), Error> {
    boots_with("q35", "tcg,thread=single", 4, |qmp| {
        let cpus = qmp.execute("query-cpus-fast", json!({}))?;
        let mut threads: Vec<_> = cpus.as_array().into_iter().flatten().collect();
        assert_eq!(threads.len(), 4);
        threads.dedup_by_key(|cpu| cpu["thread-id"].clone());
        assert_eq!(threads.len(), 1, "{cpus}");
        Ok(())
    })
}
