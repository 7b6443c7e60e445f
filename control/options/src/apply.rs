//! What each option does to the [`crate::Config`], by topic.

pub(crate) mod boot;
pub(crate) mod general;
pub(crate) mod machine;
pub(crate) mod parts;
pub(crate) mod streams;

use crate::error::OptionError;
use crate::opts::Opts;
use crate::parse::{Builder, HelpRequest};
use crate::props::{PropDef, Props, help};

/// Reads and checks a list against a table of the command line's own. `None` if it asks for help instead.
fn checked(
    b: &mut Builder,
    option: &str,
    text: &str,
    implied: Option<&str>,
    table: &[PropDef],
) -> Result<Option<Props>, OptionError> {
    let opts = Opts::parse(option, text, implied)?;
    if opts.wants_help() || crate::opts::is_help(text) {
        b.ask(HelpRequest::Text(help(option, table)));
        return Ok(None);
    }
    Props::check(option, option, &opts, table).map(Some)
}
