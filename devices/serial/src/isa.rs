//! The classes: where the ports of a PC sit, and their properties.

use backend_char::CharFrontend;
use hw_core::{Args, BusKind, Category, DeviceClass, DeviceError, Links, Prop, PropType, Wiring};

use crate::line::Line;
use crate::parallel::Parallel;
use crate::uart::Uart16550;

/// First port and interrupt of COM1 to COM4.
pub const COM_PORTS: [(u16, u32); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// First port and interrupt of LPT1 to LPT3.
pub const LPT_PORTS: [(u16, u32); 3] = [(0x378, 7), (0x278, 7), (0x3bc, 7)];

/// Where a port is wished to be; what is not given follows from the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Number of the port; the first free one if not given.
    pub(crate) index: Option<u64>,
    /// First I/O port.
    pub(crate) iobase: Option<u64>,
    /// ISA interrupt.
    pub(crate) irq: Option<u64>,
}

impl Wish {
    fn of(args: &Args) -> Self {
        Wish {
            index: args.int("index"),
            iobase: args.int("iobase"),
            irq: args.int("irq"),
        }
    }

    /// The place in `table`, given what is already mapped.
    pub(crate) fn place(
        self,
        wiring: &dyn Wiring,
        table: &[(u16, u32)],
        what: &str,
    ) -> Result<(u64, u32), DeviceError> {
        let snapshot = wiring.port_map().snapshot();
        let index = match self.index {
            Some(index) => usize::try_from(index).unwrap_or(usize::MAX),
            None if self.iobase.is_some() && self.irq.is_some() => 0,
            None => table
                .iter()
                .position(|(base, _)| snapshot.find(u64::from(*base)).is_none())
                .unwrap_or(usize::MAX),
        };
        let usual = table.get(index).copied();
        if usual.is_none() && (self.index.is_some() || self.iobase.is_none() || self.irq.is_none())
        {
            return Err(DeviceError::Other(format!(
                "a PC has at most {} {what} ports; give iobase and irq for another",
                table.len()
            )));
        }
        let (base, irq) = usual.unwrap_or_default();
        let irq = self
            .irq
            .and_then(|irq| u32::try_from(irq).ok())
            .unwrap_or(irq);
        if irq > 15 {
            return Err(DeviceError::Other(format!(
                "irq {irq}: the ISA bus has interrupts 0 to 15"
            )));
        }
        Ok((self.iobase.unwrap_or(u64::from(base)), irq))
    }
}

/// The back end named by `chardev`: a [`CharFrontend`], or a boxed [`Line`].
pub(crate) fn line(args: &Args, links: &mut Links) -> Result<Option<Box<dyn Line>>, DeviceError> {
    match args.link::<CharFrontend>("chardev", links) {
        Ok(frontend) => Ok(frontend.map(|f| Box::new(f) as Box<dyn Line>)),
        // Not a character stream: another port, a test's line.
        Err(error) => match args.link::<Box<dyn Line>>("chardev", links) {
            Ok(line) => Ok(line),
            Err(_) => Err(error),
        },
    }
}

const INDEX: Prop = Prop {
    name: "index",
    ty: PropType::U32,
    default: "",
    doc: "number of the port, from 0; the first free one if not given",
};
const IOBASE: Prop = Prop {
    name: "iobase",
    ty: PropType::U32,
    default: "",
    doc: "first I/O port; follows from index if not given",
};
const IRQ: Prop = Prop {
    name: "irq",
    ty: PropType::U32,
    default: "",
    doc: "ISA interrupt; follows from index if not given",
};
pub(crate) const CHARDEV: Prop = Prop {
    name: "chardev",
    ty: PropType::Link("chardev"),
    default: "",
    doc: "id of the character stream at the other end",
};

/// `isa-serial`.
pub static ISA_SERIAL: DeviceClass = DeviceClass {
    name: "isa-serial",
    aliases: &[],
    doc: "16550A serial port",
    bus: BusKind::Isa,
    category: Category::Input,
    props: &[INDEX, IOBASE, IRQ, CHARDEV],
    user_creatable: true,
    create: |args, links| Ok(Box::new(Uart16550::new(Wish::of(args), line(args, links)?))),
};

/// `isa-parallel`.
pub static ISA_PARALLEL: DeviceClass = DeviceClass {
    name: "isa-parallel",
    aliases: &[],
    doc: "parallel port (SPP)",
    bus: BusKind::Isa,
    category: Category::Input,
    props: &[INDEX, IOBASE, IRQ, CHARDEV],
    user_creatable: true,
    create: |args, links| Ok(Box::new(Parallel::new(Wish::of(args), line(args, links)?))),
};
