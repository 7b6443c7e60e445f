//! Numbers, sizes and switches as QEMU's users write them.

/// Bytes per unit of a size suffix.
fn unit(suffix: char) -> Option<u64> {
    Some(match suffix.to_ascii_uppercase() {
        'B' => 1,
        'K' => 1 << 10,
        'M' => 1 << 20,
        'G' => 1 << 30,
        'T' => 1 << 40,
        'P' => 1 << 50,
        'E' => 1 << 60,
        _ => return None,
    })
}

/// A size: `512`, `2G`, `1.5M`, `0x1000`. A plain number counts in `default_unit` bytes. `None` if it is no size or
/// does not fit 64 bits.
pub fn size(text: &str, default_unit: u64) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // No suffix after hexadecimal: 'B' and 'E' would be digits.
        return parse_radix(hex, 16)?.checked_mul(default_unit);
    }
    let (digits, unit) = match text.chars().next_back() {
        Some(c) if !c.is_ascii_digit() && c != '.' => {
            (text.strip_suffix(c).unwrap_or_default(), unit(c)?)
        }
        _ => (text, default_unit),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let bytes = parse_radix(whole, 10)?.checked_mul(unit)?;
    if fraction.is_empty() {
        return if digits.ends_with('.') {
            None
        } else {
            Some(bytes)
        };
    }
    // Exact up to 18 digits, and beyond that no size differs.
    let kept: String = fraction.chars().take(18).collect();
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = 10u128.checked_pow(u32::try_from(kept.len()).ok()?)?;
    let part = u128::from(parse_radix(&kept, 10)?)
        .checked_mul(u128::from(unit))?
        .checked_div(scale)?;
    bytes.checked_add(u64::try_from(part).ok()?)
}

/// A size with the unit that suits it, three digits: `196 KiB`.
pub fn readable(bytes: u64) -> String {
    const UNITS: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while value >= 1000.0
        && let Some(next) = units.next()
    {
        value /= 1024.0;
        unit = Some(next);
    }
    let digits = match value {
        v if v >= 100.0 || v.fract() == 0.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let number = format!("{value:.digits$}");
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => &number,
    };
    format!("{number} {}", unit.unwrap_or(&""))
}

/// An unsigned number: decimal, `0x` hexadecimal, or octal with a leading zero, as C reads it.
pub fn unsigned(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        parse_radix(hex, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        parse_radix(text, 8)
    } else {
        parse_radix(text, 10)
    }
}

/// A signed number, in the same forms.
pub fn signed(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(rest) => 0i64.checked_sub_unsigned(unsigned(rest)?),
        None => i64::try_from(unsigned(text)?).ok(),
    }
}

/// `on`, `off` and their synonyms.
pub fn switch(text: &str) -> Option<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

/// A MAC address, `52:54:00:12:34:56` or with dashes.
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next()?;
        if part.len() > 2 {
            return None;
        }
        *byte = u8::try_from(parse_radix(part, 16)?).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// `SLOT[.FUNCTION]` of a PCI device in hexadecimal, as the number that has both.
pub fn pci_address(text: &str) -> Option<u8> {
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let hex = |text: &str| parse_radix(text.strip_prefix("0x").unwrap_or(text), 16);
    let slot = hex(slot).filter(|slot| *slot < 32)?;
    let function = hex(function).filter(|function| *function < 8)?;
    u8::try_from((slot << 3) | function).ok()
}

/// Digits only: Rust's own parser also takes a sign.
fn parse_radix(digits: &str, radix: u32) -> Option<u64> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// Formats a size the way it would be written: in the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    for (suffix, shift) in [
        ("EiB", 60),
        ("PiB", 50),
        ("TiB", 40),
        ("GiB", 30),
        ("MiB", 20),
        ("KiB", 10),
    ] {
        let whole = bytes.wrapping_shr(shift);
        if whole != 0 && whole.wrapping_shl(shift) == bytes {
            return format!("{whole} {suffix}");
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_suffixes_fractions_and_a_default_unit() {
        assert_eq!(size("512", 1 << 20), Some(512 << 20));
        assert_eq!(size("2G", 1 << 20), Some(2 << 30));
        assert_eq!(size("1.5M", 1), Some(3 << 19));
        assert_eq!(size("0x1000", 1), Some(4096));
        assert_eq!(size("4096b", 1 << 20), Some(4096));
        assert_eq!(size("1.5", 1 << 20), Some(3 << 19));
        for bad in [
            "",
            "G",
            "-1",
            "1.",
            ".5",
            "1Q",
            "16E",
            "99999999999999999999",
            "1.x",
            "+5",
            "1 G",
        ] {
            assert_eq!(size(bad, 1), None, "{bad}");
        }
    }

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        assert_eq!(
            (unsigned("10"), unsigned("0x10"), unsigned("010")),
            (Some(10), Some(16), Some(8))
        );
        assert_eq!(
            (unsigned("09"), unsigned("+1"), unsigned("0x")),
            (None, None, None)
        );
        assert_eq!(signed("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(signed("9223372036854775808"), None);
    }

    #[test]
    fn sizes_are_readable() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (200_704, "196 KiB"),
            (1 << 30, "1 GiB"),
            (3 << 29, "1.5 GiB"),
        ] {
            assert_eq!(readable(bytes), text);
        }
    }

    #[test]
    fn mac_addresses_have_six_parts() {
        assert_eq!(
            mac("52:54:00:12:34:56"),
            Some([0x52, 0x54, 0, 0x12, 0x34, 0x56])
        );
        for bad in [
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:567",
            "",
            "g:0:0:0:0:0",
        ] {
            assert_eq!(mac(bad), None, "{bad}");
        }
    }
}
