//! `x`, `xp` and `print`.

use std::fmt::Write as _;

use control_qapi::{AddressSpace, QmpError, Vm};

use crate::args::Format;

/// The most shown at once.
const BYTES_MAX: u64 = 64 << 10;
const INSTRUCTIONS_MAX: u64 = 4096;
const PAGE: u64 = 4096;

/// Shows memory.
pub(crate) fn memory(
    vm: &dyn Vm,
    cpu: usize,
    space: AddressSpace,
    format: Format,
    address: u64,
) -> Result<String, QmpError> {
    if format.letter == 'i' {
        return instructions(vm, cpu, space, format.count, address);
    }
    let size = match (format.letter, format.size) {
        ('c', _) => 1,
        (_, 0) => 4,
        (_, size) => size,
    };
    let total = format
        .count
        .checked_mul(size as u64)
        .filter(|n| *n <= BYTES_MAX)
        .ok_or_else(|| {
            QmpError::generic(format!(
                "that is too much: at most {} values of {size} bytes",
                BYTES_MAX / size as u64
            ))
        })?;
    let per_line: u64 = if size == 1 { 8 } else { 16 };
    let is_big = matches!(vm.identity().arch, "s390x" | "ppc64");
    let mut out = String::new();
    let mut done = 0;
    while done < total {
        let at = address.wrapping_add(done);
        let count = per_line.min(total - done);
        let mut line = vec![0; usize::try_from(count).unwrap_or(0)];
        if vm.read_memory(space, at, &mut line).is_err() {
            let _ = writeln!(out, "{at:016x}: Cannot access memory");
            break;
        }
        let _ = write!(out, "{at:016x}:");
        for bytes in line.chunks(size) {
            out.push(' ');
            out.push_str(&value(number(bytes, is_big), size, format.letter));
        }
        out.push('\n');
        done += count;
    }
    Ok(out)
}

fn number(bytes: &[u8], is_big: bool) -> u64 {
    let add = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
    if is_big {
        bytes.iter().fold(0, add)
    } else {
        bytes.iter().rev().fold(0, add)
    }
}

/// One value, as wide as the widest of its size.
pub(crate) fn value(value: u64, size: usize, letter: char) -> String {
    let bits = size * 8;
    let decimal_width = (bits * 10).div_ceil(33);
    match letter {
        'o' => format!("{value:#0width$o}", width = bits.div_ceil(3) + 2).replacen("0o", "0", 1),
        'd' => {
            // Sign extension from `bits`.
            let shift = 64u32.saturating_sub(u32::try_from(bits).unwrap_or(64));
            let signed = value.wrapping_shl(shift).cast_signed().wrapping_shr(shift);
            format!("{signed:decimal_width$}")
        }
        'u' => format!("{value:decimal_width$}"),
        'c' => character(u8::try_from(value & 0xff).unwrap_or(0)),
        _ => format!("0x{value:0width$x}", width = size * 2),
    }
}

fn character(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        0x20..=0x7e => format!("'{}'", char::from(byte)),
        _ => format!("'\\x{byte:02x}'"),
    }
}

fn instructions(
    vm: &dyn Vm,
    cpu: usize,
    space: AddressSpace,
    count: u64,
    address: u64,
) -> Result<String, QmpError> {
    if count > INSTRUCTIONS_MAX {
        return Err(QmpError::generic(format!(
            "that is too much: at most {INSTRUCTIONS_MAX} instructions"
        )));
    }
    let mut out = String::new();
    let mut at = address;
    for _ in 0..count {
        let code = code_at(vm, space, at);
        if code.is_empty() {
            let _ = writeln!(out, "0x{at:08x}:  Cannot access memory");
            break;
        }
        let Some(instruction) = vm.disassemble(cpu, at, &code) else {
            return Err(QmpError::generic("there is no disassembler for this guest"));
        };
        let len = instruction.len.clamp(1, code.len());
        let bytes: Vec<String> = code.iter().take(len).map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(
            out,
            "0x{at:08x}:  {:<24} {}",
            bytes.join(" "),
            instruction.text
        );
        at = at.wrapping_add(len as u64);
    }
    Ok(out)
}

/// As many bytes as the longest instruction has, or up to the end of the page if the next is not there.
fn code_at(vm: &dyn Vm, space: AddressSpace, at: u64) -> Vec<u8> {
    let longest = vm.max_instruction_len();
    let to_page_end = usize::try_from(PAGE - at % PAGE)
        .unwrap_or(longest)
        .min(longest);
    for len in [longest, to_page_end, 1] {
        let mut code = vec![0; len];
        if vm.read_memory(space, at, &mut code).is_ok() {
            return code;
        }
    }
    Vec::new()
}
