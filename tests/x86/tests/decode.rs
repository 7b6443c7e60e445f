//! Bytes of every kind become well-formed IR, in every mode.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use target_x86::Segment;
use test_native::generate::Rng;
use test_native::kvm::SystemState;
use test_x86::EmulatedSystem;

const CODE: u64 = 0x4000;
const MEMORY: usize = 0x1_0000;

/// CR0, EFER, attributes of CS, attributes of SS, RFLAGS.
const MODES: [(u64, u64, u16, u16, u64); 6] = [
    (0x10, 0, 0x93, 0x93, 2),
    (0x11, 0, 0x9b, 0x93, 2),
    (0x11, 0, 0x409b, 0x4093, 2),
    (0x11, 0, 0x40fb, 0x40f3, 2),
    (0x11, 0, 0xf3, 0xf3, 0x2_0002),
    // LMA is all that decoding looks at: paging stays off.
    (0x11, 0x500, 0xa09b, 0x4093, 2),
];

#[test]
fn random_bytes_become_verified_units_in_every_mode() {
    let mut cpu = EmulatedSystem::new(MEMORY, Box::new(accel_interp::Interp::default()));
    let mut rng = Rng::new(7);
    for round in 0..20_000 {
        let (cr0, efer, cs, ss, rflags) = MODES[round % MODES.len()];
        let segment = |attributes| Segment {
            selector: 8,
            base: 0,
            limit: if is_flat(round) { u32::MAX } else { 0xffff },
            attributes,
        };
        let state = SystemState {
            rip: CODE,
            rflags,
            segments: [ss, cs, ss, ss, ss, ss].map(segment),
            cr0,
            cr4: 1 << 9,
            efer,
            ..SystemState::default()
        };
        let mut bytes = [0; 64];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&rng.u64().to_le_bytes());
        }
        if rng.percent(50) {
            bytes[0] = 0x0f;
        }
        cpu.write(CODE, &bytes);
        if let Err(error) = cpu.translate(&state) {
            panic!("{error} from {bytes:02x?}");
        }
    }
}

/// Flat segments in half of the rounds.
fn is_flat(round: usize) -> bool {
    (round / MODES.len()).is_multiple_of(2)
}
