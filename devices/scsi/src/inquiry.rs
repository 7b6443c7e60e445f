//! INQUIRY: what a unit says of itself (SPC-4, 6.4), and its vital product data (7.8).

use hw_scsi::{Cdb, Job, Sense, cut};

use crate::counted;

/// Names and numbers of a unit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// `vendor`, of which 8 bytes are shown.
    pub vendor: String,
    /// `product`, of which 16 bytes are shown.
    pub product: String,
    /// `ver`, of which 4 bytes are shown.
    pub version: String,
    /// `serial`, of which 36 bytes are shown; 20 on ATAPI.
    pub serial: String,
    /// `device_id`: how page 83h names it.
    pub device_id: String,
    /// `wwn`; zero for none.
    pub wwn: u64,
    /// `port_wwn`; zero for none.
    pub port_wwn: u64,
    /// `port_index`; zero for none.
    pub port_index: u16,
}

/// What kinds of units differ in.
pub(crate) struct Standard {
    /// PERIPHERAL DEVICE TYPE
    pub(crate) kind: u8,
    /// RMB: media can be taken out.
    pub(crate) is_removable: bool,
    /// VERSION
    pub(crate) version: u8,
    /// The byte with the response data format.
    pub(crate) format: u8,
    /// CMDQUE and the like.
    pub(crate) flags: u8,
}

/// A page of vital product data: number and body.
pub(crate) type Page = (u8, Vec<u8>);

const CODE_BINARY: u8 = 1;
const CODE_ASCII: u8 = 2;
const NAA: u8 = 3;
/// The descriptor is about the target port (7.8.6.1), and its protocol is SAS.
const OF_PORT: u8 = 0x90;
const SAS: u8 = 0x60;
const PORT_INDEX: u8 = 4;

fn text(bytes: &mut Vec<u8>, text: &str, len: usize) {
    let printable = |byte: u8| match byte {
        0x20..0x7f => byte,
        _ => b' ',
    };
    let letters = text.bytes().map(printable);
    bytes.extend(letters.chain(std::iter::repeat(b' ')).take(len));
}

fn descriptor(code: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(body.len()).unwrap_or(0);
    [&[code, kind, 0, len], body].concat()
}

impl Identity {
    /// Page 83h: Device Identification.
    fn designators(&self) -> Vec<u8> {
        let name: Vec<u8> = self.device_id.bytes().take(236).collect();
        let mut body = Vec::new();
        if !name.is_empty() {
            body.extend(descriptor(CODE_ASCII, 0, &name));
        }
        if self.wwn != 0 {
            body.extend(descriptor(CODE_BINARY, NAA, &self.wwn.to_be_bytes()));
        }
        if self.port_wwn != 0 {
            let port = self.port_wwn.to_be_bytes();
            body.extend(descriptor(SAS | CODE_BINARY, OF_PORT | NAA, &port));
        }
        if self.port_index != 0 {
            let [high, low] = self.port_index.to_be_bytes();
            let index = [0, 0, high, low];
            body.extend(descriptor(SAS | CODE_BINARY, OF_PORT | PORT_INDEX, &index));
        }
        body
    }

    /// Answers INQUIRY. `own` are the pages beside those that all units have.
    pub(crate) fn inquiry(
        &self,
        cdb: Cdb<'_>,
        standard: &Standard,
        own: Vec<Page>,
    ) -> Result<Job, Sense> {
        let room = cdb.number(3, 2);
        let page = cdb.byte(2);
        if cdb.byte(1) & 1 == 0 {
            if page != 0 {
                return Err(Sense::BAD_FIELD);
            }
            let removable = if standard.is_removable { 0x80 } else { 0 };
            let mut bytes = vec![standard.kind, removable, standard.version, standard.format];
            bytes.extend([31, 0, 0, standard.flags]);
            text(&mut bytes, &self.vendor, 8);
            text(&mut bytes, &self.product, 16);
            text(&mut bytes, &self.version, 4);
            return Ok(cut(bytes, room));
        }
        let mut pages: Vec<Page> = Vec::new();
        if !self.serial.is_empty() {
            pages.push((0x80, self.serial.bytes().collect()));
        }
        pages.push((0x83, self.designators()));
        pages.extend(own);
        let body = match page {
            0 => {
                let numbers = pages.iter().map(|(number, _)| *number);
                std::iter::once(0).chain(numbers).collect()
            }
            _ => {
                let found = pages.into_iter().find(|(number, _)| *number == page);
                found.ok_or(Sense::BAD_FIELD)?.1
            }
        };
        let mut bytes = vec![standard.kind, page];
        bytes.extend(counted(body));
        Ok(cut(bytes, room))
    }
}
