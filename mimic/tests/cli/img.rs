//! `mimic img`: the same lines given to it and to QEMU's tool come to the same.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use test_boot::Folder;

use crate::{mimic, words};

fn ours(folder: &Path, line: &str) -> Output {
    let mut command = mimic();
    command.arg("img").args(words(line)).current_dir(folder);
    command.output().unwrap()
}

fn theirs(folder: &Path, line: &str) -> Output {
    let mut command = Command::new("qemu-img");
    command.args(words(line)).current_dir(folder);
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    let both = [output.stdout.clone(), output.stderr.clone()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn has_qemu() -> bool {
    let there = Command::new("qemu-img").arg("--version").output().is_ok();
    if !there {
        assert!(
            std::env::var_os("CI_NO_SKIP").is_none(),
            "qemu-img is missing: install qemu-utils"
        );
        eprintln!("SKIPPED: qemu-img is missing: install qemu-utils");
    }
    there
}

/// Done by one tool in one folder and by the other in another one. `=` before a line: the outputs are
/// equal too. `{`: they are equal JSON, but for what depends on the host.
const STORY: &[&str] = &[
    "create -q -f qcow2 a.qcow2 64M",
    "create -q -f qcow2 -o cluster_size=4k,lazy_refcounts=on,compat=1.1 b.qcow2 10M",
    "create -q -f qcow2 -o compat=0.10 old.qcow2 5M",
    "create -q -f raw empty.raw 3M",
    "create -q -f qcow2 -o preallocation=metadata pre.qcow2 8M",
    "{info --output=json a.qcow2",
    "{info --output=json b.qcow2",
    "{info --output=json old.qcow2",
    "convert -f raw -O qcow2 data.raw data.qcow2",
    "convert -c -f raw -O qcow2 data.raw packed.qcow2",
    "convert -c -f raw -O qcow2 -o compression_type=zstd data.raw zstd.qcow2",
    "convert -f qcow2 -O raw packed.qcow2 packed.raw",
    "convert -r 1G -f qcow2 -O raw packed.qcow2 paced.raw",
    "convert -f qcow2 -O raw zstd.qcow2 zstd.raw",
    "convert -O qcow2 data.raw data.raw both.qcow2",
    "=measure -f raw -O qcow2 data.raw",
    "=measure -O raw --size 10M",
    "{measure --output=json -O qcow2 -o cluster_size=4k,extended_l2=off --size 123G",
    "dd -f raw -O raw bs=4k count=20 skip=3 if=data.raw of=part.raw",
    "=compare part.raw data.raw",
    "dd -O qcow2 bs=64k if=data.qcow2 of=part.qcow2",
    "=compare -F raw part.qcow2 data.raw",
    "dd bs=64k if=data.qcow2",
    "=compare -f raw -F qcow2 data.raw data.qcow2",
    "=compare packed.raw data.raw",
    "=compare zstd.raw data.raw",
    "=compare data.raw other.raw",
    "=compare -s data.raw empty.raw",
    "=check -q data.qcow2",
    "=check packed.qcow2",
    "{check --output=json a.qcow2",
    "{map --output=json data.qcow2",
    "=map data.qcow2",
    "create -q -f qcow2 -b data.qcow2 -F qcow2 over.qcow2",
    "{info --output=json over.qcow2",
    "{map --output=json over.qcow2",
    "resize -q over.qcow2 +1M",
    "resize -q --shrink over.qcow2 -512k",
    "=compare -s over.qcow2 data.qcow2",
    "snapshot -c one over.qcow2",
    "snapshot -c two over.qcow2",
    "snapshot -a one over.qcow2",
    "snapshot -d two over.qcow2",
    "=snapshot -d two over.qcow2",
    "create -q -f qcow2 -b other.raw -F raw top.qcow2",
    "rebase -f qcow2 -b data.raw -F raw top.qcow2",
    "=compare top.qcow2 other.raw",
    "check top.qcow2",
    "commit -q top.qcow2",
    "=compare data.raw other.raw",
    "rebase -u -f qcow2 -b '' top.qcow2",
    "{info --output=json top.qcow2",
    // What lies two images behind.
    "convert -f raw -O qcow2 -B base.raw -F raw data.raw mid.qcow2",
    "=compare mid.qcow2 data.raw",
    "create -q -f qcow2 -b other.raw -F raw tip.qcow2",
    "rebase -f qcow2 -b mid.qcow2 -F qcow2 tip.qcow2",
    "commit -q -b nothing.raw tip.qcow2",
    "commit -q -b base.raw tip.qcow2",
    "=compare tip.qcow2 base.raw",
    "=compare other.raw base.raw",
    // An image that changed since its snapshot, and one that shows what the snapshot does.
    "convert -f raw -O qcow2 data.raw old2.qcow2",
    "snapshot -c first old2.qcow2",
    "create -q -f qcow2 -b other.raw -F raw change.qcow2",
    "rebase -f qcow2 -b old2.qcow2 -F qcow2 change.qcow2",
    "commit -q change.qcow2",
    "=compare old2.qcow2 other.raw",
    "create -q -f qcow2 -b data.raw -F raw two.qcow2",
    "rebase -f qcow2 -b old2.qcow2 -F qcow2 two.qcow2",
    "convert -O qcow2 -B old2.qcow2 -F qcow2 two.qcow2 three.qcow2",
    "{map --output=json three.qcow2",
    "{info --output=json three.qcow2",
    "=compare three.qcow2 data.raw",
    "convert -O qcow2 -B old2.qcow2 -F qcow2 three.qcow2 four.qcow2",
    "convert -c -O qcow2 -B old2.qcow2 -F qcow2 three.qcow2 five.qcow2",
    "=compare four.qcow2 five.qcow2",
    "=compare four.qcow2 three.qcow2",
    "convert -O qcow2 -B old2.qcow2 two.qcow2 six.qcow2",
    "convert -l first -O raw old2.qcow2 first.raw",
    "=compare first.raw data.raw",
    "convert -l snapshot.name=first -O qcow2 old2.qcow2 first.qcow2",
    "=compare first.qcow2 data.raw",
    "convert -l snapshot.id=1 -O qcow2 old2.qcow2 first.qcow2",
    "convert -l nothing -O raw old2.qcow2 none.raw",
    "=measure -l first -O qcow2 old2.qcow2",
    "=measure -O qcow2 old2.qcow2",
    "{measure --output=json -O qcow2 -o lazy_refcounts=on,compat=1.1 old2.qcow2",
    "=measure -O qcow2 -o compat=0.10 old2.qcow2",
    "=measure -O qcow2 old.qcow2",
    "measure -O qcow2 -o nothing=1 old.qcow2",
    "convert -n --target-is-zero -O raw data.raw blank.raw",
    "=compare blank.raw data.raw",
    "convert -n --image-opts --target-image-opts driver=raw,file.driver=file,file.filename=other.raw driver=raw,file.driver=file,file.filename=blank.raw",
    "=compare blank.raw other.raw",
    "convert --target-is-zero -O raw data.raw blank.raw",
    "convert --salvage -O raw data.raw saved.raw",
    "=compare saved.raw data.raw",
    "convert -C -W -m 4 -O raw data.raw saved.raw",
    "resize -q empty.raw 5M",
    "=info -f qcow2 empty.raw",
    "resize empty.raw 1M",
    "convert -O raw nowhere.raw x.raw",
    "check empty.raw",
];

/// The members that both name, less those that depend on the host's file system.
fn same_facts(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => a.iter().all(|(key, value)| {
            let is_hosts = ["actual-size", "image-end-offset"].contains(&key.as_str());
            // Only newer ones say it.
            let is_new = key == "compressed" && b.get(key).is_none();
            is_hosts || is_new || b.get(key).is_some_and(|other| same_facts(value, other))
        }),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_facts(a, b))
        }
        (a, b) => a == b,
    }
}

#[test]
fn the_same_lines_come_to_the_same_as_with_qemu_img() {
    if !has_qemu() {
        return;
    }
    let folders = [Folder::new().unwrap(), Folder::new().unwrap()];
    // Data, holes, zeros, and an end that is no cluster's.
    let mut data: Vec<u8> = (0..3_000_320u64).map(|at| (at / 700 % 253) as u8).collect();
    data[200_000..900_000].fill(0);
    let mut other = data.clone();
    other[2_000_000..2_100_000].fill(7);
    for folder in &folders {
        std::fs::write(folder.join("data.raw"), &data).unwrap();
        std::fs::write(folder.join("other.raw"), &other).unwrap();
        for name in ["base.raw", "blank.raw"] {
            std::fs::write(folder.join(name), vec![0; data.len()]).unwrap();
        }
    }
    let [a, b] = [folders[0].path(), folders[1].path()];
    for line in STORY {
        let plain = line.trim_start_matches(['=', '{']);
        let (is, wanted) = (ours(a, plain), theirs(b, plain));
        assert_eq!(
            is.status.code(),
            wanted.status.code(),
            "{line}\nours: {}\ntheirs: {}",
            text(&is),
            text(&wanted)
        );
        if line.starts_with('{') {
            let parse =
                |output: &Output| -> Value { serde_json::from_slice(&output.stdout).unwrap() };
            let (is, wanted) = (parse(&is), parse(&wanted));
            assert!(
                same_facts(&is, &wanted),
                "{line}\nours: {is:#}\ntheirs: {wanted:#}"
            );
        } else if line.starts_with('=') && is.status.success() {
            assert_eq!(
                String::from_utf8_lossy(&is.stdout),
                String::from_utf8_lossy(&wanted.stdout),
                "{line}"
            );
        }
    }
    // Each tool finds the other's images whole and equal.
    for name in [
        "data.qcow2",
        "packed.qcow2",
        "zstd.qcow2",
        "both.qcow2",
        "over.qcow2",
        "pre.qcow2",
    ] {
        let check = theirs(a, &format!("check {name}"));
        assert!(check.status.success(), "{name}: {}", text(&check));
        let check = ours(b, &format!("check {name}"));
        assert!(check.status.success(), "{name}: {}", text(&check));
        let pair = format!(
            "compare {} {}",
            a.join(name).display(),
            b.join(name).display()
        );
        let compared = theirs(a, &pair);
        assert!(compared.status.success(), "{name}: {}", text(&compared));
    }
}

#[test]
fn mistakes_are_sentences() {
    let folder = Folder::new().unwrap();
    std::fs::write(folder.join("x"), [0; 512]).unwrap();
    for (line, wanted) in [
        (
            "chekc x",
            "mimic: there is no command 'chekc'; did you mean 'check'?",
        ),
        (
            "create -f qcow2 -o clustersize=4k y 1M",
            "mimic: mimic img create: -o: format 'qcow2' has no property 'clustersize'; did you mean 'cluster_size'?",
        ),
        (
            "create -f qcow2 y",
            "mimic: mimic img create: the size is missing: create y SIZE",
        ),
        (
            "resize x 0",
            "mimic: mimic img resize: 'x' would lose what lies beyond 0 bytes; give '--shrink' if that is meant",
        ),
    ] {
        let output = ours(folder.path(), line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said.trim_end(), wanted, "{line}");
    }
}

#[test]
fn a_convert_that_fails_leaves_nothing_behind() {
    let folder = Folder::new().unwrap();
    std::fs::write(folder.join("x"), [1; 4096]).unwrap();
    std::fs::write(folder.join("out"), b"precious").unwrap();
    let output = ours(folder.path(), "convert -c -f raw -O raw x out");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(std::fs::read(folder.join("out")).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_a_crash_left_is_repaired() {
    let folder = Folder::new().unwrap();
    assert!(
        ours(folder.path(), "create -q -f qcow2 x 1M")
            .status
            .success()
    );
    // A cluster that is counted and not used: count 4 of the block at 0x20000.
    let mut image = std::fs::read(folder.join("x")).unwrap();
    image[0x2_0000 + 9] = 1;
    std::fs::write(folder.join("x"), &image).unwrap();
    assert_eq!(ours(folder.path(), "check x").status.code(), Some(3));
    let output = ours(folder.path(), "check -r leaks x");
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains("1 leaked clusters"),
        "{}",
        text(&output)
    );
    // And one that is used and not counted.
    image[0x2_0000 + 9] = 0;
    image[0x2_0000 + 7] = 0;
    std::fs::write(folder.join("x"), &image).unwrap();
    assert_eq!(ours(folder.path(), "check x").status.code(), Some(2));
    assert!(ours(folder.path(), "check -r all x").status.success());
    assert!(ours(folder.path(), "check x").status.success());
}

#[test]
fn bench_says_how_long_its_requests_took() {
    let folder = Folder::new().unwrap();
    let create = ours(folder.path(), "create -q -f qcow2 x 1M");
    assert!(create.status.success());
    let line = "bench -w -c 300 -d 8 -s 8k --pattern=65 --flush-interval=100 -f qcow2 x";
    let output = ours(folder.path(), line);
    assert!(output.status.success(), "{}", text(&output));
    let said = text(&output);
    let first = "Sending 300 write requests, 8192 bytes each, 8 in parallel (starting at offset 0, step size 8192)\n";
    assert!(said.starts_with(first), "{said}");
    assert!(
        said.contains("Sending flush every 100 requests (with drain)\nRun completed in "),
        "{said}"
    );
    assert!(ours(folder.path(), "convert -O raw x out").status.success());
    assert!(
        std::fs::read(folder.join("out"))
            .unwrap()
            .iter()
            .all(|byte| *byte == 65)
    );
    let output = ours(folder.path(), "bench -s 2M x");
    assert!(
        text(&output).contains("a request of 2097152 at 0 reaches beyond them"),
        "{}",
        text(&output)
    );
}
