//! Programs that ask the host for a console, files and the end (semihosting), on `virt`.

use super::*;

/// Where the program is loaded, and what it points to behind it.
const BASE: u64 = 0x4008_0000;
const DATA: u64 = BASE + 0x800;

/// A program for aarch64 with data behind it, as an ELF file (System V gABI, chapters 4 and 5).
fn elf(code: &[u32], data: &[u8]) -> Vec<u8> {
    let mut image: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert!(image.len() <= 0x800);
    image.resize(0x800, 0);
    image.extend(data);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // ET_EXEC, EM_AARCH64, one program header behind this one.
    file.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    for word in [BASE, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable, writable, executable.
    file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    let len = image.len() as u64;
    for word in [0x1000, BASE, BASE, len, len, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.resize(0x1000, 0);
    file.extend(image);
    file
}

/// A request: w0 is the operation, x1 points `offset` into the data.
fn ask(operation: u32, offset: u32) -> [u32; 5] {
    let at = DATA as u32 + offset;
    [
        // MOVZ x0; MOVZ x1; MOVK x1, LSL #16; HLT #0xf000; NOP
        0xd280_0000 | operation << 5,
        0xd280_0001 | (at & 0xffff) << 5,
        0xf2a0_0001 | (at >> 16) << 5,
        0xd45e_0000,
        0xd503_201f,
    ]
}

/// STR x0 into the data.
fn keep(offset: u32) -> [u32; 3] {
    let at = DATA as u32 + offset;
    [
        0xd280_0002 | (at & 0xffff) << 5,
        0xf2a0_0002 | (at >> 16) << 5,
        0xf900_0040,
    ]
}

/// Data by pieces: offset and bytes.
fn data(pieces: &[(usize, &[u8])]) -> Vec<u8> {
    let mut all = vec![0; 0x400];
    for (at, bytes) in pieces {
        all[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    all
}

fn block(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn a_program_writes_to_the_console_and_to_a_file_and_ends_with_its_status() {
    let out = Scratch::new("semihosting-out", b"");
    let file = Scratch::new("semihosting-file", b"old");
    let name = file.path().as_bytes();
    // At 0 a text, at 0x80 SYS_OPEN's block, at 0xa0 SYS_WRITE's, at 0xc0 SYS_EXIT's, at 0x100 the name.
    let mut code = Vec::new();
    code.extend(ask(0x04, 0));
    code.extend(ask(0x01, 0x80));
    code.extend(keep(0xa0));
    code.extend(ask(0x05, 0xa0));
    code.extend(keep(0xc8));
    code.extend(ask(0x18, 0xc0));
    let program = elf(
        &code,
        &data(&[
            (0, b"hello\n\0"),
            (0x80, &block(&[DATA + 0x100, 4, name.len() as u64])),
            (0xa0, &block(&[0, DATA, 5])),
            (0xc0, &block(&[0x20026, 99])),
            (0x100, name),
        ]),
    );
    let kernel = Scratch::new("semihosting-elf", &program);
    let line = format!(
        "-M virt -cpu max -display none -nodefaults -kernel {} -chardev file,id=c,path={} \
         -semihosting-config enable=on,target=native,chardev=c",
        kernel.path(),
        out.path()
    );
    let output = run(&line);
    // What SYS_WRITE left over is the status: nothing.
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read(out.path()).unwrap(), b"hello\n");
    assert_eq!(std::fs::read(file.path()).unwrap(), b"hello");
}

#[test]
fn arguments_come_to_the_program_and_its_status_to_the_shell() {
    let out = Scratch::new("semihosting-arguments", b"");
    let mut code = Vec::new();
    // SYS_GET_CMDLINE into 0x100, then print it.
    code.extend(ask(0x15, 0x80));
    code.extend(ask(0x04, 0x100));
    code.extend(ask(0x20, 0xc0));
    let pieces = data(&[
        (0x80, &block(&[DATA + 0x100, 64])),
        (0xc0, &block(&[0x20026, 42])),
    ]);
    let kernel = Scratch::new("semihosting-arguments-elf", &elf(&code, &pieces));
    let line = format!(
        "-M virt -display none -nodefaults -kernel {} -chardev file,id=c,path={} \
         -semihosting-config chardev=c,arg=one,arg=two",
        kernel.path(),
        out.path()
    );
    let output = run(&line);
    assert_eq!(output.status.code(), Some(42), "{}", stderr(&output));
    assert_eq!(std::fs::read(out.path()).unwrap(), b"one two");
}

/// A program that goes to EL0, to code of A32: to be followed by that.
fn to_a32() -> [u32; 5] {
    [
        0xd280_0200, // mov x0, #0x10: User mode
        0xd518_4000, // msr spsr_el1, x0
        0x1000_0060, // adr x0, #12
        0xd518_4020, // msr elr_el1, x0
        0xd69f_03e0, // eret
    ]
}

/// A request of A32: r0 is the operation, r1 points `offset` into the data.
fn ask_32(operation: u32, offset: u32, how: u32) -> [u32; 4] {
    let at = DATA as u32 + offset;
    let (low, high) = (at & 0xffff, at >> 16);
    let wide = |v: u32| (v >> 12) << 16 | v & 0xfff | 1 << 12;
    // MOV r0; MOVW r1; MOVT r1
    [
        0xe3a0_0000 | operation,
        0xe300_0000 | wide(low),
        0xe340_0000 | wide(high),
        how,
    ]
}

fn block_32(words: &[u64]) -> Vec<u8> {
    let short = |word: &u64| (*word as u32).to_le_bytes();
    words.iter().flat_map(short).collect()
}

#[test]
fn programs_of_a32_and_t32_ask_by_svc_and_hlt() {
    const SVC: u32 = 0xef12_3456;
    const HLT: u32 = 0xe10f_0070;
    let out = Scratch::new("semihosting-32", b"");
    let file = Scratch::new("semihosting-32-file", b"");
    let name = file.path().as_bytes();
    let command = format!("echo from the shell > {}; exit 7", file.path());
    let mut code = to_a32().to_vec();
    code.extend(ask_32(0x04, 0, SVC));
    // SYS_OPEN and SYS_FLEN of the handle.
    code.extend(ask_32(0x01, 0x80, HLT));
    code.extend(ask_32(0x12, 0xa0, HLT));
    // Its status, seven in the upper byte: lsr r0, #8; add r0, #35; str r0, [r1, #36]
    code.extend([0xe1a0_0420, 0xe280_0023, 0xe581_0024]);
    // add r2, pc, #1; bx r2. SYS_EXIT_EXTENDED: ldr r1; movs r0, #32; svc #0xab.
    code.extend([0xe28f_2001, 0xe12f_ff12, 0x2020_4900, 0xdfab]);
    // The literal is behind both, aligned.
    let literal = code.len() * 4;
    assert!(literal.is_multiple_of(4));
    code[literal / 4 - 2] = 0x2020_4901;
    code.extend([DATA as u32 + 0xc0]);
    let program = elf(
        &code,
        &data(&[
            (0, b"hello\n\0"),
            (0x80, &block_32(&[DATA + 0x100, 0, name.len() as u64])),
            (0xa0, &block_32(&[DATA + 0x200, command.len() as u64])),
            (0xc0, &block_32(&[0x20026, 99])),
            (0x100, name),
            (0x200, command.as_bytes()),
        ]),
    );
    let kernel = Scratch::new("semihosting-32-elf", &program);
    let line = format!(
        "-M virt -cpu max -display none -nodefaults -kernel {} -chardev file,id=c,path={} \
         -semihosting-config enable=on,target=native,userspace=on,chardev=c",
        kernel.path(),
        out.path()
    );
    let output = run(&line);
    assert_eq!(output.status.code(), Some(42), "{}", stderr(&output));
    assert_eq!(std::fs::read(out.path()).unwrap(), b"hello\n");
    assert_eq!(std::fs::read(file.path()).unwrap(), b"from the shell\n");
}

#[test]
fn a_sandbox_without_spawn_keeps_commands_from_the_shell() {
    let file = Scratch::new("semihosting-command", b"");
    let command = format!("echo no > {}", file.path());
    let mut code = Vec::new();
    // SYS_SYSTEM fails; SYS_ERRNO is the status.
    code.extend(ask(0x12, 0x80));
    code.extend(ask(0x13, 0));
    code.extend(keep(0xc8));
    code.extend(ask(0x20, 0xc0));
    let program = elf(
        &code,
        &data(&[
            (0x80, &block(&[DATA + 0x100, command.len() as u64])),
            (0xc0, &block(&[0x20026, 0])),
            (0x100, command.as_bytes()),
        ]),
    );
    let kernel = Scratch::new("semihosting-command-elf", &program);
    let line = |sandbox: &str| {
        format!(
            "-M virt -display none -nodefaults -kernel {} -semihosting {sandbox}",
            kernel.path()
        )
    };
    let output = run(&line("-sandbox on,spawn=deny"));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(std::fs::read(file.path()).unwrap(), b"");
    let output = run(&line(""));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read(file.path()).unwrap(), b"no\n");
}

#[test]
fn mistakes_with_semihosting_are_named() {
    let told = |line: &str| {
        let output = run(line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        stderr(&output)
    };
    let text = told("-M virt -S -display none -semihosting-config chardev=no");
    assert!(text.contains("no character device named 'no'"), "{text}");
    let text = told("-M virt -S -display none -semihosting-config target=gdb");
    assert!(text.contains("use 'target=native'"), "{text}");
    let text = told("-M microvm -S -display none -semihosting");
    assert!(text.contains("leave it out"), "{text}");
}
