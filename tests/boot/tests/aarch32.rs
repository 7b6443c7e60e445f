//! Programs of 32 bits under Debian's arm64 kernel: a user land of armhf alone, whose code is mostly T32,
//! with VFP and Advanced SIMD in glibc.

use test_boot::{Error, Guest, Vm};

/// The guest, if it and its programs are there.
fn guest() -> Result<Option<Guest>, Error> {
    match Guest::find("arm64")? {
        Some(guest) if guest.has_armhf()? => Ok(Some(guest)),
        _ => Ok(None),
    }
}

/// Boots to a shell of armhf.
fn boot(guest: &Guest, cpu: &str, cpus: u32, more: &str) -> Result<Vm, Error> {
    let mut vm = Vm::new("virt")
        .args("-m 256")
        .args(more)
        .option("-cpu", cpu)
        .cpus(cpus)
        .linux(guest)
        .option("-initrd", &guest.initrd_armhf)
        .append("quiet")
        .boot()?;
    vm.expect(&format!("GUEST-UP aarch64 {}", guest.release))?;
    Ok(vm)
}

fn end(mut vm: Vm) -> Result<(), Error> {
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()
}

/// What the programs print: statically linked ones, and bash and perl with glibc.
fn programs_of_armhf_run(cpu: &str, more: &str) -> Result<(), Error> {
    let Some(guest) = guest()? else {
        return Ok(());
    };
    let mut vm = boot(&guest, cpu, 1, more)?;
    // The example of FIPS 180.
    assert_eq!(
        vm.shell("printf abc | sha256sum")?,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -"
    );
    assert_eq!(
        vm.shell("seq 1 999 | awk '{s+=$1*1.5} END {print s}'")?,
        "749250"
    );
    assert_eq!(
        vm.shell("cat /bin/perl | gzip | gunzip | cmp - /bin/perl && echo same")?,
        "same"
    );
    assert_eq!(
        vm.shell("bash -c '[[ ab12 =~ ([a-z]+)([0-9]+) ]] && echo $((BASH_REMATCH[2] ** 3))'")?,
        "1728"
    );
    assert_eq!(
        vm.shell("perl -e 'printf \"%.12f %.6e %d\\n\", atan2(1,1)*4, exp(1)**9, -7/2'")?,
        "3.141592653590 8.103084e+03 -3"
    );
    // Doubles, floats and integers as bytes.
    assert_eq!(
        vm.shell("perl -e 'print unpack(\"H*\", pack(\"d>f<nN\", 1.5, -0.25, 513, 7)), \"\\n\"'")?,
        "3ff8000000000000000080be020100000007"
    );
    // personality(PER_LINUX32): the kernel tells the program's own architecture.
    assert_eq!(
        vm.shell("perl -e 'syscall(136, 8); exec \"uname\", \"-m\"'")?,
        "armv8l"
    );
    end(vm)
}

#[test]
fn programs_of_armhf_run_on_max() -> Result<(), Error> {
    programs_of_armhf_run("max", "-accel tcg")
}

#[test]
fn programs_of_armhf_run_on_cortex_a53() -> Result<(), Error> {
    programs_of_armhf_run("cortex-a53", "-accel tcg")
}

#[test]
fn programs_of_armhf_run_interpreted() -> Result<(), Error> {
    programs_of_armhf_run("cortex-a72", "-accel tcg,jit=off")
}

#[test]
fn processes_of_armhf_share_four_cpus() -> Result<(), Error> {
    let Some(guest) = guest()? else {
        return Ok(());
    };
    let mut vm = boot(&guest, "max", 4, "-accel tcg")?;
    let work = "perl -e '$s += $_ * 3 for 1..20000; print \"$s\\n\"'";
    let all = format!("(for n in 1 2 3 4; do {work} & done; wait) | sort | uniq -c | xargs");
    assert_eq!(vm.shell(&all)?, "4 600030000");
    end(vm)
}

#[test]
fn a_program_of_armhf_gets_signals_for_what_it_must_not_do() -> Result<(), Error> {
    let Some(guest) = guest()? else {
        return Ok(());
    };
    let mut vm = boot(&guest, "cortex-a57", 1, "-accel tcg")?;
    // An address that is not mapped: the shell says by which signal a program ended.
    let script = "perl -e 'print unpack(\"p\", pack(\"L\", 16))'; echo $?";
    assert_eq!(vm.shell(&format!("{{ {script}; }} 2>/dev/null"))?, "139");
    assert_eq!(vm.shell("echo alive")?, "alive");
    end(vm)
}
