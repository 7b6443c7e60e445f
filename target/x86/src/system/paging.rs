//! Paging (SDM vol. 3, chapter 4): no paging, 32-bit, PAE, 4-level, and 5-level for debuggers.
//!
//! Address spaces of the software MMU: key 0 is paging off. Without CR4.PCIDE all paging shares one
//! key, and a write of CR3 drops what is not global; with it, each PCID has a key of its own.
//!
//! Not modelled: 5-level paging by the engine's own CPUs (tables of KVM's are read), protection keys,
//! paging-structure caches (each walk starts at CR3).

use accel_core::{Access, Permissions, Translation, Trap};
use hw_memory::ByteOrder;

use crate::cpu::{Port, ctx};
use crate::state::{State, cr0, cr4, efer, vector};
use crate::{Core, Exception};

const P: u64 = 1 << 0;
const RW: u64 = 1 << 1;
const US: u64 = 1 << 2;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const G: u64 = 1 << 8;
const NX: u64 = 1 << 63;
/// Physical address field of a table entry before the CPU's width is applied.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Page-fault error code (SDM vol. 3, 4.7).
mod code {
    pub(super) const PROTECTION: u32 = 1 << 0;
    pub(super) const WRITE: u32 = 1 << 1;
    pub(super) const USER: u32 = 1 << 2;
    pub(super) const RESERVED: u32 = 1 << 3;
    pub(super) const FETCH: u32 = 1 << 4;
}

/// Key of the address space without paging.
const NO_PAGING: u64 = 0;
/// Key of the only address space without PCIDs.
const SHARED: u64 = 1;
/// Key of PCID 0; the others follow.
const FIRST_PCID: u64 = 2;

/// A walk that another CPU keeps changing under our hands is given up after this many turns: the
/// accessed bits then stay as they are.
const TURNS: u32 = 64;

/// A table entry on the way.
#[derive(Clone, Copy, Default)]
struct Step {
    at: u64,
    entry: u64,
}

/// A way through the tables to a page.
#[derive(Clone, Copy)]
struct Path {
    steps: [Step; 5],
    /// Entries used; the last one maps the page.
    depth: usize,
    /// Bytes of an entry.
    size: u8,
    physical: u64,
    page_bits: u32,
    user: bool,
    write: bool,
    exec: bool,
    global: bool,
}

/// Why there is no way.
enum Lost {
    NotPresent,
    Reserved,
}

/// Whether the address is canonical under 4-level paging.
pub(crate) fn is_canonical(va: u64) -> bool {
    let top = va.cast_signed() >> 47;
    top == 0 || top == -1
}

/// Whether the address is canonical in the paging mode that CR4 selects.
fn is_mapped_range(state: &State, va: u64) -> bool {
    if state.cr4 & cr4::LA57 == 0 {
        return is_canonical(va);
    }
    let top = va.cast_signed() >> 56;
    top == 0 || top == -1
}

/// Bits below an entry of the table that CR3 points to, outside 32-bit and PAE paging.
fn top_shift(state: &State) -> u32 {
    if state.cr4 & cr4::LA57 != 0 { 48 } else { 39 }
}

fn read(core: &Core, at: u64, size: u8) -> u64 {
    match core.mmu.update_physical(at, size, |_| None) {
        Some(value) => value,
        None => core
            .mmu
            .read_physical(at, size, ByteOrder::Little, core.attrs)
            .unwrap_or(u64::MAX),
    }
}

/// All address bits with bit 20 as the A20 gate says.
fn a20_mask(port: &dyn Port) -> u64 {
    if port.a20() { u64::MAX } else { !(1 << 20) }
}

fn find(core: &Core, va: u64) -> Result<Path, Lost> {
    let state = &core.arch;
    let a20 = a20_mask(core.port.as_ref());
    if state.cr4 & cr4::PAE == 0 {
        return find_32(core, va, a20);
    }
    let width = state.system.model.phys_bits;
    let address = ADDRESS & !u64::MAX.checked_shl(width).unwrap_or(0);
    let nxe = state.efer & efer::NXE != 0;
    let mut reserved = ADDRESS & !address;
    if !nxe {
        reserved |= NX;
    }
    let mut path = Path {
        steps: [Step::default(); 5],
        depth: 0,
        size: 8,
        physical: 0,
        page_bits: 12,
        user: true,
        write: true,
        exec: true,
        global: false,
    };
    let (mut table, mut shift) = if state.is_long() {
        (state.cr3 & address, top_shift(state))
    } else {
        // The four PDPTEs are registers (SDM vol. 3, 4.4.1).
        let pdpte = state
            .system
            .pdptes
            .get((va >> 30) as usize & 3)
            .copied()
            .unwrap_or(0);
        if pdpte & P == 0 {
            return Err(Lost::NotPresent);
        }
        // Bits 52 to 62 are reserved in this mode.
        reserved |= 0x7ff << 52;
        (pdpte & address, 21)
    };
    loop {
        let at = (table | (va.wrapping_shr(shift) & 511) << 3) & a20;
        let entry = read(core, at, 8);
        if let Some(step) = path.steps.get_mut(path.depth) {
            *step = Step { at, entry };
        }
        path.depth = path.depth.wrapping_add(1);
        if entry & P == 0 {
            return Err(Lost::NotPresent);
        }
        if entry & reserved != 0 || shift >= 39 && entry & PS != 0 {
            return Err(Lost::Reserved);
        }
        path.user &= entry & US != 0;
        path.write &= entry & RW != 0;
        path.exec &= entry & NX == 0;
        let large = shift != 12 && entry & PS != 0;
        if large && shift == 30 && !state.system.model.has(super::feature::PDPE1GB) {
            return Err(Lost::Reserved);
        }
        if large || shift == 12 {
            let low = !u64::MAX.wrapping_shl(shift);
            // Bit 12 of a large page's entry is PAT.
            if entry & address & low & !0x1fff != 0 {
                return Err(Lost::Reserved);
            }
            path.physical = (entry & address & !low | va & low) & a20;
            path.page_bits = shift;
            path.global = entry & G != 0 && state.cr4 & cr4::PGE != 0;
            return Ok(path);
        }
        table = entry & address;
        shift = shift.wrapping_sub(9);
    }
}

fn find_32(core: &Core, va: u64, a20: u64) -> Result<Path, Lost> {
    let state = &core.arch;
    let mut path = Path {
        steps: [Step::default(); 5],
        depth: 1,
        size: 4,
        physical: 0,
        page_bits: 12,
        user: true,
        write: true,
        exec: true,
        global: false,
    };
    let va = va & 0xffff_ffff;
    let at = (state.cr3 & 0xffff_f000 | (va >> 22) << 2) & a20;
    let pde = read(core, at, 4);
    path.steps[0] = Step { at, entry: pde };
    if pde & P == 0 {
        return Err(Lost::NotPresent);
    }
    let leaf = if pde & PS != 0 && state.cr4 & cr4::PSE != 0 {
        // PSE-36: bits 13 to 20 are physical address bits 32 to 39, bit 21 is reserved.
        let high = pde >> 13 & 0xff;
        let width = state.system.model.phys_bits.saturating_sub(32).min(8);
        if pde & 1 << 21 != 0 || high.wrapping_shr(width) != 0 {
            return Err(Lost::Reserved);
        }
        path.page_bits = 22;
        path.physical = (high << 32 | pde & 0xffc0_0000 | va & 0x3f_ffff) & a20;
        pde
    } else {
        path.user = pde & US != 0;
        path.write = pde & RW != 0;
        let at = (pde & 0xffff_f000 | (va >> 12 & 1023) << 2) & a20;
        let pte = read(core, at, 4);
        path.steps[1] = Step { at, entry: pte };
        path.depth = 2;
        if pte & P == 0 {
            return Err(Lost::NotPresent);
        }
        path.physical = (pte & 0xffff_f000 | va & 0xfff) & a20;
        pte
    };
    path.user &= leaf & US != 0;
    path.write &= leaf & RW != 0;
    path.global = leaf & G != 0 && state.cr4 & cr4::PGE != 0;
    Ok(path)
}

fn permissions(core: &Core, path: &Path, ctx: u8) -> Permissions {
    let state = &core.arch;
    if ctx == ctx::USER {
        return Permissions {
            read: path.user,
            write: path.user && path.write,
            exec: path.user && path.exec,
        };
    }
    let data = !path.user || ctx != ctx::SUPERVISOR_SMAP;
    Permissions {
        read: data,
        write: data && (path.write || state.cr0 & cr0::WP == 0),
        exec: path.exec && !(path.user && state.cr4 & cr4::SMEP != 0),
    }
}

/// Sets accessed bits on the way, and dirty in the last entry. False if an entry is no longer what
/// it was when it was read.
fn mark(core: &Core, path: &Path, dirty: bool) -> bool {
    let last = path.depth.wrapping_sub(1);
    for (i, step) in path.steps.iter().enumerate().take(path.depth) {
        let bits = if i == last && dirty { A | D } else { A };
        if step.entry & bits == bits {
            continue;
        }
        let old = core.mmu.update_physical(step.at, path.size, |now| {
            (now == step.entry).then_some(now | bits)
        });
        if old.is_some_and(|old| old != step.entry) {
            return false;
        }
    }
    true
}

/// Notes a page fault.
fn page_fault(core: &mut Core, va: u64, access: Access, ctx: u8, cause: u32) -> Trap {
    let state = &mut core.arch;
    let mut error = cause;
    if access == Access::Write {
        error |= code::WRITE;
    }
    if ctx == ctx::USER {
        error |= code::USER;
    }
    let nx = state.efer & efer::NXE != 0 && state.cr4 & cr4::PAE != 0;
    if access == Access::Fetch && (nx || state.cr4 & cr4::SMEP != 0) {
        error |= code::FETCH;
    }
    state.exception = Some(Exception {
        vector: vector::PF,
        error: Some(error),
        address: Some(va),
        software: false,
    });
    Trap::Exception
}

/// Translates an address for an access, as SDM vol. 3, 4.6 says, and sets accessed and dirty bits.
/// A page not dirty yet is allowed for writing only by a write.
pub(crate) fn walk(core: &mut Core, va: u64, access: Access, ctx: u8) -> Result<Translation, Trap> {
    let result = translate(core, va, access, ctx);
    if log::log_enabled!(target: "mmu", log::Level::Trace) {
        log_walk(core, va, access, result.as_ref().ok());
    }
    result
}

#[cold]
fn log_walk(core: &Core, va: u64, access: Access, found: Option<&Translation>) {
    let (index, cr3) = (core.index, core.arch.cr3);
    match (found, &core.arch.exception) {
        (Some(t), _) => {
            let letter = |on: bool, letter: char| if on { letter } else { '-' };
            let (r, w) = (letter(t.allow.read, 'r'), letter(t.allow.write, 'w'));
            let (x, g) = (letter(t.allow.exec, 'x'), letter(t.global, 'g'));
            let (physical, bits) = (t.physical, t.page_bits);
            log::trace!(
                target: "mmu",
                "cpu {index}: {access:?} {va:#x} cr3={cr3:#x}: {physical:#x} {r}{w}{x}{g} page 2^{bits}"
            );
        }
        (None, Some(Exception { vector, error, .. })) => log::trace!(
            target: "mmu",
            "cpu {index}: {access:?} {va:#x} cr3={cr3:#x}: exception {vector:#x} error {:#x}",
            error.unwrap_or(0)
        ),
        (None, None) => {}
    }
}

fn translate(core: &mut Core, va: u64, access: Access, ctx: u8) -> Result<Translation, Trap> {
    if core.arch.cr0 & cr0::PG == 0 {
        return Ok(Translation {
            physical: va & 0xffff_ffff & a20_mask(core.port.as_ref()),
            page_bits: 12,
            allow: Permissions {
                read: true,
                write: true,
                exec: true,
            },
            global: false,
        });
    }
    if core.arch.is_long() && !is_canonical(va) {
        return Err(super::raise(core, vector::GP, Some(0)));
    }
    let mut turns = 0u32;
    loop {
        let path = match find(core, va) {
            Ok(path) => path,
            Err(Lost::NotPresent) => return Err(page_fault(core, va, access, ctx, 0)),
            Err(Lost::Reserved) => {
                let cause = code::PROTECTION | code::RESERVED;
                return Err(page_fault(core, va, access, ctx, cause));
            }
        };
        let mut allow = permissions(core, &path, ctx);
        let (allowed, dirty) = match access {
            Access::Read => (allow.read, false),
            Access::Write => (allow.write, true),
            Access::Fetch => (allow.exec, false),
        };
        if !allowed {
            return Err(page_fault(core, va, access, ctx, code::PROTECTION));
        }
        turns = turns.wrapping_add(1);
        if !mark(core, &path, dirty) && turns < TURNS {
            continue;
        }
        let leaf = path
            .steps
            .get(path.depth.wrapping_sub(1))
            .copied()
            .unwrap_or_default();
        allow.write &= dirty || leaf.entry & D != 0;
        return Ok(Translation {
            physical: path.physical,
            page_bits: path.page_bits,
            allow,
            global: path.global,
        });
    }
}

/// The physical address behind a linear one, for debuggers: no faults, no side effects.
pub fn debug_translate(core: &Core, va: u64) -> Option<u64> {
    if core.arch.cr0 & cr0::PG == 0 {
        return Some(va & 0xffff_ffff & a20_mask(core.port.as_ref()));
    }
    if core.arch.is_long() && !is_mapped_range(&core.arch, va) {
        return None;
    }
    find(core, va).ok().map(|path| path.physical)
}

/// Key of the address space that the control registers name.
fn key(core: &Core) -> u64 {
    let state = &core.arch;
    if state.cr0 & cr0::PG == 0 {
        NO_PAGING
    } else if state.cr4 & cr4::PCIDE == 0 {
        SHARED
    } else {
        pcid_key(state.cr3 & 0xfff)
    }
}

fn pcid_key(pcid: u64) -> u64 {
    FIRST_PCID.wrapping_add(pcid)
}

/// Makes the address space that the control registers name the current one.
pub(crate) fn switch(core: &mut Core) {
    let key = key(core);
    core.mmu.switch(key);
}

/// After CR3 was written: drops what the old value left, unless `keep` (bit 63 under PCIDs).
pub(crate) fn cr3_written(core: &mut Core, keep: bool) {
    switch(core);
    log::trace!(target: "mmu", "cpu {}: cr3={:#x} keep={keep}", core.index, core.arch.cr3);
    if core.arch.cr0 & cr0::PG != 0 && !(keep && core.arch.cr4 & cr4::PCIDE != 0) {
        core.mmu.bank().flush_non_global();
    }
}

/// Reads the PDPTEs that CR3 points to under PAE paging; the architecture keeps them in registers.
/// `None`: one has reserved bits set, and nothing was changed.
pub(crate) fn read_pdptes(core: &Core, cr3: u64) -> Option<[u64; 4]> {
    let width = core.arch.system.model.phys_bits;
    let above = u64::MAX.checked_shl(width).unwrap_or(0);
    let a20 = a20_mask(core.port.as_ref());
    let mut pdptes = [0; 4];
    let mut at = cr3 & 0xffff_ffe0;
    for pdpte in &mut pdptes {
        *pdpte = read(core, at & a20, 8);
        at = at.wrapping_add(8);
        // Bits 1, 2 and 5 to 8 are reserved where P is set.
        if *pdpte & P != 0 && *pdpte & (0x1e6 | above) != 0 {
            return None;
        }
    }
    Some(pdptes)
}

/// INVLPG: `va` is a linear address.
pub(crate) fn invlpg(core: &mut Core, va: u64) {
    core.mmu.flush_page(va);
}

/// INVPCID (SDM vol. 2): the operand was checked for nothing yet.
pub(crate) fn invpcid(core: &mut Core, kind: u64, pcid: u64, va: u64) -> Result<(), Trap> {
    let bad = pcid >> 12 != 0 || core.arch.cr4 & cr4::PCIDE == 0 && pcid != 0;
    match kind {
        0 if !bad && is_canonical(va) => core.mmu.flush_page(va),
        1 if !bad => {
            // Global translations may be dropped too.
            if core.arch.cr4 & cr4::PCIDE == 0 || pcid_key(pcid) == key(core) {
                core.mmu.bank().flush_non_global();
            } else {
                core.mmu.flush_space(pcid_key(pcid));
            }
        }
        2 | 3 => core.mmu.flush_all(),
        _ => return Err(super::raise(core, vector::GP, Some(0))),
    }
    Ok(())
}

/// A page as the tables map it.
pub(super) struct Leaf {
    pub(super) va: u64,
    pub(super) physical: u64,
    pub(super) page_bits: u32,
    /// The entry that maps it.
    pub(super) entry: u64,
    /// By all entries on the way.
    pub(super) user: bool,
    pub(super) write: bool,
}

/// Visits pages in order of address, at most `most` of them and a like number of tables; false if
/// there are more.
pub(super) fn leaves(core: &Core, most: usize, mut visit: impl FnMut(Leaf)) -> bool {
    let state = &core.arch;
    let pae = state.cr4 & cr4::PAE != 0;
    let (entry_bits, size) = if pae { (9u32, 8) } else { (10, 4) };
    let above = u64::MAX
        .checked_shl(state.system.model.phys_bits)
        .unwrap_or(0);
    let address = ADDRESS & !above;
    let a20 = a20_mask(core.port.as_ref());
    // Tables still to be read: address, first linear address, bits below an entry, rights so far.
    let mut tables = Vec::new();
    match (pae, state.is_long()) {
        (false, _) => tables.push((state.cr3 & 0xffff_f000, 0u64, 22u32, (true, true))),
        (true, true) => tables.push((state.cr3 & address, 0, top_shift(state), (true, true))),
        (true, false) => {
            for (n, pdpte) in state.system.pdptes.iter().enumerate().rev() {
                if pdpte & P != 0 {
                    tables.push((pdpte & address, (n as u64) << 30, 21, (true, true)));
                }
            }
        }
    }
    let mut budget = most;
    let last = 1u64.wrapping_shl(entry_bits);
    // The way down to the table at hand, each with the entry to look at next.
    let mut way = Vec::new();
    while let Some((table, first, shift, rights, n)) = way
        .pop()
        .or_else(|| tables.pop().map(|(t, f, s, r)| (t, f, s, r, 0u64)))
    {
        if n == last {
            continue;
        }
        way.push((table, first, shift, rights, n.wrapping_add(1)));
        let at = table.wrapping_add(n.wrapping_mul(u64::from(size)));
        let entry = read(core, at & a20, size);
        if entry & P == 0 {
            continue;
        }
        let Some(left) = budget.checked_sub(1) else {
            return false;
        };
        budget = left;
        let mut va = first.wrapping_add(n.wrapping_shl(shift));
        if shift == top_shift(state) && n >= 256 {
            // The sign goes on above the table's own bits.
            va |= u64::MAX.wrapping_shl(shift.wrapping_add(9));
        }
        let (user, write) = (rights.0 && entry & US != 0, rights.1 && entry & RW != 0);
        let sized = pae || state.cr4 & cr4::PSE != 0;
        if shift == 12 || matches!(shift, 21 | 22 | 30) && entry & PS != 0 && sized {
            let low = !u64::MAX.wrapping_shl(shift);
            visit(Leaf {
                va,
                physical: entry & address & !low,
                page_bits: shift,
                entry,
                user,
                write,
            });
        } else {
            let next = shift.wrapping_sub(entry_bits);
            way.push((entry & address, va, next, (user, write), 0));
        }
    }
    true
}
