//! The option ROM that starts Linux from a PC BIOS.
//!
//! Spec: "BIOS Boot Specification" 1.01, section 3.3 "BEV" and appendix A (expansion header);
//! QEMU `docs/specs/fw_cfg.rst`, "DMA interface".
//!
//! When the BIOS boots from it, it lets `fw_cfg` copy kernel, initrd, command line and set-up code
//! to their places, without leaving real mode, and jumps into the set-up code, which asks the BIOS
//! for everything else. The items and places are those of
//! [`BzImage::firmware_items`](crate::BzImage::firmware_items).

use crate::bytes::put;

/// One 512-byte block.
const LEN: usize = 512;
/// Where the expansion header and the code stand.
const HEADER: usize = 0x1a + 2;
const HEADER_LEN: usize = 32;
const CODE_AT: usize = 0x3c;

/// From the start of the ROM: mark, length in blocks, and the entry called once at start-up, which
/// reports a boot device (`mov ax,0x20; retf`); the pointer to the expansion header at 0x1a.
#[rustfmt::skip]
const START: &[u8] = &[
    0x55, 0xaa, 1, 0xb8, 0x20, 0x00, 0xcb,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    HEADER as u8, 0,
];

/// The boot entry. Offsets are from the start of the ROM. The stack is the set-up code's own.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0xfa,                               // 3c: cli
    0xfc,                               // 3d: cld
    0xb8, 0x00, 0x10,                   // 3e: mov ax,0x1000       SETUP_ADDRESS / 16
    0x8e, 0xd0,                         // 41: mov ss,ax
    0xbc, 0xf0, 0xff,                   // 43: mov sp,0xfff0
    0xbe, 0xcc, 0x00,                   // 46: mov si,items
    // next: one item after the other: keys of data, address and size.
    0x2e, 0xac,                         // 49: lodsb cs:[si]
    0x98,                               // 4b: cbw
    0x84, 0xc0,                         // 4c: test al,al
    0x78, 0x6c,                         // 4e: js start
    0x89, 0xc7,                         // 50: mov di,ax
    // The control structure grows downwards on the stack: address, length, control.
    0x2e, 0xac,                         // 52: lodsb cs:[si]
    0x98,                               // 54: cbw
    0xe8, 0x53, 0x00,                   // 55: call number
    0x66, 0x0f, 0xc8,                   // 58: bswap eax
    0x66, 0x50,                         // 5b: push eax
    0x6a, 0x00,                         // 5d: push 0
    0x6a, 0x00,                         // 5f: push 0
    0x2e, 0xac,                         // 61: lodsb cs:[si]
    0x98,                               // 63: cbw
    0xe8, 0x44, 0x00,                   // 64: call number
    0x66, 0x0f, 0xc8,                   // 67: bswap eax
    0x66, 0x50,                         // 6a: push eax
    0x66, 0x0f, 0xb7, 0xc7,             // 6c: movzx eax,di
    0x66, 0xc1, 0xe0, 0x10,             // 70: shl eax,16
    0xb0, 0x0a,                         // 74: mov al,0x0a         select and read
    0x66, 0x0f, 0xc8,                   // 76: bswap eax
    0x66, 0x50,                         // 79: push eax
    0x66, 0x31, 0xc0,                   // 7b: xor eax,eax
    0xba, 0x14, 0x05,                   // 7e: mov dx,0x514        upper half of its address
    0x66, 0xef,                         // 81: out dx,eax
    0x8c, 0xd0,                         // 83: mov ax,ss
    0x66, 0xc1, 0xe0, 0x04,             // 85: shl eax,4
    0x66, 0x0f, 0xb7, 0xcc,             // 89: movzx ecx,sp
    0x66, 0x01, 0xc8,                   // 8d: add eax,ecx
    0x66, 0x0f, 0xc8,                   // 90: bswap eax
    0xba, 0x18, 0x05,                   // 93: mov dx,0x518        lower half: go
    0x66, 0xef,                         // 96: out dx,eax
    0x89, 0xe5,                         // 98: mov bp,sp
    // wait: until nothing but the error bit is set.
    0x66, 0x8b, 0x46, 0x00,             // 9a: mov eax,[bp]
    0x66, 0x25, 0xff, 0xff, 0xff, 0xfe, // 9e: and eax,0xfeffffff
    0x75, 0xf4,                         // a4: jnz wait
    0x83, 0xc4, 0x10,                   // a6: add sp,16
    0xeb, 0x9e,                         // a9: jmp next
    // number: EAX = the 32-bit item with key AX.
    0xba, 0x10, 0x05,                   // ab: mov dx,0x510
    0xef,                               // ae: out dx,ax
    0x42,                               // af: inc dx
    0xb1, 0x04,                         // b0: mov cl,4
    0xec,                               // b2: in al,dx
    0x66, 0xc1, 0xc8, 0x08,             // b3: ror eax,8
    0xfe, 0xc9,                         // b7: dec cl
    0x75, 0xf7,                         // b9: jnz b2
    0xc3,                               // bb: ret
    // start: all segments the set-up code's, then its entry point, one paragraph block in.
    0x8c, 0xd0,                         // bc: mov ax,ss
    0x8e, 0xd8,                         // be: mov ds,ax
    0x8e, 0xc0,                         // c0: mov es,ax
    0x8e, 0xe0,                         // c2: mov fs,ax
    0x8e, 0xe8,                         // c4: mov gs,ax
    0x68, 0x20, 0x10,                   // c6: push 0x1020
    0x6a, 0x00,                         // c9: push 0
    0xcb,                               // cb: retf
    // items: kernel, initrd, command line, set-up code; the end.
    0x11, 0x07, 0x08,                   // cc:
    0x12, 0x0a, 0x0b,
    0x15, 0x13, 0x14,
    0x18, 0x16, 0x17,
    0xff,
];

/// The ROM. It goes to `fw_cfg` as `genroms/linuxboot_dma.bin`, and that file to the top of
/// `bootorder` as `/rom@genroms/linuxboot_dma.bin`.
pub fn linux_option_rom() -> Vec<u8> {
    let mut rom = vec![0; LEN];
    put(&mut rom, 0, START);
    put(&mut rom, CODE_AT, CODE);
    let name_at = CODE_AT.saturating_add(CODE.len());
    put(&mut rom, name_at, b"Linux\0");
    // Expansion header: revision 1, two paragraphs; product name and boot entry.
    put(&mut rom, HEADER, b"$PnP\x01\x02");
    put(&mut rom, HEADER.saturating_add(16), &[name_at as u8, 0]);
    put(&mut rom, HEADER.saturating_add(26), &[CODE_AT as u8, 0]);
    let end = HEADER.saturating_add(HEADER_LEN);
    sum(&mut rom, HEADER, end, HEADER.saturating_add(9));
    sum(&mut rom, 0, LEN, LEN.saturating_sub(1));
    rom
}

/// Makes a range of bytes sum to zero by the one at `at`, which is zero so far.
fn sum(rom: &mut [u8], from: usize, to: usize, at: usize) {
    let range = rom.get(from..to).unwrap_or_default();
    let total = range.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    put(rom, at, &[total.wrapping_neg()]);
}
