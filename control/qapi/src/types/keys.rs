//! Names of keys, with their codes in PC scan code set 1.
//!
//! Source of the codes: IBM Personal System/2 Hardware Interface Technical Reference, "Keyboards", scan code set 1. Keys that send a
//! 0xe0 prefix have bit 7 set here.

use crate::qapi_enum;

qapi_enum! {
    /// A key by name.
    pub enum QKeyCode {
        /// `unmapped`.
        Unmapped = "unmapped",
        /// `shift`.
        Shift = "shift",
        /// `shift_r`.
        ShiftR = "shift_r",
        /// `alt`.
        Alt = "alt",
        /// `alt_r`.
        AltR = "alt_r",
        /// `ctrl`.
        Ctrl = "ctrl",
        /// `ctrl_r`.
        CtrlR = "ctrl_r",
        /// `menu`.
        Menu = "menu",
        /// `esc`.
        Esc = "esc",
        /// `1`.
        Digit1 = "1",
        /// `2`.
        Digit2 = "2",
        /// `3`.
        Digit3 = "3",
        /// `4`.
        Digit4 = "4",
        /// `5`.
        Digit5 = "5",
        /// `6`.
        Digit6 = "6",
        /// `7`.
        Digit7 = "7",
        /// `8`.
        Digit8 = "8",
        /// `9`.
        Digit9 = "9",
        /// `0`.
        Digit0 = "0",
        /// `minus`.
        Minus = "minus",
        /// `equal`.
        Equal = "equal",
        /// `backspace`.
        Backspace = "backspace",
        /// `tab`.
        Tab = "tab",
        /// `q`.
        Q = "q",
        /// `w`.
        W = "w",
        /// `e`.
        E = "e",
        /// `r`.
        R = "r",
        /// `t`.
        T = "t",
        /// `y`.
        Y = "y",
        /// `u`.
        U = "u",
        /// `i`.
        I = "i",
        /// `o`.
        O = "o",
        /// `p`.
        P = "p",
        /// `bracket_left`.
        BracketLeft = "bracket_left",
        /// `bracket_right`.
        BracketRight = "bracket_right",
        /// `ret`.
        Ret = "ret",
        /// `a`.
        A = "a",
        /// `s`.
        S = "s",
        /// `d`.
        D = "d",
        /// `f`.
        F = "f",
        /// `g`.
        G = "g",
        /// `h`.
        H = "h",
        /// `j`.
        J = "j",
        /// `k`.
        K = "k",
        /// `l`.
        L = "l",
        /// `semicolon`.
        Semicolon = "semicolon",
        /// `apostrophe`.
        Apostrophe = "apostrophe",
        /// `grave_accent`.
        GraveAccent = "grave_accent",
        /// `backslash`.
        Backslash = "backslash",
        /// `z`.
        Z = "z",
        /// `x`.
        X = "x",
        /// `c`.
        C = "c",
        /// `v`.
        V = "v",
        /// `b`.
        B = "b",
        /// `n`.
        N = "n",
        /// `m`.
        M = "m",
        /// `comma`.
        Comma = "comma",
        /// `dot`.
        Dot = "dot",
        /// `slash`.
        Slash = "slash",
        /// `asterisk`.
        Asterisk = "asterisk",
        /// `spc`.
        Spc = "spc",
        /// `caps_lock`.
        CapsLock = "caps_lock",
        /// `f1`.
        F1 = "f1",
        /// `f2`.
        F2 = "f2",
        /// `f3`.
        F3 = "f3",
        /// `f4`.
        F4 = "f4",
        /// `f5`.
        F5 = "f5",
        /// `f6`.
        F6 = "f6",
        /// `f7`.
        F7 = "f7",
        /// `f8`.
        F8 = "f8",
        /// `f9`.
        F9 = "f9",
        /// `f10`.
        F10 = "f10",
        /// `num_lock`.
        NumLock = "num_lock",
        /// `scroll_lock`.
        ScrollLock = "scroll_lock",
        /// `kp_divide`.
        KpDivide = "kp_divide",
        /// `kp_multiply`.
        KpMultiply = "kp_multiply",
        /// `kp_subtract`.
        KpSubtract = "kp_subtract",
        /// `kp_add`.
        KpAdd = "kp_add",
        /// `kp_enter`.
        KpEnter = "kp_enter",
        /// `kp_decimal`.
        KpDecimal = "kp_decimal",
        /// `sysrq`.
        Sysrq = "sysrq",
        /// `kp_0`.
        Kp0 = "kp_0",
        /// `kp_1`.
        Kp1 = "kp_1",
        /// `kp_2`.
        Kp2 = "kp_2",
        /// `kp_3`.
        Kp3 = "kp_3",
        /// `kp_4`.
        Kp4 = "kp_4",
        /// `kp_5`.
        Kp5 = "kp_5",
        /// `kp_6`.
        Kp6 = "kp_6",
        /// `kp_7`.
        Kp7 = "kp_7",
        /// `kp_8`.
        Kp8 = "kp_8",
        /// `kp_9`.
        Kp9 = "kp_9",
        /// `less`.
        Less = "less",
        /// `f11`.
        F11 = "f11",
        /// `f12`.
        F12 = "f12",
        /// `print`.
        Print = "print",
        /// `home`.
        Home = "home",
        /// `pgup`.
        Pgup = "pgup",
        /// `pgdn`.
        Pgdn = "pgdn",
        /// `end`.
        End = "end",
        /// `left`.
        Left = "left",
        /// `up`.
        Up = "up",
        /// `down`.
        Down = "down",
        /// `right`.
        Right = "right",
        /// `insert`.
        Insert = "insert",
        /// `delete`.
        Delete = "delete",
        /// `meta_l`.
        MetaL = "meta_l",
        /// `meta_r`.
        MetaR = "meta_r",
        /// `compose`.
        Compose = "compose",
        /// `pause`.
        Pause = "pause",
    }
}

/// A key without a code.
const NONE: u8 = 0;

impl QKeyCode {
    /// The key's number in `send-key` and its make code: bit 7 stands for the 0xe0 prefix.
    pub fn scan_code(self) -> Option<u8> {
        let code = match self {
            Self::Unmapped => NONE,
            Self::Shift => 0x2a,
            Self::ShiftR => 0x36,
            Self::Alt => 0x38,
            Self::AltR => 0xb8,
            Self::Ctrl => 0x1d,
            Self::CtrlR => 0x9d,
            Self::Menu => 0xdd,
            Self::Esc => 0x01,
            Self::Digit1 => 0x02,
            Self::Digit2 => 0x03,
            Self::Digit3 => 0x04,
            Self::Digit4 => 0x05,
            Self::Digit5 => 0x06,
            Self::Digit6 => 0x07,
            Self::Digit7 => 0x08,
            Self::Digit8 => 0x09,
            Self::Digit9 => 0x0a,
            Self::Digit0 => 0x0b,
            Self::Minus => 0x0c,
            Self::Equal => 0x0d,
            Self::Backspace => 0x0e,
            Self::Tab => 0x0f,
            Self::Q => 0x10,
            Self::W => 0x11,
            Self::E => 0x12,
            Self::R => 0x13,
            Self::T => 0x14,
            Self::Y => 0x15,
            Self::U => 0x16,
            Self::I => 0x17,
            Self::O => 0x18,
            Self::P => 0x19,
            Self::BracketLeft => 0x1a,
            Self::BracketRight => 0x1b,
            Self::Ret => 0x1c,
            Self::A => 0x1e,
            Self::S => 0x1f,
            Self::D => 0x20,
            Self::F => 0x21,
            Self::G => 0x22,
            Self::H => 0x23,
            Self::J => 0x24,
            Self::K => 0x25,
            Self::L => 0x26,
            Self::Semicolon => 0x27,
            Self::Apostrophe => 0x28,
            Self::GraveAccent => 0x29,
            Self::Backslash => 0x2b,
            Self::Z => 0x2c,
            Self::X => 0x2d,
            Self::C => 0x2e,
            Self::V => 0x2f,
            Self::B => 0x30,
            Self::N => 0x31,
            Self::M => 0x32,
            Self::Comma => 0x33,
            Self::Dot => 0x34,
            Self::Slash => 0x35,
            Self::Asterisk => 0x37,
            Self::Spc => 0x39,
            Self::CapsLock => 0x3a,
            Self::F1 => 0x3b,
            Self::F2 => 0x3c,
            Self::F3 => 0x3d,
            Self::F4 => 0x3e,
            Self::F5 => 0x3f,
            Self::F6 => 0x40,
            Self::F7 => 0x41,
            Self::F8 => 0x42,
            Self::F9 => 0x43,
            Self::F10 => 0x44,
            Self::NumLock => 0x45,
            Self::ScrollLock => 0x46,
            Self::KpDivide => 0xb5,
            Self::KpMultiply => 0x37,
            Self::KpSubtract => 0x4a,
            Self::KpAdd => 0x4e,
            Self::KpEnter => 0x9c,
            Self::KpDecimal => 0x53,
            Self::Sysrq => 0x54,
            Self::Kp0 => 0x52,
            Self::Kp1 => 0x4f,
            Self::Kp2 => 0x50,
            Self::Kp3 => 0x51,
            Self::Kp4 => 0x4b,
            Self::Kp5 => 0x4c,
            Self::Kp6 => 0x4d,
            Self::Kp7 => 0x47,
            Self::Kp8 => 0x48,
            Self::Kp9 => 0x49,
            Self::Less => 0x56,
            Self::F11 => 0x57,
            Self::F12 => 0x58,
            Self::Print => 0xb7,
            Self::Home => 0xc7,
            Self::Pgup => 0xc9,
            Self::Pgdn => 0xd1,
            Self::End => 0xcf,
            Self::Left => 0xcb,
            Self::Up => 0xc8,
            Self::Down => 0xd0,
            Self::Right => 0xcd,
            Self::Insert => 0xd2,
            Self::Delete => 0xd3,
            Self::MetaL => 0xdb,
            Self::MetaR => 0xdc,
            Self::Compose => 0xdd,
            Self::Pause => 0xc6,
        };
        (code != NONE).then_some(code)
    }
}
