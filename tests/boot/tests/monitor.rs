//! Driving a machine through its monitor.

use std::path::PathBuf;

use serde_json::json;
use test_boot::{Error, Folder, Vm, kernels};

/// A kernel, so that no firmware has to be there.
fn kernel(folder: &Folder) -> Result<PathBuf, Error> {
    let path = folder.join("halt.elf");
    std::fs::write(&path, kernels::hello_and_halt(""))?;
    Ok(path)
}

#[test]
fn a_machine_can_be_stopped_continued_and_quit_by_qmp() -> Result<(), Error> {
    let folder = Folder::new()?;
    let mut vm = Vm::new("pc")
        .kernel(kernel(&folder)?)
        .args("-accel tcg -m 64 -S")
        .with_qmp()
        .boot()?;
    let mut qmp = vm.qmp()?;
    assert!(qmp.greeting()["QMP"]["version"]["qemu"]["major"].is_u64());
    assert_eq!(
        qmp.execute("query-status", json!({}))?["status"],
        "prelaunch"
    );
    qmp.execute("cont", json!({}))?;
    qmp.event("RESUME")?;
    qmp.execute("stop", json!({}))?;
    qmp.event("STOP")?;
    assert!(qmp.hmp("info status")?.contains("paused"));
    qmp.execute("quit", json!({}))?;
    vm.expect_success()
}

#[test]
fn an_unknown_command_is_answered_by_its_error_class() -> Result<(), Error> {
    let folder = Folder::new()?;
    let mut vm = Vm::new("pc")
        .kernel(kernel(&folder)?)
        .args("-accel tcg -m 64 -S")
        .with_qmp()
        .boot()?;
    let mut qmp = vm.qmp()?;
    match qmp.execute("query-nonsense", json!({})) {
        Err(Error::Qmp { answer, .. }) => assert_eq!(answer["class"], "CommandNotFound"),
        other => panic!("{other:?}"),
    }
    qmp.execute("quit", json!({}))?;
    vm.expect_success()
}
