//! The helper table: what IR calls by number. Each part of the front end owns a range.

use accel_core::{Effects, Helper, Trap};
#[cfg(test)]
use accel_ir::HelperId;

use crate::cpu::X86;

/// Helpers of a part.
const RANGE: usize = 256;

/// First number of `decode`'s helpers.
pub(crate) const DECODE: u16 = 0;
/// First number of `system`'s helpers.
pub(crate) const SYSTEM: u16 = 256;
/// First number of `float`'s helpers.
pub(crate) const FLOAT: u16 = 512;

fn unused(_: &mut crate::Core, _: [u64; 4]) -> Result<u64, Trap> {
    Err(Trap::Exit(accel_core::Exit::Internal(
        "a helper number without a helper was called",
    )))
}

// Runs at compile time, where a mistake is a compile error.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
const fn fill() -> [Helper<X86>; 3 * RANGE] {
    let mut all = [Helper {
        name: "unused",
        run: unused,
        effects: Effects::ALL,
        intrinsic: None,
    }; 3 * RANGE];
    let parts = [
        (DECODE, crate::decode::HELPERS),
        (SYSTEM, crate::system::HELPERS),
        (FLOAT, crate::float::HELPERS),
    ];
    let mut part = 0;
    while part < parts.len() {
        let (first, list) = parts[part];
        let mut i = 0;
        while i < list.len() {
            all[first as usize + i] = list[i];
            i += 1;
        }
        part += 1;
    }
    all
}

/// All helpers.
pub(crate) static ALL: [Helper<X86>; 3 * RANGE] = fill();

/// Names helpers, numbers them from `$first` in order, and lists them as `HELPERS`.
///
/// ```text
/// helpers! { FIRST; CPUID => cpuid, Effects::ALL; DIVIDE => divide, CHECK, Intrinsic::...; ... }
/// ```
macro_rules! helpers {
    ($first:expr; $($name:ident => $run:path, $effects:expr $(, $intrinsic:expr)?;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]
        #[repr(u16)]
        enum Number { $($name,)* Count }
        $(
            #[doc = concat!("Number of the helper `", stringify!($run), "`.")]
            pub(crate) const $name: accel_ir::HelperId =
                accel_ir::HelperId($first + Number::$name as u16);
        )*
        pub(crate) const HELPERS: &[accel_core::Helper<crate::X86>] = &[
            $(accel_core::Helper {
                name: stringify!($run),
                run: $run,
                effects: $effects,
                intrinsic: crate::helper::intrinsic!($($intrinsic)?),
            }),*
        ];
    };
}
/// An intrinsic, or none.
macro_rules! intrinsic {
    () => {
        None
    };
    ($intrinsic:expr) => {
        Some($intrinsic)
    };
}
pub(crate) use helpers;
pub(crate) use intrinsic;

/// Only for the table's own checks.
#[cfg(test)]
pub(crate) fn name(id: HelperId) -> &'static str {
    ALL[usize::from(id.0)].name
}
