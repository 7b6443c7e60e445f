//! QEMU's tools as the judge. Without them the tests say so, and fail under `CI_NO_SKIP=1`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::disk::{Disk, Image};

/// Cases of a random test: a tenth part, unless all are asked for.
pub(crate) fn cases(full: u32) -> u32 {
    match std::env::var_os("MIMIC_TEST_ALL") {
        Some(_) => full * 10,
        None => full,
    }
}

/// Of a list of cases, every how many-th is looked at: one in `few`, unless all are asked for.
pub(crate) fn share(few: usize) -> usize {
    match std::env::var_os("MIMIC_TEST_ALL") {
        Some(_) => 1,
        None => few,
    }
}

/// Whether QEMU's tools are there.
pub(crate) fn has_tools() -> bool {
    let there = ["qemu-img", "qemu-io"].iter().all(|tool| {
        let version = Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    });
    if !there {
        assert!(
            std::env::var_os("CI_NO_SKIP").is_none(),
            "qemu-img and qemu-io are missing: install qemu-utils"
        );
        eprintln!("SKIPPED: qemu-img and qemu-io are missing: install qemu-utils");
    }
    there
}

/// A folder that goes away with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mimic-qcow2-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn tool(name: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(name)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// QEMU finds the image whole, and the same contents in it.
pub(crate) fn assert_same(bytes: &[u8], base: Option<&[u8]>, contents: &[u8]) {
    assert_same_with(bytes, base, None, contents);
}

/// The same of an image whose data are in the file `data`.
pub(crate) fn assert_same_with(
    bytes: &[u8],
    base: Option<&[u8]>,
    data: Option<&[u8]>,
    contents: &[u8],
) {
    if !has_tools() {
        return;
    }
    let folder = Folder::new();
    let (image, raw) = (folder.file("image"), folder.file("raw"));
    std::fs::write(&image, bytes).unwrap();
    let mut source = format!(
        "driver=qcow2,file.driver=file,file.filename={}",
        text(&image)
    );
    if let Some(base) = base {
        let path = folder.file("base");
        std::fs::write(&path, base).unwrap();
        source += &format!(
            ",backing.driver=raw,backing.file.driver=file,backing.file.filename={}",
            text(&path)
        );
    }
    if let Some(data) = data {
        let path = folder.file("data");
        std::fs::write(&path, data).unwrap();
        source += &format!(",data-file.driver=file,data-file.filename={}", text(&path));
    }
    let (whole, said) = tool("qemu-img", &["check", "--image-opts", &source]);
    assert!(whole, "{said}");
    let args = ["convert", "--image-opts", "-O", "raw", &source, text(&raw)];
    let (converted, said) = tool("qemu-img", &args);
    assert!(converted, "{said}");
    assert!(
        std::fs::read(&raw).unwrap() == contents,
        "QEMU reads something else"
    );
}

#[test]
fn what_qemu_writes_is_read() {
    if !has_tools() {
        return;
    }
    let folder = Folder::new();
    let (image, raw) = (folder.file("image"), folder.file("raw"));
    for options in [
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=2M",
        "extended_l2=on",
        "compression_type=zstd",
        "lazy_refcounts=on",
        "refcount_bits=8",
        "preallocation=metadata",
    ] {
        let _ = std::fs::remove_file(&image);
        let args = [
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            options,
            text(&image),
            "8M",
        ];
        assert!(tool("qemu-img", &args).0);
        let commands = [
            "write -P 1 0 300k",
            "write -P 2 1000k 1k",
            "write -c -P 3 2M 2M",
            "write -z 100k 100k",
            "discard 4M 64k",
            "write -P 4 5M 1M",
        ];
        // QEMU does not compress over clusters that are set aside.
        let usable = |c: &&&str| !(options.contains("prealloc") && c.contains("-c"));
        let commands = commands.iter().filter(usable);
        let mut args: Vec<&str> = commands.flat_map(|c| ["-c", *c]).collect();
        args.extend(["-f", "qcow2", "-d", "unmap", text(&image)]);
        let (written, said) = tool("qemu-io", &args);
        assert!(written, "{options}: {said}");
        assert!(tool("qemu-img", &["snapshot", "-c", "one", text(&image)]).0);
        let args = ["-c", "write -P 9 200k 3M", "-f", "qcow2", text(&image)];
        assert!(tool("qemu-io", &args).0);
        for _ in 0..2 {
            let args = [
                "convert",
                "-f",
                "qcow2",
                "-O",
                "raw",
                text(&image),
                text(&raw),
            ];
            assert!(tool("qemu-img", &args).0);
            let disk = Disk::of(std::fs::read(&image).unwrap());
            let ours = Image::open(&disk, "").unwrap();
            ours.assert_whole(false);
            assert!(
                ours.read(0, 8 << 20).unwrap() == std::fs::read(&raw).unwrap(),
                "{options}"
            );
            assert_eq!(ours.qcow2().snapshots()[0].name, "one");
            // Then as it was before.
            ours.qcow2().apply_snapshot("one").unwrap();
            ours.assert_whole(false);
            drop(ours);
            std::fs::write(&image, &disk.state().bytes).unwrap();
        }
    }
}

#[test]
fn bitmaps_are_kept_and_active_ones_forbid_writing() {
    if !has_tools() {
        return;
    }
    let folder = Folder::new();
    let image = folder.file("image");
    let file = text(&image);
    assert!(tool("qemu-img", &["create", "-q", "-f", "qcow2", file, "8M"]).0);
    assert!(tool("qemu-img", &["bitmap", "--add", file, "b0"]).0);
    let disk = Disk::of(std::fs::read(&image).unwrap());
    let error = Image::open(&disk, "").err().unwrap().to_string();
    assert!(error.contains("bitmap 'b0'"), "{error}");
    Image::open(&disk, ",read-only=on")
        .unwrap()
        .assert_whole(false);
    assert!(tool("qemu-img", &["bitmap", "--disable", file, "b0"]).0);
    let disk = Disk::of(std::fs::read(&image).unwrap());
    let ours = Image::open(&disk, "").unwrap();
    ours.write(0, &[1; 65536]).unwrap();
    ours.node.driver().name_backing(None).unwrap();
    ours.assert_whole(false);
    drop(ours);
    std::fs::write(&image, &disk.state().bytes).unwrap();
    assert!(tool("qemu-img", &["check", file]).0);
    let (_, said) = tool("qemu-img", &["info", file]);
    assert!(said.contains("b0"), "{said}");
}

#[test]
fn headers_say_what_qemu_says() {
    if !has_tools() {
        return;
    }
    let folder = Folder::new();
    let image = folder.file("image");
    for options in [
        "cluster_size=1M,lazy_refcounts=on,refcount_bits=32",
        "compat=0.10,backing_file=base,backing_fmt=raw",
        "extended_l2=on,compression_type=zstd",
    ] {
        let disk = Disk::default();
        crate::disk::create(&disk, 123 << 9, options);
        std::fs::write(&image, &disk.state().bytes).unwrap();
        std::fs::write(folder.file("base"), [0; 512]).unwrap();
        let (_, ours) = tool("qemu-img", &["info", "--output=json", text(&image)]);
        assert!(tool("qemu-img", &["check", text(&image)]).0);
        std::fs::remove_file(&image).unwrap();
        let args = [
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            options,
            text(&image),
            "62976",
        ];
        let (made, said) = tool("qemu-img", &args);
        assert!(made, "{said}");
        let (_, theirs) = tool("qemu-img", &["info", "--output=json", text(&image)]);
        let facts = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.contains("actual-size"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(facts(&ours), facts(&theirs));
    }
}
