//! The data types of the commands about descriptors that clients hand to us.

use crate::qapi_struct;

qapi_struct! {
    /// Arguments of `add-fd`.
    pub struct AddFdArgs {
        /// The set; a new one if not given.
        fdset_id: Option<u32> = "fdset-id",
        /// What is said of it when asked.
        opaque: Option<String> = "opaque",
    }
}

qapi_struct! {
    /// Where a descriptor is.
    pub struct AddfdInfo {
        /// Its set.
        fdset_id: u32 = "fdset-id",
        /// Its number.
        fd: i32 = "fd",
    }
}

qapi_struct! {
    /// Arguments of `remove-fd`.
    pub struct RemoveFdArgs {
        /// The set.
        fdset_id: u32 = "fdset-id",
        /// The descriptor's number; all of the set if not given.
        fd: Option<i32> = "fd",
    }
}

qapi_struct! {
    /// A descriptor of a set.
    pub struct FdsetFdInfo {
        /// Its number.
        fd: i32 = "fd",
        /// What was said of it.
        opaque: Option<String> = "opaque",
    }
}

qapi_struct! {
    /// A set.
    pub struct FdsetInfo {
        /// Its number.
        fdset_id: u32 = "fdset-id",
        /// What is in it.
        fds: Vec<FdsetFdInfo> = "fds",
    }
}
