//! SMART (ATA8-ACS, 7.52): a disk that is always well, and has no attributes.
//!
//! Not modelled: attributes, self-tests that take time, logs of errors.

use super::{Disk, data};
use crate::drive::{ABORTED, Begun, Failure, Job};
use crate::taskfile::TaskFile;

const READ_DATA: u8 = 0xd0;
const READ_THRESHOLDS: u8 = 0xd1;
const AUTOSAVE: u8 = 0xd2;
const EXECUTE_OFFLINE: u8 = 0xd4;
const READ_LOG: u8 = 0xd5;
const ENABLE: u8 = 0xd8;
const DISABLE: u8 = 0xd9;
const RETURN_STATUS: u8 = 0xda;

/// What the LBA registers hold with every subcommand.
const KEY: u16 = 0xc24f;

/// Log addresses (A.2).
const LOG_DIRECTORY: u8 = 0;
const LOG_ERRORS: u8 = 1;
const LOG_SELF_TESTS: u8 = 6;

/// A structure of 512 bytes with its checksum in the last.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(511, 0);
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes.push(sum.wrapping_neg());
    bytes
}

impl Disk {
    pub(super) fn smart(&mut self, registers: &TaskFile) -> Result<Begun, Failure> {
        let subcommand = registers.feature as u8;
        if registers.byte_count() != KEY || !(self.state.smart || subcommand == ENABLE) {
            return Err(ABORTED);
        }
        let [low, ..] = registers.lba;
        match subcommand {
            READ_DATA => {
                let mut bytes = vec![0x10, 0];
                bytes.resize(367, 0);
                bytes.push(0x1b); // off-line tests, self-tests
                bytes.extend([3, 0, 1]); // attributes are saved; logs are there
                bytes.extend([0, 1, 1]); // minutes of the self-tests
                Ok(data(sealed(bytes)))
            }
            READ_THRESHOLDS => Ok(data(sealed(vec![0x10, 0]))),
            READ_LOG => match low as u8 {
                LOG_DIRECTORY => {
                    let mut bytes = vec![0; 512];
                    for log in [LOG_DIRECTORY, LOG_ERRORS, LOG_SELF_TESTS] {
                        if let Some(blocks) = bytes.get_mut(usize::from(log).wrapping_mul(2)) {
                            *blocks = 1;
                        }
                    }
                    Ok(data(bytes))
                }
                LOG_ERRORS | LOG_SELF_TESTS => Ok(data(sealed(vec![1, 0]))),
                _ => Err(ABORTED),
            },
            AUTOSAVE | EXECUTE_OFFLINE => Ok(Begun::new(Job::Done)),
            ENABLE | DISABLE => {
                self.state.smart = subcommand == ENABLE;
                Ok(Begun::new(Job::Done))
            }
            // The registers keep the key: no threshold was exceeded.
            RETURN_STATUS => Ok(Begun::new(Job::Done)),
            _ => Err(ABORTED),
        }
    }
}
