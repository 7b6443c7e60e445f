//! `-sandbox`: system calls that a machine at work has no use for are refused by the host's kernel.

use anyhow::Result;
use control_options::Opts;

/// Restricts all threads of the process, for good.
#[cfg(target_arch = "x86_64")]
pub(crate) fn enter(opts: &Opts) -> Result<()> {
    use anyhow::Context as _;
    for program in filter::programs(opts)? {
        seccompiler::apply_filter_all_threads(&program)
            .context("-sandbox: the host refuses the filter of system calls")?;
    }
    Ok(())
}

/// There are no filters for this host.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn enter(_: &Opts) -> Result<()> {
    anyhow::bail!("-sandbox: this kind of host has no filters of system calls here; leave it out")
}

#[cfg(target_arch = "x86_64")]
mod filter {
    use std::collections::BTreeMap;

    use anyhow::{Context as _, Result};
    use control_options::Opts;
    use rustix::io::Errno;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };

    /// What nothing here ever needs.
    const ALWAYS: &[libc::c_long] = &[
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_syslog,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
    ];
    const OBSOLETE: &[libc::c_long] = &[
        libc::SYS__sysctl,
        libc::SYS_sysfs,
        libc::SYS_uselib,
        libc::SYS_ustat,
    ];
    const PRIVILEGES: &[libc::c_long] = &[
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setreuid,
        libc::SYS_setregid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setfsuid,
        libc::SYS_setfsgid,
        libc::SYS_setpgid,
        libc::SYS_setsid,
    ];
    const SPAWN: &[libc::c_long] = &[
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_execve,
        libc::SYS_execveat,
    ];
    const RESOURCES: &[libc::c_long] = &[
        libc::SYS_sched_setparam,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setattr,
        libc::SYS_sched_setaffinity,
        libc::SYS_setpriority,
        libc::SYS_ioprio_set,
        libc::SYS_setrlimit,
    ];

    type Rules = BTreeMap<i64, Vec<SeccompRule>>;

    /// The filters, in the order they are to be installed in.
    pub(super) fn programs(opts: &Opts) -> Result<Vec<BpfProgram>> {
        let denies = |key: &str| opts.text(key) == Some("deny");
        let mut rules = Rules::new();
        let mut add = |calls: &[libc::c_long]| rules.extend(calls.iter().map(|n| (*n, vec![])));
        add(ALWAYS);
        if opts.text("obsolete") != Some("allow") {
            add(OBSOLETE);
        }
        // A filter takes from children what could raise their privileges, as 'children' asks.
        if denies("elevateprivileges") {
            add(PRIVILEGES);
        }
        let mut all = Vec::new();
        if denies("resourcecontrol") {
            add(RESOURCES);
            // With a new limit; without one it only tells.
            let sets = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
            rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![sets])?]);
        }
        if denies("spawn") {
            rules.extend(SPAWN.iter().map(|n| (*n, vec![])));
            let thread = libc::CLONE_THREAD as u64;
            let no_thread = SeccompCondition::new(
                0,
                SeccompCmpArgLen::Qword,
                SeccompCmpOp::MaskedEq(thread),
                0,
            )?;
            rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_thread])?]);
            // Its flags are in memory, out of a filter's sight; C libraries make do with clone.
            let clone3 = Rules::from([(libc::SYS_clone3, vec![])]);
            all.push(program(clone3, Errno::NOSYS)?);
        }
        all.push(program(rules, Errno::PERM)?);
        Ok(all)
    }

    fn program(rules: Rules, error: Errno) -> Result<BpfProgram> {
        let refuse = SeccompAction::Errno(error.raw_os_error().cast_unsigned());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64)?;
        filter.try_into().context("-sandbox")
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;
    use std::{io, thread};

    use super::*;

    /// What starting a program comes to in a thread that is restricted so.
    fn start_in(text: &str) -> io::Result<bool> {
        let opts = Opts::parse("-sandbox", text, Some("enable")).unwrap();
        let restricted = move || {
            for program in filter::programs(&opts).unwrap() {
                seccompiler::apply_filter(&program).unwrap();
            }
            assert_eq!(thread::spawn(|| 7).join().unwrap(), 7);
            Command::new("true").status().map(|status| status.success())
        };
        thread::spawn(restricted).join().unwrap()
    }

    #[test]
    fn without_spawn_there_are_threads_but_no_programs() {
        assert!(start_in("on").unwrap());
        let error = start_in("on,spawn=deny").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
