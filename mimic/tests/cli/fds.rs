//! Files that others open for us.

use std::io::{BufRead as _, BufReader, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use super::blocks::Folder;
use super::control::Qmp;
use super::*;

/// A client on a socket, who can send descriptors along.
struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    fn connect(path: &str) -> Self {
        // The socket is there when its owner has answered on another one.
        let stream = BufReader::new(UnixStream::connect(path).unwrap());
        let mut client = Client { stream };
        assert!(client.next()["QMP"].is_object());
        client.send(&json!({ "execute": "qmp_capabilities" }), None);
        client
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn send(&mut self, message: &Value, file: Option<&std::fs::File>) -> Value {
        let text = format!("{message}\n");
        let fds: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let pieces = [IoSlice::new(text.as_bytes())];
        let sent = sendmsg(
            self.stream.get_ref(),
            &pieces,
            &mut control,
            SendFlags::empty(),
        );
        assert_eq!(sent.unwrap(), text.len());
        self.next()
    }

    fn add(&mut self, file: Option<&std::fs::File>, arguments: Value) -> Value {
        self.send(
            &json!({ "execute": "add-fd", "arguments": arguments }),
            file,
        )
    }
}

fn file(path: &str, writes: bool) -> std::fs::File {
    let mut how = std::fs::File::options();
    how.read(true).write(writes).open(path).unwrap()
}

#[test]
fn a_disk_is_opened_by_a_descriptor_that_was_inherited() {
    let folder = Folder::new("inherited");
    folder.img("create -q -f qcow2 @disk.qcow2 16M");
    let path = folder.path("disk.qcow2");
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "exec 7<>\"$0\" 8<\"$0\"; exec \"$@\"",
        &path,
        env!("CARGO_BIN_EXE_mimic"),
    ]);
    let mut qmp = Qmp::start_as(
        command,
        "-S -M q35 -add-fd fd=7,set=1,opaque=rdwr:disk -add-fd fd=8,set=1 \
         -drive if=virtio,id=d,format=qcow2,file=/dev/fdset/1",
    );
    let sets = qmp.execute("query-fdsets", json!({}));
    let fds = json!([{ "fd": 7, "opaque": "rdwr:disk" }, { "fd": 8 }]);
    assert_eq!(sets, json!([{ "fdset-id": 1, "fds": fds }]));
    let resize = json!({ "device": "d", "size": 32 << 20 });
    assert_eq!(qmp.execute("block_resize", resize), json!({}));
    // Others are kept away from the image as if it was opened by its name.
    let other = json!({ "driver": "file", "node-name": "o", "filename": path });
    assert!(qmp.error("blockdev-add", other).contains("is in use"));
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
    let shown = run(&format!("img info {path}"));
    assert!(
        stdout(&shown).contains("32 MiB (33554432 bytes)"),
        "{}",
        stdout(&shown)
    );
}

#[test]
fn a_client_hands_descriptors_over_and_takes_them_back() {
    let folder = Folder::new("handed");
    folder.img("create -q -f raw @disk.raw 1M");
    let (path, socket) = (folder.path("disk.raw"), folder.path("qmp"));
    let mut qmp = Qmp::start(&format!("-S -M none -qmp unix:{socket},server=on,wait=off"));
    let mut client = Client::connect(&socket);
    let none = client.add(None, json!({}));
    assert_eq!(
        none["error"]["desc"],
        "No file descriptor supplied via SCM_RIGHTS"
    );
    let added = client.add(Some(&file(&path, false)), json!({ "opaque": "r" }));
    assert_eq!(added["return"]["fdset-id"], 0);
    let fd = added["return"]["fd"].clone();
    assert!(Path::new(&format!("/proc/{}/fd/{fd}", qmp.child.id())).exists());
    let node = |read_only: bool| json!({ "driver": "file", "node-name": "n", "filename": "/dev/fdset/0", "read-only": read_only });
    // The set has nothing to write with.
    let error = qmp.error("blockdev-add", node(false));
    assert_eq!(
        error,
        "cannot open disk image '/dev/fdset/0': fd set 0 has no file that is open for reading and writing; add one"
    );
    assert_eq!(qmp.execute("blockdev-add", node(true)), json!({}));
    qmp.execute("blockdev-del", json!({ "node-name": "n" }));
    let added = client.add(Some(&file(&path, true)), json!({ "fdset-id": 0 }));
    assert_eq!(added["return"]["fdset-id"], 0);
    assert_eq!(qmp.execute("blockdev-add", node(false)), json!({}));
    // What is closed stays open where it is in use, and can be opened no more.
    let remove = json!({ "fdset-id": 0, "fd": fd });
    assert_eq!(qmp.execute("remove-fd", remove.clone()), json!({}));
    let gone = format!("File descriptor named 'fdset-id:0, fd:{fd}' not found");
    assert_eq!(qmp.error("remove-fd", remove), gone);
    assert_eq!(
        qmp.execute("remove-fd", json!({ "fdset-id": 0 })),
        json!({})
    );
    assert_eq!(qmp.execute("query-fdsets", json!({})), json!([]));
    let resize = json!({ "node-name": "n", "size": 2 << 20 });
    assert_eq!(qmp.execute("block_resize", resize), json!({}));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 << 20);
    qmp.execute("blockdev-del", json!({ "node-name": "n" }));
    let error = qmp.error("blockdev-add", node(false));
    assert!(
        error.contains("there is no fd set 0; '-add-fd' or 'add-fd' makes one"),
        "{error}"
    );
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn descriptors_that_are_not_there_are_refused_by_name() {
    for (flags, problem) in [
        (
            "-add-fd fd=99,set=1",
            "-add-fd: descriptor 99 cannot be used",
        ),
        (
            "-add-fd fd=1,set=1",
            "a descriptor below 3 is a standard stream",
        ),
        ("-add-fd set=1", "a descriptor needs 'fd=...'"),
        ("-add-fd fd=3,set=x", "set"),
    ] {
        let output = run(&format!("-M none -nodefaults -display none {flags}"));
        assert_eq!(output.status.code(), Some(1), "{flags}");
        assert!(
            stderr(&output).contains(problem),
            "{flags}: {}",
            stderr(&output)
        );
    }
}
