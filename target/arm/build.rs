//! Compiles the instruction tables.

use std::path::Path;

fn main() {
    let tables = [
        "a64/immediate",
        "a64/branch",
        "a64/memory",
        "a64/register",
        "a64/simd",
        "a64/float",
        "a32/a32",
        "a32/t32",
        "a32/system",
        "a32/vfp",
        "a32/neon",
    ];
    let Some(out) = std::env::var_os("OUT_DIR") else {
        return;
    };
    for table in tables {
        let from = format!("src/{table}.decode");
        let name = table.rsplit('/').next().unwrap_or(table);
        println!("cargo:rerun-if-changed={from}");
        let made = std::fs::read_to_string(&from)
            .map_err(|e| e.to_string())
            .and_then(|text| target_decode::compile(&text).map_err(|e| e.to_string()))
            .and_then(|code| {
                let to = Path::new(&out).join(format!("{name}.rs"));
                std::fs::write(to, code).map_err(|e| e.to_string())
            });
        if let Err(why) = made {
            println!("cargo:error={from}: {why}");
        }
    }
}
