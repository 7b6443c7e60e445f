//! Drives and controllers, driven as drivers do it.

mod ahci;
mod parallel;
mod traffic;

use std::sync::{Arc, Mutex};

use backend_block::{Block, BlockError, BlockInfo, Operation, Request, SharedBlock, Tray};
use hw_core::{
    Access, Args, Attrs, ByteOrder, Clock, Device, DeviceClass, Fabric, Initiator, IrqHub, Links,
    Placement, RegionId, ResetKind,
};
use hw_memory::{MappingSpec, RamBlock, What};
use hw_pci::PciBus;

use crate::CLASSES;

/// Bytes of guest memory.
const RAM: u64 = 1 << 20;

/// A disk in memory that does what it is asked for when told to.
#[derive(Default)]
pub(super) struct RamDisk {
    bytes: Mutex<Vec<u8>>,
    held: Mutex<Vec<Request>>,
    log: Mutex<Vec<Operation>>,
    fails: Mutex<Option<BlockError>>,
}

impl RamDisk {
    pub(super) fn new(len: usize) -> Arc<Self> {
        let disk = RamDisk::default();
        *disk.bytes.lock().unwrap() = (0..len).map(|at| (at / 512 % 251) as u8).collect();
        Arc::new(disk)
    }

    /// Carries out what is waiting, until nothing is.
    pub(super) fn run(&self) {
        loop {
            let held = std::mem::take(&mut *self.held.lock().unwrap());
            if held.is_empty() {
                return;
            }
            for request in held {
                let result = match request.gate.pass() {
                    Some(_pass) => self.carry_out(&request),
                    None => Err(BlockError::Cancelled),
                };
                (request.done)(result);
            }
        }
    }

    fn carry_out(&self, request: &Request) -> Result<(), BlockError> {
        self.log.lock().unwrap().push(request.operation);
        if let Some(error) = *self.fails.lock().unwrap() {
            return Err(error);
        }
        let mut bytes = self.bytes.lock().unwrap();
        let len = request.memory.len() as usize;
        match request.operation {
            Operation::Read { offset } => {
                let from = bytes.get(offset as usize..).and_then(|b| b.get(..len));
                let from = from.ok_or(BlockError::OutOfRange)?;
                request.memory.copy_in(0, from).ok_or(BlockError::BadBuffer)
            }
            Operation::Write { offset } => {
                let to = bytes.get_mut(offset as usize..);
                let to = to.and_then(|b| b.get_mut(..len));
                let to = to.ok_or(BlockError::OutOfRange)?;
                request.memory.copy_out(0, to).ok_or(BlockError::BadBuffer)
            }
            _ => Ok(()),
        }
    }
}

impl Block for RamDisk {
    fn info(&self) -> BlockInfo {
        BlockInfo {
            id: "d".into(),
            file: String::new(),
            format: "raw".into(),
            read_only: false,
            discard: true,
            write_back: true,
        }
    }
    fn len(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }
    fn submit(&self, request: Request) {
        self.held.lock().unwrap().push(request);
    }
    fn barrier(&self) {}
    fn drain(&self) {
        self.run();
    }
}

/// A machine with one controller, a disk and a CD drive.
pub(super) struct Bench {
    pub(super) fabric: Fabric,
    bus: PciBus,
    pub(super) disk: Arc<RamDisk>,
    pub(super) cd: Arc<RamDisk>,
    pub(super) tray: Arc<Tray>,
    lines: Vec<IrqHub>,
    intx: Arc<Mutex<bool>>,
    devfn: u8,
}

fn class(name: &str) -> &'static DeviceClass {
    CLASSES.iter().find(|class| class.name == name).unwrap()
}

impl Bench {
    /// `controller` at slot 1; its buses 0 and 1 have a disk and a CD drive.
    pub(super) fn new(controller: Box<dyn Device>) -> Self {
        let fabric = Fabric::new(Clock::manual().0);
        let block = Arc::new(RamBlock::private("ram", RAM).unwrap());
        fabric.memory.add(MappingSpec {
            name: "ram".into(),
            base: 0,
            len: RAM,
            priority: 0,
            enabled: true,
            what: What::Ram { block, offset: 0 },
        });
        let intx = Arc::new(Mutex::new(false));
        let pin = intx.clone();
        let bus = PciBus::new(
            "pci.0",
            false,
            Arc::new(move |_: u32, level: bool| *pin.lock().unwrap() = level),
        );
        let nowhere: Arc<dyn hw_core::IrqSink> = Arc::new(|_: u32, _: bool| {});
        let lines: Vec<_> = (0..16).map(|n| IrqHub::new(nowhere.clone(), n)).collect();
        let placement = Placement {
            path: "controller".into(),
            bus_irqs: &lines,
            bus: Some(&bus),
            ..Placement::default()
        };
        let part = fabric.add(controller, placement).unwrap();
        let (disk, cd) = (RamDisk::new(1 << 20), RamDisk::new(1 << 20));
        let tray = Tray::new("cd", Some(cd.clone() as SharedBlock));
        let mut links = Links::default();
        links.offer("drive", "d", disk.clone() as SharedBlock);
        links.offer("medium", "cd", tray.clone());
        for (index, (name, drive)) in [("ide-hd", "d"), ("ide-cd", "cd")].into_iter().enumerate() {
            let args = Args::new(class(name), [("drive", drive), ("serial", "S1")]).unwrap();
            let device = (args.class().create)(&args, &mut links).unwrap();
            let bus = part.with(|device| device.child_buses()).swap_remove(index);
            let placement = Placement {
                path: name.into(),
                bus: Some(bus.bus.as_ref()),
                ..Placement::default()
            };
            fabric.add(device, placement).unwrap();
        }
        fabric.reset(ResetKind::Cold);
        let devfn = bus.devfns()[0];
        Bench {
            fabric,
            bus,
            disk,
            cd,
            tray,
            lines,
            intx,
            devfn,
        }
    }

    pub(super) fn config(&self, register: u16, size: u8, value: u64) {
        let access = Access {
            region: RegionId(0),
            offset: u64::from(register),
            size,
            by: Initiator::Cpu(0),
            attrs: Attrs::default(),
        };
        self.bus
            .write(0, self.devfn, register, access, value)
            .unwrap();
    }

    pub(super) fn out(&self, port: u64, size: u8, value: u64) {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let ports = self.fabric.ports.snapshot();
        ports
            .write(port, size, value, ByteOrder::Little, by, attrs)
            .unwrap();
    }

    pub(super) fn inp(&self, port: u64, size: u8) -> u64 {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let ports = self.fabric.ports.snapshot();
        ports
            .read(port, size, ByteOrder::Little, by, attrs)
            .unwrap()
    }

    pub(super) fn poke(&self, address: u64, bytes: &[u8]) {
        let dma = hw_core::Dma::new(self.fabric.memory.clone());
        dma.write(address, bytes).unwrap();
    }

    pub(super) fn peek(&self, address: u64, len: usize) -> Vec<u8> {
        let dma = hw_core::Dma::new(self.fabric.memory.clone());
        let mut bytes = vec![0; len];
        dma.read(address, &mut bytes).unwrap();
        bytes
    }

    pub(super) fn irq(&self, line: usize) -> bool {
        self.lines[line].level()
    }

    pub(super) fn intx(&self) -> bool {
        *self.intx.lock().unwrap()
    }

    pub(super) fn run(&self) {
        self.disk.run();
        self.cd.run();
    }

    /// Saves everything and takes it back.
    pub(super) fn save_and_restore(&self) {
        let saved = self.fabric.save();
        self.fabric.restore(&saved).unwrap();
    }
}

/// Text of IDENTIFY's words.
pub(super) fn text(identify: &[u8], word: usize, words: usize) -> String {
    let bytes = &identify[word * 2..(word + words) * 2];
    let swapped = bytes.chunks(2).flat_map(|pair| [pair[1], pair[0]]);
    String::from_utf8(swapped.collect())
        .unwrap()
        .trim()
        .to_owned()
}
