//! What was found, as bars.

use anyhow::Result;

use super::{
    AT_ONCE, Amounts, By, Findings, Load, What,
    summary::{name_of, scaled},
};
use crate::report::{Bar, Chart, Group, Spread};

/// How long containers take, and how long ports.
///
/// # Errors
/// When something was not measured.
pub(super) fn of(amounts: &Amounts, findings: &Findings) -> Result<Vec<Chart>> {
    let bar = |series: String, value: Spread| Bar { series, value };
    let chart = |file, title: &str, about: String| {
        let title = title.to_owned();
        Chart { file, title, about, line: None, groups: Vec::new() }
    };
    let mut containers =
        chart("control", "Starting and removing containers", "milliseconds a container".to_owned());
    for count in amounts.containers {
        let load = Load::Containers(*count);
        let each = |what| -> Result<Spread> {
            Ok(scaled(findings.seconds(By::Rnet, what, load)?, 1000.0 / f64::from(*count)))
        };
        let bars = vec![
            bar("rnet run".to_owned(), each(What::Run)?),
            bar(format!("rnet run, {AT_ONCE} at once"), each(What::RunAtOnce)?),
            bar("rnet rm".to_owned(), each(What::Remove)?),
            bar("rnet down".to_owned(), each(What::Down)?),
        ];
        containers.groups.push(Group { label: load.to_string(), bars, noise: None });
    }
    let ports = Load::Ports(amounts.ports);
    let mut publishing = chart("control-ports", "Publishing many ports", format!("seconds for {ports}"));
    let batches = [By::Rnet, By::Nft, By::IptablesRestore];
    for (label, tools) in
        [("in one call", &batches[..]), ("in single calls, estimated", &[By::Rnet, By::IptablesCalls])]
    {
        let bars = tools
            .iter()
            .map(|by| Ok(bar(name_of(*by).to_owned(), findings.seconds(*by, What::Publish, ports)?)));
        let bars = bars.collect::<Result<_>>()?;
        publishing.groups.push(Group { label: label.to_owned(), bars, noise: None });
    }
    Ok(vec![containers, publishing])
}
