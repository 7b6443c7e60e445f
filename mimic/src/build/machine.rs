//! `-machine`: the board, and its properties checked.

use anyhow::{Result, bail};
use control_options::{Config, OnOffAuto, PropDef, PropValue, Props, number};
use hw_core::Prop;
use machine_core::MachineDef;

/// A machine's properties as the options' own tables have them.
pub(crate) fn prop_table(props: &[Prop]) -> Vec<PropDef> {
    props
        .iter()
        .map(|prop| PropDef {
            name: prop.name,
            kind: prop.ty,
            default: (!prop.default.is_empty()).then_some(prop.default),
            required: false,
            doc: prop.doc,
        })
        .collect()
}

/// The properties that were given, each in its usual form.
pub(super) fn machine_props(
    machine: &MachineDef,
    config: &Config,
) -> Result<Vec<(String, String)>> {
    let opts = &config.machine_opts;
    for (key, value) in opts.iter() {
        if machine.is_absent(key) && number::switch(value.text()) == Some(true) {
            bail!(
                "-machine: '{key}=on' is not available yet for machine '{}'; leave it out",
                machine.name
            );
        }
    }
    let subject = format!("machine '{}'", machine.name);
    let props = Props::check("-machine", &subject, opts, &prop_table(&machine.props()))?;
    if let Some(id) = props.text("pcspk-audiodev").filter(|id| !id.is_empty())
        && !config.audiodevs.iter().any(|audio| audio.id() == Some(id))
    {
        bail!("-machine: there is no audiodev with the id '{id}'; add '-audiodev none,id={id}'");
    }
    let limit = props.unsigned("max-ram-below-4g").unwrap_or(0);
    if limit != 0 && !(1 << 20..=1 << 32).contains(&limit) {
        bail!("-machine: 'max-ram-below-4g' is 1M to 4G, or 0 for the machine's own limit");
    }
    Ok(opts
        .iter()
        .map(|(key, value)| match props.get(key) {
            Some(PropValue::OnOffAuto(OnOffAuto::On)) => (key, "on".to_owned()),
            Some(PropValue::OnOffAuto(OnOffAuto::Off)) => (key, "off".to_owned()),
            Some(PropValue::Unsigned(n)) => (key, n.to_string()),
            _ => (key, value.text().to_owned()),
        })
        .map(|(key, value)| (key.to_owned(), value))
        .collect())
}
