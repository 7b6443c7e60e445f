//! Guest memory accesses of a CPU: the fast path, and everything behind it.

use accel_softmmu::{Access, Fast, Physical};
use hw_memory::{ByteOrder, PAGE_SIZE};

use crate::core::Core;
use crate::pending::reason;
use crate::target::{Target, Trap};

/// Mask of the low `size` bytes.
fn mask(size: u8) -> u64 {
    if size >= 8 {
        u64::MAX
    } else {
        (1 << (8 * u32::from(size))) - 1
    }
}

fn crosses(va: u64, size: u8) -> bool {
    va % PAGE_SIZE + u64::from(size) > PAGE_SIZE
}

/// Bytes from an address to the end of its page.
fn room(va: u64) -> usize {
    (PAGE_SIZE - va % PAGE_SIZE) as usize
}

impl<T: Target> Core<T> {
    /// Loads `size` (1, 2, 4 or 8) bytes, little-endian.
    #[inline]
    pub fn load(&mut self, va: u64, size: u8, ctx: u8) -> Result<u64, Trap> {
        if let Some(value) = self.load_fast(va, size, ctx) {
            return Ok(value);
        }
        self.load_slow(va, size, ctx)
    }

    #[inline(always)]
    fn load_fast(&self, va: u64, size: u8, ctx: u8) -> Option<u64> {
        match size {
            1 => self.mmu.load8(ctx, va).map(u64::from),
            2 => self.mmu.load16(ctx, va).map(u64::from),
            4 => self.mmu.load32(ctx, va).map(u64::from),
            _ => self.mmu.load64(ctx, va),
        }
    }

    /// Stores the low `size` (1, 2, 4 or 8) bytes of `value`, little-endian.
    #[inline]
    pub fn store(&mut self, va: u64, size: u8, value: u64, ctx: u8) -> Result<(), Trap> {
        match self.store_fast(va, size, value, ctx) {
            Fast::Done(()) => Ok(()),
            Fast::HitCode(()) => {
                self.code_hit = true;
                Ok(())
            }
            Fast::Slow => self.store_slow(va, size, value, ctx),
        }
    }

    #[inline(always)]
    fn store_fast(&self, va: u64, size: u8, value: u64, ctx: u8) -> Fast<()> {
        match size {
            1 => self.mmu.store8(ctx, va, value as u8),
            2 => self.mmu.store16(ctx, va, value as u16),
            4 => self.mmu.store32(ctx, va, value as u32),
            _ => self.mmu.store64(ctx, va, value),
        }
    }

    /// Makes an access possible: walks until something is cached. The physical address for the slow
    /// path, or `None` for RAM.
    fn resolve(&mut self, va: u64, access: Access, ctx: u8) -> Result<Option<u64>, Trap> {
        match self.mmu.look_up(ctx, va, access) {
            Physical::Ram => Ok(None),
            Physical::Slow(pa) => Ok(Some(pa)),
            Physical::Miss => {
                let pa = self.translate_for(va, access, ctx)?;
                match self.mmu.look_up(ctx, va, access) {
                    Physical::Ram => Ok(None),
                    _ => Ok(Some(pa)),
                }
            }
        }
    }

    /// The load behind the fast path: walks, devices, page crossings.
    #[cold]
    pub fn load_slow(&mut self, va: u64, size: u8, ctx: u8) -> Result<u64, Trap> {
        if crosses(va, size) {
            let second = (va | (PAGE_SIZE - 1)).wrapping_add(1);
            self.resolve(va, Access::Read, ctx)?;
            self.resolve(second, Access::Read, ctx)?;
            let mut value = 0;
            for i in 0..u64::from(size) {
                value |= self.load(va.wrapping_add(i), 1, ctx)? << (8 * i);
            }
            return Ok(value);
        }
        match self.resolve(va, Access::Read, ctx)? {
            Some(pa) => {
                self.look_before(va, size, Access::Read)?;
                let order = ByteOrder::Little;
                let read = self.mmu.read_physical(pa, size, order, self.attrs);
                self.look_at_map();
                match read {
                    Ok(value) => {
                        self.look_at(va, size, Access::Read);
                        Ok(value)
                    }
                    Err(fault) => Ok(T::bus_fault(self, pa, Access::Read, fault)? & mask(size)),
                }
            }
            None => self.load_fast(va, size, ctx).ok_or(Trap::Leave),
        }
    }

    /// The store behind the fast path. Both pages of a crossing store are checked before either is
    /// written.
    #[cold]
    pub fn store_slow(&mut self, va: u64, size: u8, value: u64, ctx: u8) -> Result<(), Trap> {
        if crosses(va, size) {
            self.probe_write(va, size, ctx)?;
            for i in 0..u64::from(size) {
                self.store(va.wrapping_add(i), 1, value >> (8 * i) & 0xff, ctx)?;
            }
            return Ok(());
        }
        match self.resolve(va, Access::Write, ctx)? {
            Some(pa) => {
                self.look_before(va, size, Access::Write)?;
                let (order, value) = (ByteOrder::Little, value & mask(size));
                let written = self.mmu.write_physical(pa, size, value, order, self.attrs);
                self.look_at_map();
                match written {
                    Ok(hit) => {
                        self.code_hit |= hit;
                        self.look_at(va, size, Access::Write);
                    }
                    Err(fault) => {
                        T::bus_fault(self, pa, Access::Write, fault)?;
                    }
                }
            }
            None => {
                if let Fast::HitCode(()) = self.store_fast(va, size, value, ctx) {
                    self.code_hit = true;
                }
            }
        }
        Ok(())
    }

    /// A device was reached. If that changed the memory map, as commands of flash chips do, the unit
    /// ends with the instruction: what it knows of host addresses holds no longer.
    fn look_at_map(&mut self) {
        if self.mmu.has_new_map() {
            self.leave_after(reason::FLUSH);
        }
    }

    /// Asks the target about an access that is going to touch what is watched.
    fn look_before(&mut self, va: u64, size: u8, access: Access) -> Result<(), Trap> {
        if self.mmu.is_watching() && self.mmu.watches_data(va, size) {
            return T::before_watched(self, va, size, access).map_or(Ok(()), Err);
        }
        Ok(())
    }

    /// Tells the target of an access that touches what is watched.
    fn look_at(&mut self, va: u64, size: u8, access: Access) {
        if self.mmu.is_watching() && self.mmu.watches_data(va, size) {
            T::watched(self, va, size, access);
        }
    }

    /// Loads 16 bytes, little-endian.
    #[inline]
    pub fn load_v(&mut self, va: u64, ctx: u8) -> Result<u128, Trap> {
        let lo = self.load(va, 8, ctx)?;
        let hi = self.load(va.wrapping_add(8), 8, ctx)?;
        Ok(u128::from(lo) | u128::from(hi) << 64)
    }

    /// Stores 16 bytes, little-endian, all or none.
    #[inline]
    pub fn store_v(&mut self, va: u64, value: u128, ctx: u8) -> Result<(), Trap> {
        if crosses(va, 16) {
            self.probe_write(va, 16, ctx)?;
        }
        self.store(va, 8, value as u64, ctx)?;
        self.store(va.wrapping_add(8), 8, (value >> 64) as u64, ctx)
    }

    /// Loads bytes, the lowest first. A fault leaves `out` partly written, and nothing else.
    pub fn load_bytes(&mut self, va: u64, out: &mut [u8], ctx: u8) -> Result<(), Trap> {
        let (mut at, mut out) = (va, out);
        while !out.is_empty() {
            let (piece, rest) = out.split_at_mut(room(at).min(out.len()));
            let len = piece.len() as u64;
            if !self.mmu.load_bytes(ctx, at, piece) {
                for word in piece.chunks_mut(8) {
                    let mut va = at;
                    if let Ok(all) = <&mut [u8; 8]>::try_from(&mut *word) {
                        *all = self.load(va, 8, ctx)?.to_le_bytes();
                    } else {
                        for byte in word.iter_mut() {
                            *byte = self.load(va, 1, ctx)? as u8;
                            va = va.wrapping_add(1);
                        }
                    }
                    at = at.wrapping_add(word.len() as u64);
                }
            } else {
                at = at.wrapping_add(len);
            }
            out = rest;
        }
        Ok(())
    }

    /// Stores bytes, at most a page; a fault stores none.
    pub fn store_bytes(&mut self, va: u64, bytes: &[u8], ctx: u8) -> Result<(), Trap> {
        let crosses = room(va) < bytes.len();
        self.probe_write(va, 1, ctx)?;
        if crosses {
            self.probe_write((va | (PAGE_SIZE - 1)).wrapping_add(1), 1, ctx)?;
        }
        let (mut at, mut bytes) = (va, bytes);
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(room(at).min(bytes.len()));
            match self.mmu.store_bytes(ctx, at, piece) {
                Fast::Done(()) => at = at.wrapping_add(piece.len() as u64),
                Fast::HitCode(()) => {
                    self.code_hit = true;
                    at = at.wrapping_add(piece.len() as u64);
                }
                Fast::Slow => {
                    for word in piece.chunks(8) {
                        let mut va = at;
                        if let Ok(all) = <[u8; 8]>::try_from(word) {
                            self.store(va, 8, u64::from_le_bytes(all), ctx)?;
                        } else {
                            for byte in word {
                                self.store(va, 1, (*byte).into(), ctx)?;
                                va = va.wrapping_add(1);
                            }
                        }
                        at = at.wrapping_add(word.len() as u64);
                    }
                }
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Faults as a store of `size` bytes (at most a page) would.
    pub fn probe_write(&mut self, va: u64, size: u8, ctx: u8) -> Result<(), Trap> {
        self.resolve(va, Access::Write, ctx)?;
        if crosses(va, size) {
            self.resolve((va | (PAGE_SIZE - 1)).wrapping_add(1), Access::Write, ctx)?;
        }
        Ok(())
    }

    /// An atomic update: the old value. `None` from `update` stores the old value back (the access
    /// is a write in any case).
    pub fn update(
        &mut self,
        va: u64,
        size: u8,
        ctx: u8,
        mut update: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, Trap> {
        if va.is_multiple_of(u64::from(size.max(1))) {
            let pa = self.resolve(va, Access::Write, ctx)?;
            if pa.is_none() {
                macro_rules! go {
                    ($f:ident, $t:ty) => {
                        match self
                            .mmu
                            .$f(ctx, va, |old| update(u64::from(old)).map(|new| new as $t))
                        {
                            Fast::Done(old) => return Ok(u64::from(old)),
                            Fast::HitCode(old) => {
                                self.code_hit = true;
                                return Ok(u64::from(old));
                            }
                            Fast::Slow => {}
                        }
                    };
                }
                match size {
                    1 => go!(rmw8, u8),
                    2 => go!(rmw16, u16),
                    4 => go!(rmw32, u32),
                    _ => go!(rmw64, u64),
                }
            }
        }
        // A split lock, or not RAM: no host instruction does it, so no other CPU may run meanwhile.
        if !self.alone && !self.sole {
            return Err(Trap::Exclusive);
        }
        self.probe_write(va, size, ctx)?;
        let old = self.load(va, size, ctx)?;
        if let Some(new) = update(old) {
            self.store(va, size, new, ctx)?;
        }
        Ok(old)
    }

    /// As [`update`](Self::update) for 16 bytes. Runs alone where the host has no instruction for it.
    /// The bytes are little-endian in memory.
    pub fn update_v(
        &mut self,
        va: u64,
        ctx: u8,
        mut update: impl FnMut(u128) -> Option<u128>,
    ) -> Result<u128, Trap> {
        if va.is_multiple_of(16) && self.resolve(va, Access::Write, ctx)?.is_none() {
            match self.mmu.rmw128(ctx, va, &mut update) {
                Fast::Done(old) => return Ok(old),
                Fast::HitCode(old) => {
                    self.code_hit = true;
                    return Ok(old);
                }
                Fast::Slow => {}
            }
        }
        if !self.alone && !self.sole {
            return Err(Trap::Exclusive);
        }
        self.probe_write(va, 16, ctx)?;
        let old = self.load_v(va, ctx)?;
        self.store_v(va, update(old).unwrap_or(old), ctx)?;
        Ok(old)
    }
}
