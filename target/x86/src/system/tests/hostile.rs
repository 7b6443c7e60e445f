//! Whatever a guest does, the CPU neither panics nor hangs.

use proptest::prelude::*;

use super::*;
use crate::system::calls;
use crate::system::saved::CpuState;

/// Small numbers, selectors of the bench's tables, addresses, bit patterns.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..16,
        (0u64..0x60).prop_map(|n| n & !4),
        0u64..RAM,
        (0u32..64).prop_map(|n| 1 << n),
        prop::sample::select(vec![
            u64::MAX,
            0x8000_0000_0000_0000,
            0x7fff_ffff_ffff,
            0xffff_8000_0000_0000,
            0xffff_ffff,
            0xc000_0080,
            0x1b,
        ]),
        any::<u64>(),
    ]
}

fn bench(kind: u8) -> Bench {
    match kind {
        0 => Bench::real(),
        1 => Bench::protected(),
        2 => {
            let mut b = Bench::protected();
            b.enter_user(2);
            b
        }
        3 => Bench::long(),
        _ => {
            let mut b = Bench::long();
            b.set(index::RCX, 0x40_0000);
            b.wrmsr(0xc000_0081, 0x23 << 48 | 0x38 << 32).unwrap();
            b.call(SYSRET, [8, 0, 0, 0]).unwrap_err();
            b
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_system_calls_on_random_tables_never_panic(
        kind in 0u8..5,
        memory in prop::collection::vec((0x1000u64..0x14000, value()), 0..64),
        registers in prop::collection::vec(value(), 16),
        steps in prop::collection::vec((0..calls::HELPERS.len(), any::<[u8; 4]>(), prop::collection::vec(value(), 4)), 1..24),
    ) {
        let mut b = bench(kind);
        for (at, value) in memory {
            b.put(at & !7, 8, value);
        }
        for (n, value) in registers.into_iter().enumerate() {
            b.set(n, value);
        }
        for (n, small, args) in steps {
            // Half of the arguments are sizes and numbers of registers.
            let args = [0, 1, 2, 3].map(|i| {
                if small[i] & 1 == 0 { [1, 2, 4, 8][usize::from(small[i] >> 1) & 3] } else { args[i] }
            });
            let result = (calls::HELPERS[n].run)(&mut b.core, args);
            match result {
                Err(Trap::Exception | Trap::After) => {
                    prop_assert!(b.core.arch.exception.is_some());
                    if deliver(&mut b.core).is_err() {
                        break;
                    }
                }
                _ => prop_assert!(b.core.arch.exception.is_none()),
            }
            b.core.pending.raise(reason::INTR | reason::NMI);
            b.port.with(|p| p.vectors.push(small[0]));
            let _ = service(&mut b.core);
            for n in 0..6 {
                prop_assert_eq!(b.core.regs.get(regs::base(n)), b.core.arch.segment(n).base);
            }
            prop_assert_eq!(b.core.mode, crate::decode::mode_of(&b.core));
            prop_assert!(b.core.arch.cpl <= 3);
        }
        // Whatever came of it can be saved and comes back.
        let state = CpuState::of(&b.core);
        prop_assert_eq!(CpuState::load(&state.save()).unwrap(), state.clone());
        let _ = (state.describe(true), crate::system::info_mem(&b.core));
    }

    #[test]
    fn random_saved_states_are_refused_or_harmless(
        changes in prop::collection::vec((0usize..40, value()), 1..6),
        kind in 0u8..5,
    ) {
        let b = bench(kind);
        let section = CpuState::of(&b.core).save();
        let mut fields: Vec<_> = section.fields().to_vec();
        for (n, value) in changes {
            let n = n % fields.len();
            fields[n].1 = match &fields[n].1 {
                hw_state::Value::List(list) => {
                    let mut list = list.clone();
                    let at = value as usize % list.len().max(1);
                    if let Some(slot) = list.get_mut(at) {
                        *slot = hw_state::Value::U64(value);
                    }
                    hw_state::Value::List(list)
                }
                _ => hw_state::Value::U64(value),
            };
        }
        let mut changed = hw_state::Section::new(section.name(), 1);
        for (tag, value) in fields {
            changed.push(tag, value);
        }
        let mut b = Bench::cpu(0, "max");
        if crate::system::restore(&mut b.core, &changed).is_ok() {
            let _ = walk(&mut b.core, 0x1234_5678, Access::Write, ctx::USER);
            b.note(vector::GP, Some(0));
            let _ = deliver(&mut b.core);
            prop_assert_eq!(b.core.mode, crate::decode::mode_of(&b.core));
        }
    }
}
