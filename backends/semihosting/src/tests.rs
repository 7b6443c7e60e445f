use proptest::prelude::*;

use super::*;

/// A folder of this test's own, removed at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let at =
            std::env::temp_dir().join(format!("mimic-semihosting-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&at).unwrap();
        Folder(at)
    }

    fn name(&self, file: &str) -> Vec<u8> {
        self.0.join(file).as_os_str().as_bytes().to_vec()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_are_opened_as_fopen_does() {
    let folder = Folder::new("files");
    let (a, b) = (folder.name("a"), folder.name("b"));
    let mut host = Semihosting::new(None);
    // r: it must be there.
    assert_eq!((host.open(&a, 0), host.errno()), (None, 2));
    let w = host.open(&a, 4).unwrap();
    assert_eq!(host.write(w, b"hello"), Some(5));
    assert_eq!((host.len(w), host.is_console(w)), (Some(5), Some(false)));
    let mut out = [0; 8];
    assert_eq!(host.read(w, &mut out), None);
    assert_eq!(host.close(w), Some(()));
    assert_eq!((host.close(w), host.errno()), (None, EBADF));
    // a, then r+ at a place.
    let handle = host.open(&a, 8).unwrap();
    host.write(handle, b" you").unwrap();
    host.close(handle).unwrap();
    let handle = host.open(&a, 2).unwrap();
    host.seek(handle, 6).unwrap();
    assert_eq!(host.read(handle, &mut out), Some(Read::Bytes(3)));
    assert_eq!(&out[..3], b"you");
    assert_eq!(host.read(handle, &mut out), Some(Read::Bytes(0)));
    assert_eq!(host.rename(&a, &b), Some(()));
    assert_eq!(host.remove(&a), None);
    assert_eq!(host.remove(&b), Some(()));
    assert_eq!(host.open(&a, 12), None);
}

#[test]
fn special_names_are_the_console_and_what_there_is() {
    let mut host = Semihosting::new(None);
    let input = host.open(b":tt", 0).unwrap();
    let output = host.open(b":tt", 4).unwrap();
    assert_eq!(
        (host.is_console(input), host.is_console(output)),
        (Some(true), Some(true))
    );
    let mut out = [0; 8];
    // Nobody types.
    assert_eq!(host.read(input, &mut out), Some(Read::Bytes(0)));
    assert_eq!(host.write(input, b"x"), None);
    let features = host.open(b":semihosting-features", 0).unwrap();
    assert_eq!(host.len(features), Some(5));
    assert_eq!(host.read(features, &mut out), Some(Read::Bytes(5)));
    assert_eq!(out[..5], FEATURES);
    host.seek(features, 4).unwrap();
    assert_eq!(host.read(features, &mut out), Some(Read::Bytes(1)));
    assert_eq!(host.open(b":other", 0), None);
}

#[test]
fn what_could_keep_a_cpu_waiting_is_not_opened() {
    let mut host = Semihosting::new(None);
    for name in [b"/dev/zero".as_slice(), b"/dev/tty", b"/tmp"] {
        assert_eq!((host.open(name, 0), host.errno()), (None, EINVAL));
    }
}

#[test]
fn there_is_an_end_to_files() {
    let mut host = Semihosting::new(None);
    let opened = (0..1000).map_while(|_| host.open(b":tt", 0)).count();
    assert_eq!((opened, host.errno()), (MOST_FILES, EMFILE));
    let folder = Folder::new("full");
    let name = folder.name("kept");
    std::fs::write(path(&name), b"kept").unwrap();
    assert_eq!((host.open(&name, 4), host.errno()), (None, EMFILE));
    assert_eq!(std::fs::read(path(&name)).unwrap(), b"kept");
    host.close(7).unwrap();
    assert_eq!(host.open(b":tt", 0), Some(7));
    host.reset();
    assert_eq!(host.close(1), None);
}

proptest! {
    #[test]
    fn no_handle_makes_it_panic(handle: u64, to: u64, mode: u64) {
        let mut host = Semihosting::new(None);
        host.open(b":semihosting-features", 0).unwrap();
        for handle in [handle, 1] {
            let _ = host.seek(handle, to);
            let _ = host.read(handle, &mut [0; 9]);
            let _ = host.len(handle);
            let _ = host.is_console(handle);
        }
        let _ = host.open(b"/nonexistent/x", mode);
        let _ = host.close(handle);
    }
}

/// Asks until the command has ended.
fn ended(host: &mut Semihosting, asker: usize, command: &str) -> Option<i32> {
    loop {
        match host.system(asker, command.as_bytes())? {
            Ran::Status(status) => return Some(status),
            Ran::Later => std::thread::yield_now(),
        }
    }
}

#[test]
fn a_command_has_a_status_and_two_may_be_at_work() {
    let mut host = Semihosting::new(None);
    assert_eq!(ended(&mut host, 0, "exit 3"), Some(3 << 8));
    assert_eq!(host.system(1, b"exec tail -f /dev/null"), Some(Ran::Later));
    // Input is at its end.
    assert_eq!(ended(&mut host, 0, "read line || exit 5"), Some(5 << 8));
    assert_eq!(host.system(1, b""), Some(Ran::Later));
    // A name that the host cannot take.
    assert_eq!(host.system(0, b"a\0b"), None);
    assert_ne!(host.errno(), 0);
}

#[test]
fn a_reset_ends_commands() {
    let mut host = Semihosting::new(None);
    assert_eq!(host.system(0, b"exec tail -f /dev/null"), Some(Ran::Later));
    host.reset();
    assert_eq!(ended(&mut host, 0, "exit 1"), Some(1 << 8));
}

#[test]
fn names_of_temporary_files_differ_by_their_number() {
    let host = Semihosting::new(None);
    assert_ne!(host.temporary(1), host.temporary(2));
    assert_eq!(host.temporary(1), host.temporary(1));
}
