//! Features, and which fields of ID registers claim them (DDI 0487, A2 and D23.2).

use super::IdRegisters;

macro_rules! features {
    ($($name:ident $($register:ident $shift:literal $least:literal)|+ $doc:literal;)*) => {
        /// Architectural features (DDI 0487, A2) that decoding and system code ask for.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(clippy::upper_case_acronyms)]
        pub enum Feature {
            $(#[doc = $doc] $name,)*
        }

        impl Feature {
            /// Whether ID registers claim it.
            fn is_claimed(self, id: &IdRegisters) -> bool {
                match self {
                    $(Feature::$name => $(id.$register.wrapping_shr($shift) & 15 >= $least)||+,)*
                }
            }

            const ALL: &'static [Feature] = &[$(Feature::$name),*];
        }
    };
}

features! {
    Aes isar0 4 1 "FEAT_AES.";
    Pmull isar0 4 2 "FEAT_PMULL.";
    Sha1 isar0 8 1 "FEAT_SHA1.";
    Sha256 isar0 12 1 "FEAT_SHA256.";
    Sha512 isar0 12 2 "FEAT_SHA512.";
    Crc32 isar0 16 1 "FEAT_CRC32.";
    Lse isar0 20 2 "FEAT_LSE.";
    Rdm isar0 28 1 "FEAT_RDM.";
    Sha3 isar0 32 1 "FEAT_SHA3.";
    DotProd isar0 44 1 "FEAT_DotProd.";
    Fhm isar0 48 1 "FEAT_FHM.";
    FlagM isar0 52 1 "FEAT_FlagM.";
    FlagM2 isar0 52 2 "FEAT_FlagM2.";
    TlbiOs isar0 56 1 "FEAT_TLBIOS.";
    TlbiRange isar0 56 2 "FEAT_TLBIRANGE.";
    Rng isar0 60 1 "FEAT_RNG.";
    Dpb isar1 0 1 "FEAT_DPB.";
    Dpb2 isar1 0 2 "FEAT_DPB2.";
    Pauth isar1 4 1 | isar1 8 1 | isar2 12 1 "FEAT_PAuth.";
    PauthQarma5 isar1 4 1 "FEAT_PACQARMA5.";
    PauthQarma3 isar2 12 1 "FEAT_PACQARMA3.";
    Jscvt isar1 12 1 "FEAT_JSCVT.";
    Fcma isar1 16 1 "FEAT_FCMA.";
    Lrcpc isar1 20 1 "FEAT_LRCPC.";
    Lrcpc2 isar1 20 2 "FEAT_LRCPC2.";
    FrintTs isar1 32 1 "FEAT_FRINTTS.";
    Sb isar1 36 1 "FEAT_SB.";
    SpecRes isar1 40 1 "FEAT_SPECRES.";
    Bf16 isar1 44 1 "FEAT_BF16.";
    I8mm isar1 52 1 "FEAT_I8MM.";
    El0Is32 pfr0 0 2 "AArch32 at EL0.";
    El2 pfr0 8 1 "EL2.";
    El3 pfr0 12 1 "EL3.";
    Gic pfr0 24 1 "System registers of the GIC's CPU interface.";
    Dit pfr0 48 1 "FEAT_DIT.";
    Bti pfr1 0 1 "FEAT_BTI.";
    Ssbs pfr1 4 1 "FEAT_SSBS.";
    Ssbs2 pfr1 4 2 "FEAT_SSBS2.";
    Hafdbs mmfr1 0 1 "FEAT_HAFDBS: access flag.";
    Dbm mmfr1 0 2 "FEAT_HAFDBS: dirty state.";
    Vmid16 mmfr1 4 2 "FEAT_VMID16.";
    Vhe mmfr1 8 1 "FEAT_VHE.";
    Hpds mmfr1 12 1 "FEAT_HPDS.";
    Lor mmfr1 16 1 "FEAT_LOR.";
    Pan mmfr1 20 1 "FEAT_PAN.";
    Pan2 mmfr1 20 2 "FEAT_PAN2.";
    Pan3 mmfr1 20 3 "FEAT_PAN3.";
    Xnx mmfr1 28 1 "FEAT_XNX.";
    Cnp mmfr2 0 1 "FEAT_TTCNP.";
    Uao mmfr2 4 1 "FEAT_UAO.";
    Lse2 mmfr2 32 1 "FEAT_LSE2.";
    Pmu dfr0 8 1 "FEAT_PMUv3.";
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Features(u64);

impl Features {
    /// Those that ID registers claim.
    pub(super) fn of(id: &IdRegisters) -> Self {
        let claimed = Feature::ALL.iter().filter(|f| f.is_claimed(id));
        Features(claimed.fold(0, |all, f| all | 1u64.wrapping_shl(*f as u32)))
    }

    #[inline]
    pub(super) fn has(self, feature: Feature) -> bool {
        self.0.wrapping_shr(feature as u32) & 1 != 0
    }
}

const _: () = assert!(Feature::ALL.len() <= 64, "a bit each");
