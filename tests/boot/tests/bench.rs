//! The timed programs compute in the guest what they compute on the host.

use test_boot::programs::Programs;
use test_boot::{Error, Guest, Vm};

/// A folder that goes away with the test.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn every_program_gives_the_host_s_checksum() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder(std::env::temp_dir().join(format!("mimic-bench-{}", std::process::id())));
    let programs = Programs::build(&folder.0, None, &guest)?;
    let machine = Vm::new("pc")
        .args("-accel tcg -m 256")
        .option("-L", &guest.seabios);
    let mut server = programs.serve(machine, &guest)?;
    for name in programs.names()? {
        let units = 3;
        assert_eq!(
            server.run(&name, units)?.sum,
            programs.native(&name, units)?.sum,
            "{name}"
        );
    }
    server.vm.send("end\n")?;
    server.vm.expect("GUEST-EXIT 0")?;
    server.vm.expect_success()
}
