//! Semihosting: software asks the host for files, a console, commands and the end ("Semihosting for AArch32
//! and AArch64", version 2.0), by HLT, in A32 and T32 by SVC, too. Words of the requests are 32 bits there.

use accel_core::Trap;

use super::exception;
use crate::a32;
use crate::mode::Mode;
use crate::port::{HostRan, HostRead, Semihost};
use crate::{Core, regs};

const OPEN: u64 = 0x01;
const CLOSE: u64 = 0x02;
const WRITEC: u64 = 0x03;
const WRITE0: u64 = 0x04;
const WRITE: u64 = 0x05;
const READ: u64 = 0x06;
const READC: u64 = 0x07;
const ISERROR: u64 = 0x08;
const ISTTY: u64 = 0x09;
const SEEK: u64 = 0x0a;
const FLEN: u64 = 0x0c;
const REMOVE: u64 = 0x0e;
const RENAME: u64 = 0x0f;
const TMPNAM: u64 = 0x0d;
const CLOCK: u64 = 0x10;
const TIME: u64 = 0x11;
const SYSTEM: u64 = 0x12;
const ERRNO: u64 = 0x13;
const GET_CMDLINE: u64 = 0x15;
const HEAPINFO: u64 = 0x16;
const EXIT: u64 = 0x18;
const EXIT_EXTENDED: u64 = 0x20;
const ELAPSED: u64 = 0x30;
const TICKFREQ: u64 = 0x31;

/// ADP_Stopped_ApplicationExit.
const APPLICATION_EXIT: u64 = 0x20026;
const FAILED: u64 = u64::MAX;
const NS_PER_S: u64 = 1_000_000_000;
/// Bytes moved at a time.
const PIECE: usize = 4096;
/// Most bytes of one request: the rest counts as not done, which every request may say.
const MOST: u64 = 16 << 20;
/// Longest name.
const LONGEST_NAME: u64 = 4096;

/// Why a request has no answer yet.
enum Stop {
    /// There is no memory where it points.
    Fault,
    /// Ask again.
    Later,
}

type Answer = Result<u64, Stop>;

fn ctx(core: &Core) -> u8 {
    Mode(core.mode).ctx()
}

fn fault(core: &mut Core) -> Stop {
    // The access was ours, not the guest's.
    core.arch.exception = None;
    Stop::Fault
}

fn load(core: &mut Core, at: u64, out: &mut [u8]) -> Result<(), Stop> {
    let ctx = ctx(core);
    let loaded = core.load_bytes(at, out, ctx);
    loaded.map_err(|_| fault(core))
}

fn store(core: &mut Core, at: u64, bytes: &[u8]) -> Result<(), Stop> {
    let ctx = ctx(core);
    let mut at = at;
    for piece in bytes.chunks(PIECE) {
        if core.store_bytes(at, piece, ctx).is_err() {
            return Err(fault(core));
        }
        at = at.wrapping_add(piece.len() as u64);
    }
    Ok(())
}

/// Bytes of a word of a request.
fn word_len(core: &Core) -> u64 {
    if core.arch.aarch32 { 4 } else { 8 }
}

/// The words of the block that the parameter points to.
fn words<const N: usize>(core: &mut Core, at: u64) -> Result<[u64; N], Stop> {
    let mut out = [0; N];
    let mut at = at;
    for word in &mut out {
        *word = match (core.arch.aarch32, core.arch.big_endian) {
            (false, _) => {
                let mut bytes = [0; 8];
                load(core, at, &mut bytes)?;
                u64::from_le_bytes(bytes)
            }
            (true, big) => {
                let mut bytes = [0; 4];
                load(core, at, &mut bytes)?;
                let word = if big {
                    u32::from_be_bytes
                } else {
                    u32::from_le_bytes
                };
                word(bytes).into()
            }
        };
        at = at.wrapping_add(word_len(core));
    }
    Ok(out)
}

/// Writes words. One that is too large for a word becomes zero, which stands for "not known".
fn store_words(core: &mut Core, at: u64, values: &[u64]) -> Result<(), Stop> {
    let mut bytes = Vec::new();
    for value in values {
        let short = u32::try_from(*value).unwrap_or(0);
        match (core.arch.aarch32, core.arch.big_endian) {
            (false, _) => bytes.extend(value.to_le_bytes()),
            (true, false) => bytes.extend(short.to_le_bytes()),
            (true, true) => bytes.extend(short.to_be_bytes()),
        }
    }
    store(core, at, &bytes)
}

fn name(core: &mut Core, at: u64, len: u64) -> Result<Vec<u8>, Stop> {
    if len > LONGEST_NAME {
        return Err(Stop::Fault);
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    load(core, at, &mut bytes)?;
    Ok(bytes)
}

fn host<R>(core: &mut Core, f: impl FnOnce(&mut dyn Semihost) -> R) -> Result<R, Stop> {
    core.port.semihost().map(f).ok_or(Stop::Fault)
}

fn yes_or_failed(done: Option<()>) -> u64 {
    done.map_or(FAILED, |()| 0)
}

/// SYS_WRITE0: a string that ends with a zero. Where the console takes no more, it goes on from there.
fn write_string(core: &mut Core, at: u64) -> Answer {
    loop {
        let from = at.wrapping_add(core.arch.semihost_done);
        let mut text = Vec::new();
        let mut ended = false;
        while text.len() < PIECE {
            let mut byte = [0];
            load(core, from.wrapping_add(text.len() as u64), &mut byte)?;
            let [byte] = byte;
            if byte == 0 {
                ended = true;
                break;
            }
            text.push(byte);
        }
        let taken = host(core, |host| host.put(&text))?;
        core.arch.semihost_done = core.arch.semihost_done.saturating_add(taken as u64);
        if taken < text.len() {
            return Err(Stop::Later);
        }
        if ended || core.arch.semihost_done > MOST {
            return Ok(0);
        }
    }
}

/// SYS_WRITE: how many bytes were not written.
fn write(core: &mut Core, [handle, at, len]: [u64; 3]) -> Answer {
    let mut left = len.min(MOST);
    let mut at = at;
    let mut piece = vec![0; PIECE];
    while left != 0 {
        let count = left.min(PIECE as u64);
        let here = usize::try_from(count).unwrap_or(0);
        let bytes = piece.get_mut(..here).unwrap_or_default();
        load(core, at, bytes)?;
        let taken = host(core, |host| host.write(handle, bytes))?;
        let taken = taken.unwrap_or(0) as u64;
        at = at.wrapping_add(taken);
        left = left.saturating_sub(taken);
        if taken < count {
            break;
        }
    }
    Ok(len.saturating_sub(len.min(MOST).saturating_sub(left)))
}

/// SYS_READ: how many bytes were not read.
fn read(core: &mut Core, [handle, at, len]: [u64; 3]) -> Answer {
    let mut done = 0u64;
    let mut piece = vec![0; PIECE];
    while done < len.min(MOST) {
        let wanted = len.saturating_sub(done).min(PIECE as u64);
        let here = usize::try_from(wanted).unwrap_or(0);
        let out = piece.get_mut(..here).unwrap_or_default();
        let count = match host(core, |host| host.read(handle, out))? {
            Some(HostRead::Later) => return Err(Stop::Later),
            Some(HostRead::Bytes(count)) => count.min(here),
            None => 0,
        };
        let bytes = piece.get(..count).unwrap_or_default();
        store(core, at.wrapping_add(done), bytes)?;
        done = done.saturating_add(count as u64);
        if (count as u64) < wanted {
            break;
        }
    }
    Ok(len.saturating_sub(done))
}

fn command_line(core: &mut Core, block: u64) -> Answer {
    let [at, len] = words(core, block)?;
    let mut text = host(core, |host| host.command_line())?;
    let bytes = text.len() as u64;
    text.push(0);
    if text.len() as u64 > len {
        return Ok(FAILED);
    }
    store(core, at, &text)?;
    let at = block.wrapping_add(word_len(core));
    store_words(core, at, &[bytes])?;
    Ok(0)
}

/// SYS_TMPNAM: a name that no other number has.
fn temporary(core: &mut Core, [at, number, len]: [u64; 3]) -> Answer {
    let mut text = host(core, |host| host.temporary(number as u8))?;
    text.push(0);
    if text.len() as u64 > len {
        return Ok(FAILED);
    }
    store(core, at, &text)?;
    Ok(0)
}

/// SYS_SYSTEM: the status of a command.
fn system(core: &mut Core, [at, len]: [u64; 2]) -> Answer {
    let command = name(core, at, len)?;
    match host(core, |host| host.system(&command))? {
        Some(HostRan::Status(status)) => Ok(i64::from(status).cast_unsigned()),
        Some(HostRan::Later) => Err(Stop::Later),
        None => Ok(FAILED),
    }
}

/// SYS_EXIT and SYS_EXIT_EXTENDED: in AArch32 the former has a reason, and no status.
fn exit(core: &mut Core, operation: u64, param: u64) -> Answer {
    let [reason, code] = match core.arch.aarch32 && operation == EXIT {
        true => [param, 0],
        false => words(core, param)?,
    };
    let status = if reason == APPLICATION_EXIT { code } else { 1 };
    host(core, |host| host.exit(status as u8))?;
    Ok(0)
}

fn heap(core: &mut Core, param: u64) -> Answer {
    let [block] = words(core, param)?;
    let values = host(core, |host| host.heap())?;
    store_words(core, block, &values)?;
    Ok(0)
}

fn serve(core: &mut Core, operation: u64, param: u64) -> Answer {
    Ok(match operation {
        OPEN => {
            let [at, mode, len] = words(core, param)?;
            let name = name(core, at, len)?;
            host(core, |host| host.open(&name, mode))?.unwrap_or(FAILED)
        }
        CLOSE => {
            let [handle] = words(core, param)?;
            yes_or_failed(host(core, |host| host.close(handle))?)
        }
        WRITEC => {
            let mut byte = [0];
            load(core, param, &mut byte)?;
            if host(core, |host| host.put(&byte))? == 0 {
                return Err(Stop::Later);
            }
            0
        }
        WRITE0 => write_string(core, param)?,
        WRITE => {
            let block = words(core, param)?;
            write(core, block)?
        }
        READ => {
            let block = words(core, param)?;
            read(core, block)?
        }
        READC => match host(core, |host| host.get())? {
            Some(key) => key.into(),
            None => return Err(Stop::Later),
        },
        ISERROR => {
            let [status] = words(core, param)?;
            let sign = word_len(core).wrapping_mul(8).wrapping_sub(1) as u32;
            status.wrapping_shr(sign)
        }
        ISTTY => {
            let [handle] = words(core, param)?;
            host(core, |host| host.is_console(handle))?.map_or(FAILED, u64::from)
        }
        SEEK => {
            let [handle, to] = words(core, param)?;
            yes_or_failed(host(core, |host| host.seek(handle, to))?)
        }
        FLEN => {
            let [handle] = words(core, param)?;
            host(core, |host| host.len(handle))?.unwrap_or(FAILED)
        }
        REMOVE => {
            let [at, len] = words(core, param)?;
            let name = name(core, at, len)?;
            yes_or_failed(host(core, |host| host.remove(&name))?)
        }
        RENAME => {
            let [from, from_len, to, to_len] = words(core, param)?;
            let from = name(core, from, from_len)?;
            let to = name(core, to, to_len)?;
            yes_or_failed(host(core, |host| host.rename(&from, &to))?)
        }
        TMPNAM => {
            let block = words(core, param)?;
            temporary(core, block)?
        }
        SYSTEM => {
            let block = words(core, param)?;
            system(core, block)?
        }
        CLOCK => core.clock.now_ns() / (NS_PER_S / 100),
        TIME => core.clock.wall_ns() / NS_PER_S,
        ERRNO => host(core, |host| host.errno())?,
        GET_CMDLINE => command_line(core, param)?,
        HEAPINFO => heap(core, param)?,
        ELAPSED => {
            let ticks = core.clock.now_ns();
            store(core, param, &ticks.to_le_bytes())?;
            0
        }
        TICKFREQ => NS_PER_S,
        EXIT | EXIT_EXTENDED => exit(core, operation, param)?,
        _ => FAILED,
    })
}

/// Whether software at this level may ask.
fn is_on(core: &Core) -> bool {
    core.port.has_semihosting(core.arch.el == 0)
}

/// (next): HLT #0xf000. Leaves.
pub(crate) fn hlt(core: &mut Core, [next, ..]: [u64; 4]) -> Result<u64, Trap> {
    if !is_on(core) {
        return Err(exception::undefined(core));
    }
    request(core, next)
}

/// (next, PSTATE.IT after it): HLT of A32 and T32. Leaves.
pub(crate) fn hlt_32(core: &mut Core, [next, it, ..]: [u64; 4]) -> Result<u64, Trap> {
    if !is_on(core) {
        return Err(exception::undefined(core));
    }
    request_32(core, next, it)
}

/// (immediate, next, length, PSTATE.IT after it): SVC by which A32 and T32 ask where they may, else a
/// system call. Leaves.
pub(crate) fn svc_32(core: &mut Core, [imm, next, len, it]: [u64; 4]) -> Result<u64, Trap> {
    if !is_on(core) {
        core.regs.set(regs::IT, it);
        return a32::system::svc_call(core, [imm, next, len, 0]);
    }
    request_32(core, next, it)
}

fn request_32(core: &mut Core, next: u64, it: u64) -> Result<u64, Trap> {
    let result = request(core, next);
    if result == Err(Trap::Leave) {
        core.regs.set(regs::IT, it);
    }
    result
}

fn request(core: &mut Core, next: u64) -> Result<u64, Trap> {
    let operation = core.regs.get(regs::x(0)) & 0xffff_ffff;
    let param = core.regs.get(regs::x(1));
    let answer = match serve(core, operation, param) {
        Ok(answer) => answer,
        Err(Stop::Fault) => FAILED,
        Err(Stop::Later) => {
            // The instruction is executed again when others have had their turn.
            core.arch.again = true;
            return Err(Trap::Exception);
        }
    };
    core.arch.semihost_done = 0;
    let answer = if core.arch.aarch32 {
        answer & 0xffff_ffff
    } else {
        answer
    };
    core.regs.set(regs::x(0), answer);
    core.set_pc(next);
    Err(Trap::Leave)
}
