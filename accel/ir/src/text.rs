//! The text form of a unit, for golden files and `-d op`.

use std::fmt::{self, Display, Formatter};

use crate::{Block, End, FpOp, Mem, Op, Ordering, Ty, Unit, Val, Via};

impl Display for Ty {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ty::I8 => "i8",
            Ty::I16 => "i16",
            Ty::I32 => "i32",
            Ty::I64 => "i64",
            Ty::V128 => "v128",
        })
    }
}

impl Display for Val {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl Display for Mem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}",
            self.ty,
            if self.endian == crate::Endian::Little {
                "le"
            } else {
                "be"
            }
        )?;
        match self.ordering {
            Ordering::Relaxed => {}
            Ordering::Acquire => f.write_str(".acq")?,
            Ordering::Release => f.write_str(".rel")?,
            Ordering::SeqCst => f.write_str(".seq")?,
        }
        if self.aligned {
            f.write_str(".aligned")?;
        }
        write!(f, ".ctx{}", self.ctx)
    }
}

struct Lower<T>(T);

impl<T: fmt::Debug> Display for Lower<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{:?}", self.0).to_lowercase())
    }
}

fn op(unit: &Unit, op: &Op, f: &mut Formatter<'_>) -> fmt::Result {
    if let Some(d) = op.def() {
        write!(f, "  {d}: {} = ", unit.ty(d))?;
    } else if !matches!(op, Op::Insn { .. }) {
        f.write_str("  ")?;
    }
    match op {
        Op::Insn { pc } => write!(f, " insn {pc:#x}"),
        Op::Const { value, .. } => write!(f, "{value:#x}"),
        Op::Get { slot, .. } | Op::GetV { slot, .. } => write!(f, "get r{}", slot.0),
        Op::Set { slot, v } | Op::SetV { slot, v } => write!(f, "set r{}, {v}", slot.0),
        Op::Unary { op, a, .. } => write!(f, "{} {a}", Lower(op)),
        Op::Binary { op, a, b, .. } => write!(f, "{} {a}, {b}", Lower(op)),
        Op::Cmp { op, a, b, .. } => write!(f, "cmp.{} {a}, {b}", Lower(op)),
        Op::Select { c, a, b, .. } => write!(f, "select {c}, {a}, {b}"),
        Op::Zext { a, .. } => write!(f, "zext {a}"),
        Op::Sext { a, .. } => write!(f, "sext {a}"),
        Op::Extract {
            a, shift, width, ..
        } => write!(f, "extract {a}, {shift}, {width}"),
        Op::Insert {
            a, b, shift, width, ..
        } => write!(f, "insert {a}, {b}, {shift}, {width}"),
        Op::Load { addr, mem, .. } => write!(f, "load.{mem} {addr}"),
        Op::Store { addr, v, mem } => write!(f, "store.{mem} {addr}, {v}"),
        Op::Probe { addr, mem } => write!(f, "probe.{mem} {addr}"),
        Op::Rmw {
            op, addr, v, mem, ..
        } => write!(f, "rmw.{}.{mem} {addr}, {v}", Lower(op)),
        Op::Cas {
            addr,
            expected,
            new,
            mem,
            ..
        } => write!(f, "cas.{mem} {addr}, {expected}, {new}"),
        Op::Fence => f.write_str("fence"),
        Op::FlagsDef { kind, ty, a, b, c } => {
            write!(f, "flags.def {}.{ty} {a}, {b}", Lower(kind))?;
            c.map_or(Ok(()), |c| write!(f, ", {c}"))
        }
        Op::FlagsUse { cond, .. } => write!(f, "flags.use {}", Lower(cond)),
        Op::FlagsGet { .. } => f.write_str("flags.get"),
        Op::Vec { op, a, b, imm, .. } => write!(f, "vec.{} {a}, {b}, {imm:#x}", Lower(op)),
        Op::VecSigns { a, lane, .. } => write!(f, "vec.signs.{lane} {a}"),
        Op::Fp { how, a, b, .. } => {
            f.write_str("fp.")?;
            match how.op {
                FpOp::Cmp(cmp) => write!(f, "cmp.{}", Lower(cmp))?,
                FpOp::Round(to) => write!(f, "round.{}", Lower(to))?,
                FpOp::RoundQuiet(to) => write!(f, "roundquiet.{}", Lower(to))?,
                op => write!(f, "{}", Lower(op))?,
            }
            let (fmt, shape, rules) = (Lower(how.fmt), Lower(how.shape), Lower(how.rules));
            write!(f, ".{fmt}.{shape}.{rules} {a}, {b}")
        }
        Op::FpMulAdd { how, a, b, c, .. } => {
            let neg = if how.negates { "n" } else { "" };
            let name = if how.subtracts { "msub" } else { "madd" };
            let (fmt, shape, rules) = (Lower(how.fmt), Lower(how.shape), Lower(how.rules));
            write!(f, "fp.{neg}{name}.{fmt}.{shape}.{rules} {a}, {b}, {c}")
        }
        Op::FpFromInt {
            fmt, rules, a, v, ..
        } => write!(f, "fp.fromint.{}.{} {a}, {v}", Lower(fmt), Lower(rules)),
        Op::FpToInt { how, a, .. } => {
            let (fmt, rules) = (Lower(how.fmt), Lower(how.rules));
            let trunc = if how.truncate { ".trunc" } else { "" };
            write!(f, "fp.toint.{fmt}.{rules}{trunc} {a}")
        }
        Op::FpCompare { how, a, b, .. } => {
            let (fmt, rules) = (Lower(how.fmt), Lower(how.rules));
            let signals = if how.signals { ".signals" } else { "" };
            write!(f, "fp.compare.{fmt}.{rules}{signals} {a}, {b}")
        }
        Op::VecMake { lo, hi, .. } => write!(f, "vec.make {lo}, {hi}"),
        Op::VecHalf { a, high, .. } => write!(f, "vec.half {a}, {}", u8::from(*high)),
        Op::Call { helper, args, .. } => {
            write!(f, "call h{}", helper.0)?;
            args.iter().flatten().try_for_each(|a| write!(f, ", {a}"))
        }
    }?;
    writeln!(f)
}

fn block(unit: &Unit, index: usize, block: &Block, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "b{index}(")?;
    for (i, p) in block.params.iter().enumerate() {
        write!(f, "{}{p}: {}", if i == 0 { "" } else { ", " }, unit.ty(*p))?;
    }
    writeln!(f, "):")?;
    block.ops.iter().try_for_each(|o| op(unit, o, f))?;
    match &block.end {
        End::Jump { to, args } => {
            write!(f, "  jump b{}(", to.0)?;
            for (i, a) in args.iter().enumerate() {
                write!(f, "{}{a}", if i == 0 { "" } else { ", " })?;
            }
            writeln!(f, ")")
        }
        End::Branch { c, then, other } => writeln!(f, "  branch {c}, b{}, b{}", then.0, other.0),
        End::Goto { pc, via } => writeln!(f, "  goto {pc:#x}{via}"),
        End::GotoVal { pc, via } => writeln!(f, "  goto {pc}{via}"),
        End::Leave => writeln!(f, "  leave"),
    }
}

impl Display for Via {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Via::Jump => Ok(()),
            Via::Call { back } => write!(f, ", a call from {back:#x}"),
            Via::Return => write!(f, ", a return"),
        }
    }
}

impl Display for Unit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.blocks
            .iter()
            .enumerate()
            .try_for_each(|(i, b)| block(self, i, b, f))
    }
}
