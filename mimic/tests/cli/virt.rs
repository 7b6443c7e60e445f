//! `virt`: its device tree, and mistakes that can be made with it.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::*;

/// The device tree of a `virt` with these options.
fn tree(options: &str) -> Vec<u8> {
    let blob = Scratch::new(&format!("dtb-{}", options.len()), b"");
    let line = format!(
        "-M virt,dumpdtb={},dtb-randomness=off -m 1G {options}",
        blob.path()
    );
    let output = run(&line);
    assert!(output.status.success(), "{}", stderr(&output));
    std::fs::read(blob.path()).unwrap()
}

const SHAPES: [(&str, &str); 4] = [
    ("gic2", "-cpu cortex-a57 -smp 2"),
    (
        "gic3",
        "-cpu max -machine gic-version=3,virtualization=on -smp 3",
    ),
    ("low", "-cpu cortex-a72 -machine highmem=off"),
    (
        "large",
        "-machine highmem-ecam=off,highmem-mmio-size=1T,dt-compatible=acme-board",
    ),
];

#[test]
fn the_device_tree_is_the_golden_one() {
    let mut text = String::new();
    for (name, options) in SHAPES {
        let node = firmware_fdt::parse(&tree(options)).unwrap();
        text += &format!("// {name}: {options}\n{node}");
    }
    golden("virt.dts", &text);
}

#[test]
fn the_kernel_is_given_seeds_unless_they_are_switched_off() {
    for (options, wanted) in [
        ("-machine dtb-randomness=on", true),
        ("-machine dtb-randomness=off", false),
    ] {
        let root = firmware_fdt::parse(&tree(options)).unwrap();
        let chosen = root.children.iter().find(|node| node.name == "chosen");
        for seed in ["kaslr-seed", "rng-seed"] {
            assert_eq!(chosen.unwrap().get(seed).is_some(), wanted, "{options}");
        }
    }
}

#[test]
fn the_reference_compiler_accepts_the_device_tree() {
    for (name, options) in SHAPES {
        let blob = Scratch::new(&format!("dtc-{name}"), &tree(options));
        let dtc = Command::new("dtc")
            .args(["-I", "dtb", "-O", "dts", "-o", "/dev/null", blob.path()])
            .output();
        let Ok(dtc) = dtc else {
            test_boot::skip("dtc is not installed (apt install device-tree-compiler)").unwrap();
            return;
        };
        assert!(dtc.status.success(), "{name}: {}", stderr(&dtc));
        assert_eq!(stderr(&dtc), "", "{name}");
    }
}

/// What a line with this mistake is told.
fn told(line: &str) -> String {
    let output = run(&format!("-M virt -display none {line}"));
    assert_eq!(output.status.code(), Some(1), "{line}");
    stderr(&output)
}

#[test]
fn a_machine_with_nothing_to_run_says_so() {
    let text = told("");
    assert!(text.contains("has nothing to run"), "{text}");
    assert!(text.contains("'-bios FILE'"), "{text}");
}

#[test]
fn mistakes_with_flash_chips_are_named() {
    let small = Scratch::new("flash-small", &[0; 4096]);
    let drive = |unit: u32| {
        format!(
            "-drive if=pflash,unit={unit},format=raw,file={}",
            small.path()
        )
    };
    let text = told(&drive(0));
    assert!(text.contains("'truncate -s 67108864 FILE'"), "{text}");
    let text = told(&drive(2));
    assert!(text.contains("has 2 flash chips, units 0 to 1"), "{text}");
    let text = told(&format!("{} {}", drive(1), drive(1)));
    assert!(
        text.contains("unit=1: another drive is this unit already"),
        "{text}"
    );
    let text = told(&format!("{} -machine pflash0=pflash0", drive(0)));
    assert!(text.contains("both for one chip"), "{text}");
    let text = told(&format!("{} -machine pflash1=pflsh0", drive(0)));
    assert!(text.contains("did you mean 'pflash0'?"), "{text}");
    let text = told("-machine pflash0=x");
    assert!(text.contains("add '-blockdev file,node-name=x"), "{text}");
    let text = told("-bios nowhere.fd");
    assert!(text.contains("'nowhere.fd' was not found"), "{text}");
    let large = Scratch::new("flash-large", &vec![1; (64 << 20) + 1]);
    let text = told(&format!("-bios {}", large.path()));
    assert!(text.contains("has 67108865 bytes"), "{text}");
    let output = run(&format!("-M microvm -display none {}", drive(0)));
    assert!(stderr(&output).contains("'microvm' has no flash chips"));
}

#[test]
fn the_machine_of_no_parts_answers_questions() {
    let mut child = mimic()
        .arg0("qemu-system-aarch64")
        .args(words("-M none -display none -nodefaults -qmp stdio"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let questions =
        r#"{"execute":"qmp_capabilities"} {"execute":"query-target"} {"execute":"quit"}"#;
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(questions.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = stdout(&output);
    assert!(text.contains("aarch64"), "{text}");
}

#[test]
fn too_many_cpus_for_a_version_2_name_version_3() {
    let text = told("-smp 9 -S");
    assert!(text.contains("gic-version=3"), "{text}");
}

#[test]
fn a_kernel_that_is_not_there_is_told_in_the_words_that_test_suites_wait_for() {
    let text = told("-kernel nowhere");
    assert!(
        text.contains("-kernel nowhere: could not load kernel"),
        "{text}"
    );
}

#[test]
fn what_the_machine_has_not_is_named() {
    for (option, said) in [
        ("highmem-mmio-size=256G", "is no power of two from 512G on"),
        ("highmem-mmio-size=600G", "is no power of two from 512G on"),
        ("mte=on", "'mte"),
        ("ras=on", "'ras"),
        ("iommu=smmuv3", "'iommu=smmuv3' is not available yet"),
        ("gic-version=4", "'gic-version=4' is not available yet"),
        (
            "gic-version=3,highmem-redists=off -smp 124",
            "serves up to 123 CPUs",
        ),
    ] {
        let text = told(&format!("-S -machine {option}"));
        assert!(text.contains(said), "{option}: {text}");
    }
}

#[test]
fn what_a_processor_has_not_is_named() {
    for (cpu, said) in [
        ("max,sve512=on", "'sve512' cannot be turned on"),
        ("cortex-a72,has_el2=on", "virtualization=on"),
        (
            "max,pauth-qarma3=on,pauth-qarma5=on",
            "one algorithm at a time",
        ),
    ] {
        let text = told(&format!("-S -cpu {cpu}"));
        assert!(text.contains(said), "{cpu}: {text}");
    }
}
