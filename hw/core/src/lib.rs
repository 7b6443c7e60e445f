//! What a device is: accesses, pins, wiring, class table.
