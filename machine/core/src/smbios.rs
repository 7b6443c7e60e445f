//! SMBIOS tables from a machine's description and `-smbios`.

use firmware_smbios::{EntryPoint, Smbios, Tables};

use crate::board::BoardError;
use crate::spec::MachineSpec;

/// The tables of a machine with RAM at these addresses, each with its bytes.
pub fn smbios(
    spec: &MachineSpec,
    ram: &[(u64, u64)],
    entry: EntryPoint,
) -> Result<Tables, BoardError> {
    let error = |e: &dyn std::fmt::Display| BoardError::Config(format!("-smbios: {e}"));
    let mut options = Smbios::default();
    for option in &spec.smbios {
        let get = |name: &str| {
            option
                .iter()
                .find(|(k, _)| k == name)
                .map(|(_, v)| v.as_str())
        };
        if let Some(file) = get("file") {
            let bytes =
                std::fs::read(file).map_err(|e| error(&format!("cannot read '{file}': {e}")))?;
            options.add_file(&bytes).map_err(|e| error(&e))?;
            continue;
        }
        let kind = get("type").and_then(|t| t.parse().ok());
        let kind = kind.ok_or_else(|| error(&"give type=N, a structure's number, or file=PATH"))?;
        let fields = option
            .iter()
            .filter(|(k, _)| k != "type")
            .map(|(k, v)| (k.as_str(), v.as_str()));
        options.add(kind, fields).map_err(|e| error(&e))?;
    }
    let t = &spec.topology;
    let machine = firmware_smbios::Machine {
        manufacturer: "Mimic",
        product: spec.machine.doc,
        version: spec.machine.name,
        uuid: spec.uuid,
        sockets: t.sockets as u16,
        cores: (t.cores * t.dies.max(1) * t.clusters.max(1)) as u16,
        threads: t.threads as u16,
        processor_id: 0,
        ram,
    };
    Ok(firmware_smbios::build(&machine, &options, entry))
}
