//! Keys by QEMU's names, with their scan codes.
//!
//! Names: QEMU `qapi/ui.json`, `QKeyCode`. Codes: scan code set 2 (IBM PS/2 Hardware Interface
//! Technical Reference, "Keyboards"; USB HID to PS/2 Scan Code Translation Table). Set 1 follows by
//! [`translate`](crate::translate).

use crate::translate::to_set_1;

/// Marks a code with the 0xe0 prefix.
const E0: u16 = 0xe000;

/// A key of a PC keyboard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Key {
    /// Scan code set 2, the prefix in the upper half.
    code: u16,
}

/// Keys whose codes follow no rule.
pub(crate) const PAUSE: Key = Key { code: 0xe177 };
pub(crate) const PRINT: Key = Key { code: E0 | 0x7c };
pub(crate) const SYSRQ: Key = Key { code: 0x84 };
pub(crate) const ALT: Key = Key { code: 0x11 };
pub(crate) const ALT_R: Key = Key { code: E0 | 0x11 };

impl Key {
    /// The key of this name.
    pub fn by_name(name: &str) -> Option<Key> {
        KEYS.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, code)| Key { code: *code })
    }

    /// The key of this number: its set 1 code, with bit 7 set for keys with the 0xe0 prefix.
    pub fn by_number(number: u8) -> Option<Key> {
        let prefix = if number & 0x80 != 0 { 0xe0 } else { 0 };
        KEYS.iter()
            .map(|(_, code)| Key { code: *code })
            .find(|key| key.prefix() == prefix && to_set_1(key.low()) == number & 0x7f)
    }

    /// All names, in the order of the keyboard's codes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KEYS.iter().map(|(name, _)| *name)
    }

    /// Its name; the first, where a key has several.
    pub fn name(self) -> &'static str {
        KEYS.iter()
            .find(|(_, code)| *code == self.code)
            .map_or("unmapped", |(name, _)| *name)
    }

    /// The set 2 code without prefix.
    pub(crate) fn low(self) -> u8 {
        self.code as u8
    }

    /// 0, 0xe0 or 0xe1.
    pub(crate) fn prefix(self) -> u8 {
        (self.code >> 8) as u8
    }
}

#[rustfmt::skip]
const KEYS: &[(&str, u16)] = &[
    ("shift", 0x12), ("shift_r", 0x59), ("alt", 0x11), ("alt_r", E0 | 0x11),
    ("ctrl", 0x14), ("ctrl_r", E0 | 0x14), ("menu", E0 | 0x1c),
    ("esc", 0x76), ("1", 0x16), ("2", 0x1e), ("3", 0x26), ("4", 0x25), ("5", 0x2e),
    ("6", 0x36), ("7", 0x3d), ("8", 0x3e), ("9", 0x46), ("0", 0x45), ("minus", 0x4e),
    ("equal", 0x55), ("backspace", 0x66), ("tab", 0x0d),
    ("q", 0x15), ("w", 0x1d), ("e", 0x24), ("r", 0x2d), ("t", 0x2c), ("y", 0x35),
    ("u", 0x3c), ("i", 0x43), ("o", 0x44), ("p", 0x4d),
    ("bracket_left", 0x54), ("bracket_right", 0x5b), ("ret", 0x5a),
    ("a", 0x1c), ("s", 0x1b), ("d", 0x23), ("f", 0x2b), ("g", 0x34), ("h", 0x33),
    ("j", 0x3b), ("k", 0x42), ("l", 0x4b), ("semicolon", 0x4c), ("apostrophe", 0x52),
    ("grave_accent", 0x0e), ("backslash", 0x5d),
    ("z", 0x1a), ("x", 0x22), ("c", 0x21), ("v", 0x2a), ("b", 0x32), ("n", 0x31),
    ("m", 0x3a), ("comma", 0x41), ("dot", 0x49), ("slash", 0x4a),
    ("kp_multiply", 0x7c), ("asterisk", 0x7c), ("spc", 0x29), ("caps_lock", 0x58),
    ("f1", 0x05), ("f2", 0x06), ("f3", 0x04), ("f4", 0x0c), ("f5", 0x03), ("f6", 0x0b),
    ("f7", 0x83), ("f8", 0x0a), ("f9", 0x01), ("f10", 0x09), ("f11", 0x78), ("f12", 0x07),
    ("num_lock", 0x77), ("scroll_lock", 0x7e),
    ("kp_divide", E0 | 0x4a), ("kp_subtract", 0x7b), ("kp_add", 0x79),
    ("kp_enter", E0 | 0x5a), ("kp_decimal", 0x71), ("sysrq", 0x84),
    ("kp_0", 0x70), ("kp_1", 0x69), ("kp_2", 0x72), ("kp_3", 0x7a), ("kp_4", 0x6b),
    ("kp_5", 0x73), ("kp_6", 0x74), ("kp_7", 0x6c), ("kp_8", 0x75), ("kp_9", 0x7d),
    ("less", 0x61), ("print", E0 | 0x7c),
    ("home", E0 | 0x6c), ("pgup", E0 | 0x7d), ("pgdn", E0 | 0x7a), ("end", E0 | 0x69),
    ("left", E0 | 0x6b), ("up", E0 | 0x75), ("down", E0 | 0x72), ("right", E0 | 0x74),
    ("insert", E0 | 0x70), ("delete", E0 | 0x71),
    ("stop", E0 | 0x28), ("again", E0 | 0x25), ("props", E0 | 0x2e), ("undo", E0 | 0x36),
    ("front", E0 | 0x4e), ("copy", E0 | 0x63), ("open", 0x08), ("paste", 0x10),
    ("find", E0 | 0x83), ("cut", E0 | 0x06), ("lf", 0x1f), ("help", E0 | 0x5c),
    ("meta_l", E0 | 0x1f), ("meta_r", E0 | 0x27), ("compose", E0 | 0x2f),
    ("pause", 0xe177), ("ro", 0x51), ("hiragana", 0x62), ("henkan", 0x64), ("yen", 0x6a),
    ("muhenkan", 0x67), ("katakanahiragana", 0x13), ("kp_comma", 0x6d), ("kp_equals", 0x0f),
    ("power", E0 | 0x37), ("sleep", E0 | 0x3f), ("wake", E0 | 0x5e),
    ("audionext", E0 | 0x4d), ("audioprev", E0 | 0x15), ("audiostop", E0 | 0x3b),
    ("audioplay", E0 | 0x34), ("audiomute", E0 | 0x23), ("volumeup", E0 | 0x32),
    ("volumedown", E0 | 0x21), ("mediaselect", E0 | 0x50), ("mail", E0 | 0x48),
    ("calculator", E0 | 0x2b), ("computer", E0 | 0x40), ("ac_home", E0 | 0x3a),
    ("ac_back", E0 | 0x38), ("ac_forward", E0 | 0x30), ("ac_refresh", E0 | 0x20),
    ("ac_bookmarks", E0 | 0x18), ("lang1", 0xf2), ("lang2", 0xf1),
    ("f13", 0x08), ("f14", 0x10), ("f15", 0x18), ("f16", 0x20), ("f17", 0x28), ("f18", 0x30),
    ("f19", 0x38), ("f20", 0x40), ("f21", 0x48), ("f22", 0x50), ("f23", 0x57), ("f24", 0x5f),
];
