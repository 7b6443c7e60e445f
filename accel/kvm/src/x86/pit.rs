//! The kernel's i8254 with port 61h, to and from the models' state.
//!
//! Spec: Linux, Documentation/virt/kvm/api.rst, KVM_CREATE_PIT2, KVM_GET_PIT2, KVM_SET_PIT2 and
//! KVM_REINJECT_CONTROL.
//!
//! Setting the state starts the counts over; how far counter 0 has come is not told. The speaker's
//! bit of port 61h travels with Linux 6.0 and later.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hw_intc::{I8254Channel, I8254State, KernelI8254, PIT_HZ};
use kvm_bindings::*;
use kvm_ioctls::Cap;

use super::{Mode, Vm};
use crate::KvmError;
use crate::kernel::refused;

/// `_IO(KVMIO, 0x71)`.
const KVM_REINJECT_CONTROL: libc::c_ulong = 0xae71;
/// In a mode: the kernel has no timer for such a counter, and the guest does not see the bit.
const IDLE: u8 = 0x80;
/// How the kernel counts the bytes of a two-byte access.
const MSB: u8 = 2;
const WORD_HIGH: u8 = 4;
/// The largest count.
const WHOLE: u32 = 0x1_0000;

/// The timer of a machine with all controllers in the kernel.
pub(crate) struct Pit {
    vm: Arc<Vm>,
}

impl Vm {
    /// Makes the machine's i8254, once. `None` where the board has to have its own.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn pit(self: &Arc<Self>) -> Result<Option<Arc<dyn KernelI8254>>, KvmError> {
        if self.mode() != Mode::Kernel || !self.fd.check_extension(Cap::Pit2) {
            return Ok(None);
        }
        // Port 61h too.
        let config = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..kvm_pit_config::default()
        };
        self.fd
            .create_pit2(config)
            .map_err(refused("KVM_CREATE_PIT2"))?;
        self.has_pit.store(true, Ordering::Relaxed);
        Ok(Some(Arc::new(Pit { vm: self.clone() })))
    }
}

/// The kernel's clock, in ns.
fn host_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds
        .wrapping_mul(1_000_000_000)
        .wrapping_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// A counter of the kernel's that was loaded `age` ticks ago.
pub(crate) fn channel_of(kernel: &kvm_pit_channel_state, now: u64, age: u64) -> I8254Channel {
    let access = match kernel.rw_mode & 3 {
        0 => 3,
        access => access,
    };
    let latched = kernel.count_latched != 0;
    let mut channel = I8254Channel {
        mode: match kernel.mode & !IDLE {
            mode @ 0..6 => mode,
            // Not programmed since power on.
            _ => I8254Channel::default().mode,
        },
        bcd: kernel.bcd != 0,
        access,
        reload: kernel.count as u16,
        gate: kernel.gate != 0,
        write_low: (kernel.write_state == WORD_HIGH).then_some(kernel.write_latch),
        read_high: access == 3
            && match latched {
                true => kernel.count_latched == MSB,
                false => kernel.read_state == WORD_HIGH,
            },
        latched_count: latched.then_some(kernel.latched_count),
        latched_status: (kernel.status_latched != 0).then_some(kernel.status),
        ..I8254Channel::default()
    };
    let is_idle = kernel.mode & IDLE != 0;
    match channel.mode {
        // Its end was reached.
        0 | 4 if is_idle => {
            channel.counted = u64::from(WHOLE) * 2;
            channel.loaded_at = Some(now);
        }
        _ if is_idle => {}
        // The kernel goes on counting with the gate closed; the chip does not.
        0 | 4 if !channel.gate => channel.counted = age,
        2 | 3 if !channel.gate => {}
        _ => channel.loaded_at = Some(now.saturating_sub(age)),
    }
    channel
}

/// A counter for the kernel. One that is idle raises no interrupt till it is loaded again.
pub(crate) fn channel_to(channel: &I8254Channel, is_idle: bool) -> kvm_pit_channel_state {
    let state = channel.access;
    let is_high = channel.access == 3 && channel.read_high;
    kvm_pit_channel_state {
        // Never zero: old kernels divide by it.
        count: match channel.reload {
            0 => WHOLE,
            count => count.into(),
        },
        latched_count: channel.latched_count.unwrap_or(0),
        count_latched: match channel.latched_count {
            None => 0,
            Some(_) if is_high => MSB,
            Some(_) => state,
        },
        status_latched: channel.latched_status.is_some().into(),
        status: channel.latched_status.unwrap_or(0),
        read_state: match channel.latched_count {
            None if is_high => WORD_HIGH,
            _ => state,
        },
        write_state: match channel.write_low {
            Some(_) => WORD_HIGH,
            None => state,
        },
        write_latch: channel.write_low.unwrap_or(0),
        rw_mode: channel.access,
        mode: channel.mode | if is_idle { IDLE } else { 0 },
        bcd: channel.bcd.into(),
        gate: channel.gate.into(),
        count_load_time: 0,
    }
}

impl KernelI8254 for Pit {
    fn get(&self, now: u64) -> Result<I8254State, String> {
        let kernel = self.vm.fd.get_pit2();
        let kernel = kernel.map_err(|error| refused("KVM_GET_PIT2")(error).to_string())?;
        let host = host_ns();
        let [a, b, c] = &kernel.channels;
        let age = |channel: &kvm_pit_channel_state| {
            let loaded = u64::try_from(channel.count_load_time).unwrap_or(host);
            hw_clock::ns_to_ticks(host.saturating_sub(loaded), PIT_HZ)
        };
        Ok(I8254State {
            channels: [
                channel_of(a, now, 0),
                channel_of(b, now, age(b)),
                channel_of(c, now, age(c)),
            ],
            speaker_data: kernel.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON != 0,
            fires_at: None,
        })
    }

    fn put(&self, state: &I8254State, replaced: bool) -> Result<(), String> {
        let [a, b, c] = &state.channels;
        let mut kernel = kvm_pit_state2 {
            channels: [
                channel_to(a, state.fires_at.is_none()),
                channel_to(b, false),
                channel_to(c, false),
            ],
            ..kvm_pit_state2::default()
        };
        for (on, flag) in [
            (replaced, KVM_PIT_FLAGS_HPET_LEGACY),
            (state.speaker_data, KVM_PIT_FLAGS_SPEAKER_DATA_ON),
        ] {
            kernel.flags |= if on { flag } else { 0 };
        }
        let put = self.vm.fd.set_pit2(&kernel);
        put.map_err(|error| refused("KVM_SET_PIT2")(error).to_string())
    }

    fn set_catch_up(&self, on: bool) -> Result<(), String> {
        let control = kvm_reinject_control {
            pit_reinject: on.into(),
            ..kvm_reinject_control::default()
        };
        // SAFETY: the descriptor is a machine's and the argument lives through the call.
        let result = unsafe { libc::ioctl(self.vm.fd.as_raw_fd(), KVM_REINJECT_CONTROL, &control) };
        if result == 0 {
            return Ok(());
        }
        let error = std::io::Error::last_os_error();
        Err(format!("KVM refused KVM_REINJECT_CONTROL: {error}"))
    }
}
