use std::sync::Arc;

use backend_block::{SharedBlock, Tray, zero_disk};
use hw_core::{Args, Device, DeviceClass, DeviceError, Links};
use hw_scsi::{Cdb, Job, Sense, Unit, op};
use proptest::prelude::*;

use crate::disk::{Disk, DiskOptions};
use crate::{CLASSES, Cable, Cd, Identity};

fn identity() -> Identity {
    Identity {
        vendor: "QEMU".into(),
        product: "QEMU HARDDISK".into(),
        version: "2.5+".into(),
        serial: "S1".into(),
        device_id: "S1".into(),
        wwn: 0x5000_1234_5678_9abc,
        ..Identity::default()
    }
}

fn options() -> DiskOptions {
    DiskOptions {
        identity: identity(),
        logical_block_size: 512,
        physical_block_size: 4096,
        min_io_size: 4096,
        opt_io_size: 0,
        discard_granularity: 4096,
        max_unmap_size: 1 << 30,
        max_io_size: (1 << 31) - 1,
        rotation_rate: 1,
        scsi_version: 5,
        removable: false,
        dpofua: true,
        write_back: true,
        read_only: false,
    }
}

fn disk(len: u64) -> Disk {
    Disk::new(zero_disk("d", len).unwrap(), options()).unwrap()
}

fn ask(unit: &mut dyn Unit, cdb: &[u8]) -> Vec<u8> {
    match unit.command(Cdb(cdb)) {
        Ok(Job::In(bytes)) => bytes,
        other => panic!("{cdb:x?}: {other:?}"),
    }
}

#[test]
fn capacities_are_told_in_both_forms() {
    let mut small = disk(1 << 20);
    let mut ten = [0; 10];
    ten[0] = op::READ_CAPACITY_10;
    assert_eq!(ask(&mut small, &ten), [0, 0, 7, 0xff, 0, 0, 2, 0]);
    let sixteen = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
    let bytes = ask(&mut small, &sixteen);
    assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 7, 0xff, 0, 0, 2, 0]);
    // Eight blocks to a physical one; thin.
    assert_eq!((bytes[13], bytes[14], bytes.len()), (3, 0x80, 32));
    // What the short form cannot say is all ones.
    let mut large = disk(4 << 40);
    assert_eq!(ask(&mut large, &ten)[..4], [0xff; 4]);
    assert_eq!(
        ask(&mut large, &sixteen)[..8],
        [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]
    );
}

#[test]
fn a_disk_of_no_blocks_has_no_capacity_to_tell() {
    let mut empty = disk(0);
    let mut ten = [0; 10];
    ten[0] = op::READ_CAPACITY_10;
    let sixteen = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
    for cdb in [ten.as_slice(), &sixteen] {
        assert!(matches!(empty.command(Cdb(cdb)), Err(Sense::NOT_READY)));
    }
}

#[test]
fn vital_product_data_name_the_disk_and_its_limits() {
    let mut disk = disk(1 << 20);
    let mut page = |number| ask(&mut disk, &[op::INQUIRY, 1, number, 1, 0, 0]);
    assert_eq!(page(0), [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    assert_eq!(page(0x80)[2..], [0, 2, b'S', b'1']);
    let names = page(0x83);
    assert_eq!(names[4..10], [2, 0, 0, 2, b'S', b'1']);
    assert_eq!(names[10..14], [1, 3, 0, 8]);
    assert_eq!(names[14..], 0x5000_1234_5678_9abcu64.to_be_bytes());
    let limits = page(0xb0);
    let word = |at: usize| u32::from_be_bytes(limits[at..at + 4].try_into().unwrap());
    assert_eq!((limits.len(), limits[7]), (64, 8));
    assert_eq!(
        [word(8), word(20), word(24), word(28)],
        [4_194_303, 2_097_152, 255, 8]
    );
    assert_eq!(page(0xb1)[4..6], [0, 1]);
    assert_eq!(page(0xb2)[4..], [0, 0xe0, 2, 0]);
}

#[test]
fn an_attention_is_told_once_and_not_by_every_command() {
    let mut disk = disk(1 << 20);
    disk.attention(Sense::CAPACITY_CHANGED);
    ask(&mut disk, &[op::INQUIRY, 0, 0, 0, 36, 0]);
    assert_eq!(disk.command(Cdb(&[0; 6])), Err(Sense::CAPACITY_CHANGED));
    assert_eq!(disk.command(Cdb(&[0; 6])), Ok(Job::DONE));
    // A reset is the more urgent; REQUEST SENSE has it as its data.
    disk.reset();
    disk.attention(Sense::CAPACITY_CHANGED);
    let sense = ask(&mut disk, &[op::REQUEST_SENSE, 0, 0, 0, 18, 0]);
    assert_eq!((sense[2], sense[12], sense[13]), (6, 0x29, 0));
    let sense = ask(&mut disk, &[op::REQUEST_SENSE, 1, 0, 0, 18, 0]);
    assert_eq!(sense, [0x72, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn mode_pages_come_in_both_forms_with_the_write_protection() {
    let mut disk = disk(1 << 20);
    let six = ask(&mut disk, &[op::MODE_SENSE_6, 0, 0x3f, 0, 255, 0]);
    assert_eq!(six.len(), usize::from(six[0]) + 1);
    // DPOFUA; 2048 blocks of 512 bytes.
    assert_eq!(six[..12], [six[0], 0, 0x10, 8, 0, 0, 8, 0, 0, 0, 2, 0]);
    let ten = ask(&mut disk, &[op::MODE_SENSE_10, 8, 8, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(ten[..11], [0, 26, 0, 0x10, 0, 0, 0, 0, 8, 18, 4]);
    let changeable = ask(&mut disk, &[op::MODE_SENSE_6, 8, 0x48, 0, 255, 0]);
    assert_eq!((changeable[6], changeable[7..].iter().max()), (4, Some(&0)));
    let saved = Cdb(&[op::MODE_SENSE_6, 8, 0xc8, 0, 255, 0]);
    assert_eq!(disk.command(saved), Err(Sense::NO_SAVED_PAGES));
}

#[test]
fn a_drive_says_what_happened_to_its_medium() {
    let tray = Tray::new("cd", None);
    let mut cd = Cd::new(tray.clone(), identity(), Cable::Scsi);
    let ready = [0; 6];
    assert_eq!(cd.command(Cdb(&ready)), Err(Sense::TRAY_CLOSED_EMPTY));
    tray.open(false).unwrap();
    assert_eq!(cd.command(Cdb(&ready)), Err(Sense::TRAY_OPEN));
    tray.insert(zero_disk("cd", 4096).unwrap()).unwrap();
    tray.set_open(false);
    assert_eq!(cd.command(Cdb(&ready)), Err(Sense::MEDIUM_CHANGED));
    assert_eq!(cd.command(Cdb(&ready)), Ok(Job::DONE));
    let event = ask(
        &mut cd,
        &[op::GET_EVENT_STATUS, 1, 0, 0, 0x10, 0, 0, 0, 8, 0],
    );
    assert_eq!(event[4..6], [2, 2]);
    let capacity = ask(&mut cd, &[op::READ_CAPACITY_10, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(capacity, [0, 0, 0, 1, 0, 0, 8, 0]);
    // A locked drive keeps its medium.
    ask(&mut cd, &[op::PREVENT_ALLOW, 0, 0, 0, 1, 0]);
    let eject = [op::START_STOP_UNIT, 0, 0, 0, 2, 0];
    assert_eq!(cd.command(Cdb(&eject)), Err(Sense::REMOVAL_PREVENTED));
    assert!(tray.open(false).is_err());
    cd.reset();
    tray.open(false).unwrap();
}

#[test]
fn a_saved_unit_is_told_what_it_was_to_be_told() {
    use crate::device::Kept;
    let mut before = disk(1 << 20);
    before.attention(Sense::CAPACITY_CHANGED);
    let saved = Kept::save(&before);
    let mut after = disk(1 << 20);
    Kept::restore(&mut after, &saved).unwrap();
    assert_eq!(Kept::save(&after), saved);
    assert_eq!(after.command(Cdb(&[0; 6])), Err(Sense::CAPACITY_CHANGED));
    let tray = || Tray::new("cd", Some(zero_disk("cd", 4096).unwrap()));
    let mut before = Cd::new(tray(), identity(), Cable::Scsi);
    before.reset();
    let saved = Kept::save(&before);
    let mut after = Cd::new(tray(), identity(), Cable::Scsi);
    Kept::restore(&mut after, &saved).unwrap();
    assert_eq!(after.command(Cdb(&[0; 6])), Err(Sense::RESET));
}

fn create(
    class: &'static DeviceClass,
    given: &[(&str, &str)],
) -> Result<Box<dyn Device>, DeviceError> {
    let mut links = Links::default();
    let disk: SharedBlock = zero_disk("d", 1 << 20).unwrap();
    links.offer("drive", "d", disk);
    links.offer("medium", "d", Arc::clone(&Tray::new("d", None)));
    (class.create)(&Args::new(class, given.iter().copied())?, &mut links)
}

#[test]
fn impossible_properties_are_refused() {
    let error = |given: &[(&str, &str)]| create(CLASSES[0], given).err().unwrap().to_string();
    assert!(error(&[]).contains("needs drive="));
    for (name, value, why) in [
        ("logical_block_size", "1000", "powers of two"),
        ("logical_block_size", "8192", "larger than physical"),
        ("min_io_size", "700", "multiple of logical_block_size"),
        ("max_io_size", "1", "less than a block"),
        ("scsi_version", "9", "from 3 to 6"),
    ] {
        let text = error(&[("drive", "d"), (name, value)]);
        assert!(text.contains(why), "{name}={value}: {text}");
    }
    assert!(create(CLASSES[1], &[("drive", "d")]).is_ok());
    assert!(create(CLASSES[1], &[]).is_ok());
}

proptest! {
    #[test]
    fn random_commands_stay_within_the_medium(
        cdb in proptest::collection::vec(any::<u8>(), 1..32),
        data in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..600),
    ) {
        let len = 1 << 20;
        let mut disk = disk(len);
        let cdb = Cdb(&cdb);
        let job = match disk.command(cdb) {
            Ok(Job::Parameters(_)) => disk.parameters(cdb, &data),
            job => job,
        };
        match job {
            Ok(Job::Read { offset, len: n } | Job::Write { offset, len: n, .. } | Job::Fill { offset, len: n, .. }) => {
                prop_assert!(n > 0 && offset + n <= len);
            }
            Ok(Job::Parameters(_)) => prop_assert!(false, "asks twice"),
            _ => {}
        }
        let tray = Tray::new("cd", Some(zero_disk("cd", 64 << 10).unwrap()));
        let mut cd = Cd::new(tray, identity(), Cable::Scsi);
        if let Ok(Job::Read { offset, len }) = cd.command(cdb) {
            prop_assert!(offset + len <= 64 << 10);
        }
    }
}
