//! CPU features: QEMU's names, and where CPUID shows them (SDM vol. 2, CPUID; APM vol. 3, appendix E).

/// A CPUID register that holds feature bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum Word {
    Leaf1Edx = 0,
    Leaf1Ecx,
    Leaf7Ebx,
    Leaf7Ecx,
    Leaf7Edx,
    Ext1Edx,
    Ext1Ecx,
    Ext7Edx,
    Ext8Ebx,
    LeafD1Eax,
    Leaf6Eax,
}

/// Number of feature registers.
pub const WORDS: usize = 11;

impl Word {
    /// All, in the order of their numbers.
    pub const ALL: [Word; WORDS] = [
        Word::Leaf1Edx,
        Word::Leaf1Ecx,
        Word::Leaf7Ebx,
        Word::Leaf7Ecx,
        Word::Leaf7Edx,
        Word::Ext1Edx,
        Word::Ext1Ecx,
        Word::Ext7Edx,
        Word::Ext8Ebx,
        Word::LeafD1Eax,
        Word::Leaf6Eax,
    ];

    /// How messages name it.
    pub fn describe(self) -> &'static str {
        match self {
            Word::Leaf1Edx => "CPUID.01H:EDX",
            Word::Leaf1Ecx => "CPUID.01H:ECX",
            Word::Leaf7Ebx => "CPUID.07H:EBX",
            Word::Leaf7Ecx => "CPUID.07H:ECX",
            Word::Leaf7Edx => "CPUID.07H:EDX",
            Word::Ext1Edx => "CPUID.80000001H:EDX",
            Word::Ext1Ecx => "CPUID.80000001H:ECX",
            Word::Ext7Edx => "CPUID.80000007H:EDX",
            Word::Ext8Ebx => "CPUID.80000008H:EBX",
            Word::LeafD1Eax => "CPUID.0DH_01H:EAX",
            Word::Leaf6Eax => "CPUID.06H:EAX",
        }
    }

    /// Names of the bits, bit 0 first; "" for those without.
    fn names(self) -> &'static [&'static str] {
        match self {
            Word::Leaf1Edx => &[
                "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "", "sep",
                "mtrr", "pge", "mca", "cmov", "pat", "pse36", "pn", "clflush", "", "ds", "acpi",
                "mmx", "fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe",
            ],
            Word::Leaf1Ecx => &[
                "pni",
                "pclmulqdq",
                "dtes64",
                "monitor",
                "ds-cpl",
                "vmx",
                "smx",
                "est",
                "tm2",
                "ssse3",
                "cid",
                "",
                "fma",
                "cx16",
                "xtpr",
                "pdcm",
                "",
                "pcid",
                "dca",
                "sse4.1",
                "sse4.2",
                "x2apic",
                "movbe",
                "popcnt",
                "tsc-deadline",
                "aes",
                "xsave",
                "",
                "avx",
                "f16c",
                "rdrand",
                "hypervisor",
            ],
            Word::Leaf7Ebx => &[
                "fsgsbase",
                "tsc-adjust",
                "sgx",
                "bmi1",
                "hle",
                "avx2",
                "fdp-excptn-only",
                "smep",
                "bmi2",
                "erms",
                "invpcid",
                "rtm",
                "",
                "zero-fcs-fds",
                "mpx",
                "",
                "avx512f",
                "avx512dq",
                "rdseed",
                "adx",
                "smap",
                "avx512ifma",
                "pcommit",
                "clflushopt",
                "clwb",
                "intel-pt",
                "avx512pf",
                "avx512er",
                "avx512cd",
                "sha-ni",
                "avx512bw",
                "avx512vl",
            ],
            Word::Leaf7Ecx => &[
                "",
                "avx512vbmi",
                "umip",
                "pku",
                "ospke",
                "waitpkg",
                "avx512vbmi2",
                "",
                "gfni",
                "vaes",
                "vpclmulqdq",
                "avx512vnni",
                "avx512bitalg",
                "",
                "avx512-vpopcntdq",
                "",
                "la57",
                "",
                "",
                "",
                "",
                "",
                "rdpid",
                "",
                "bus-lock-detect",
                "cldemote",
                "",
                "movdiri",
                "movdir64b",
                "",
                "sgxlc",
                "pks",
            ],
            Word::Leaf7Edx => &[
                "",
                "",
                "avx512-4vnniw",
                "avx512-4fmaps",
                "fsrm",
                "",
                "",
                "",
                "avx512-vp2intersect",
                "",
                "md-clear",
                "",
                "",
                "",
                "serialize",
                "",
                "tsx-ldtrk",
                "",
                "",
                "arch-lbr",
                "",
                "",
                "amx-bf16",
                "avx512-fp16",
                "amx-tile",
                "amx-int8",
                "spec-ctrl",
                "stibp",
                "flush-l1d",
                "arch-capabilities",
                "core-capability",
                "ssbd",
            ],
            Word::Ext1Edx => &[
                "", "", "", "", "", "", "", "", "", "", "", "syscall", "", "", "", "", "", "", "",
                "", "nx", "", "mmxext", "", "", "fxsr-opt", "pdpe1gb", "rdtscp", "", "lm",
                "3dnowext", "3dnow",
            ],
            Word::Ext1Ecx => &[
                "lahf-lm",
                "cmp-legacy",
                "svm",
                "extapic",
                "cr8legacy",
                "abm",
                "sse4a",
                "misalignsse",
                "3dnowprefetch",
                "osvw",
                "ibs",
                "xop",
                "skinit",
                "wdt",
                "",
                "lwp",
                "fma4",
                "tce",
                "",
                "nodeid-msr",
                "",
                "tbm",
                "topoext",
                "perfctr-core",
                "perfctr-nb",
                "",
                "",
                "",
                "",
                "",
                "",
                "",
            ],
            Word::Ext7Edx => &["", "", "", "", "", "", "", "", "invtsc"],
            Word::Ext8Ebx => &[
                "clzero",
                "",
                "xsaveerptr",
                "",
                "",
                "",
                "",
                "",
                "",
                "wbnoinvd",
                "",
                "",
                "ibpb",
                "",
                "ibrs",
                "amd-stibp",
                "",
                "stibp-always-on",
                "",
                "",
                "",
                "",
                "",
                "",
                "amd-ssbd",
                "virt-ssbd",
                "amd-no-ssb",
            ],
            Word::LeafD1Eax => &["xsaveopt", "xsavec", "xgetbv1", "xsaves"],
            Word::Leaf6Eax => &["", "", "arat"],
        }
    }
}

/// A feature: a word and a bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Register.
    pub word: Word,
    /// Bit in it.
    pub bit: u32,
}

macro_rules! features {
    ($($name:ident = $word:ident $bit:literal;)*) => {
        $(#[allow(missing_docs)] pub const $name: Feature = Feature { word: Word::$word, bit: $bit };)*
    };
}

features! {
    DE = Leaf1Edx 2;
    PSE = Leaf1Edx 3;
    TSC = Leaf1Edx 4;
    MSR = Leaf1Edx 5;
    PAE = Leaf1Edx 6;
    MCE = Leaf1Edx 7;
    CX8 = Leaf1Edx 8;
    APIC = Leaf1Edx 9;
    SEP = Leaf1Edx 11;
    MTRR = Leaf1Edx 12;
    PGE = Leaf1Edx 13;
    MCA = Leaf1Edx 14;
    CMOV = Leaf1Edx 15;
    PAT = Leaf1Edx 16;
    CLFLUSH = Leaf1Edx 19;
    MMX = Leaf1Edx 23;
    FXSR = Leaf1Edx 24;
    SSE = Leaf1Edx 25;
    SSE2 = Leaf1Edx 26;
    HT = Leaf1Edx 28;
    PNI = Leaf1Ecx 0;
    MONITOR = Leaf1Ecx 3;
    SSSE3 = Leaf1Ecx 9;
    CX16 = Leaf1Ecx 13;
    PCID = Leaf1Ecx 17;
    SSE41 = Leaf1Ecx 19;
    SSE42 = Leaf1Ecx 20;
    X2APIC = Leaf1Ecx 21;
    MOVBE = Leaf1Ecx 22;
    POPCNT = Leaf1Ecx 23;
    TSC_DEADLINE = Leaf1Ecx 24;
    XSAVE = Leaf1Ecx 26;
    HYPERVISOR = Leaf1Ecx 31;
    FSGSBASE = Leaf7Ebx 0;
    TSC_ADJUST = Leaf7Ebx 1;
    BMI1 = Leaf7Ebx 3;
    SMEP = Leaf7Ebx 7;
    BMI2 = Leaf7Ebx 8;
    INVPCID = Leaf7Ebx 10;
    ADX = Leaf7Ebx 19;
    SMAP = Leaf7Ebx 20;
    UMIP = Leaf7Ecx 2;
    LA57 = Leaf7Ecx 16;
    RDPID = Leaf7Ecx 22;
    SPEC_CTRL = Leaf7Edx 26;
    SSBD = Leaf7Edx 31;
    SYSCALL = Ext1Edx 11;
    NX = Ext1Edx 20;
    FXSR_OPT = Ext1Edx 25;
    PDPE1GB = Ext1Edx 26;
    RDTSCP = Ext1Edx 27;
    LM = Ext1Edx 29;
    LAHF_LM = Ext1Ecx 0;
    CMP_LEGACY = Ext1Ecx 1;
    ABM = Ext1Ecx 5;
    PREFETCHW = Ext1Ecx 8;
    IBPB = Ext8Ebx 12;
}

/// Other names that users and other programs write, beside `_` for `-`.
const ALIASES: &[(&str, &str)] = &[
    ("sse3", "pni"),
    ("pclmuldq", "pclmulqdq"),
    ("sse4-1", "sse4.1"),
    ("sse4-2", "sse4.2"),
    ("xd", "nx"),
    ("ffxsr", "fxsr-opt"),
    ("i64", "lm"),
    ("sha", "sha-ni"),
    ("pclmul", "pclmulqdq"),
];

/// The feature of a name, with QEMU's older spellings.
pub fn find(name: &str) -> Option<Feature> {
    let name = name.replace('_', "-");
    let name = ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name.as_str(), |(_, name)| name);
    if name.is_empty() {
        return None;
    }
    Word::ALL.into_iter().find_map(|word| {
        let bit = word.names().iter().position(|n| *n == name)?;
        Some(Feature {
            word,
            bit: u32::try_from(bit).ok()?,
        })
    })
}

/// Older spellings of names.
pub(crate) fn aliases() -> impl Iterator<Item = &'static str> {
    ALIASES.iter().map(|(alias, _)| *alias)
}

/// All feature names, in the order of registers and bits.
pub fn names() -> impl Iterator<Item = &'static str> {
    Word::ALL
        .into_iter()
        .flat_map(|word| word.names().iter().copied())
        .filter(|name| !name.is_empty())
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features(pub [u32; WORDS]);

impl Features {
    /// The set of these names; names that are none are left out.
    pub fn of(names: &str) -> Self {
        let mut set = Features::default();
        for feature in names.split_whitespace().filter_map(find) {
            set.set(feature, true);
        }
        set
    }

    /// The bits of a register.
    pub fn word(&self, word: Word) -> u32 {
        self.0.get(word as usize).copied().unwrap_or(0)
    }

    /// Whether a feature is in it.
    pub fn has(&self, feature: Feature) -> bool {
        self.word(feature.word) >> (feature.bit & 31) & 1 != 0
    }

    /// Adds or removes a feature.
    pub fn set(&mut self, feature: Feature, on: bool) {
        if let Some(word) = self.0.get_mut(feature.word as usize) {
            let bit = 1u32.wrapping_shl(feature.bit);
            *word = if on { *word | bit } else { *word & !bit };
        }
    }

    /// Features of this set that `other` lacks, by name and place.
    pub fn missing_in(&self, other: &Features) -> Vec<String> {
        let mut missing = Vec::new();
        for word in Word::ALL {
            let gone = self.word(word) & !other.word(word);
            for (bit, name) in word.names().iter().enumerate() {
                if gone.wrapping_shr(bit as u32) & 1 != 0 {
                    let what = match *name {
                        "vmx" | "svm" => " (nested virtualisation)",
                        _ => "",
                    };
                    missing.push(format!("{}.{name} [bit {bit}]{what}", word.describe()));
                }
            }
        }
        missing
    }

    /// What is in both.
    pub fn and(&self, other: &Features) -> Features {
        let mut both = *self;
        for (word, mask) in both.0.iter_mut().zip(other.0) {
            *word &= mask;
        }
        both
    }

    /// What is in either.
    pub fn or(&self, other: &Features) -> Features {
        let mut all = *self;
        for (word, more) in all.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        all
    }
}

/// What the engine executes.
pub fn engine() -> Features {
    Features::of(
        "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush acpi mmx fxsr \
         sse sse2 ss ht \
         pni ssse3 cx16 pcid x2apic movbe popcnt tsc-deadline xsave hypervisor \
         fsgsbase tsc-adjust smep erms invpcid smap umip \
         syscall nx fxsr-opt pdpe1gb rdtscp lm \
         lahf-lm cmp-legacy cr8legacy 3dnowprefetch invtsc arat",
    )
}
