//! What only the x87 has (Intel SDM volume 1, chapter 8; volume 2 for each instruction).
//!
//! Everything here takes its operands in the double extended format, rounds to 64 bits whatever precision control
//! says, and expects an environment with [`NanRule::X87`](crate::NanRule::X87).

mod bcd;
mod constant;
mod exponential;
mod partial;
mod series;
mod trigonometric;

pub use bcd::{fbld, fbstp};
pub use constant::{Constant, constant};
pub use exponential::{f2xm1, fyl2x, fyl2xp1};
pub use partial::{fprem, fprem1, fscale, fxtract};
pub use trigonometric::{fcos, fpatan, fptan, fsin, fsincos};
