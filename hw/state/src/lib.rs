//! Saved state: plain, tagged, versioned data.
