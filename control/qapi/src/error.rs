//! How a command fails.

use serde_json::{Value, json};

/// QEMU's error classes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorClass {
    /// Anything without a class of its own.
    Generic,
    /// No such command, or not in this state of the session.
    CommandNotFound,
    /// The device is there but not active.
    DeviceNotActive,
    /// No such device or device type.
    DeviceNotFound,
    /// KVM is wanted and missing.
    KvmMissingCap,
}

impl ErrorClass {
    /// As it is sent.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generic => "GenericError",
            Self::CommandNotFound => "CommandNotFound",
            Self::DeviceNotActive => "DeviceNotActive",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::KvmMissingCap => "KVMMissingCap",
        }
    }
}

/// A failed command: a class for programs and a sentence for people.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{desc}")]
pub struct QmpError {
    /// For programs.
    pub class: ErrorClass,
    /// For people.
    pub desc: String,
}

impl QmpError {
    /// A failure without a class of its own.
    pub fn generic(desc: impl Into<String>) -> Self {
        Self {
            class: ErrorClass::Generic,
            desc: desc.into(),
        }
    }

    /// A failure of this class.
    pub fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        Self {
            class,
            desc: desc.into(),
        }
    }

    /// An argument of the wrong JSON type.
    pub fn wrong_type(name: &str, expected: &str) -> Self {
        Self::generic(format!(
            "Invalid parameter type for '{name}', expected: {expected}"
        ))
    }

    /// As it is sent.
    pub fn to_json(&self) -> Value {
        json!({ "class": self.class.name(), "desc": self.desc })
    }
}
