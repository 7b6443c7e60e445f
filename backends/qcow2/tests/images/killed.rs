//! A process killed while it writes: the image is whole, and what it had flushed is in it.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use backend_block::{Child, IoVector, Node, Opener, perm};
use backend_qcow2::{Fix, Qcow2};
use control_options::Opts;

use crate::disk::DRIVERS;
use crate::interop::{self, Folder};

const SECTOR: u64 = 512;
const SECTORS: u64 = 4096;
/// Names the image to the process that is to be killed.
const VARIABLE: &str = "MIMIC_TEST_KILLED_IMAGE";

fn open(text: &str) -> Arc<Node> {
    let opts = Opts::parse("test", text, None).unwrap();
    Opener::new(DRIVERS).open("test", &opts).unwrap()
}

fn image(path: &str) -> Arc<Node> {
    open(&format!(
        "driver=qcow2,discard=unmap,file.driver=file,file.filename={path}"
    ))
}

fn qcow2(node: &Node) -> &Qcow2 {
    node.driver().as_any().downcast_ref().unwrap()
}

fn sector(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(SECTOR as usize / 8)
}

/// Writes for ever: in round `n` some sectors get the stamp `n`; `n` is printed when it is flushed.
fn write_until_killed(path: &str) -> ! {
    let node = image(path);
    let mut order = u64::from(std::process::id());
    let mut next = |below: u64| {
        order = order
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (order >> 33) % below
    };
    let mut stamp = u64::from_le_bytes(read(&node, 0)[..8].try_into().unwrap());
    loop {
        stamp += 1;
        for _ in 0..next(20) {
            let at = 1 + next(SECTORS - 1);
            let memory = IoVector::from(sector(stamp).as_slice());
            node.write(at * SECTOR, &memory).unwrap();
        }
        match next(8) {
            0 => {
                // What is given up is written again at once, so that all sectors are known.
                let at = next(SECTORS / 256) * 256;
                node.discard(at * SECTOR, 256 * SECTOR).unwrap();
                let all = sector(stamp).repeat(256);
                node.write(at * SECTOR, &IoVector::from(all.as_slice()))
                    .unwrap();
            }
            1 => match qcow2(&node).snapshots().first() {
                Some(snapshot) => qcow2(&node).delete_snapshot(&snapshot.id).unwrap(),
                None => qcow2(&node).take_snapshot("s", 0, 0).unwrap(),
            },
            _ => {}
        }
        node.write(0, &IoVector::from(sector(stamp).as_slice()))
            .unwrap();
        node.flush().unwrap();
        println!("flushed {stamp}");
    }
}

fn read(node: &Node, number: u64) -> Vec<u8> {
    let memory = IoVector::zeroed(SECTOR as usize);
    node.read(number * SECTOR, &memory).unwrap();
    memory.to_vec()
}

#[test]
fn a_killed_process_leaves_what_it_flushed() {
    // The process that is killed is this test once more.
    if let Ok(path) = std::env::var(VARIABLE) {
        write_until_killed(&path);
    }
    let folder = Folder::new();
    let path = folder.file("image");
    let path = path.to_str().unwrap();
    backend_file::create(std::path::Path::new(path)).unwrap();
    {
        let file = open(&format!("driver=file,filename={path}"));
        let child = Child::attach(file, "test", "file", perm::ALL, perm::ALL).unwrap();
        let opts = Opts::parse("-o", "cluster_size=4096,lazy_refcounts=on", None).unwrap();
        (backend_qcow2::CLASS.create.unwrap().create)(&child, SECTORS * SECTOR, &opts).unwrap();
    }
    for round in 0..interop::cases(10) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "killed::a_killed_process_leaves_what_it_flushed",
                "--exact",
                "--nocapture",
            ])
            .env(VARIABLE, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stamps = lines.map_while(Result::ok).filter_map(|line| {
            let (_, stamp) = line.split_once("flushed ")?;
            stamp.parse::<u64>().ok()
        });
        // Somewhere in the work that follows this line.
        let mut flushed = stamps.nth(3 + round as usize % 7).unwrap();
        child.kill().unwrap();
        flushed = stamps.last().unwrap_or(flushed);
        child.wait().unwrap();
        let node = image(path);
        let findings = qcow2(&node).check(Fix::None).unwrap();
        assert_eq!(findings.corruptions, 0, "{findings:?}");
        let now = u64::from_le_bytes(read(&node, 0)[..8].try_into().unwrap());
        assert!(
            now >= flushed,
            "round {round}: {now}, although {flushed} was flushed"
        );
        for number in 1..SECTORS {
            let data = read(&node, number);
            let stamp = u64::from_le_bytes(data[..8].try_into().unwrap());
            assert!(
                data == sector(stamp) && stamp <= now + 1,
                "sector {number}: {stamp}"
            );
        }
    }
}
