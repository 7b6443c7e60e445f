//! Disks and jobs under the control of a monitor.

use serde_json::json;

use super::control::Qmp;
use super::*;

/// A folder that goes away with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mimic-blocks-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub(crate) fn img(&self, line: &str) {
        let line = line.replace("@", &format!("{}/", self.0.display()));
        let output = run(&format!("img {line}"));
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn nodes_are_added_queried_reopened_and_deleted() {
    let folder = Folder::new("nodes");
    let mut qmp = Qmp::start("-S -machine none");
    let file = folder.path("disk.raw");
    let create = json!({ "job-id": "c", "options": { "driver": "file", "filename": file, "size": 1 << 20 } });
    qmp.execute("blockdev-create", create);
    while qmp.event("JOB_STATUS_CHANGE")["status"] != "concluded" {}
    assert_eq!(qmp.execute("query-jobs", json!({}))[0]["type"], "create");
    qmp.execute("job-dismiss", json!({ "id": "c" }));
    while qmp.event("JOB_STATUS_CHANGE")["status"] != "null" {}
    let node = |more| {
        let mut node = json!({ "driver": "raw", "node-name": "n", "file": { "driver": "file", "filename": file } });
        let (serde_json::Value::Object(node), serde_json::Value::Object(more)) = (&mut node, more)
        else {
            unreachable!()
        };
        node.extend(more);
        serde_json::Value::Object(node.clone())
    };
    assert_eq!(qmp.execute("blockdev-add", node(json!({}))), json!({}));
    let shown = |qmp: &mut Qmp| {
        let nodes = qmp.execute("query-named-block-nodes", json!({ "flat": true }));
        let nodes = nodes.as_array().unwrap().clone();
        nodes.into_iter().find(|node| node["node-name"] == "n")
    };
    let before = shown(&mut qmp).unwrap();
    assert_eq!(
        (&before["drv"], &before["ro"]),
        (&json!("raw"), &json!(false))
    );
    assert_eq!(before["image"]["virtual-size"], 1 << 20);
    let reopen = json!({ "options": [node(json!({ "read-only": true, "detect-zeroes": "on" }))] });
    assert_eq!(qmp.execute("blockdev-reopen", reopen), json!({}));
    let after = shown(&mut qmp).unwrap();
    assert_eq!(
        (&after["ro"], &after["detect_zeroes"]),
        (&json!(true), &json!("on"))
    );
    let part = json!({ "options": [node(json!({ "offset": 4096 }))] });
    qmp.execute("blockdev-reopen", part);
    let size = &shown(&mut qmp).unwrap()["image"]["virtual-size"];
    assert_eq!(*size, (1 << 20) - 4096);
    let direct = json!({ "options": [node(json!({ "cache": { "direct": true } }))] });
    qmp.execute("blockdev-reopen", direct);
    let nodes = qmp.execute("query-named-block-nodes", json!({ "flat": true }));
    for node in nodes.as_array().unwrap() {
        assert_eq!(node["cache"]["direct"], true, "the file below it too");
    }
    for (more, error) in [
        (
            json!({ "force-share": true }),
            "'force-share' of node 'n' cannot be changed while it is open; give it as it is",
        ),
        (
            json!({ "offset": 512, "size": 1 << 20 }),
            "it has 1048576 bytes: 'offset' and 'size' reach beyond them",
        ),
    ] {
        let said = qmp.error("blockdev-reopen", json!({ "options": [node(more)] }));
        assert!(said.ends_with(error), "{said}");
    }
    qmp.execute("blockdev-reopen", json!({ "options": [node(json!({}))] }));
    assert_eq!(
        qmp.execute("block_resize", json!({ "node-name": "n", "size": 2 << 20 })),
        json!({})
    );
    assert_eq!(shown(&mut qmp).unwrap()["image"]["virtual-size"], 2 << 20);
    assert_eq!(
        qmp.execute("blockdev-del", json!({ "node-name": "n" })),
        json!({})
    );
    assert_eq!(shown(&mut qmp), None);
    let error = qmp.error("blockdev-del", json!({ "node-name": "n" }));
    assert_eq!(error, "there is no node named 'n'");
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn a_format_is_reopened_with_other_settings_in_another_file() {
    let folder = Folder::new("reopen-file");
    let mut qmp = Qmp::start("-S -machine none");
    for (name, size) in [("one", "1M"), ("copy", "1M"), ("other", "2M")] {
        folder.img(&format!("create -q -f qcow2 @{name} {size}"));
        let file = json!({ "driver": "file", "node-name": name, "filename": folder.path(name) });
        qmp.execute("blockdev-add", file);
    }
    let node = |more: serde_json::Value| {
        let mut node = json!({ "driver": "qcow2", "node-name": "n", "file": "one" });
        let more = more.as_object().unwrap().clone();
        node.as_object_mut().unwrap().extend(more);
        node
    };
    qmp.execute("blockdev-add", node(json!({})));
    let options = |node| json!({ "options": [node] });
    for more in [
        json!({ "lazy-refcounts": true, "l2-cache-size": 1 << 20 }),
        json!({ "cache-size": 2 << 20 }),
        json!({ "file": "copy" }),
    ] {
        qmp.execute("blockdev-reopen", options(node(more)));
    }
    qmp.execute("blockdev-del", json!({ "node-name": "one" }));
    let error = qmp.error("blockdev-del", json!({ "node-name": "copy" }));
    assert!(error.contains("in use"), "{error}");
    let error = qmp.error("blockdev-reopen", options(node(json!({ "file": "other" }))));
    assert!(error.contains("it is not the same image"), "{error}");
    let error = qmp.error("blockdev-reopen", options(node(json!({ "file": "n" }))));
    assert!(error.contains("would have itself behind it"), "{error}");
    let error = qmp.error(
        "blockdev-reopen",
        options(node(json!({ "file": "copy", "data-file": "other" }))),
    );
    assert!(
        error.contains("'data-file' of node 'n' cannot be changed"),
        "{error}"
    );
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn a_node_is_reopened_over_another_one() {
    let folder = Folder::new("reopen");
    let mut qmp = Qmp::start("-S -machine none");
    let node = |name: &str, backing: serde_json::Value| {
        json!({
            "driver": "qcow2", "node-name": name, "backing": backing,
            "file": { "driver": "file", "filename": folder.path(name) },
        })
    };
    for name in ["one", "two", "top"] {
        folder.img(&format!("create -q -f qcow2 @{name} 1M"));
        let added = qmp.execute("blockdev-add", node(name, json!(null)));
        assert_eq!(added, json!({}));
    }
    let behind = |qmp: &mut Qmp| {
        let nodes = qmp.execute("query-named-block-nodes", json!({}));
        let nodes = nodes.as_array().unwrap();
        let top = nodes.iter().find(|node| node["node-name"] == "top");
        top.unwrap()["image"]["backing-image"]["filename"].clone()
    };
    let reopen = |backing| json!({ "options": [node("top", backing)] });
    for (backing, shown) in [
        (json!("one"), json!(folder.path("one"))),
        (json!("one"), json!(folder.path("one"))),
        (json!("two"), json!(folder.path("two"))),
        (json!(null), json!(null)),
    ] {
        let done = qmp.execute("blockdev-reopen", reopen(backing));
        assert_eq!((done, behind(&mut qmp)), (json!({}), shown));
    }
    // All or none.
    let both = json!({ "options": [node("top", json!("one")), node("one", json!("top"))] });
    let error = qmp.error("blockdev-reopen", both);
    assert_eq!(
        error,
        "node 'one' would have itself behind it; give it another 'backing' or 'file'"
    );
    assert_eq!(behind(&mut qmp), json!(null));
    let error = qmp.error("blockdev-reopen", reopen(json!("nothing")));
    assert!(
        error.starts_with("there is no node named 'nothing'"),
        "{error}"
    );
    // What is behind another node is not deleted.
    qmp.execute("blockdev-reopen", reopen(json!("two")));
    qmp.error("blockdev-del", json!({ "node-name": "two" }));
    qmp.execute("blockdev-del", json!({ "node-name": "top" }));
    let deleted = qmp.execute("blockdev-del", json!({ "node-name": "two" }));
    assert_eq!(deleted, json!({}));
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn a_disk_is_snapshot_and_committed_with_the_events_that_clients_wait_for() {
    let folder = Folder::new("commit");
    folder.img("create -q -f qcow2 @base.qcow2 16M");
    let base = folder.path("base.qcow2");
    let mut qmp = Qmp::start(&format!(
        "-S -M q35 -drive if=virtio,id=d,file={base},format=qcow2"
    ));
    let top = folder.path("top.qcow2");
    let arguments = json!({ "device": "d", "snapshot-file": top, "snapshot-node-name": "t" });
    assert_eq!(qmp.execute("blockdev-snapshot-sync", arguments), json!({}));
    let disk = qmp.execute("query-block", json!({}))[0].clone();
    assert_eq!(disk["inserted"]["file"], top);
    assert_eq!(disk["inserted"]["backing_file"], base);
    assert_eq!(disk["inserted"]["image"]["backing-image"]["filename"], base);
    assert_eq!(disk["io-status"], "ok");
    assert_eq!(
        qmp.execute("block-commit", json!({ "job-id": "j", "device": "d" })),
        json!({})
    );
    let ready = qmp.event("BLOCK_JOB_READY");
    assert_eq!(
        (&ready["device"], &ready["type"]),
        (&json!("j"), &json!("commit"))
    );
    let jobs = qmp.execute("query-block-jobs", json!({}));
    assert_eq!(
        (&jobs[0]["ready"], &jobs[0]["status"]),
        (&json!(true), &json!("ready"))
    );
    let error = qmp.error(
        "blockdev-snapshot-sync",
        json!({ "device": "d", "snapshot-file": "x" }),
    );
    assert_eq!(
        error,
        "node 't' is busy: block device is in use by block job: commit"
    );
    qmp.execute("block-job-complete", json!({ "device": "j" }));
    qmp.event("BLOCK_JOB_COMPLETED");
    assert_eq!(qmp.event("JOB_STATUS_CHANGE")["status"], "concluded");
    assert_eq!(qmp.event("JOB_STATUS_CHANGE")["status"], "null");
    let disk = qmp.execute("query-block", json!({}))[0].clone();
    assert_eq!(disk["inserted"]["file"], base);
    assert_eq!(qmp.hmp("info block-jobs"), "No active jobs\n");
    let error = qmp.error("block-job-cancel", json!({ "device": "j" }));
    assert_eq!(error, "Block job 'j' not found");
    assert_eq!(
        qmp.execute("blockdev-del", json!({ "node-name": "t" })),
        json!({})
    );
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn a_transaction_takes_snapshots_of_several_disks_or_of_none() {
    let folder = Folder::new("transaction");
    let mut flags = "-S -M q35".to_owned();
    for name in ["a", "b"] {
        folder.img(&format!("create -q -f qcow2 @{name}.qcow2 16M"));
        let path = folder.path(&format!("{name}.qcow2"));
        flags += &format!(" -drive if=virtio,id={name},file={path},format=qcow2");
    }
    let mut qmp = Qmp::start(&flags);
    let files = |qmp: &mut Qmp| {
        let disks = qmp.execute("query-block", json!({}));
        [0, 1].map(|n| disks[n]["inserted"]["file"].as_str().unwrap().to_owned())
    };
    let base = files(&mut qmp);
    let sync = |device: &str, file: &str, node: &str| {
        let file = folder.path(file);
        json!({ "type": "blockdev-snapshot-sync",
                "data": { "device": device, "snapshot-file": file, "snapshot-node-name": node } })
    };
    // The last one fails: what came before it is taken back.
    let actions = json!([
        sync("a", "a1.qcow2", "a1"),
        sync("a", "a2.qcow2", "a2"),
        sync("b", "b1.qcow2", "a1")
    ]);
    let error = qmp.error("transaction", json!({ "actions": actions }));
    assert!(
        error.contains("the node name 'a1' is used twice"),
        "{error}"
    );
    assert_eq!(files(&mut qmp), base);
    let abort = json!({ "type": "abort", "data": {} });
    let actions = json!([sync("a", "a1.qcow2", "a1"), abort]);
    let error = qmp.error("transaction", json!({ "actions": actions }));
    assert_eq!(error, "Transaction aborted using Abort action");
    assert_eq!(files(&mut qmp), base);
    assert_eq!(
        qmp.error("blockdev-del", json!({ "node-name": "a1" })),
        "there is no node named 'a1'"
    );
    let actions = json!([{ "type": "format", "data": {} }]);
    let error = qmp.error("transaction", json!({ "actions": actions }));
    assert_eq!(
        error,
        "Parameter 'actions[0].type' does not accept value 'format'"
    );
    // A node that was added, and one that is made for it, in one go; and an overlay on an overlay.
    folder.img("create -q -f qcow2 @b1.qcow2 16M");
    let node = json!({ "driver": "qcow2", "node-name": "b1", "backing": null,
                       "file": { "driver": "file", "filename": folder.path("b1.qcow2") } });
    qmp.execute("blockdev-add", node);
    let add = json!({ "type": "blockdev-snapshot", "data": { "node": "b", "overlay": "b1" } });
    let actions = json!([
        sync("a", "a1.qcow2", "a1"),
        add,
        sync("a", "a2.qcow2", "a2")
    ]);
    let properties = json!({ "completion-mode": "grouped" });
    let arguments = json!({ "actions": actions, "properties": properties });
    assert_eq!(qmp.execute("transaction", arguments), json!({}));
    assert_eq!(
        files(&mut qmp),
        ["a2.qcow2", "b1.qcow2"].map(|name| folder.path(name))
    );
    let disks = qmp.execute("query-block", json!({}));
    let behind = |n: usize| disks[n]["inserted"]["image"]["backing-image"]["filename"].clone();
    assert_eq!(
        (behind(0), behind(1)),
        (json!(folder.path("a1.qcow2")), json!(base[1]))
    );
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
    folder.img("check -q @a2.qcow2");
}

#[test]
fn a_file_of_its_own_is_not_locked_for_writing_before_somebody_writes() {
    let folder = Folder::new("auto");
    folder.img("create -q -f qcow2 @disk.qcow2 16M");
    let path = folder.path("disk.qcow2");
    let flags =
        format!("-S -M none -blockdev driver=file,node-name=f,filename={path},auto-read-only=on");
    let image = |read_only: bool| json!({ "driver": "qcow2", "node-name": "n", "file": "f", "read-only": read_only });
    let ro = |qmp: &mut Qmp| {
        let nodes = qmp.execute("query-named-block-nodes", json!({ "flat": true }));
        let nodes = nodes.as_array().unwrap().clone();
        nodes.iter().find(|node| node["node-name"] == "f").unwrap()["ro"].clone()
    };
    let mut all = [0, 1].map(|_| Qmp::start(&flags));
    for qmp in &mut all {
        assert_eq!(qmp.execute("blockdev-add", image(true)), json!({}));
        assert_eq!(ro(qmp), json!(true));
        qmp.execute("blockdev-del", json!({ "node-name": "n" }));
    }
    // One who writes keeps the others out: while they have it, it cannot.
    let [mut one, mut two] = all;
    assert!(
        one.error("blockdev-add", image(false))
            .contains("is in use")
    );
    two.execute("quit", json!({}));
    assert_eq!(two.end(), Some(0));
    assert_eq!(one.execute("blockdev-add", image(false)), json!({}));
    assert_eq!(ro(&mut one), json!(false));
    let other = run(&format!("img info {path}"));
    assert!(stderr(&other).contains("is in use"), "{}", stderr(&other));
    one.execute("quit", json!({}));
    assert_eq!(one.end(), Some(0));
}

#[test]
fn a_filter_is_put_over_a_node_in_use_and_taken_away_again() {
    let folder = Folder::new("filter");
    folder.img("create -q -f qcow2 @disk.qcow2 16M");
    let mut qmp = Qmp::start(&format!(
        "-S -M q35 -blockdev driver=qcow2,node-name=n,file.driver=file,file.filename={} \
         -device virtio-blk-pci,drive=n,id=v",
        folder.path("disk.qcow2")
    ));
    let limits = json!({ "iops-total": 5 });
    qmp.execute(
        "object-add",
        json!({ "qom-type": "throttle-group", "id": "g", "limits": limits }),
    );
    let filter =
        json!({ "driver": "throttle", "node-name": "t", "file": "n", "throttle-group": "g" });
    assert_eq!(qmp.execute("blockdev-add", filter), json!({}));
    let drive =
        |path: &str, node: &str| json!({ "path": path, "property": "drive", "value": node });
    let node = |qmp: &mut Qmp| {
        let disks = qmp.execute("query-block", json!({}));
        assert_eq!(disks[0]["qdev"], "/machine/peripheral/v/virtio-backend");
        disks[0]["inserted"]["node-name"].clone()
    };
    let path = "/machine/peripheral/v";
    assert_eq!(qmp.execute("qom-set", drive(path, "t")), json!({}));
    assert_eq!(node(&mut qmp), "t");
    // Who writes below the filter would write beside the device.
    let writer = json!({ "driver": "raw", "node-name": "w", "file": "n" });
    let error = qmp.error("blockdev-add", writer.clone());
    assert!(error.contains("node 'n' is in use by 't'"), "{error}");
    let error = qmp.error("blockdev-del", json!({ "node-name": "t" }));
    assert!(error.contains("is in use by 'n'"), "{error}");
    assert_eq!(qmp.execute("qom-set", drive("v", "n")), json!({}));
    assert_eq!(node(&mut qmp), "n");
    assert_eq!(
        qmp.execute("blockdev-del", json!({ "node-name": "t" })),
        json!({})
    );
    // A node that another one writes to is none for a device.
    let other = json!({ "driver": "null-co", "node-name": "z", "size": 1 << 20 });
    qmp.execute("blockdev-add", other);
    qmp.execute(
        "blockdev-add",
        json!({ "driver": "raw", "node-name": "w", "file": "z" }),
    );
    let error = qmp.error("qom-set", drive(path, "z"));
    assert!(error.contains("node 'z' is in use by 'w'"), "{error}");
    assert_eq!(node(&mut qmp), "n");
    let error = qmp.error(
        "qom-set",
        json!({ "path": path, "property": "serial", "value": "x" }),
    );
    assert!(error.contains("only 'drive' can"), "{error}");
    let error = qmp.error("qom-set", drive("/machine/peripheral/x", "n"));
    assert_eq!(error, "Device '/machine/peripheral/x' not found");
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn a_drive_takes_the_settings_of_its_node() {
    let folder = Folder::new("settings");
    folder.img("create -q -f qcow2 @disk.qcow2 16M");
    let path = folder.path("disk.qcow2");
    let drive = format!("-S -M q35 -drive if=virtio,file={path},node-name=n");
    let mut qmp = Qmp::start(&format!("{drive},l2-cache-size=1M,lazy-refcounts=on"));
    let disks = qmp.execute("query-block", json!({}));
    assert_eq!(disks[0]["inserted"]["node-name"], "n");
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
    for (setting, problem) in [
        ("l2-cache-siz=1M", "a drive has no property 'l2-cache-siz'"),
        (
            "format=raw,l2-cache-size=1M",
            "block driver 'raw' has no property 'l2-cache-size'",
        ),
        ("l2-cache-size=x", "'l2-cache-size' cannot be 'x'"),
        ("bps=x", "'bps' cannot be 'x'"),
    ] {
        let output = run(&format!("{drive},{setting} -nodefaults -display none"));
        assert_eq!(output.status.code(), Some(1), "{setting}");
        assert!(
            stderr(&output).contains(problem),
            "{setting}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn snapshots_in_the_image_are_taken_and_deleted_also_in_transactions() {
    let folder = Folder::new("internal");
    folder.img("create -q -f qcow2 @disk.qcow2 16M");
    let mut qmp = Qmp::start(&format!(
        "-S -M q35 -drive if=virtio,id=d,format=qcow2,file={} -drive if=virtio,id=z,driver=null-co",
        folder.path("disk.qcow2")
    ));
    let take = |device: &str, name: &str| json!({ "device": device, "name": name });
    let internal = "blockdev-snapshot-internal-sync";
    let names = |qmp: &mut Qmp| {
        let disks = qmp.execute("query-block", json!({}));
        let image = &disks[0]["inserted"]["image"];
        let snapshots = image["snapshots"].as_array().cloned().unwrap_or_default();
        snapshots
            .iter()
            .map(|s| s["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(qmp.execute(internal, take("d", "one")), json!({}));
    let error = qmp.error(internal, take("d", "one"));
    assert_eq!(
        error,
        "Snapshot with name 'one' already exists on device 'd'"
    );
    assert!(
        qmp.error(internal, take("z", "one"))
            .contains("does not support internal snapshots")
    );
    let action = |device: &str, name: &str| json!({ "type": internal, "data": take(device, name) });
    let actions = json!([action("d", "two"), action("z", "two")]);
    qmp.error("transaction", json!({ "actions": actions }));
    assert_eq!(names(&mut qmp), ["one"]);
    // A name that is the id of another one.
    let actions = json!([action("d", "1"), action("z", "1")]);
    qmp.error("transaction", json!({ "actions": actions }));
    assert_eq!(names(&mut qmp), ["one"]);
    let actions = json!([action("d", "two"), action("d", "three")]);
    assert_eq!(
        qmp.execute("transaction", json!({ "actions": actions })),
        json!({})
    );
    assert_eq!(names(&mut qmp), ["one", "two", "three"]);
    let delete = "blockdev-snapshot-delete-internal-sync";
    let gone = qmp.execute(delete, take("d", "two"));
    assert_eq!((&gone["name"], &gone["id"]), (&json!("two"), &json!("2")));
    let error = qmp.error(delete, json!({ "device": "d", "id": "2" }));
    assert_eq!(
        error,
        "Snapshot with id '2' and name 'null' does not exist on device 'd'"
    );
    assert_eq!(qmp.hmp("snapshot_delete_blkdev_internal d one 1"), "");
    assert_eq!(qmp.hmp("snapshot_blkdev_internal d four"), "");
    assert_eq!(names(&mut qmp), ["three", "four"]);
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
    folder.img("check -q @disk.qcow2");
}

#[test]
fn the_node_of_a_medium_that_was_taken_out_can_be_deleted() {
    let mut qmp = Qmp::start(
        "-S -M q35 -blockdev driver=null-co,node-name=one,read-only=on -device ide-cd,drive=one,id=cd",
    );
    for name in ["one", "two"] {
        let stats = qmp.execute("query-blockstats", json!({}));
        assert_eq!(stats[0]["node-name"], name);
        qmp.execute("eject", json!({ "id": "cd" }));
        assert_eq!(qmp.execute("query-blockstats", json!({})), json!([]));
        let deleted = qmp.execute("blockdev-del", json!({ "node-name": name }));
        assert_eq!(deleted, json!({}));
        let next = json!({ "driver": "null-co", "node-name": "two", "read-only": true });
        qmp.execute("blockdev-add", next);
        let insert = json!({ "id": "cd", "node-name": "two" });
        assert_eq!(qmp.execute("blockdev-insert-medium", insert), json!({}));
    }
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn clients_find_disks_by_the_names_that_qemu_gives_them() {
    let folder = Folder::new("names");
    folder.img("create -q -f qcow2 @disk.qcow2 16M");
    let path = folder.path("disk.qcow2");
    let mut qmp = Qmp::start(
        "-S -M q35 -blockdev driver=null-co,node-name=n -device virtio-blk-pci,drive=n,id=v \
         -drive if=none,id=d,driver=null-co -device ide-hd,drive=d,id=i",
    );
    let disks = qmp.execute("query-block", json!({}));
    let names = |n: usize| (disks[n]["device"].clone(), disks[n]["qdev"].clone());
    assert_eq!(names(0), (json!("d"), json!("i")));
    let inside = json!("/machine/peripheral/v/virtio-backend");
    assert_eq!(names(1), (json!(""), inside.clone()));
    for id in [inside, json!("/machine/peripheral/v"), json!("v")] {
        let limits = json!({ "id": id, "bps": 5, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0 });
        assert_eq!(qmp.execute("block_set_io_throttle", limits), json!({}));
    }
    assert!(qmp.hmp("info block n").starts_with("n: null-co"));
    // A drive that comes, and goes again.
    let add = format!("drive_add 0 if=none,id=late,format=qcow2,file={path}");
    assert_eq!(qmp.hmp(&add), "OK\n");
    assert!(qmp.hmp(&add).contains("the id 'late' is used twice"));
    let shown = qmp.hmp("info block -v late");
    assert!(
        shown.contains("virtual size: 16 MiB (16777216 bytes)"),
        "{shown}"
    );
    assert!(shown.contains("    refcount bits: 16\n"), "{shown}");
    assert_eq!(qmp.hmp("drive_del late"), "");
    assert!(
        qmp.hmp("drive_del late")
            .contains("Device 'late' not found")
    );
    assert!(
        qmp.hmp("drive_del d")
            .contains("'device_del i' takes out both")
    );
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn limits_of_a_drive_are_shown_and_changed() {
    let mut qmp = Qmp::start(
        "-S -M q35 -object throttle-group,id=g,x-iops-total=50 \
         -blockdev driver=throttle,node-name=t,throttle-group=g,file.driver=null-co \
         -drive if=virtio,id=a,driver=null-co,throttling.bps-total=1048576,throttling.bps-total-max=2097152 \
         -drive if=virtio,id=b,driver=null-co,iops=100,throttling.group=shared \
         -drive if=virtio,id=c,driver=null-co,throttling.group=shared",
    );
    let disks = qmp.execute("query-block", json!({}));
    let inserted = |n: usize| &disks[n]["inserted"];
    assert_eq!(
        (&inserted(0)["bps"], &inserted(0)["bps_max"]),
        (&json!(1048576), &json!(2097152))
    );
    assert_eq!(inserted(0)["group"], "a");
    assert_eq!(
        (&inserted(2)["iops"], &inserted(2)["group"]),
        (&json!(100), &json!("shared"))
    );
    qmp.hmp("block_set_io_throttle a 0 0 0 0 10 0");
    let disk = qmp.execute("query-block", json!({}))[0]["inserted"].clone();
    assert_eq!((&disk["bps"], &disk["iops_rd"]), (&json!(0), &json!(10)));
    assert!(qmp.hmp("info block a").contains("iops_rd=10"));
    assert_eq!(
        qmp.hmp("object_add throttle-group,id=late,limits.iops-total=5"),
        ""
    );
    let filter =
        json!({ "driver": "throttle", "node-name": "l", "throttle-group": "late", "file": "n" });
    qmp.execute(
        "blockdev-add",
        json!({ "driver": "null-co", "node-name": "n" }),
    );
    assert_eq!(qmp.execute("blockdev-add", filter), json!({}));
    let error = qmp.error("object-del", json!({ "id": "late" }));
    assert_eq!(error, "object 'late' is in use, can not be deleted");
    qmp.execute("blockdev-del", json!({ "node-name": "l" }));
    assert_eq!(
        qmp.execute("object-del", json!({ "id": "late" })),
        json!({})
    );
    let error = qmp.error(
        "object-add",
        json!({ "qom-type": "throttle-gruop", "id": "x" }),
    );
    assert!(error.contains("did you mean 'throttle-group'?"), "{error}");
    let error = qmp.hmp("block_set_io_throttle a 1 1 0 0 0 0");
    assert!(
        error.contains("total values and read/write values cannot be used at the same time"),
        "{error}"
    );
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn a_temporary_overlay_is_known_by_the_image_under_it() {
    let folder = Folder::new("temporary");
    folder.img("create -q -f qcow2 @disk.qcow2 16M");
    let path = folder.path("disk.qcow2");
    let mut qmp = Qmp::start(&format!(
        "-S -M q35 -snapshot -drive if=virtio,id=d,file={path},format=qcow2"
    ));
    let shown = qmp.hmp("info block -v");
    assert!(
        shown.contains(&path) && !shown.contains("mimic-snapshot"),
        "{shown}"
    );
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn io_threads_are_there_and_devices_name_them() {
    let disk = "-drive if=none,id=d,driver=null-co -device virtio-blk-pci,drive=d,iothread=io0";
    let mut qmp = Qmp::start(&format!("-S -M q35 -object iothread,id=io0 {disk}"));
    let threads = qmp.execute("query-iothreads", json!({}));
    assert_eq!(threads[0]["id"], "io0");
    let task = format!(
        "/proc/{}/task/{}/comm",
        qmp.child.id(),
        threads[0]["thread-id"]
    );
    assert_eq!(std::fs::read_to_string(task).unwrap(), "IO io0\n");
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
    let output = run(&format!("-S -M q35 -object iothread,id=io1 {disk}"));
    assert_eq!(output.status.code(), Some(1));
    let text = "there is no iothread with the id 'io0'; did you mean 'io1'?";
    assert!(stderr(&output).contains(text), "{}", stderr(&output));
}
