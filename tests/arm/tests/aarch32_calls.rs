//! Subroutines of A32 and T32: every way to call and to return, those that return elsewhere included.

use test_arm::aarch32::user::{A32, CODE, DATA, T32, a32, run, t32};
use test_arm::random::Rng;

type Result = std::result::Result<(), String>;

/// Subroutines of a program; each calls later ones only.
const SUBS: u64 = 6;
/// Bytes for each.
const SPACE: u64 = 0x100;

/// Code of either set in the making. X0 has a sum of what was done, X1 is scratch.
struct Code {
    thumb: bool,
    at: u64,
    bytes: Vec<u8>,
}

impl Code {
    fn new(thumb: bool, at: u64) -> Self {
        let bytes = Vec::new();
        Code { thumb, at, bytes }
    }

    /// One or the other set's instruction.
    fn put(&mut self, arm: u32, thumb: &[u16]) {
        match self.thumb {
            true => self.bytes.extend(t32(thumb)),
            false => self.bytes.extend(a32(&[arm])),
        }
    }

    fn here(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    /// Four bytes that change the sum.
    fn mix(&mut self, rng: &mut Rng) {
        let by = rng.below(31) as u32 + 1;
        let (high, low) = ((by >> 2) as u16, (by & 3) as u16);
        // eor r0, r0, r0, ror #by
        self.put(
            0xe020_0060 | by << 7,
            &[0xea80, high << 12 | low << 6 | 0x30],
        );
        let more = rng.below(255) as u16 + 1;
        // add r0, r0, #more
        self.put(0xe280_0000 | u32::from(more), &[0x3000 | more]);
    }

    /// A call, and what a return may skip.
    fn call(&mut self, to: &Sub, rng: &mut Rng) {
        if self.thumb && self.here() & 3 != 0 {
            self.put(0, &[0xbf00]);
        }
        let ahead = self.here() + if self.thumb { 4 } else { 8 };
        let distance = to.at.wrapping_sub(ahead);
        let words = (distance >> 2) as u32;
        match (self.thumb, to.thumb) {
            (false, false) => self.put(0xeb00_0000 | words & 0xff_ffff, &[]),
            (false, true) => {
                let half = (distance >> 1 & 1) as u32;
                self.put(0xfa00_0000 | half << 24 | words & 0xff_ffff, &[]);
            }
            (true, _) => {
                let high = (distance >> 12) as u16 & 0x3ff;
                let low = (distance >> 1) as u16 & 0x7ff;
                let kind = if to.thumb { 0xf800 } else { 0xe800 };
                self.put(0, &[0xf000 | high, kind | low]);
            }
        }
        // add r0, r0, #n, in four bytes
        let n = rng.below(255) as u16 + 1;
        self.put(0xe280_0000 | u32::from(n), &[0xf100, n]);
    }

    /// Branches over what `body` makes unless a bit of the sum is set.
    fn sometimes(&mut self, rng: &mut Rng, body: impl FnOnce(&mut Self, &mut Rng)) {
        let bit = rng.below(31) as u32 + 1;
        // lsls r1, r0, #bit; bpl
        self.put(0xe1b0_1000 | bit << 7, &[(bit as u16) << 6 | 1]);
        let branch = self.bytes.len();
        self.put(0x5a00_0000, &[0xd500]);
        body(self, rng);
        let over = self.bytes.len() - branch;
        if self.thumb {
            self.bytes[branch] = ((over - 4) >> 1) as u8;
        } else {
            self.bytes[branch..branch + 3]
                .copy_from_slice(&((over as u32 - 8) >> 2).to_le_bytes()[..3]);
        }
    }
}

/// A subroutine.
#[derive(Clone, Copy)]
struct Sub {
    at: u64,
    thumb: bool,
}

/// One subroutine: sums, calls of later ones, a return. `mixed`: callers may be in the other set.
fn sub(sub: Sub, later: &[Sub], mixed: bool, rng: &mut Rng) -> Vec<u8> {
    let mut c = Code::new(sub.thumb, sub.at);
    let frame = rng.below(3);
    match frame {
        0 => c.put(0xe52d_e004, &[0xb500]), // push {lr}
        _ => c.put(0xe92d_4010, &[0xb510]), // push {r4, lr}
    }
    for _ in 0..1 + rng.below(2) {
        c.mix(rng);
        if let Some(callee) = later.get(rng.below(later.len() as u64 + 1) as usize) {
            c.sometimes(rng, |c, rng| c.call(callee, rng));
        }
    }
    if rng.below(3) == 0 {
        // Back by the frame, where a caller's last instruction is.
        match frame {
            0 => c.put(0xe49d_f004, &[0xbd00]), // pop {pc}
            _ => c.put(0xe8bd_8010, &[0xbd10]), // pop {r4, pc}
        }
        return c.bytes;
    }
    match frame {
        0 => c.put(0xe49d_e004, &[0xf85d, 0xeb04]), // ldr lr, [sp], #4
        _ => c.put(0xe8bd_4010, &[0xe8bd, 0x4010]), // pop {r4, lr}
    }
    if rng.below(4) == 0 {
        // add lr, lr, #4: one instruction further on.
        c.put(0xe28e_e004, &[0xf10e, 0x0e04]);
    }
    match rng.below(3) {
        0 if !(c.thumb && mixed) => c.put(0xe1a0_f00e, &[0x46f7]), // mov pc, lr
        1 => {
            c.put(0xe1a0_300e, &[0x4673]); // mov r3, lr; bx r3
            c.put(0xe12f_ff13, &[0x4718]);
        }
        _ => c.put(0xe12f_ff1e, &[0x4770]), // bx lr
    }
    c.bytes
}

fn program(seed: u64) -> (Vec<u8>, u64) {
    let mut rng = Rng(seed);
    let mixed = rng.below(2) == 0;
    let thumb = rng.below(2) == 0;
    let subs: Vec<_> = (0..SUBS)
        .map(|n| Sub {
            at: CODE + (n + 1) * SPACE,
            thumb: if mixed { rng.below(2) == 0 } else { thumb },
        })
        .collect();
    let mut code = vec![0; ((SUBS + 1) * SPACE) as usize];
    let mut main = Code::new(thumb, CODE);
    let stack = DATA + 0xf00;
    // movw sp, movt sp, movw r5: how often; mov r0, #1
    let wide = |rd: u16, value: u64, top: u16| {
        let v = value as u16;
        let arm = 0xe300_0000 | u32::from(top) << 22 | u32::from(rd) << 12;
        let arm = arm | u32::from(v >> 12) << 16 | u32::from(v & 0xfff);
        let first = 0xf240 | top << 7 | (v >> 11 & 1) << 10 | v >> 12;
        let second = (v >> 8 & 7) << 12 | rd << 8 | v & 0xff;
        (arm, [first, second])
    };
    for (rd, value, top) in [
        (3, stack, 0),
        (3, stack >> 16, 1),
        (5, 3000, 0),
        (0, seed, 0),
    ] {
        let (arm, thumb) = wide(rd, value, top);
        main.put(arm, &thumb);
    }
    main.put(0xe1a0_d003, &[0x469d]); // mov sp, r3
    let again = main.here();
    for callee in [0, rng.below(SUBS)] {
        main.mix(&mut rng);
        main.call(&subs[callee as usize], &mut rng);
    }
    main.put(0xe255_5001, &[0x3d01]); // subs r5, r5, #1
    let distance = again.wrapping_sub(main.here() + if thumb { 4 } else { 8 });
    main.put(
        0x1a00_0000 | (distance >> 2) as u32 & 0xff_ffff,
        &[0xd100 | (distance >> 1) as u16 & 0xff],
    ); // bne
    main.put(0xef00_0000, &[0xdf00]); // svc #0
    code[..main.bytes.len()].copy_from_slice(&main.bytes);
    for (n, this) in subs.iter().enumerate() {
        let bytes = sub(*this, &subs[n + 1..], mixed, &mut rng);
        let at = (this.at - CODE) as usize;
        code[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    (code, if thumb { T32 } else { A32 })
}

#[test]
fn subroutines_of_both_sets_come_back_wherever_they_return_to() -> Result {
    let rounds: u64 = std::env::var("TEST_ARM_PROGRAMS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(20);
    for seed in 1..=rounds {
        let (code, spsr) = program(seed);
        let outcome = run(&code, &[(CODE, spsr)]).map_err(|e| format!("seed {seed}: {e}"))?;
        let taken = outcome.taken[0];
        let name = format!("seed {seed}: {taken:x?}");
        assert_eq!(taken.class(), 0x11, "{name}");
        assert_eq!((outcome.x[5], outcome.x[13]), (0, DATA + 0xf00), "{name}");
    }
    Ok(())
}
