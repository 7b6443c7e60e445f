//! Two CPUs on two threads, one of which writes code that both run, as the manual wants it (SDM vol. 3,
//! 9.1.3): it writes and raises a flag; the other waits for that, serializes, and runs the new code.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use accel_core::Executor;
use accel_interp::Interp;
use accel_jit::Jit;
use target_x86::{Segment, X86};
use test_native::kvm::{Stop, SystemState};
use test_x86::EmulatedSystem;

const WRITER: u32 = 0x4000;
const READER: u32 = 0x5000;
/// MOV EAX, constant; RET: the opcode ends a page, the constant begins the next.
const FUNCTION: u32 = 0x6fff;
const FLAG: u32 = 0x9000;
const DONE: u32 = 0x9040;
const ROUNDS: u32 = 300;
/// Calls of the function in each round: enough for regions.
const CALLS: u32 = 40;
const FACTOR: u32 = 0x9e37_79b1;

/// Bytes and addresses, one behind the other.
struct Code {
    at: u32,
    bytes: Vec<u8>,
}

impl Code {
    fn new(at: u32) -> Self {
        let bytes = Vec::new();
        Code { at, bytes }
    }

    fn here(&self) -> u32 {
        self.at + self.bytes.len() as u32
    }

    fn add(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    fn word(&mut self, word: u32) -> &mut Self {
        self.add(&word.to_le_bytes())
    }

    fn relative(&mut self, opcode: &[u8], to: u32) -> &mut Self {
        self.add(opcode);
        let next = self.here() + 4;
        self.word(to.wrapping_sub(next))
    }

    /// Adds what the function answers to EDI, again and again.
    fn calls(&mut self) {
        self.add(&[0xb9]).word(CALLS);
        let again = self.here();
        self.relative(&[0xe8], FUNCTION);
        // add edi, eax; dec ecx; jnz
        self.add(&[0x01, 0xc7, 0x49]).relative(&[0x0f, 0x85], again);
    }

    /// Waits until a word is ESI.
    fn wait(&mut self, word: u32) {
        let again = self.here();
        // pause; cmp [word], esi; jne
        self.add(&[0xf3, 0x90, 0x39, 0x35]).word(word);
        self.relative(&[0x0f, 0x85], again);
    }

    /// inc esi; cmp esi, ROUNDS; jbe; hlt
    fn again(&mut self, from: u32) {
        self.add(&[0x46, 0x81, 0xfe]).word(ROUNDS);
        self.relative(&[0x0f, 0x86], from).add(&[0xf4]);
    }
}

fn writer() -> Vec<u8> {
    let mut code = Code::new(WRITER);
    // imul ebx, esi, FACTOR; mov [FUNCTION + 1], ebx; mov [FLAG], esi
    code.add(&[0x69, 0xde]).word(FACTOR);
    code.add(&[0x89, 0x1d]).word(FUNCTION + 1);
    code.add(&[0x89, 0x35]).word(FLAG);
    code.calls();
    code.wait(DONE);
    code.again(WRITER);
    code.bytes
}

fn reader() -> Vec<u8> {
    let mut code = Code::new(READER);
    code.wait(FLAG);
    // xor eax, eax; cpuid
    code.add(&[0x31, 0xc0, 0x0f, 0xa2]);
    code.calls();
    // mov [DONE], esi
    code.add(&[0x89, 0x35]).word(DONE);
    code.again(READER);
    code.bytes
}

fn state(rip: u32, stack: u64) -> SystemState {
    let flat = |attributes| Segment {
        selector: 8,
        base: 0,
        limit: u32::MAX,
        attributes,
    };
    let mut gpr = [0; 16];
    (gpr[4], gpr[6]) = (stack, 1);
    SystemState {
        gpr,
        rip: rip.into(),
        rflags: 2,
        cr0: 0x11,
        segments: [0, 1, 2, 3, 4, 5].map(|n| flat(if n == 1 { 0xc09b } else { 0xc093 })),
        ..SystemState::default()
    }
}

#[allow(clippy::expect_used)]
fn executor(is_compiled: bool) -> Box<dyn Executor<X86>> {
    if !is_compiled {
        return Box::new(Interp::default());
    }
    let mut jit = Jit::new(0).expect("code memory");
    jit.hasten(100);
    Box::new(jit)
}

#[test]
fn code_that_another_cpu_wrote_is_run_after_serializing() {
    let wanted = (1..=ROUNDS).fold(0_u32, |sum, round| {
        let answer = round.wrapping_mul(FACTOR);
        sum.wrapping_add(answer.wrapping_mul(CALLS))
    });
    for compiled in [[true, true], [true, false], [false, true]] {
        let [writes, reads] = compiled.map(|is_compiled| move || executor(is_compiled));
        let mut first = EmulatedSystem::new(0x2_0000, writes());
        first.write(WRITER.into(), &writer());
        first.write(READER.into(), &reader());
        first.write(FUNCTION.into(), &[0xb8, 0, 0, 0, 0, 0xc3]);
        let mut second = first.beside(reads());
        let run = |cpu: &mut EmulatedSystem, rip, stack| {
            let mut state = state(rip, stack);
            let stop = cpu.run_for(&mut state, i64::MAX / 2);
            (stop, state.gpr[7] as u32)
        };
        let ends = std::thread::scope(|scope| {
            let other = scope.spawn(|| run(&mut second, READER, 0x1_8000));
            [run(&mut first, WRITER, 0x1_0000), other.join().unwrap()]
        });
        assert_eq!(ends, [(Stop::Halted, wanted); 2], "{compiled:?}");
    }
}
