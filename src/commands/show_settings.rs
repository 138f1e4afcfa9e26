//! `ticketd config`: the settings of a command, as they count.

use std::io::Write;

use crate::config::ShownSetting;

/// Writes a line for each: name, value and origin, with tabs between.
pub fn show_settings(settings: &[ShownSetting], out: &mut impl Write) -> std::io::Result<()> {
    for ShownSetting {
        name,
        value,
        origin,
    } in settings
    {
        writeln!(out, "{name}\t{value}\t{origin}")?;
    }
    Ok(())
}
