//! The helper table: what IR calls by number.

use accel_core::{Effects, Helper, Intrinsic};
use accel_ir::HelperId;

use crate::cpu::Arm;
use crate::system::{access, calls, pauth, semihosting, special};
use crate::{a32, a64, float, simd};

const ALL: Effects = Effects::ALL;
const PURE: Effects = Effects::PURE;
/// Reads state outside its arguments, may trap, leaves the register file alone.
const VALUE: Effects = Effects {
    reads_regs: true,
    writes_regs: false,
    traps: true,
};
/// Reads registers, no more.
const READS: Effects = Effects {
    reads_regs: true,
    writes_regs: false,
    traps: false,
};
/// Reads and writes registers, never traps.
const REGS: Effects = Effects {
    reads_regs: true,
    writes_regs: true,
    traps: false,
};

macro_rules! intrinsic {
    () => {
        None
    };
    ($intrinsic:expr) => {
        Some($intrinsic)
    };
}

macro_rules! helpers {
    ($($name:ident => $run:path, $effects:expr $(, $intrinsic:expr)?;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        #[repr(u16)]
        enum Number { $($name),* }
        $(
            #[doc = concat!("Number of the helper `", stringify!($run), "`.")]
            pub(crate) const $name: HelperId = HelperId(Number::$name as u16);
        )*
        /// All helpers.
        pub(crate) static TABLE: &[Helper<Arm>] = &[
            $(Helper {
                name: stringify!($run),
                run: $run,
                effects: $effects,
                intrinsic: intrinsic!($($intrinsic)?),
            }),*
        ];
    };
}

helpers! {
    UNDEFINED => calls::undefined, ALL;
    FP_TRAP => calls::fp_trap, ALL;
    ILLEGAL_STATE => calls::illegal_state, ALL;
    PC_ALIGNMENT => calls::pc_alignment, ALL;
    SP_ALIGNMENT => calls::sp_alignment, ALL;
    SP_MOVED => calls::sp_moved, ALL;
    BRANCH_TARGET => calls::branch_target, ALL;
    CLEAR_BTYPE => calls::clear_btype, REGS;
    SVC => calls::svc, ALL;
    HVC => calls::hvc, ALL;
    SMC => calls::smc, ALL;
    BRK => calls::brk, ALL;
    SEMIHOST => semihosting::hlt, ALL;
    SEMIHOST_32 => semihosting::hlt_32, ALL;
    SEMIHOST_SVC_32 => semihosting::svc_32, ALL;
    ERET => calls::eret, ALL;
    YIELD => calls::yield_now, ALL;
    WFE => calls::wfe, ALL;
    WFI => calls::wfi, ALL;
    SEND_EVENT => calls::send_event, READS;
    DSB => calls::dsb, VALUE;
    SYS_TRAP => access::sys_trap, ALL;
    MRS => access::mrs, ALL;
    COUNTER => special::read_counter, VALUE;
    VIRTUAL_COUNTER => special::read_virtual_counter, VALUE;
    MSR => access::msr, ALL;
    MSR_IMM => access::msr_imm, ALL;
    SYS => access::sys, ALL;
    UNMASKED => access::unmasked, ALL;
    CACHE_LINE => calls::cache_line, VALUE;
    CONVERT_FLAGS => calls::convert_flags, PURE;
    CRC32 => calls::crc32, PURE;
    DIVIDE => calls::divide, PURE, Intrinsic::Divide { signed: false };
    DIVIDE_SIGNED => calls::divide_signed, PURE, Intrinsic::Divide { signed: true };
    PACGA => pauth::generic, READS;
    POINTER_AUTH => pauth::pointer_auth, READS;
    PAUTH_TRAP => pauth::trap, VALUE;
    STRIP_PAC => pauth::strip, READS;
    LOAD_PAIR_EXCLUSIVE => calls::load_pair_exclusive, ALL;
    STORE_PAIR_EXCLUSIVE => calls::store_pair_exclusive, ALL;
    CAS_PAIR => calls::cas_pair, ALL;
    ATOMIC_MIN_MAX => calls::atomic_min_max, VALUE;
    STRUCTURES => a64::structures::multiple_helper, ALL;
    STRUCTURE => a64::structures::single_helper, ALL;
    SIMD => simd::run, ALL;
    FLOAT => float::run, ALL;
    GO => a32::system::go, ALL;
    EXCHANGE => a32::system::exchange, ALL;
    SVC_32 => a32::system::svc_call, ALL;
    BKPT_32 => a32::system::bkpt_call, ALL;
    SETEND => a32::system::setend_call, ALL;
    READ_32 => a32::system::read_call, ALL;
    WRITE_32 => a32::system::write_call, ALL;
    DEBUG_32 => a32::system::debug_call, ALL;
    MEDIA => a32::media::run, REGS;
    READ_FPSCR => a32::scalar::read_fpscr, READS;
    WRITE_FPSCR => a32::scalar::write_fpscr, ALL;
    SCALAR_32 => a32::scalar::run, ALL;
    LANES_32 => a32::lanes::run, ALL;
    STRUCTURES_32 => a32::structures::run, ALL;
    MISALIGNED => a32::structures::misaligned, ALL;
}
