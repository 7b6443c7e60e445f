use super::*;
use crate::system::saved::{CpuState, restore, save};

fn leaf(text: &str, topology: Topology, leaf: u32, subleaf: u32) -> [u32; 4] {
    let (model, _) = CpuModel::parse(text, &feature::engine(), false).unwrap();
    View {
        model: &model,
        topology,
        apic_id: 5,
        apic_enabled: true,
        osxsave: false,
        xcr0: 1,
    }
    .leaf(leaf, subleaf)
}

const ONE: Topology = Topology {
    sockets: 1,
    dies: 1,
    cores: 1,
    threads: 1,
};

#[test]
fn qemu64_shows_what_the_same_model_of_qemu_shows() {
    let text = |words: &[u32]| -> String {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        String::from_utf8(bytes).unwrap()
    };
    let [level, b, c, d] = leaf("qemu64", ONE, 0, 0);
    assert_eq!((level, text(&[b, d, c])), (0xd, "AuthenticAMD".into()));
    let [signature, ebx, ecx, edx] = leaf("qemu64", ONE, 1, 0);
    assert_eq!((signature, ebx), (0x0006_0fb1, 0x0500_0800));
    assert_eq!(ecx, 1 << 0 | 1 << 13 | 1 << 31);
    assert_eq!(edx, 0x078b_fbfd);
    let [xlevel, ..] = leaf("qemu64", ONE, 0x8000_0000, 0);
    assert_eq!(xlevel, 0x8000_000a);
    let [_, _, ecx, edx] = leaf("qemu64", ONE, 0x8000_0001, 0);
    assert_eq!((ecx, edx), (1, 0x2193_fbfd));
    let brand: String = (0x8000_0002..=0x8000_0004)
        .map(|n| text(&leaf("qemu64", ONE, n, 0)))
        .collect();
    assert_eq!(
        brand.trim_end_matches('\0'),
        "QEMU Virtual CPU version 2.5+"
    );
    assert_eq!(leaf("qemu64", ONE, 0x8000_0008, 0)[0], 0x3028);
}

#[test]
fn linear_addresses_have_57_bits_with_la57() {
    // Linux looks at this width before it reads its own memory, whatever CR4 says.
    let mut offered = feature::engine();
    offered.set(feature::LA57, true);
    let (model, _) = CpuModel::parse("max", &offered, true).unwrap();
    let view = View {
        model: &model,
        topology: ONE,
        apic_id: 0,
        apic_enabled: true,
        osxsave: false,
        xcr0: 1,
    };
    assert_eq!(view.leaf(0x8000_0008, 0)[0] >> 8 & 0xff, 57);
    assert_eq!(leaf("max", ONE, 0x8000_0008, 0)[0] >> 8 & 0xff, 48);
}

#[test]
fn the_hypervisor_leaves_name_us_and_the_tsc() {
    let [last, b, c, d] = leaf("max,tsc-frequency=3000000000", ONE, 0x4000_0000, 0);
    let name: Vec<u8> = [b, c, d].iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!((last, name.as_slice()), (0x4000_0010, &b"MimicMimicMi"[..]));
    let [khz, bus, ..] = leaf("max,tsc-frequency=3000000000", ONE, 0x4000_0010, 0);
    assert_eq!((khz, bus), (3_000_000, 1_000_000));
    assert_eq!(leaf("max,-hypervisor", ONE, 0x4000_0000, 0), [0; 4]);
}

#[test]
fn topology_leaves_count_threads_and_cores() {
    let topology = Topology {
        sockets: 2,
        dies: 1,
        cores: 3,
        threads: 2,
    };
    assert_eq!(leaf("max", topology, 0xb, 0), [1, 2, 0x100, 5]);
    assert_eq!(leaf("max", topology, 0xb, 1), [3, 6, 0x201, 5]);
    assert_eq!(leaf("max", topology, 0xb, 2), [0, 0, 2, 5]);
    assert_eq!(leaf("max", topology, 1, 0)[1] >> 16 & 0xff, 6);
    assert_eq!(leaf("max", topology, 0x8000_0008, 0)[2], 3 << 12 | 5);
    let ids: Vec<u32> = (0..12).map(|n| topology.apic_id(n)).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
}

#[test]
fn the_signature_has_extended_family_and_model() {
    assert_eq!(leaf("EPYC", ONE, 1, 0)[0], 0x0080_0f12);
    assert_eq!(leaf("Haswell", ONE, 1, 0)[0], 0x0003_06c4);
}

#[test]
fn features_are_switched_by_name() {
    let engine = feature::engine();
    let (m, missing) = CpuModel::parse("qemu64,+smep,-nx,pcid=on", &engine, false).unwrap();
    assert!(m.has(feature::SMEP) && m.has(feature::PCID) && !m.has(feature::NX));
    assert!(missing.is_empty());
    let (m, missing) = CpuModel::parse("qemu64,+avx,+sse4_1", &engine, false).unwrap();
    assert_eq!(
        missing,
        [
            "CPUID.01H:ECX.sse4.1 [bit 19]",
            "CPUID.01H:ECX.avx [bit 28]"
        ]
    );
    assert!(!m.has(feature::SSE41));
    let refused = CpuModel::parse("qemu64,+avx,enforce", &engine, false);
    assert!(matches!(refused, Err(ModelError::Enforced(_))));
}

#[test]
fn the_default_models_lack_nothing() {
    for name in ["qemu64", "max", "base", "kvm64", "qemu32"] {
        let (_, missing) = CpuModel::parse(name, &feature::engine(), false).unwrap();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    let engine = feature::engine();
    let error = CpuModel::parse("quemu64", &engine, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to find CPU model 'quemu64' (did you mean 'qemu64'?)"
    );
    let error = CpuModel::parse("max,+smepp", &engine, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "property 'smepp' not found (did you mean 'smep'?)"
    );
    let error = CpuModel::parse("max,smep=maybe", &engine, false).unwrap_err();
    assert_eq!(error.to_string(), "property 'smep' cannot be 'maybe'");
    let error = CpuModel::parse("host", &engine, false).unwrap_err();
    assert_eq!(error.to_string(), "CPU model 'host' requires KVM");
}

#[test]
fn the_help_lists_models_and_features() {
    let help = model::help();
    assert!(help.starts_with("Available CPUs:\n  base"));
    assert!(help.contains("Recognized CPUID flags:\n"));
    assert!(help.contains("tsc-deadline"));
}

#[test]
fn reset_is_the_state_after_power_on() {
    let b = Bench::cpu(0, "qemu64");
    let cs = b.core.arch.cs();
    assert_eq!(
        (cs.base, cs.selector, b.core.pc()),
        (0xffff_0000, 0xf000, 0xfff0)
    );
    assert_eq!(b.core.arch.cr0, 0x6000_0010);
    assert_eq!(flags::read(&b.core), 2);
    assert_eq!(b.gpr(index::RDX), 0x60fb1);
    assert_eq!(b.core.regs.get(regs::MXCSR), 0x1f80);
}

#[test]
fn saved_state_comes_back_whole() {
    let mut b = Bench::long();
    b.time.advance_ns(12345);
    b.set(9, 0x1234_5678_9abc_def0);
    b.core.regs.set_v(regs::xmm(15), u128::MAX / 3);
    b.wrmsr(0xc000_0082, 0x1000).unwrap();
    b.wrmsr(0x10, 777).unwrap();
    b.core.arch.x87.top = 3;
    b.core.arch.halted = true;
    b.core.pending.raise(reason::NMI);
    b.note(vector::PF, Some(6));
    flags::write(&mut b.core, rflags::IF | accel_ir::flags::ZF);
    let section = save(&b.core);
    let bytes = hw_state::codec::encode(&section);
    let mut other = Bench::cpu(0, "max");
    other.time.advance_ns(12345);
    restore(&mut other.core, &hw_state::codec::decode(&bytes).unwrap()).unwrap();
    assert_eq!(CpuState::of(&other.core), CpuState::of(&b.core));
    assert_eq!(tsc(&other.core), 777);
    assert_eq!(other.core.mode, b.core.mode);
    assert_eq!(save(&other.core), section);
}

#[test]
fn a_mangled_section_is_an_error() {
    let b = Bench::long();
    let section = save(&b.core);
    for (tag, _) in section.fields() {
        let mut broken = hw_state::Section::new(section.name(), 1);
        for (t, value) in section.fields() {
            if t != tag {
                broken.push(*t, value.clone());
            }
        }
        assert!(CpuState::load(&broken).is_err(), "without {tag}");
        broken.push(*tag, "text".to_string());
        assert!(CpuState::load(&broken).is_err(), "text in {tag}");
    }
}

#[test]
fn registers_are_shown_in_the_known_layout() {
    let mut b = Bench::long();
    b.set(index::RBX, 0x42);
    let state = CpuState::of(&b.core);
    let text = state.describe(true);
    let mut lines = text.lines();
    assert_eq!(
        lines.next().unwrap(),
        "RAX=0000000000000d01 RBX=0000000000000042 RCX=00000000c0000080 RDX=0000000000000000"
            .replace("d01", "901")
    );
    let line = |start: &str| text.lines().find(|l| l.starts_with(start)).unwrap();
    assert_eq!(
        line("RIP"),
        "RIP=0000000000005000 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0"
    );
    assert_eq!(
        line("CS "),
        "CS =0038 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]"
    );
    assert_eq!(
        line("DS "),
        "DS =0010 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]"
    );
    assert_eq!(
        line("TR "),
        "TR =0028 0000000000003000 00000067 00008b00 DPL=0 TSS64-busy"
    );
    assert_eq!(line("EFER"), "EFER=0000000000000d01");
    let registers = state.registers();
    assert_eq!(registers[3], ("rbx".into(), 0x42));
    assert!(
        registers
            .iter()
            .any(|(name, v)| name == "cr3" && *v == 0x10000)
    );
}

#[test]
fn helper_numbers_lead_to_their_functions() {
    use crate::helper::name;
    assert_eq!(name(LOAD_SEGMENT), "load_segment");
    assert_eq!(name(PAUSE), "pause");
    assert_eq!(name(accel_ir::HelperId(767)), "unused");
}

#[test]
fn a_disabled_apic_is_hidden() {
    let (model, _) = CpuModel::parse("qemu64", &feature::engine(), false).unwrap();
    for apic_enabled in [true, false] {
        let view = View {
            model: &model,
            topology: ONE,
            apic_id: 0,
            apic_enabled,
            osxsave: false,
            xcr0: 1,
        };
        for n in [1, 0x8000_0001] {
            assert_eq!(view.leaf(n, 0)[3] >> 9 & 1 != 0, apic_enabled, "{n:#x}");
        }
    }
}

#[test]
fn a_saved_cpu_with_more_than_this_one_has_is_refused() {
    let mut b = Bench::long();
    let mut state = CpuState::of(&b.core);
    state.cr4 |= cr4::LA57;
    let error = restore(&mut b.core, &state.save()).unwrap_err();
    assert!(error.to_string().contains("CR4"), "{error}");
}

#[test]
fn what_no_accelerator_has_is_told_by_name() {
    let engine = feature::engine();
    let (_, missing) =
        CpuModel::parse("qemu64,hv_relaxed,hv-time=off,+svm", &engine, false).unwrap();
    let nested = missing
        .iter()
        .any(|what| what.contains("nested virtualisation"));
    assert!(nested, "{missing:?}");
    assert!(missing.contains(&"Hyper-V's hv_relaxed".to_string()));
    assert!(!missing.iter().any(|what| what.contains("hv-time")));
    let error = CpuModel::parse("qemu64,hv-vapic,enforce", &engine, false).unwrap_err();
    assert!(error.to_string().contains("Hyper-V's hv-vapic"), "{error}");
    let error = CpuModel::parse("qemu64,hv-relaxd", &engine, false).unwrap_err();
    assert!(error.to_string().contains("hv-relaxed"), "{error}");
    assert!(CpuModel::parse("qemu64,pmu=maybe", &engine, false).is_err());
}
