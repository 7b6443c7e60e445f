//! EL3 and the secure world of `virt`: programs that begin at EL3, on Mimic and on QEMU.

use std::path::Path;
use std::time::Duration;

use test_boot::arm_program::{self, HVC, ISB, Program, Reg, SCR_EL3, mrs, msr};
use test_boot::{Error, Folder, Vm};

/// These programs are short: one that does not end has gone astray.
const PATIENCE: Duration = Duration::from_secs(10);
/// SCR_EL3: all levels below are AArch64, and its ones.
const RW: u64 = 1 << 10 | 3 << 4;
const NS: u64 = 1;
const IRQ: u64 = 1 << 1;
const FIQ: u64 = 1 << 2;
const SMD: u64 = 1 << 7;
const HCE: u64 = 1 << 8;
const ST: u64 = 1 << 11;
const TWI: u64 = 1 << 12;
/// PSTATE: all masked.
const MASKED: u64 = 0x3c0;

const CPACR_EL1: Reg = (3, 0, 1, 0, 2);
const CPTR_EL2: Reg = (3, 4, 1, 1, 2);
const CPTR_EL3: Reg = (3, 6, 1, 1, 2);
const MDCR_EL3: Reg = (3, 6, 1, 3, 1);
const HCR_EL2: Reg = (3, 4, 1, 1, 0);
const CURRENT_EL: Reg = (3, 0, 4, 2, 2);
const CNTPS_CTL: Reg = (3, 7, 14, 2, 1);
const ISR_EL1: Reg = (3, 0, 12, 1, 0);

fn lines(
    program: &Program,
    path: &Path,
    machine: &str,
    other: Option<&Path>,
) -> Result<Vec<String>, Error> {
    let mut vm = Vm::new(machine)
        .args("-m 128 -cpu cortex-a72")
        .option("-bios", path);
    if let Some(other) = other {
        vm = vm.program(other);
    }
    let ended = vm.patience(PATIENCE).boot()?.wait_exit()?;
    assert!(
        ended.status.success(),
        "{machine}: {} {}",
        ended.console,
        ended.errors
    );
    Ok(program.describe(&ended.console))
}

/// Runs a program on Mimic and, if it is there, on QEMU: what it saw is the same.
fn compare(machine: &str, body: impl FnOnce(&mut Program)) -> Result<Vec<String>, Error> {
    let folder = Folder::new()?;
    let mut program = Program::default();
    let path = folder.join("firmware");
    std::fs::write(&path, program.image(body))?;
    let ours = lines(&program, &path, machine, None)?;
    let qemu = Path::new("/usr/bin/qemu-system-aarch64");
    if !qemu.exists() {
        eprintln!(
            "SKIPPED: no comparison without {} (Debian's package qemu-system-arm)",
            qemu.display()
        );
        return Ok(ours);
    }
    let theirs = lines(&program, &path, machine, Some(qemu))?;
    let differing: Vec<_> = (0..ours.len().max(theirs.len()))
        .filter(|n| ours.get(*n) != theirs.get(*n))
        .map(|n| format!("{n}: {:?}, QEMU {:?}", ours.get(n), theirs.get(n)))
        .collect();
    assert!(differing.is_empty(), "{machine}:\n{}", differing.join("\n"));
    Ok(ours)
}

/// With and without EL2.
const MACHINES: [&str; 2] = ["virt,secure=on", "virt,secure=on,virtualization=on"];

#[test]
fn registers_of_el3_keep_what_they_are_given() -> Result<(), Error> {
    for machine in MACHINES {
        let all = compare(machine, |p| {
            p.note("CurrentEL", CURRENT_EL);
            // After reset.
            for (name, reg) in [("CPTR_EL3", CPTR_EL3), ("MDCR_EL3", MDCR_EL3)] {
                p.note(name, reg);
            }
            let kept = [
                ("SPSR_EL3", (3, 6, 4, 0, 0)),
                ("ELR_EL3", (3, 6, 4, 0, 1)),
                ("ESR_EL3", (3, 6, 5, 2, 0)),
                ("FAR_EL3", (3, 6, 6, 0, 0)),
                ("TTBR0_EL3", (3, 6, 2, 0, 0)),
                ("TCR_EL3", (3, 6, 2, 0, 2)),
                ("MAIR_EL3", (3, 6, 10, 2, 0)),
                ("TPIDR_EL3", (3, 6, 13, 0, 2)),
                ("AFSR0_EL3", (3, 6, 5, 1, 0)),
                ("AMAIR_EL3", (3, 6, 10, 3, 0)),
                ("ACTLR_EL3", (3, 6, 1, 0, 1)),
                ("SP_EL2", (3, 6, 4, 1, 0)),
                ("SP_EL1", (3, 4, 4, 1, 0)),
                ("VBAR_EL1", (3, 0, 12, 0, 0)),
                ("RVBAR_EL3", (3, 6, 12, 0, 1)),
                ("SCTLR_EL1", (3, 0, 1, 0, 0)),
            ];
            for (name, reg) in kept {
                if !name.starts_with("VBAR") {
                    p.set(reg, 0x1234_5678);
                }
                p.note(name, reg);
            }
            p.set(SCR_EL3, RW | NS | SMD | HCE | ST | TWI | IRQ | FIQ)
                .note("SCR_EL3", SCR_EL3);
            p.set((3, 0, 1, 0, 0), 0x30d0_0800);
        })?;
        assert_eq!(all.first().map(String::as_str), Some("CurrentEL = 0xc"));
    }
    Ok(())
}

#[test]
fn calls_go_to_the_level_that_serves_them() -> Result<(), Error> {
    for machine in MACHINES {
        compare(machine, |p| {
            for scr in [RW, RW | NS, RW | NS | HCE, RW | NS | SMD, RW | TWI] {
                for el in [0, 1, 2] {
                    // EL2 that is not there: an illegal return, logged at EL3.
                    let is_el2 = machine.contains("virtualization") && scr & NS != 0;
                    if el == 2 && !is_el2 {
                        continue;
                    }
                    p.set(HCR_EL2, 1 << 31);
                    let calls = scr & SMD == 0 && el > 0;
                    if !calls {
                        continue;
                    }
                    p.at(el, scr, MASKED, |p| {
                        p.note("CurrentEL", CURRENT_EL)
                            .raw(&[HVC])
                            .note("SCR_EL3", SCR_EL3);
                        p.note("CNTPS_CTL_EL1", CNTPS_CTL);
                        if scr & TWI != 0 {
                            p.raw(&[0xd503_207f]);
                        }
                    });
                }
            }
        })?;
    }
    Ok(())
}

#[test]
fn el3_takes_the_traps_that_it_asks_for() -> Result<(), Error> {
    for machine in MACHINES {
        compare(machine, |p| {
            let is_el2 = machine.contains("virtualization");
            let body = |p: &mut Program| {
                p.note("CPACR_EL1", CPACR_EL1).note("CPTR_EL2", CPTR_EL2);
                // FMOV x0, d0
                p.raw(&[0x9e66_0000]);
                p.note("MDSCR_EL1", (2, 0, 0, 2, 2))
                    .note("OSLSR_EL1", (2, 0, 1, 1, 4));
                p.note("PMCNTENSET_EL0", (3, 3, 9, 12, 1))
                    .note("DBGBVR0_EL1", (2, 0, 0, 0, 4));
            };
            let levels: &[u64] = if is_el2 { &[1, 2] } else { &[1] };
            p.set(CPACR_EL1, 3 << 20).set(CPTR_EL2, 0x33ff);
            for (cptr, mdcr) in [
                (0, 0),
                (1 << 31, 0),
                (1 << 10, 0),
                (0, 1 << 9),
                (0, 1 << 10),
                (0, 1 << 6),
            ] {
                p.set(CPTR_EL3, cptr).set(MDCR_EL3, mdcr);
                for el in levels {
                    for scr in [RW | NS, RW] {
                        if *el == 1 || scr & NS != 0 {
                            p.at(*el, scr, MASKED, body);
                        }
                    }
                }
            }
            p.set(CPTR_EL3, 0).set(MDCR_EL3, 0);
            for scr in [RW, RW | ST, RW | NS | ST] {
                p.at(1, scr, MASKED, |p| {
                    p.note("CNTPS_CTL_EL1", CNTPS_CTL);
                });
            }
        })?;
    }
    Ok(())
}

#[test]
fn the_secure_world_has_memory_and_devices_of_its_own() -> Result<(), Error> {
    for machine in MACHINES {
        compare(machine, |p| {
            p.poke(0x0e00_0000, 0x1234_5678)
                .peek("secure RAM", 0x0e00_0000);
            for scr in [RW, RW | NS] {
                p.at(1, scr, MASKED, |p| {
                    p.peek("secure RAM", 0x0e00_0000);
                    p.peek("secure UART", 0x0904_0fe0)
                        .peek("secure GPIO", 0x090b_0fe0);
                    p.peek("UART", 0x0900_0fe0).peek("first flash chip", 0);
                    p.peek("second flash chip", 0x0400_0000);
                    p.peek("nothing", 0x0d00_0000);
                });
            }
            p.peek("nothing", 0x0d00_0000);
        })?;
    }
    Ok(())
}

/// QEMU leaves this check out.
#[test]
fn accesses_by_a_stack_pointer_that_is_not_aligned_are_exceptions() -> Result<(), Error> {
    let folder = Folder::new()?;
    let mut program = Program::default();
    let path = folder.join("firmware");
    let image = program.image(|p| {
        p.set((3, 0, 1, 0, 0), 0x30d0_0808);
        p.at(1, RW | NS, MASKED, |p| {
            p.raw(&arm_program::mov(3, 0x4030_0000));
            // MOV SP, x3; LDR x4, [SP]; then 8 less by SUB, LDR, STP and PRFM, and aligned again by AND.
            p.raw(&[0x9100_007f, 0xf940_03e4, 0xd100_23ff]);
            p.raw(&[0xf940_03e4, 0xa900_7fff, 0xf980_03e0]);
            p.raw(&[0x9100_03e3, 0x927c_ec63, 0x9100_007f, 0xf940_03e4]);
            // By what writes back: LDR x4, [SP], #8 and again.
            p.raw(&[0xf840_87e4, 0xf840_87e4]);
        });
    });
    std::fs::write(&path, image)?;
    let all = lines(&program, &path, "virt,secure=on", None)?;
    // LDR and STP, and the last LDR; then SMC.
    let is_sp = |line: &&String| line.contains("to EL1 +0x200: 0x9a000000 at");
    assert_eq!(
        (all.iter().filter(is_sp).count(), all.len()),
        (3, 4),
        "{all:#?}"
    );
    Ok(())
}

const GICD: u64 = 0x0800_0000;
const GICC: u64 = 0x0801_0000;
const GICR_SGI: u64 = 0x080b_0000;
const GICR: u64 = 0x080a_0000;

const fn icc(crm: u32, op2: u32) -> Reg {
    (3, 0, 12, crm, op2)
}
const PMR: Reg = (3, 0, 4, 6, 0);

/// What each world sees of the registers of version 3.
fn note_gic_v3(p: &mut Program) {
    for (name, at) in [
        ("GICD_CTLR", GICD),
        ("GICD_IGROUPR1", GICD + 0x84),
        ("GICD_IGRPMODR1", GICD + 0xd04),
        ("GICD_ISENABLER1", GICD + 0x104),
        ("GICD_ISPENDR1", GICD + 0x204),
        ("GICD_IPRIORITYR8", GICD + 0x420),
        ("GICD_ICFGR2", GICD + 0xc08),
        ("GICR_IGROUPR0", GICR_SGI + 0x80),
        ("GICR_IGRPMODR0", GICR_SGI + 0xd00),
        ("GICR_ISENABLER0", GICR_SGI + 0x100),
        ("GICR_IPRIORITYR0", GICR_SGI + 0x400),
        ("GICR_WAKER", GICR + 0x14),
    ] {
        p.peek(name, at);
    }
    for (name, reg) in [
        ("ICC_PMR_EL1", PMR),
        ("ICC_BPR0_EL1", icc(8, 3)),
        ("ICC_BPR1_EL1", icc(12, 3)),
        ("ICC_IGRPEN0_EL1", icc(12, 6)),
        ("ICC_IGRPEN1_EL1", icc(12, 7)),
        ("ICC_RPR_EL1", icc(11, 3)),
        ("ICC_SRE_EL1", icc(12, 5)),
    ] {
        p.note(name, reg);
    }
}

/// Three interrupts of wires: 32 in group 0, 33 in Secure, 34 in Non-secure group 1.
fn set_up_gic_v3(p: &mut Program) {
    // System registers, everything enabled.
    p.set((3, 6, 12, 12, 5), 0xf).set((3, 0, 12, 12, 5), 7);
    p.poke(GICR + 0x14, 0);
    p.poke(GICD, 0x37);
    p.poke(GICD + 0x84, 4)
        .poke(GICD + 0xd04, 2)
        .poke(GICD + 0xc08, 0x2a);
    p.poke(GICD + 0x420, 0xc090_4020).poke(GICD + 0x104, 7);
    p.poke(GICR_SGI + 0x80, 0xff00).poke(GICR_SGI + 0xd00, 0xf0);
    p.poke(GICR_SGI + 0x400, 0xf0c0_8040)
        .poke(GICR_SGI + 0x100, 0xffff);
    p.set(PMR, 0xf0)
        .set((3, 6, 12, 12, 7), 3)
        .set(icc(12, 6), 1);
}

#[test]
fn each_world_has_its_view_of_a_gicv3() -> Result<(), Error> {
    for machine in MACHINES {
        compare(&format!("{machine},gic-version=3"), |p| {
            set_up_gic_v3(p);
            note_gic_v3(p);
            p.note("ICC_IGRPEN1_EL3", (3, 6, 12, 12, 7));
            for scr in [
                RW,
                RW | NS,
                RW | NS | FIQ,
                RW | NS | IRQ,
                RW | NS | IRQ | FIQ,
                RW | FIQ,
            ] {
                p.at(1, scr, MASKED, |p| {
                    note_gic_v3(p);
                    p.set(PMR, 0x50).set(icc(12, 3), 1).set(icc(12, 4), 1);
                    // What is not its own it cannot change.
                    p.poke(GICD + 0x84, 7)
                        .poke(GICD + 0x420, 0x9090_9090)
                        .poke(GICD + 0x184, 7);
                    note_gic_v3(p);
                    p.poke(GICD + 0x104, 7).set(icc(12, 4), 0);
                });
                note_gic_v3(p);
                set_up_gic_v3(p);
            }
        })?;
    }
    Ok(())
}

/// SPIs 0 to 2 pending in turn: which input they raise where, and who may take them.
fn take_in_turn(p: &mut Program, scrs: &[u64], hppir: &[(&str, Reg)], iar: &[(&str, Reg, Reg)]) {
    for spi in 0..3u32 {
        for scr in scrs {
            let levels: &[u64] = &[1, 3];
            for el in levels {
                p.poke(GICD + 0x204, 1 << spi);
                let look = |p: &mut Program| {
                    p.note("ISR_EL1", ISR_EL1);
                    for (name, reg) in hppir {
                        p.note(name, *reg);
                    }
                    for (name, iar, eoir) in iar {
                        p.note(name, *iar);
                        p.note("ISR_EL1", ISR_EL1).note("ICC_RPR_EL1", icc(11, 3));
                        p.raw(&[msr(*eoir, 1), ISB]).note("ICC_RPR_EL1", icc(11, 3));
                    }
                };
                match el {
                    3 => {
                        p.set(SCR_EL3, *scr);
                        look(p);
                    }
                    _ => {
                        p.at(*el, *scr, MASKED, look);
                    }
                }
                // Whatever is left over is undone.
                p.poke(GICD + 0x284, 7).poke(GICD + 0x384, 7);
                for reg in [icc(8, 4), icc(9, 0)] {
                    p.set(SCR_EL3, RW)
                        .set(reg, 0)
                        .set(SCR_EL3, RW | NS)
                        .set(reg, 0);
                }
            }
        }
    }
}

#[test]
fn interrupts_of_a_gicv3_reach_the_world_they_are_for() -> Result<(), Error> {
    for machine in MACHINES {
        compare(&format!("{machine},gic-version=3"), |p| {
            set_up_gic_v3(p);
            let hppir = [
                ("ICC_HPPIR0_EL1", icc(8, 2)),
                ("ICC_HPPIR1_EL1", icc(12, 2)),
            ];
            let iar = [
                ("ICC_IAR0_EL1", icc(8, 0), icc(8, 1)),
                ("ICC_IAR1_EL1", icc(12, 0), icc(12, 1)),
            ];
            take_in_turn(p, &[RW, RW | NS, RW | NS | FIQ], &hppir, &iar);
            // Software's own: of all kinds, to all kinds.
            for scr in [RW, RW | NS] {
                for (name, reg) in [
                    ("SGI0R", icc(11, 7)),
                    ("SGI1R", icc(11, 5)),
                    ("ASGI1R", icc(11, 6)),
                ] {
                    p.at(1, scr, MASKED, |p| {
                        for sgi in [0u64, 4, 8] {
                            p.set(reg, sgi << 24 | 1);
                        }
                    });
                    p.peek(name, GICR_SGI + 0x200)
                        .poke(GICR_SGI + 0x280, 0xffff);
                }
            }
        })?;
    }
    Ok(())
}

#[test]
fn interrupts_of_the_secure_world_are_lent_to_the_other() -> Result<(), Error> {
    const GICD_NSACR2: u64 = GICD + 0xe08;
    const GICD_IROUTER: u64 = GICD + 0x6100;
    const GICR_NSACR: u64 = GICR_SGI + 0xe00;
    for machine in MACHINES {
        compare(&format!("{machine},gic-version=3"), |p| {
            set_up_gic_v3(p);
            for field in 0..4u32 {
                p.poke(GICD_NSACR2, field * 0b01_0101)
                    .poke(GICR_NSACR, field * 0x5555_5555);
                p.poke(GICD + 0x304, 7);
                p.peek("GICD_NSACR2", GICD_NSACR2)
                    .peek("GICR_NSACR", GICR_NSACR);
                p.at(1, RW | NS, MASKED, |p| {
                    p.peek("GICD_NSACR2", GICD_NSACR2)
                        .peek("GICR_NSACR", GICR_NSACR);
                    p.poke(GICD + 0x204, 7);
                    p.peek("GICD_ISPENDR1", GICD + 0x204);
                    p.peek("GICD_ICPENDR1", GICD + 0x284);
                    p.peek("GICD_ISACTIVER1", GICD + 0x304);
                    p.poke(GICD_IROUTER, 1).poke(GICD_IROUTER + 8, 1);
                    p.poke(GICD + 0x384, 7).poke(GICD + 0x184, 7);
                    for reg in [icc(11, 7), icc(11, 5), icc(11, 6)] {
                        for sgi in [0u64, 4, 8] {
                            p.set(reg, sgi << 24 | 1);
                        }
                    }
                });
                p.peek("GICD_ISPENDR1", GICD + 0x204);
                p.peek("GICD_ISACTIVER1", GICD + 0x304);
                p.peek("GICD_ISENABLER1", GICD + 0x104);
                p.peek("GICD_IROUTER32", GICD_IROUTER);
                p.peek("GICD_IROUTER33", GICD_IROUTER + 8);
                p.peek("GICR_ISPENDR0", GICR_SGI + 0x200);
                p.poke(GICD + 0x204, 7).at(1, RW | NS, MASKED, |p| {
                    p.poke(GICD + 0x284, 7).poke(GICR_SGI + 0x280, 0xffff);
                });
                p.peek("GICD_ISPENDR1", GICD + 0x204);
                p.peek("GICR_ISPENDR0", GICR_SGI + 0x200);
                p.poke(GICD + 0x284, 7).poke(GICD + 0x384, 7);
                p.poke(GICR_SGI + 0x280, 0xffff);
                p.poke(GICD_IROUTER, 0).poke(GICD_IROUTER + 8, 0);
            }
        })?;
    }
    Ok(())
}

#[test]
fn interrupts_are_taken_to_the_level_that_routing_says() -> Result<(), Error> {
    for machine in MACHINES {
        compare(&format!("{machine},gic-version=3"), |p| {
            set_up_gic_v3(p);
            let is_el2 = machine.contains("virtualization");
            for spi in 0..3u32 {
                p.poke(GICD + 0x204, 1 << spi);
                for scr in [
                    RW,
                    RW | NS,
                    RW | FIQ,
                    RW | NS | FIQ,
                    RW | IRQ,
                    RW | NS | IRQ | FIQ,
                ] {
                    // HCR_EL2: FMO and IMO, or not.
                    for hcr in [0, 3 << 3] {
                        p.set(HCR_EL2, 1 << 31 | hcr);
                        p.at(1, scr, 0, |p| {
                            p.note("at EL1", ISR_EL1);
                        });
                        if is_el2 && scr & NS != 0 {
                            p.at(2, scr, 0, |p| {
                                p.note("at EL2", ISR_EL1);
                            });
                        }
                    }
                }
                // At EL3, masked and not: MSR DAIFClr, #3; MSR DAIFSet, #3.
                for scr in [RW, RW | FIQ | IRQ] {
                    p.set(SCR_EL3, scr).raw(&[0xd503_43ff, ISB, 0xd503_43df]);
                    p.note("at EL3", ISR_EL1);
                }
                p.poke(GICD + 0x284, 7);
            }
        })?;
    }
    Ok(())
}

/// What each world sees of the registers of version 2.
fn note_gic_v2(p: &mut Program) {
    for (name, at) in [
        ("GICD_CTLR", GICD),
        ("GICD_TYPER", GICD + 4),
        ("GICD_IGROUPR0", GICD + 0x80),
        ("GICD_IGROUPR1", GICD + 0x84),
        ("GICD_ISENABLER1", GICD + 0x104),
        ("GICD_ISPENDR1", GICD + 0x204),
        ("GICD_IPRIORITYR0", GICD + 0x400),
        ("GICD_IPRIORITYR8", GICD + 0x420),
        ("GICC_CTLR", GICC),
        ("GICC_PMR", GICC + 4),
        ("GICC_RPR", GICC + 0x14),
        ("GICC_HPPIR", GICC + 0x18),
    ] {
        p.peek(name, at);
    }
}

#[test]
fn each_world_has_its_view_of_a_gicv2() -> Result<(), Error> {
    for machine in MACHINES {
        compare(machine, |p| {
            // 32 in group 0, 33 in group 1.
            p.poke(GICD, 3)
                .poke(GICD + 0x84, 2)
                .poke(GICD + 0x80, 0xff00);
            p.poke(GICD + 0x420, 0xc0c0_a020)
                .poke(GICD + 0x104, 3)
                .poke(GICD + 0x400, 0xf0c0_8040);
            // Both groups, group 0 as FIQ.
            p.poke(GICC, 0xb).poke(GICC + 4, 0xf0);
            note_gic_v2(p);
            for spi in 0..2u32 {
                for scr in [RW, RW | NS, RW | FIQ, RW | NS | FIQ] {
                    p.poke(GICD + 0x204, 1 << spi);
                    p.at(1, scr, 0, |p| {
                        note_gic_v2(p);
                        p.note("ISR_EL1", ISR_EL1).peek("GICC_IAR", GICC + 0xc);
                        p.peek("GICC_RPR", GICC + 0x14);
                        p.poke(GICC + 0x10, 32 + spi).poke(GICC + 0x24, 32 + spi);
                        p.peek("GICC_RPR", GICC + 0x14);
                        p.poke(GICC + 4, 0x50)
                            .poke(GICD + 0x420, 0x9090_9090)
                            .poke(GICD + 0x184, 3);
                        note_gic_v2(p);
                    });
                    note_gic_v2(p);
                    p.poke(GICD + 0x284, 3)
                        .poke(GICD + 0x384, 3)
                        .poke(GICD + 0x104, 3);
                    p.poke(GICC + 4, 0xf0).poke(GICD + 0x420, 0xc0c0_a020);
                    p.poke(GICC + 0xd0, 0).poke(GICC + 0xe0, 0);
                }
            }
        })?;
    }
    Ok(())
}

#[test]
fn stage_1_of_the_secure_world_chooses_the_address_space() -> Result<(), Error> {
    compare("virt,secure=on", |p| {
        // Blocks of 1 GiB and a table of blocks of 2 MiB, at 0x40300000: memory is itself; secure RAM at 0x0e000000,
        // and by the other address space at 0x0e200000.
        let (top, second) = (0x4030_0000u64, 0x4030_1000u64);
        let entry = |at: u64, value: u64, p: &mut Program| {
            p.poke(at, value as u32).poke(at + 4, (value >> 32) as u32);
        };
        let page = 1 << 10 | 3 << 8 | 1;
        entry(top, second | 3, p);
        entry(top + 8, 0x4000_0000 | page, p);
        entry(second + 8 * 0x70, 0x0e00_0000 | page, p);
        entry(second + 8 * 0x71, 0x0e00_0000 | page | 1 << 5, p);
        entry(second + 8 * 0x48, 0x0900_0000 | page, p);
        p.poke(0x0e00_0000, 0x1234_5678);
        // EL3's, 32-bit addresses, and EL1's.
        p.set((3, 6, 10, 2, 0), 0xff)
            .set((3, 6, 2, 0, 0), top)
            .set((3, 6, 2, 0, 2), 32);
        p.set((3, 0, 10, 2, 0), 0xff)
            .set((3, 0, 2, 0, 0), top)
            .set((3, 0, 2, 0, 2), 32 | 1 << 23);
        p.set((3, 6, 1, 0, 0), 0x30d0_0801);
        p.peek("secure", 0x0e00_0000)
            .peek("non-secure", 0x0e20_0000);
        p.set((3, 6, 1, 0, 0), 0x30d0_0800);
        for scr in [RW, RW | NS] {
            p.set((3, 0, 1, 0, 0), 0x30d0_0801);
            p.at(1, scr, MASKED, |p| {
                p.peek("secure", 0x0e00_0000)
                    .peek("non-secure", 0x0e20_0000);
            });
            p.raw(&[mrs(0, CURRENT_EL)]);
        }
        p.set((3, 0, 1, 0, 0), 0x30d0_0800);
    })?;
    Ok(())
}
