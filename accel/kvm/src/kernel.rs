//! What speaks with the kernel, alike on every kind of host.

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::Kvm;

use crate::KvmError;

pub(crate) mod bells;
pub(crate) mod door;
pub(crate) mod kick;
pub(crate) mod mapped;
mod reason;

pub(crate) fn refused(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Refused {
        what,
        source: error.into(),
    }
}

/// Opens `/dev/kvm`.
pub(crate) fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| {
        let error = std::io::Error::from(error);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => KvmError::NoDevice,
            Some(libc::EACCES | libc::EPERM) => KvmError::Permission,
            _ => KvmError::Open(error),
        }
    })?;
    let version = kvm.get_api_version();
    if u32::try_from(version) != Ok(KVM_API_VERSION) {
        return Err(KvmError::Version(version));
    }
    Ok(kvm)
}
