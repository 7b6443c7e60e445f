use std::sync::{Arc, Mutex};

use backend_block::SharedBlock;

use crate::{Address, BusLimits, Cdb, Job, ScsiBus, Sense, Unit, op};

#[derive(Default)]
struct Fake {
    attention: Option<Sense>,
}

impl Unit for Fake {
    fn medium(&self) -> Option<SharedBlock> {
        None
    }
    fn command(&mut self, _: Cdb<'_>) -> Result<Job, Sense> {
        self.attention.take().map_or(Ok(Job::DONE), Err)
    }
    fn parameters(&mut self, _: Cdb<'_>, _: &[u8]) -> Result<Job, Sense> {
        Ok(Job::DONE)
    }
    fn attention(&mut self, sense: Sense) {
        self.attention = Some(sense);
    }
    fn reset(&mut self) {
        self.attention = Some(Sense::RESET);
    }
}

fn bus() -> ScsiBus {
    ScsiBus::new(BusLimits {
        channel: 0,
        target: 2,
        lun: 300,
    })
}

fn unit() -> Arc<Mutex<Fake>> {
    Arc::default()
}

fn at(target: u16, lun: u16) -> Address {
    Address {
        channel: 0,
        target,
        lun,
    }
}

#[test]
fn units_without_a_place_get_a_target_each() {
    let bus = bus();
    assert_eq!(bus.plug(0, None, None, unit()).unwrap(), at(0, 0));
    assert_eq!(bus.plug(0, Some(1), None, unit()).unwrap(), at(1, 0));
    assert_eq!(bus.plug(0, None, None, unit()).unwrap(), at(2, 0));
    assert_eq!(bus.plug(0, Some(1), None, unit()).unwrap(), at(1, 1));
    assert_eq!(bus.plug(0, Some(1), Some(299), unit()).unwrap(), at(1, 299));
    let error = |target, lun| bus.plug(0, target, lun, unit()).unwrap_err().to_string();
    assert!(error(None, None).contains("full"));
    assert!(error(Some(1), Some(299)).contains("lun=299 is another device's"));
    assert!(error(Some(3), None).contains("no scsi-id=3: the last is 2"));
    assert!(error(Some(0), Some(301)).contains("no lun=301"));
}

#[test]
fn a_target_lists_its_units_and_answers_for_those_it_lacks() {
    let bus = bus();
    bus.plug(0, Some(1), Some(2), unit()).unwrap();
    bus.plug(0, Some(1), Some(256), unit()).unwrap();
    assert!(bus.has_target(0, 1) && !bus.has_target(0, 0));
    let report = [op::REPORT_LUNS, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0];
    let Ok(Job::In(list)) = bus.command(at(1, 0), Cdb(&report)) else {
        panic!("no list");
    };
    assert_eq!(list[..8], [0, 0, 0, 24, 0, 0, 0, 0]);
    let luns: Vec<_> = list[8..].chunks(8).map(|lun| (lun[0], lun[1])).collect();
    assert_eq!(luns, [(0, 0), (0, 2), (0x41, 0)]);
    let inquiry = [op::INQUIRY, 0, 0, 0, 255, 0];
    let Ok(Job::In(answer)) = bus.command(at(1, 0), Cdb(&inquiry)) else {
        panic!("no answer");
    };
    assert_eq!((answer[0], answer.len()), (0x7f, 36));
    let ready = [op::TEST_UNIT_READY, 0, 0, 0, 0, 0];
    assert_eq!(bus.command(at(1, 0), Cdb(&ready)), Err(Sense::NO_SUCH_UNIT));
    assert_eq!(bus.command(at(1, 2), Cdb(&ready)), Ok(Job::DONE));
}

#[test]
fn resets_and_changes_are_told_once_each() {
    let bus = bus();
    bus.plug(0, Some(0), None, unit()).unwrap();
    bus.plug(0, Some(1), None, unit()).unwrap();
    let ready = [op::TEST_UNIT_READY, 0, 0, 0, 0, 0];
    assert_eq!(bus.reset(at(0, 0)..at(1, 0)), 1);
    assert_eq!(bus.command(at(0, 0), Cdb(&ready)), Err(Sense::RESET));
    assert_eq!(bus.command(at(0, 0), Cdb(&ready)), Ok(Job::DONE));
    bus.units_changed(0, 1);
    assert_eq!(
        bus.command(at(1, 0), Cdb(&ready)),
        Err(Sense::UNITS_CHANGED)
    );
}

#[test]
fn commands_of_each_length_say_which_blocks() {
    let blocks = |bytes: &[u8]| Cdb(bytes).blocks();
    assert_eq!(blocks(&[0x08, 0xe1, 2, 3, 0, 0]), (0x1_0203, 256));
    assert_eq!(
        blocks(&[0x28, 0, 0, 1, 2, 3, 0, 4, 5, 0]),
        (0x1_0203, 0x405)
    );
    assert_eq!(
        blocks(&[0xa8, 0, 0, 1, 2, 3, 0, 1, 4, 5, 0, 0]),
        (0x1_0203, 0x1_0405)
    );
    assert_eq!(
        blocks(&[0x88, 0, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 1, 0, 0]),
        (0x0908_0706_0504_0302, 0x0100_0001)
    );
    // What a short command lacks is zero.
    assert_eq!(blocks(&[0x88, 0, 1]), (1 << 56, 0));
}
