//! `memsave` and `pmemsave`.

use std::fs::File;
use std::io::Write;

use control_qapi::{AddressSpace, QmpError, Vm};

/// Read and written at once.
const CHUNK: u64 = 64 << 10;

/// Writes `size` bytes of memory from `address` on to a file.
///
/// # Errors
/// When the memory cannot be read or the file not written.
pub fn save_memory(
    vm: &dyn Vm,
    space: AddressSpace,
    address: u64,
    size: u64,
    filename: &str,
) -> Result<(), QmpError> {
    let fail = |e: std::io::Error| QmpError::generic(format!("Could not write '{filename}': {e}"));
    let mut file = File::create(filename)
        .map_err(|e| QmpError::generic(format!("Could not open '{filename}': {e}")))?;
    let (mut at, mut left) = (address, size);
    while left > 0 {
        // Never across the end of a chunk of addresses: a page that is missing is found at its own address.
        let count = left.min(CHUNK - at % CHUNK);
        let mut buffer = vec![0; usize::try_from(count).unwrap_or(0)];
        vm.read_memory(space, at, &mut buffer).map_err(|_| {
            QmpError::generic(format!("Invalid addr 0x{at:016x}/size {size} specified"))
        })?;
        file.write_all(&buffer).map_err(fail)?;
        at = at.wrapping_add(count);
        left -= count;
    }
    file.flush().map_err(fail)
}
