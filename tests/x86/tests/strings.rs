//! Long string operations against the host's processor: overlaps, both directions, page ends.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use test_native::compare::{Engine, differences};
use test_native::generate::{Prefix, Rng, Undefined, forms};
use test_native::{DATA, DATA_SIZE, Native};
use test_x86::{Emulated, executors};

const CASES: u64 = 60;
const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;
const DF: u64 = 1 << 10;

#[test]
fn long_string_operations_do_what_the_host_does() {
    let mut native = Native::new().unwrap();
    for (name, executor) in executors() {
        println!("{name}");
        compare(&mut native, Emulated::new(executor));
    }
}

fn compare(native: &mut Native, mut emulated: Emulated) {
    let mut rng = Rng::new(11);
    let repeated: Vec<_> = forms()
        .into_iter()
        .filter(|f| matches!(f.prefix, Prefix::Rep | Prefix::Repne))
        .filter(|f| {
            let name = format!("{:?}", f.code);
            name.starts_with("Movs") || name.starts_with("Stos") || name.starts_with("Lods")
        })
        .collect();
    assert!(repeated.len() >= 12, "{} forms", repeated.len());
    for form in repeated {
        for _ in 0..CASES {
            let mut case = form.generate(&mut rng);
            case.undefined = Undefined::default();
            let gpr = &mut case.state.gpr;
            let distance = if rng.percent(50) {
                rng.below(40)
            } else {
                rng.below(4000)
            };
            gpr[RSI] = DATA + rng.below(DATA_SIZE as u64);
            gpr[RDI] = if rng.percent(50) {
                gpr[RSI].wrapping_add(distance)
            } else {
                gpr[RSI].wrapping_sub(distance)
            };
            gpr[RCX] = rng.below(6000);
            if rng.percent(70) {
                case.state.rflags &= !DF;
            }
            let (want, got) = (native.run_case(&case), emulated.run_case(&case));
            let list = differences(&form, &case, &want, &got);
            assert!(
                list.is_empty(),
                "{form} rcx={:x} rsi={:x} rdi={:x} rflags={:x}\n{}",
                case.state.gpr[RCX],
                case.state.gpr[RSI],
                case.state.gpr[RDI],
                case.state.rflags,
                list.join("\n")
            );
        }
    }
}
