//! Which NaN comes out (IEEE 754-2019 section 6.2 leaves the choice open).

use crate::env::{Env, Flags, NanRule};
use crate::format::Format;
use crate::limbs::{Limbs, Sig};
use crate::num::{Class, Parts};

/// The NaN that invalid operations make.
#[inline]
pub(crate) fn default_nan<F: Format>(env: &Env) -> F {
    let sign = matches!(env.nan_rule, NanRule::Sse | NanRule::X87);
    let quiet = F::Sig::TOP.shr(1);
    F::from_fields(sign, F::MAX_EXP, F::Sig::TOP.or(quiet))
}

/// Raises invalid for `why` and makes the default NaN.
#[cold]
pub(crate) fn invalid<F: Format>(why: Flags, env: &mut Env) -> F {
    env.raise(Flags::INVALID | why);
    default_nan(env)
}

/// The NaN of one of `operands`, in the order of the operation's definition; at least one must be a NaN.
#[cold]
pub(crate) fn propagate<F: Format>(operands: &[&Parts<F::Sig>], env: &mut Env) -> F {
    if operands.iter().any(|p| p.class == Class::Unsupported) {
        return invalid(Flags::NONE, env);
    }
    if operands.iter().any(|p| p.signals()) {
        env.raise(Flags::INVALID | Flags::BY_SNAN);
    }
    if env.default_nan {
        return default_nan(env);
    }
    let mut nans = operands.iter().filter(|p| p.is_nan());
    let chosen = match env.nan_rule {
        NanRule::Sse | NanRule::Power => nans.next(),
        NanRule::Arm | NanRule::S390x => operands
            .iter()
            .find(|p| p.signals())
            .or_else(|| nans.next()),
        // Equal significands: the positive one.
        NanRule::X87 => nans.max_by_key(|p| (p.class == Class::Quiet, p.num.sig, !p.num.sign)),
    };
    match chosen {
        Some(nan) => quieted::<F>(nan),
        None => default_nan(env),
    }
}

fn quieted<F: Format>(nan: &Parts<F::Sig>) -> F {
    let top = F::Sig::TOP;
    F::from_fields(nan.num.sign, F::MAX_EXP, nan.num.sig.or(top).or(top.shr(1)))
}

/// A lone NaN operand carried into another format; its payload is cut or extended at the low end.
#[cold]
pub(crate) fn convert_nan<F: Format, G: Format>(nan: &Parts<F::Sig>, env: &mut Env) -> G {
    if nan.class == Class::Unsupported {
        return invalid(Flags::NONE, env);
    }
    if nan.class == Class::Signalling {
        env.raise(Flags::INVALID | Flags::BY_SNAN);
    }
    if env.default_nan {
        return default_nan(env);
    }
    let top = G::Sig::TOP;
    let payload = G::Sig::from_top_cut(nan.num.sig.to_top());
    // Both widths may share a significand type, so what the narrower one cannot store must go.
    let kept = payload.and(G::Sig::mask(G::Sig::BITS - G::PREC).not());
    G::from_fields(nan.num.sign, G::MAX_EXP, kept.or(top).or(top.shr(1)))
}

/// Raises the x86 denormal-operand flag if any operand deserves it.
#[inline]
pub(crate) fn note_denormals<S>(operands: &[&Parts<S>], env: &mut Env) {
    if operands.iter().any(|p| p.denormal) {
        env.raise(Flags::DENORMAL);
    }
}
