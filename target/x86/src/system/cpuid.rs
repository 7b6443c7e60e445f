//! CPUID (SDM vol. 2; APM vol. 3, appendix E): what a model shows, leaf by leaf.

use super::feature::{self, Word};
use super::model::CpuModel;

/// Signature of leaf 0x40000000.
const HYPERVISOR: &[u8; 12] = b"MimicMimicMi";
/// Highest hypervisor leaf: frequencies.
const HYPERVISOR_LAST: u32 = 0x4000_0010;
/// Frequency of the local APIC's timer in kHz.
const APIC_BUS_KHZ: u32 = 1_000_000;
/// The APIC's bit in EDX of leaf 1, and of 0x80000001 on AMD.
const APIC: u32 = 1 << 9;
/// Bits of leaf 1's EDX that AMD repeats in leaf 0x80000001.
const AMD_ALIASES: u32 = 0x0183_f3ff;

/// How the machine's CPUs are arranged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topology {
    /// Sockets.
    pub sockets: u32,
    /// Dies of a socket.
    pub dies: u32,
    /// Cores of a die.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
}

impl Default for Topology {
    fn default() -> Self {
        Topology {
            sockets: 1,
            dies: 1,
            cores: 1,
            threads: 1,
        }
    }
}

/// Bits that number `count` things.
fn width(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

impl Topology {
    /// Bits of the APIC id below the core's number.
    pub fn core_shift(&self) -> u32 {
        width(self.threads)
    }

    /// Bits of the APIC id below the die's number.
    fn die_shift(&self) -> u32 {
        self.core_shift().saturating_add(width(self.cores))
    }

    /// Bits of the APIC id below the socket's number.
    pub fn package_shift(&self) -> u32 {
        self.die_shift().saturating_add(width(self.dies))
    }

    /// Threads of a socket.
    pub fn threads_per_package(&self) -> u32 {
        self.dies
            .max(1)
            .saturating_mul(self.cores.max(1))
            .saturating_mul(self.threads.max(1))
    }

    /// The APIC id of the CPU of this index.
    pub fn apic_id(&self, index: u32) -> u32 {
        let (threads, cores, dies) = (self.threads.max(1), self.cores.max(1), self.dies.max(1));
        let div = |a: u32, b: u32| a.checked_div(b).unwrap_or(0);
        let rem = |a: u32, b: u32| a.checked_rem(b).unwrap_or(0);
        let thread = rem(index, threads);
        let core = rem(div(index, threads), cores);
        let die = rem(div(div(index, threads), cores), dies);
        let socket = div(div(div(index, threads), cores), dies);
        thread
            | core.wrapping_shl(self.core_shift())
            | die.wrapping_shl(self.die_shift())
            | socket.wrapping_shl(self.package_shift())
    }
}

/// What CPUID depends on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The model.
    pub model: &'a CpuModel,
    /// The machine's CPUs.
    pub topology: Topology,
    /// This CPU's APIC id.
    pub apic_id: u32,
    /// IA32_APIC_BASE.EN: CPUID hides a disabled APIC.
    pub apic_enabled: bool,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// XCR0.
    pub xcr0: u64,
}

/// EAX, EBX, ECX, EDX.
pub type Leaf = [u32; 4];

fn text(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    for (byte, from) in word.iter_mut().zip(bytes.iter().skip(at)) {
        *byte = *from;
    }
    u32::from_le_bytes(word)
}

impl View<'_> {
    /// One leaf. Leaves above the highest give the highest basic one's values on Intel, zeros here,
    /// as on AMD.
    pub fn leaf(&self, leaf: u32, subleaf: u32) -> Leaf {
        let model = self.model;
        let [eax, ebx, ecx, mut edx] = match leaf {
            0x4000_0000..=0x4fff_ffff if model.has(feature::HYPERVISOR) => self.hypervisor(leaf),
            0x8000_0000.. if leaf <= model.xlevel => self.extended(leaf),
            0..=0x3fff_ffff if leaf <= model.level => self.basic(leaf, subleaf),
            _ => [0; 4],
        };
        if !self.apic_enabled && matches!(leaf, 1 | 0x8000_0001) {
            edx &= !APIC;
        }
        [eax, ebx, ecx, edx]
    }

    fn signature(&self) -> u32 {
        let model = self.model;
        let (family, extended) = if model.family > 15 {
            (15, model.family.wrapping_sub(15) & 0xff)
        } else {
            (model.family, 0)
        };
        model.stepping & 15
            | (model.model & 15) << 4
            | family << 8
            | (model.model >> 4 & 15) << 16
            | extended << 20
    }

    fn word(&self, word: Word) -> u32 {
        self.model.features.word(word)
    }

    fn basic(&self, leaf: u32, subleaf: u32) -> Leaf {
        let model = self.model;
        let vendor = model.vendor.as_bytes();
        let threads = self.topology.threads_per_package();
        match leaf {
            0 => [
                model.level,
                text(vendor, 0),
                text(vendor, 8),
                text(vendor, 4),
            ],
            1 => {
                let mut ebx = self.apic_id << 24;
                let mut edx = self.word(Word::Leaf1Edx);
                if model.has(feature::CLFLUSH) {
                    ebx |= 8 << 8;
                }
                if threads > 1 {
                    ebx |= threads.min(255) << 16;
                    edx |= 1 << 28;
                }
                let mut ecx = self.word(Word::Leaf1Ecx);
                if self.osxsave {
                    ecx |= 1 << 27;
                }
                [self.signature(), ebx, ecx, edx]
            }
            // One-byte descriptors: 32K L1 data and instruction, 2M L2.
            2 => [1, 0, 0, 0x002c_307d],
            4 => self.caches(subleaf),
            5 => [0, 0, 3, 0],
            6 => [self.word(Word::Leaf6Eax), 0, 0, 0],
            7 if subleaf == 0 => [
                0,
                self.word(Word::Leaf7Ebx),
                self.word(Word::Leaf7Ecx),
                self.word(Word::Leaf7Edx),
            ],
            0xb => {
                let (shift, count, kind) = match subleaf {
                    0 => (self.topology.core_shift(), self.topology.threads.max(1), 1),
                    1 => (self.topology.package_shift(), threads, 2),
                    _ => (0, 0, 0),
                };
                [shift, count, subleaf & 0xff | kind << 8, self.apic_id]
            }
            // The legacy area and the header: x87 and SSE.
            0xd if model.has(feature::XSAVE) => match subleaf {
                0 => [3, 0x240, 0x240, 0],
                1 => [self.word(Word::LeafD1Eax), 0, 0, 0],
                _ => [0; 4],
            },
            // TSC = crystal * EBX / EAX; the crystal also drives the APIC timer.
            0x15 => {
                let khz = self.tsc_khz();
                [APIC_BUS_KHZ, khz, APIC_BUS_KHZ.wrapping_mul(1000), 0]
            }
            0x16 => {
                let mhz = self.tsc_khz().wrapping_div(1000);
                [mhz, mhz, 100, 0]
            }
            _ => [0; 4],
        }
    }

    fn tsc_khz(&self) -> u32 {
        u32::try_from(self.model.tsc_hz.wrapping_div(1000)).unwrap_or(u32::MAX)
    }

    /// Leaf 4: 32K L1 data, 32K L1 instruction, 4M L2, 16M L3 shared by the package.
    fn caches(&self, subleaf: u32) -> Leaf {
        let (kind, level, ways, sets, sharing) = match subleaf {
            0 => (1, 1, 8, 64, self.topology.threads.max(1)),
            1 => (2, 1, 8, 64, self.topology.threads.max(1)),
            2 => (3, 2, 16, 4096, self.topology.threads.max(1)),
            3 => (3, 3, 16, 16384, self.topology.threads_per_package()),
            _ => return [0; 4],
        };
        let minus_1 = |n: u32| n.wrapping_sub(1);
        let cores = minus_1(
            1u32.wrapping_shl(
                self.topology
                    .package_shift()
                    .saturating_sub(self.topology.core_shift()),
            ),
        );
        let sharing: u32 = sharing;
        let sharing = minus_1(sharing.next_power_of_two()) & 0xfff;
        let eax = kind | level << 5 | 1 << 8 | sharing << 14 | (cores & 63) << 26;
        [eax, 63 | minus_1(ways) << 22, minus_1(sets), 0]
    }

    fn hypervisor(&self, leaf: u32) -> Leaf {
        match leaf {
            0x4000_0000 => [
                HYPERVISOR_LAST,
                text(HYPERVISOR, 0),
                text(HYPERVISOR, 4),
                text(HYPERVISOR, 8),
            ],
            HYPERVISOR_LAST => [self.tsc_khz(), APIC_BUS_KHZ, 0, 0],
            _ => [0; 4],
        }
    }

    fn extended(&self, leaf: u32) -> Leaf {
        let model = self.model;
        let vendor = model.vendor.as_bytes();
        let amd = model.vendor != "GenuineIntel";
        let threads = self.topology.threads_per_package();
        match leaf {
            0x8000_0000 => [
                model.xlevel,
                text(vendor, 0),
                text(vendor, 8),
                text(vendor, 4),
            ],
            0x8000_0001 => {
                let mut ecx = self.word(Word::Ext1Ecx);
                let mut edx = self.word(Word::Ext1Edx);
                if amd {
                    edx |= self.word(Word::Leaf1Edx) & AMD_ALIASES;
                    if threads > 1 {
                        ecx |= 1u32.wrapping_shl(feature::CMP_LEGACY.bit);
                    }
                }
                [self.signature(), 0, ecx, edx]
            }
            0x8000_0002..=0x8000_0004 => {
                let id = model.model_id.as_bytes();
                let start = (leaf.wrapping_sub(0x8000_0002) as usize).wrapping_mul(16);
                [0usize, 4, 8, 12].map(|at| text(id, start.wrapping_add(at)))
            }
            // 64K 2-way L1 caches.
            0x8000_0005 if amd => [0x01ff_01ff, 0x01ff_01ff, 0x4002_0140, 0x4002_0140],
            // 512K 16-way L2, 16M 16-way L3.
            0x8000_0006 if amd => [0, 0x4200_4200, 0x0200_8140, 0x0080_8140],
            0x8000_0006 => [0, 0, 0x0200_8040, 0],
            0x8000_0007 => [0, 0, 0, self.word(Word::Ext7Edx)],
            0x8000_0008 => {
                let virtual_bits = match (model.has(feature::LM), model.has(feature::LA57)) {
                    (true, true) => 57,
                    (true, false) => 48,
                    (false, _) => 32,
                };
                let ecx = if threads > 1 && amd {
                    self.topology.package_shift() << 12 | threads.wrapping_sub(1) & 0xff
                } else {
                    0
                };
                let eax = model.phys_bits | virtual_bits << 8;
                [eax, self.word(Word::Ext8Ebx), ecx, 0]
            }
            _ => [0; 4],
        }
    }
}
