//! The calendar: seconds since 1970 to fields and back, in any of the chip's notations.

use crate::regs::{PM, b};

pub(crate) const S_PER_DAY: i64 = 86_400;

/// A moment as the chip counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar; days beyond a month's end
/// run into the next.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last one.
    let year = if month <= 2 {
        year.wrapping_sub(1)
    } else {
        year
    };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = month.wrapping_add(9) % 12;
    let day_of_year = month
        .wrapping_mul(153)
        .wrapping_add(2)
        .div_euclid(5)
        .wrapping_add(day)
        .wrapping_sub(1);
    let leap_days = year_of_era
        .div_euclid(4)
        .wrapping_sub(year_of_era.div_euclid(100));
    let day_of_era = year_of_era
        .wrapping_mul(365)
        .wrapping_add(leap_days)
        .wrapping_add(day_of_year);
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    era.wrapping_mul(146_097)
        .wrapping_add(day_of_era)
        .wrapping_sub(719_468)
}

impl Moment {
    /// From seconds since 1970.
    pub(crate) fn from_seconds(seconds: i64) -> Self {
        let day_number = seconds.div_euclid(S_PER_DAY).wrapping_add(719_468);
        let of_day = seconds.rem_euclid(S_PER_DAY);
        let era = day_number.div_euclid(146_097);
        let day_of_era = day_number.rem_euclid(146_097);
        let year_of_era = day_of_era
            .wrapping_sub(day_of_era.div_euclid(1460))
            .wrapping_add(day_of_era.div_euclid(36_524))
            .wrapping_sub(day_of_era.div_euclid(146_096))
            .div_euclid(365);
        let before = year_of_era
            .wrapping_mul(365)
            .wrapping_add(year_of_era.div_euclid(4))
            .wrapping_sub(year_of_era.div_euclid(100));
        let day_of_year = day_of_era.wrapping_sub(before);
        let from_march = day_of_year.wrapping_mul(5).wrapping_add(2).div_euclid(153);
        let month_start = from_march.wrapping_mul(153).wrapping_add(2).div_euclid(5);
        let month = (from_march.wrapping_add(2) % 12).wrapping_add(1);
        let year = era.wrapping_mul(400).wrapping_add(year_of_era);
        Moment {
            year: if month <= 2 {
                year.wrapping_add(1)
            } else {
                year
            },
            month,
            day: day_of_year.wrapping_sub(month_start).wrapping_add(1),
            hour: of_day.div_euclid(3600),
            minute: of_day.div_euclid(60) % 60,
            second: of_day % 60,
        }
    }

    /// Seconds since 1970; fields beyond their range carry over.
    pub(crate) fn seconds(&self) -> i64 {
        days(self.year, self.month.clamp(1, 12), self.day)
            .wrapping_mul(S_PER_DAY)
            .wrapping_add(self.hour.wrapping_mul(3600))
            .wrapping_add(self.minute.wrapping_mul(60))
            .wrapping_add(self.second)
    }

    /// Sunday is 1.
    pub(crate) fn weekday(&self) -> i64 {
        // 1970-01-01 was a Thursday.
        days(self.year, self.month, self.day)
            .wrapping_add(4)
            .rem_euclid(7)
            .wrapping_add(1)
    }
}

/// A number below 100 in the notation of register B.
pub(crate) fn encode(value: i64, register_b: u8) -> u8 {
    let value = value.rem_euclid(100) as u8;
    if register_b & b::BINARY != 0 {
        value
    } else {
        (value.wrapping_div(10) << 4) | (value % 10)
    }
}

/// The inverse of [`encode`]; bad digits count for what they are worth.
pub(crate) fn decode(byte: u8, register_b: u8) -> i64 {
    if register_b & b::BINARY != 0 {
        byte.into()
    } else {
        i64::from(byte >> 4)
            .wrapping_mul(10)
            .wrapping_add(i64::from(byte & 0x0f))
    }
}

/// An hour in the notation of register B.
pub(crate) fn encode_hour(hour: i64, register_b: u8) -> u8 {
    if register_b & b::HOURS_24 != 0 {
        return encode(hour, register_b);
    }
    let of_half = match hour % 12 {
        0 => 12,
        h => h,
    };
    encode(of_half, register_b) | if hour >= 12 { PM } else { 0 }
}

/// The inverse of [`encode_hour`].
pub(crate) fn decode_hour(byte: u8, register_b: u8) -> i64 {
    if register_b & b::HOURS_24 != 0 {
        return decode(byte, register_b);
    }
    let of_half = decode(byte & !PM, register_b) % 12;
    if byte & PM != 0 {
        of_half.wrapping_add(12)
    } else {
        of_half
    }
}
