//! Block devices: loop devices, where the host lets us have one.

use std::os::unix::fs::FileExt as _;
use std::process::Command;

use super::*;

const LEN: usize = 4 << 20;

/// A file as a block device, for as long as this lives.
struct Loop {
    path: String,
    file: Temp,
}

impl Loop {
    /// `None` where the host does not let us, which is said.
    fn new(name: &str, options: &[&str]) -> Option<Self> {
        let file = Temp::new(name, &vec![5; LEN]);
        let mut command = Command::new("losetup");
        command.args(["--find", "--show"]).args(options);
        let made = command.arg(&file.0).output();
        match made {
            Ok(made) if made.status.success() => Some(Loop {
                path: String::from_utf8_lossy(&made.stdout).trim().to_owned(),
                file,
            }),
            refused => {
                eprintln!("skipped: no loop device: {refused:?}");
                None
            }
        }
    }

    fn open(&self, more: &str) -> Result<BlockBackend, OpenError> {
        let text = format!(
            "driver=raw,file.driver=host_device,discard=unmap,file.filename={}{more}",
            self.path
        );
        let opts = Opts::parse("-blockdev", &text, None).unwrap();
        let node = Opener::new(DRIVERS).open("-blockdev", &opts)?;
        BlockBackend::new("d0", node, BackendOptions::default())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .args(["--detach", &self.path])
            .status();
    }
}

#[test]
fn a_block_device_is_read_written_and_emptied_within_its_size() {
    for more in ["", ",cache.direct=on"] {
        let Some(device) = Loop::new("loop", &[]) else {
            return;
        };
        let disk = device.open(more).unwrap();
        assert_eq!(disk.len(), LEN as u64);
        let write = |offset, data: &[u8]| run(&disk, Operation::Write { offset }, data).map(drop);
        assert_eq!(read(&disk, 512, 4096), Ok(vec![5; 4096]));
        assert_eq!(write(512, &[6; 1024]), Ok(()));
        assert_eq!(write(LEN as u64 - 512, &[7; 512]), Ok(()));
        assert_eq!(write(LEN as u64, &[7; 512]), Err(BlockError::OutOfRange));
        let zero = Operation::WriteZeroes {
            offset: 65536,
            len: 65536,
            unmap: true,
        };
        assert_eq!(run(&disk, zero, &[]).map(drop), Ok(()));
        let discard = Operation::Discard {
            offset: 1 << 20,
            len: 1 << 20,
        };
        assert_eq!(run(&disk, discard, &[]).map(drop), Ok(()));
        assert_eq!(run(&disk, Operation::Flush, &[]).map(drop), Ok(()));
        assert_eq!(read(&disk, 65536, 65536), Ok(vec![0; 65536]));
        assert_eq!(disk.resize(LEN as u64 * 2), Err(BlockError::Unsupported));
        assert_eq!(disk.resize(LEN as u64), Ok(()));
        drop(disk);
        let mut bytes = vec![0; LEN];
        let file = std::fs::File::open(&device.file.0).unwrap();
        file.read_exact_at(&mut bytes, 0).unwrap();
        let mut wanted = vec![5; LEN];
        wanted[512..1536].fill(6);
        wanted[LEN - 512..].fill(7);
        wanted[65536..131_072].fill(0);
        wanted[1 << 20..2 << 20].fill(0);
        assert!(bytes == wanted, "{more}");
    }
}

#[test]
fn a_block_device_is_locked_and_may_be_read_only() {
    let Some(device) = Loop::new("locked", &[]) else {
        return;
    };
    let disk = device.open("").unwrap();
    let again = device.open("").err().unwrap();
    assert!(matches!(again, OpenError::Locked { .. }), "{again}");
    drop(disk);
    let Some(device) = Loop::new("fixed", &["--read-only"]) else {
        return;
    };
    let disk = device.open(",read-only=on").unwrap();
    assert_eq!(read(&disk, 0, 512), Ok(vec![5; 512]));
    let write = Operation::Write { offset: 0 };
    assert_eq!(run(&disk, write, &[1; 512]), Err(BlockError::ReadOnly));
}

#[test]
fn a_file_is_no_block_device() {
    let temp = Temp::new("nodevice", &[0; 512]);
    let text = format!("driver=host_device,filename={}", temp.0.display());
    let opts = Opts::parse("-blockdev", &text, None).unwrap();
    let error = Opener::new(DRIVERS).open("-blockdev", &opts).err().unwrap();
    assert!(error.to_string().contains("use driver 'file'"), "{error}");
}
