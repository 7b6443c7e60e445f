//! Mistakes on the command line, each with its message.

use test_boot::kernels;

use super::{Scratch, golden, run, stderr, stdout};

/// Mistakes, each with its message. `KERNEL`, `TEXT` and `QCOW2` stand for files.
const MISTAKES: &[&str] = &[
    "",
    "-kernle x",
    "-m=4G",
    "-kernel",
    "-machine q36",
    "-machine q35,hpte=off",
    "-machine q35,hpet=perhaps",
    "-machine q35,memory-backend=ram0",
    "-machine q35,smbus=on",
    "-machine microvm,pcie=on",
    "-machine pc,smm=on",
    "-machine pc,max-ram-below-4g=5G",
    "-machine pc,pcspk-audiodev=snd0",
    "-accel kmv",
    "-accel kvm,kernel-irqchip=maybe",
    "-accel tcg,thread=both",
    "-accel tcg,check=on,jit=off",
    "-accel qtest",
    "-cpu qemu65",
    "-cpu host",
    "-cpu qemu64,+ss3",
    "-cpu qemu64,enforce,+avx512f",
    "-smp 0",
    "-smp 3,cores=2",
    "-smp 1000",
    "-m nonsense",
    "-m 4G,slots=2,maxmem=8G",
    "-kernel /nonexistent/kernel",
    "-drive if=pflash,format=raw,file=/nowhere/OVMF_CODE_4M.fd",
    "-kernel /",
    "-kernel TEXT",
    "-initrd TEXT",
    "-append quiet",
    "-kernel KERNEL -initrd /nonexistent/initrd",
    "-machine microvm -kernel KERNEL -bios ROM",
    "-machine pc -kernel KERNEL -bios ROM",
    "-device isa-seral",
    "-device e1000",
    "-device isa-serial,chardve=x",
    "-device isa-serial,index=many",
    "-device virtio-blk-pci,acpi-index=1",
    "-drive if=none,id=a,file=TEXT,format=raw -drive if=none,id=b,file=ROM,format=raw \
     -device virtio-blk-pci,drive=a,bootindex=1 -device virtio-blk-pci,drive=b,bootindex=1 -kernel KERNEL",
    "-device isa-serial,chardev=nosuch",
    "-device isa-serial,id=a -device isa-debugcon,id=a",
    "-device apic",
    "-machine none -device isa-serial",
    "-machine microvm -kernel KERNEL -device virtio-rng-pci",
    "-machine q35 -device virtio-blk-device",
    "-device '{\"driver\":\"isa-serial\",}'",
    "-global isa-serial.indx=3",
    "-global isa-seral.index=3",
    "-global hpett.msi=on",
    "-global hpet.hpet-intcap=1",
    "-global mc146818rtc.lost_tick_policy=delay",
    "-machine microvm -parallel null -kernel KERNEL",
    "-drive if=virtio",
    "-drive if=virtio,file=/nonexistent/disk,format=raw",
    "-drive if=virtio,file=QCOW2",
    "-drive if=virtio,file=TEXT,format=qcow3",
    "-machine microvm -drive if=ide,file=TEXT,format=raw",
    "-drive if=virtio,file=nbd:localhost:1,format=raw",
    "-drive if=none,id=a,file=TEXT,format=raw -drive if=none,id=a,file=TEXT,format=raw",
    "-drive if=virtio,file=TEXT,format=raw,aio=native",
    "-device virtio-blk-pci,drive=nosuch",
    "-drive if=virtio,id=a,file=TEXT,format=raw -device virtio-blk-pci,drive=a",
    "-chardev null,id=a -device isa-serial,chardev=a -device isa-serial,chardev=a -kernel KERNEL",
    "-blockdev driver=rwa,node-name=a",
    "-blockdev driver=raw,node-name=a,file=b",
    "-blockdev driver=file,node-name=a",
    "-blockdev driver=qcow2,node-name=a,file.filename=TEXT",
    "-cdrom TEXT -drive index=2,file=TEXT,format=raw",
    "TEXT -hda TEXT",
    "-drive if=virtio,file=TEXT,format=qcow2",
    "-drive if=virtio,file=TEXT,format=vmdk",
    "-chardev sdtio,id=x",
    "-chardev file,id=x",
    "-chardev null,id=a -chardev null,id=a",
    "-serial chardev:foo",
    "-serial stdoi",
    "-serial stdio -monitor stdio",
    "-mon chardev=nosuch",
    "-object rng-randm,id=x",
    "-object rng-random",
    "-object rng-random,id=x,filename=/nonexistent/rng",
    "-object memory-backend-ram,id=ram0",
    "-object memory-backend-file,id=m,size=1M",
    "-machine none,memory-backend=m -object memory-backend-file,id=m,size=1M,mem-path=/nonexistent/ram",
    "-machine q35,memory-backend=m -object memory-backend-file,id=m,size=1M,mem-path=/nonexistent/ram",
    "-machine q35,memory-backend=m -object memory-backend-file,id=m,size=1M,mem-path=TEXT",
    "-machine q35,memory-backend=m -object memory-backend-file,id=m,size=1M,mem-path=/dev/null",
    "-machine q35,memory-backend=m -object memory-backend-file,id=m,size=1M,mem-path=a -mem-path b",
    "-mem-path TEXT",
    "-netdev user,id=n",
    "-nic user",
    "-vga std",
    "-display gtk",
    "-audiodev pa,id=a",
    "-sandbox on,spawn=perhaps",
    "-run-with user=nobody-here",
    "-run-with chroot=/nonexistent",
    "-run-with async-teardown=maybe",
    "-d everything",
    "-D /nonexistent/log",
    "-pidfile /nonexistent/pid -machine none -S -nodefaults -display none",
    "-boot order=zz",
    "-boot once=cc",
    "-rtc base=yesterday",
    "-rtc clock=tr",
    "-rtc driftfix=slow",
    "-action watchdog=pause",
    "-watchdog-action none",
    "-overcommit mem-lock=maybe",
    "-uuid 1234",
    "-action reboot=explode",
    "-fw_cfg name=opt/x,file=/nonexistent/x",
    "-fw_cfg name=opt/x",
    "-qtest stdio",
    "-daemonize -nographic",
    "run",
    "run /nonexistent/kernel",
    "run KERNEL --smpp 2",
    "run KERNEL --keep",
];

#[test]
fn golden_every_mistake_is_a_sentence_and_status_1() {
    let kernel = Scratch::new("kernel", &kernels::hello("", 0));
    let text = Scratch::new("text", b"Dear guest,\nhow are you?\n");
    let qcow2 = Scratch::new("qcow2", b"QFI\xfb\0\0\0\x03");
    let rom = Scratch::new("rom", &[0xf4; 0x1_0000]);
    let files = [
        ("KERNEL", &kernel),
        ("TEXT", &text),
        ("QCOW2", &qcow2),
        ("ROM", &rom),
    ];
    let mut all = String::new();
    for line in MISTAKES {
        let with_paths = files.iter().fold((*line).to_owned(), |l, (name, file)| {
            l.replace(name, file.path())
        });
        let output = run(&with_paths);
        assert_eq!(output.status.code(), Some(1), "{line}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{line}: {}", stdout(&output));
        let message = stderr(&output);
        assert_eq!(message.lines().count(), 1, "{line}: {message}");
        let plain = files
            .iter()
            .fold(message, |m, (name, file)| m.replace(file.path(), name));
        all += &format!("$ mimic {line}\n{plain}\n");
    }
    golden("errors.txt", &all);
}

#[test]
fn more_memory_than_the_host_has_is_refused() {
    let output = run("-m 16384T");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("more than this host has"),
        "{}",
        stderr(&output)
    );
}
