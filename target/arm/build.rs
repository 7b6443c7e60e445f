//! Compiles the instruction tables.

use std::path::Path;

fn main() {
    let tables = ["immediate", "branch", "memory", "register", "simd", "float"];
    let Some(out) = std::env::var_os("OUT_DIR") else {
        return;
    };
    for table in tables {
        let from = format!("src/a64/{table}.decode");
        println!("cargo:rerun-if-changed={from}");
        let made = std::fs::read_to_string(&from)
            .map_err(|e| e.to_string())
            .and_then(|text| target_decode::compile(&text).map_err(|e| e.to_string()))
            .and_then(|code| {
                let to = Path::new(&out).join(format!("{table}.rs"));
                std::fs::write(to, code).map_err(|e| e.to_string())
            });
        if let Err(why) = made {
            println!("cargo:error={from}: {why}");
        }
    }
}
