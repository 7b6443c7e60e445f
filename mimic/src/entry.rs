//! From the process's arguments to its exit status.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use control_options::{Outcome, parse};

use crate::logging::{self, Style};
use crate::{guests, help, img, life, run};

/// The process: `mimic`, or one of QEMU's names.
pub fn main() -> ExitCode {
    runtime::heap::share();
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let program = Path::new(&program).file_name().map_or_else(
        || "mimic".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    let collected: Result<Vec<String>> = args
        .map(|arg| {
            arg.into_string().map_err(|arg| {
                anyhow!(
                    "the argument '{}' is not valid UTF-8",
                    arg.to_string_lossy()
                )
            })
        })
        .collect();
    let status = match collected {
        Ok(args) => emulate(&program, &args),
        Err(error) => fail(&Style::new(&program, None), &error),
    };
    // Statuses above 255 do not exist; a guest's `isa-debug-exit` has its own below.
    ExitCode::from(u8::try_from(status & 0xff).unwrap_or(1))
}

/// Does what the arguments after `program` say, messages included. Returns the exit status.
pub fn emulate(program: &str, args: &[String]) -> i32 {
    let mut style = Style::new(program, None);
    match start(program, args, &mut style) {
        Ok(status) => status,
        Err(error) => fail(&style, &error),
    }
}

fn start(program: &str, args: &[String], style: &mut Style) -> Result<i32> {
    if program == "qemu-img" {
        return img::run(program, args);
    }
    guests::of_program(program)?;
    let is_ours = !program.starts_with("qemu-system-");
    if is_ours && args.is_empty() {
        bail!(
            "nothing to boot: '{program} run FILE' starts a disk image or a kernel on this terminal, '{program} -help' lists all \
             options"
        );
    }
    if let Some((first, rest)) = args.split_first()
        && is_ours
        && first == "img"
    {
        return img::run(&format!("{program} img"), rest);
    }
    let translated;
    let args = match args.split_first() {
        Some((first, rest)) if is_ours && first == "run" => match run::arguments(program, rest)? {
            run::Request::Run(args) => {
                translated = args;
                &translated
            }
            run::Request::Print(text) => return print(&text),
        },
        _ => args,
    };
    let config = match parse(args)? {
        Outcome::Version => return print(&help::version()),
        Outcome::Help(request, _) => return print(&help::text(&request, program)?),
        Outcome::Run(config) => config,
    };
    *style = Style::new(program, Some(&config));
    logging::install(style.clone(), &config)?;
    let guest = guests::choose(program, config.machine.as_deref())?;
    life::run(&config, guest)
}

/// Writes to the standard output.
pub(crate) fn print(text: &str) -> Result<i32> {
    // A reader that has seen enough (`| head -1`) is no error.
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
    Ok(0)
}

fn fail(style: &Style, error: &anyhow::Error) -> i32 {
    runtime::terminal::restore();
    eprintln!("{}{}", style.prefix(), sentence(error));
    1
}

/// An error and its causes in one line, each said once.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut out = String::new();
    for cause in error.chain() {
        let mut text = cause.to_string();
        // The number of a host's error means nothing to users.
        while let Some(at) = text.find(" (os error ") {
            let rest = text.get(at..).unwrap_or_default();
            let end = rest.find(')').map_or(text.len(), |n| at + n + 1);
            text.replace_range(at..end, "");
        }
        if out.contains(&text) {
            continue;
        }
        if !out.is_empty() {
            out += ": ";
        }
        out += &text;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_sentence_without_repeats_or_numbers() {
        let inner = io::Error::from_raw_os_error(2);
        let error = anyhow::Error::new(inner).context("cannot open 'x'");
        assert_eq!(
            sentence(&error),
            "cannot open 'x': No such file or directory"
        );
        let error = error.context("cannot open 'x'");
        assert_eq!(
            sentence(&error),
            "cannot open 'x': No such file or directory"
        );
    }
}
