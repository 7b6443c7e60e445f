//! Kernels of a few bytes, made here: no assembler or linker is needed.

/// Where the tiny kernels are loaded: the first megabyte belongs to the firmware.
const LOAD: u32 = 0x10_0000;

/// Port of `isa-debug-exit` as [`hello`] writes to it.
pub const EXIT_PORT: u16 = 0xf4;

/// An ELF kernel with a PVH entry that writes `text` to COM1 and then `code` to the debug exit
/// device at [`EXIT_PORT`], which ends the machine with status `code * 2 + 1`.
///
/// Entered as the PVH boot protocol says (Xen `docs/misc/pvh.pandoc`): 32-bit protected mode, flat
/// segments, paging off.
pub fn hello(text: &str, code: u8) -> Vec<u8> {
    // mov al, code; out EXIT_PORT, al
    after_text(text, &[0xb0, code, 0xe6, EXIT_PORT as u8])
}

/// The same, but the machine then halts and stays.
pub fn hello_and_halt(text: &str) -> Vec<u8> {
    after_text(text, &[])
}

/// A disk of 1 MiB, a cylinder at least, whose boot sector writes `code` to the debug exit device at [`EXIT_PORT`].
pub fn boot_sector(code: u8) -> Vec<u8> {
    // mov al, code; out EXIT_PORT, al; stop: hlt; jmp stop
    let mut disk = vec![0xb0, code, 0xe6, EXIT_PORT as u8, 0xf4, 0xeb, 0xfd];
    disk.resize(510, 0);
    disk.extend([0x55, 0xaa]);
    disk.resize(1 << 20, 0);
    disk
}

/// An ELF kernel with a PVH entry that writes a letter to COM1 at each of `ticks` ticks of the i8254,
/// a to z and again, then a line feed, and halts. It polls the i8259 for the ticks: not every KVM
/// can return from an interrupt in this mode.
pub fn ticks(ticks: u32) -> Vec<u8> {
    const TICKS_AT: usize = 0x50;
    let mut program: Vec<u8> = [
        TICKS,
        // What is written to the i8259 pair and the i8254: value, port; ended by zeros.
        &[0x11, 0x20, 0x20, 0x21, 0x04, 0x21, 0x01, 0x21, 0xfe, 0x21],
        &[0x34, 0x43, 0xa9, 0x40, 0x04, 0x40, 0, 0],
    ]
    .concat();
    if let Some(field) = program.get_mut(TICKS_AT..TICKS_AT + 4) {
        field.copy_from_slice(&ticks.to_le_bytes());
    }
    pvh_elf(&program)
}

/// The code of [`ticks`] for its place at 1 MiB; the count is at 8000h.
#[rustfmt::skip]
const TICKS: &[u8] = &[
    0xbc, 0x00, 0x70, 0x00, 0x00, // mov esp, 0x7000
    0xc7, 0x05, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // mov [count], 0x0
    0xbe, 0x76, 0x00, 0x10, 0x00, // mov esi, writes
    // next:
    0x66, 0xad, // lods ax, [esi]
    0x85, 0xc0, // test eax, eax
    0x74, 0x06, // je wait
    0x0f, 0xb6, 0xd4, // movzx edx, ah
    0xee, // out dx, al
    0xeb, 0xf4, // jmp next
    // wait:
    0xb0, 0x0c, // mov al, 0xc
    0xe6, 0x20, // out 0x20, al
    0xe4, 0x20, // in al, 0x20
    0x84, 0xc0, // test al, al
    0x79, 0xf6, // jns wait
    0xa1, 0x00, 0x80, 0x00, 0x00, // mov eax, [count]
    0x31, 0xd2, // xor edx, edx
    0xb9, 0x1a, 0x00, 0x00, 0x00, // mov ecx, 0x1a
    0xf7, 0xf1, // div ecx
    0x8d, 0x5a, 0x61, // lea ebx, [edx+0x61]
    0xe8, 0x23, 0x00, 0x00, 0x00, // call say
    0xb0, 0x20, // mov al, 0x20
    0xe6, 0x20, // out 0x20, al
    0xff, 0x05, 0x00, 0x80, 0x00, 0x00, // inc [count]
    0x81, 0x3d, 0x00, 0x80, 0x00, 0x00, 0x44, 0x33, 0x22, 0x11, // cmp [count], ticks
    0x72, 0xca, // jb wait
    0xbb, 0x0a, 0x00, 0x00, 0x00, // mov ebx, 0xa
    0xe8, 0x03, 0x00, 0x00, 0x00, // call say
    // stop:
    0xf4, // hlt
    0xeb, 0xfd, // jmp stop
    // say:
    0xba, 0xfd, 0x03, 0x00, 0x00, // mov edx, 0x3fd
    // busy:
    0xec, // in al, dx
    0xa8, 0x20, // test al, 0x20
    0x74, 0xfb, // je busy
    0xba, 0xf8, 0x03, 0x00, 0x00, // mov edx, 0x3f8
    0x89, 0xd8, // mov eax, ebx
    0xee, // out dx, al
    0xc3, // ret
];

fn after_text(text: &str, last_words: &[u8]) -> Vec<u8> {
    let mut program: Vec<u8> = Vec::new();
    program.push(0xbe); // mov esi, text
    let text_at = program.len();
    program.extend([0; 4]);
    let next = program.len();
    program.push(0xac); // next: lodsb
    program.extend([0x84, 0xc0]); // test al, al
    program.extend([0x74, 0x14]); // jz exit
    program.extend([0x88, 0xc3]); // mov bl, al
    program.extend([0x66, 0xba, 0xfd, 0x03]); // mov dx, 0x3fd
    program.push(0xec); // wait: in al, dx
    program.extend([0xa8, 0x20]); // test al, 0x20: transmitter empty
    program.extend([0x74, 0xfb]); // jz wait
    program.extend([0x88, 0xd8]); // mov al, bl
    program.extend([0x66, 0xba, 0xf8, 0x03]); // mov dx, 0x3f8
    program.push(0xee); // out dx, al
    let back = next.wrapping_sub(program.len() + 2) as u8;
    program.extend([0xeb, back]); // jmp next
    program.extend_from_slice(last_words); // exit:
    program.push(0xfa); // cli
    program.extend([0xf4, 0xeb, 0xfd]); // stop: hlt; jmp stop
    let address = LOAD + program.len() as u32;
    if let Some(field) = program.get_mut(text_at..text_at + 4) {
        field.copy_from_slice(&address.to_le_bytes());
    }
    program.extend_from_slice(text.as_bytes());
    program.push(0);
    pvh_elf(&program)
}

/// A 32-bit ELF executable around `program`, which is loaded at 1 MiB and entered at its first
/// byte, with the note XEN_ELFNOTE_PHYS32_ENTRY that makes it a PVH kernel.
pub fn pvh_elf(program: &[u8]) -> Vec<u8> {
    const HEADER: u32 = 52;
    const SEGMENT: u32 = 32;
    const NOTE: u32 = 20;
    let note_at = HEADER + 2 * SEGMENT;
    let program_at = (note_at + NOTE).next_multiple_of(16);

    let mut file = Elf::default();
    file.bytes(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0"); // 32 bits, little endian
    file.halves([2, 3]); // an executable, for the 80386
    file.words([1, LOAD, HEADER, 0, 0]); // version, entry, segments, sections, flags
    file.halves([HEADER as u16, SEGMENT as u16, 2, 40, 0, 0]);
    let size = program.len() as u32;
    file.words([1, program_at, LOAD, LOAD, size, size, 7, 16]); // PT_LOAD
    file.words([4, note_at, 0, 0, NOTE, NOTE, 4, 4]); // PT_NOTE
    file.words([4, 4, 18]); // sizes of name and value, XEN_ELFNOTE_PHYS32_ENTRY
    file.bytes(b"Xen\0");
    file.words([LOAD]);
    file.0.resize(program_at as usize, 0);
    file.bytes(program);
    file.0
}

#[derive(Default)]
struct Elf(Vec<u8>);

impl Elf {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn halves<const N: usize>(&mut self, values: [u16; N]) {
        for value in values {
            self.bytes(&value.to_le_bytes());
        }
    }

    fn words<const N: usize>(&mut self, values: [u32; N]) {
        for value in values {
            self.bytes(&value.to_le_bytes());
        }
    }
}
