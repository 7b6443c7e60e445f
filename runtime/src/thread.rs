//! Named threads: a host's `ps -L` shows which vCPU or loop is busy.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Longest thread name the kernel keeps, without the terminator.
const NAME_MAX: usize = 15;

/// Starts a thread whose name shows in `ps -L` and in panic messages.
///
/// # Errors
/// The host's reason when no thread could be made.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let mut short: String = name.chars().filter(|c| *c != '\0').collect();
    while short.len() > NAME_MAX {
        short.pop();
    }
    Builder::new().name(short).spawn(body)
}

/// The kernel's id of the calling thread, as `query-cpus-fast` shows it.
pub fn current_id() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_long_name_is_cut_not_refused() {
        let name = super::spawn("a name that is much longer than fifteen", || {
            std::thread::current().name().map(str::to_owned)
        })
        .unwrap()
        .join()
        .unwrap();
        assert_eq!(name.as_deref(), Some("a name that is "));
    }
}
