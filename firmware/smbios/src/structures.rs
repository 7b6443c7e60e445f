//! The structures, each with the fixed handle QEMU gives it.

use crate::Machine;
use crate::options::{Smbios, release, uuid};

/// Structures one after another.
#[derive(Debug, Clone, Default)]
pub(crate) struct List {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u16,
    pub(crate) largest: u16,
}

impl List {
    fn push(&mut self, structure: &[u8]) {
        self.bytes.extend_from_slice(structure);
        self.count = self.count.saturating_add(1);
        let len = u16::try_from(structure.len()).unwrap_or(u16::MAX);
        self.largest = self.largest.max(len);
    }
}

/// A structure in the making: formatted part and strings.
struct Structure {
    formatted: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
}

impl Structure {
    fn new(kind: u8, handle: u16) -> Self {
        let [low, high] = handle.to_le_bytes();
        Structure {
            formatted: vec![kind, 0, low, high],
            strings: Vec::new(),
            count: 0,
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.formatted.extend_from_slice(bytes);
        self
    }

    fn word(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn dword(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn qword(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A string's number; an absent or empty one is 0.
    fn text(&mut self, text: Option<&str>) -> &mut Self {
        let number = self.string(text.unwrap_or_default());
        self.bytes(&[number])
    }

    fn string(&mut self, text: &str) -> u8 {
        let clean: Vec<u8> = text.bytes().filter(|b| *b != 0).collect();
        if clean.is_empty() || self.count == u8::MAX {
            return 0;
        }
        self.count = self.count.saturating_add(1);
        self.strings.extend_from_slice(&clean);
        self.strings.push(0);
        self.count
    }

    fn finish(&mut self, list: &mut List) {
        let len = u8::try_from(self.formatted.len()).unwrap_or(u8::MAX);
        if let Some(slot) = self.formatted.get_mut(1) {
            *slot = len;
        }
        let mut all = std::mem::take(&mut self.formatted);
        all.append(&mut self.strings);
        all.push(0);
        if self.count == 0 {
            all.push(0);
        }
        list.push(&all);
    }
}

/// Most a memory device holds here: larger memories are several.
const DIMM_MAX: u64 = 16 << 30;
const MEMORY_ARRAY: u16 = 0x1000;
/// "No error information structure".
const NO_ERROR: u16 = 0xfffe;

/// All structures in the order of their types, those of the user's files last.
pub(crate) fn all(list: &mut List, machine: &Machine<'_>, options: &Smbios) {
    if options.named.contains(&0) {
        bios(list, options);
    }
    system(list, machine, options);
    if options.named.contains(&2) {
        baseboard(list, machine, options);
    }
    chassis(list, machine, options);
    for socket in 0..machine.sockets {
        processor(list, machine, options, socket);
    }
    if !options.oem_strings.is_empty() {
        oem_strings(list, options);
    }
    memory(list, machine, options);
    boot_status(list);
    options.raw.iter().for_each(|raw| list.push(raw));
    Structure::new(127, 0x7f00).finish(list);
}

/// BIOS information (DSP0134, section 7.1).
fn bios(list: &mut List, o: &Smbios) {
    const CHARACTERISTICS_NOT_SUPPORTED: u64 = 1 << 3;
    let mut s = Structure::new(0, 0);
    s.text(o.get(0, "vendor")).text(o.get(0, "version"));
    // Segment of the BIOS, date, size in 64 KiB less one.
    s.word(0xe800).text(o.get(0, "date")).bytes(&[0]);
    s.qword(CHARACTERISTICS_NOT_SUPPORTED);
    // Extension bytes: targeted content distribution, virtual machine, UEFI.
    let uefi = o.get(0, "uefi") == Some("on");
    s.bytes(&[0, 0x14 | u8::from(uefi) << 3]);
    let (major, minor) = o.get(0, "release").and_then(release).unwrap_or((0, 0));
    s.bytes(&[major, minor, 0xff, 0xff]);
    s.finish(list);
}

/// System information (DSP0134, section 7.2).
fn system(list: &mut List, m: &Machine<'_>, o: &Smbios) {
    let mut s = Structure::new(1, 0x100);
    s.text(o.get(1, "manufacturer").or(Some(m.manufacturer)));
    s.text(o.get(1, "product").or(Some(m.product)));
    s.text(o.get(1, "version").or(Some(m.version)));
    s.text(o.get(1, "serial"));
    let id = o.get(1, "uuid").and_then(uuid).or(m.uuid);
    // The first three fields of a UUID are little-endian here.
    let [a, b, c, d, e, f, g, h, rest @ ..] = id.unwrap_or_default();
    s.bytes(&[d, c, b, a, f, e, h, g]).bytes(&rest);
    // Wake-up type: power switch.
    s.bytes(&[6]);
    s.text(o.get(1, "sku")).text(o.get(1, "family"));
    s.finish(list);
}

/// Baseboard (DSP0134, section 7.3).
fn baseboard(list: &mut List, m: &Machine<'_>, o: &Smbios) {
    let mut s = Structure::new(2, 0x200);
    s.text(o.get(2, "manufacturer").or(Some(m.manufacturer)));
    s.text(o.get(2, "product").or(Some(m.product)));
    s.text(o.get(2, "version").or(Some(m.version)));
    s.text(o.get(2, "serial")).text(o.get(2, "asset"));
    // A hosting board.
    s.bytes(&[1]).text(o.get(2, "location"));
    // In the chassis; a motherboard; with nothing contained.
    s.word(0x300).bytes(&[10, 0]);
    s.finish(list);
}

/// System enclosure (DSP0134, section 7.4).
fn chassis(list: &mut List, m: &Machine<'_>, o: &Smbios) {
    let mut s = Structure::new(3, 0x300);
    s.text(o.get(3, "manufacturer").or(Some(m.manufacturer)));
    // Type: other.
    s.bytes(&[1]);
    s.text(o.get(3, "version").or(Some(m.version)));
    s.text(o.get(3, "serial")).text(o.get(3, "asset"));
    // Boot-up, power supply and thermal state safe; security unknown.
    s.bytes(&[3, 3, 3, 2]).dword(0).bytes(&[0, 0, 0, 0]);
    s.text(o.get(3, "sku"));
    s.finish(list);
}

/// Processor (DSP0134, section 7.5).
fn processor(list: &mut List, m: &Machine<'_>, o: &Smbios, socket: u16) {
    let speed = |field| o.number(4, field).unwrap_or(2000) as u16;
    let family = o.number(4, "processor-family").unwrap_or(1) as u16;
    let mut s = Structure::new(4, 0x400u16.wrapping_add(socket));
    let prefix = o.get(4, "sock_pfx").unwrap_or("CPU");
    s.text(Some(&format!("{prefix} {socket}")));
    // Central processor; family above 0xfd says "see family 2".
    s.bytes(&[3, u8::try_from(family).unwrap_or(0xfe)]);
    s.text(o.get(4, "manufacturer").or(Some(m.manufacturer)));
    s.qword(o.number(4, "processor-id").unwrap_or(m.processor_id));
    s.text(o.get(4, "version").or(Some(m.version)));
    s.bytes(&[0]).word(0);
    s.word(speed("max-speed")).word(speed("current-speed"));
    // Populated and enabled; upgrade: other; no caches described.
    s.bytes(&[0x41, 1]).word(0xffff).word(0xffff).word(0xffff);
    s.text(o.get(4, "serial")).text(o.get(4, "asset"));
    s.text(o.get(4, "part"));
    let short = |n: u16| u8::try_from(n).unwrap_or(0xff);
    let threads = m.cores.saturating_mul(m.threads);
    s.bytes(&[short(m.cores), short(m.cores), short(threads)]);
    // Characteristics: unknown.
    s.word(2).word(family);
    s.word(m.cores).word(m.cores).word(threads);
    s.finish(list);
}

/// OEM strings (DSP0134, section 7.12).
fn oem_strings(list: &mut List, o: &Smbios) {
    let mut s = Structure::new(11, 0xe00);
    let mut count = 0;
    for text in &o.oem_strings {
        count = s.string(text).max(count);
    }
    s.bytes(&[count]);
    s.finish(list);
}

/// Memory array, devices and mapped addresses (DSP0134, sections 7.17, 7.18 and 7.20).
fn memory(list: &mut List, m: &Machine<'_>, o: &Smbios) {
    let total = m.ram.iter().fold(0u64, |sum, r| sum.saturating_add(r.1));
    let count = total.div_ceil(DIMM_MAX);
    let kib = total >> 10;
    let mut s = Structure::new(16, MEMORY_ARRAY);
    // Location other, system memory, multi-bit ECC.
    s.bytes(&[1, 3, 6]);
    s.dword(if kib < 0x8000_0000 {
        kib as u32
    } else {
        0x8000_0000
    });
    s.word(NO_ERROR);
    s.word(u16::try_from(count).unwrap_or(u16::MAX));
    s.qword(if kib < 0x8000_0000 { 0 } else { total });
    s.finish(list);

    let mut left = total;
    for n in 0..count.min(0x100) as u16 {
        let size = left.min(DIMM_MAX);
        left = left.saturating_sub(size);
        memory_device(list, m, o, n, size >> 20);
    }
    for (n, (base, len)) in (0u16..).zip(m.ram) {
        if *len == 0 {
            continue;
        }
        let last = base.saturating_add(*len).saturating_sub(1);
        let wide = last >> 10 >= 0xffff_ffff;
        let mut s = Structure::new(19, 0x1300u16.wrapping_add(n));
        let short = |at: u64| if wide { u32::MAX } else { (at >> 10) as u32 };
        s.dword(short(*base)).dword(short(last));
        s.word(MEMORY_ARRAY).bytes(&[1]);
        s.qword(if wide { *base } else { 0 });
        s.qword(if wide { last } else { 0 });
        s.finish(list);
    }
}

fn memory_device(list: &mut List, m: &Machine<'_>, o: &Smbios, n: u16, mib: u64) {
    /// Sizes from here on are in the extended field.
    const EXTENDED: u64 = 0x7fff;
    let speed = o.number(17, "speed").unwrap_or(0) as u16;
    let mut s = Structure::new(17, 0x1100u16.wrapping_add(n));
    s.word(MEMORY_ARRAY).word(NO_ERROR);
    // Widths unknown.
    s.word(0xffff).word(0xffff);
    s.word(mib.min(EXTENDED) as u16);
    // DIMM, of no set.
    s.bytes(&[9, 0]);
    let prefix = o.get(17, "loc_pfx").unwrap_or("DIMM");
    s.text(Some(&format!("{prefix} {n}")))
        .text(o.get(17, "bank"));
    // RAM, other.
    s.bytes(&[7]).word(2).word(speed);
    s.text(o.get(17, "manufacturer").or(Some(m.manufacturer)));
    s.text(o.get(17, "serial")).text(o.get(17, "asset"));
    s.text(o.get(17, "part")).bytes(&[0]);
    s.dword(if mib < EXTENDED { 0 } else { mib as u32 });
    // Configured speed, voltages unknown.
    s.word(speed).word(0).word(0).word(0);
    s.finish(list);
}

/// System boot (DSP0134, section 7.33): no errors.
fn boot_status(list: &mut List) {
    let mut s = Structure::new(32, 0x2000);
    s.bytes(&[0; 7]);
    s.finish(list);
}
