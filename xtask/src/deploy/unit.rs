//! Reads the settings of `zen@.service`, and its command line as systemd would execute it.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result};

use super::fixture::part;
use crate::servers::Entry;

/// The unit of a port: `zen@1060.service`.
pub(super) struct Unit(Vec<(String, String)>);

impl Unit {
    pub(super) fn of(port: u16) -> Result<Unit> {
        let text = part("zen@.service")?.replace("%i", &port.to_string());
        let settings = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        Ok(Unit(settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }

    /// Returns all values of this key, in order.
    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(set, _)| set == key).map(|(_, value)| value.as_str())
    }

    /// Returns the command of `ExecStart=`, if the environment file names this server, with `arguments` after its own.
    pub(super) fn command(&self, entry: &Entry, arguments: &[&str]) -> Result<Command> {
        let server = entry.command()?;
        let own = server.get_args().map(|argument| argument.to_string_lossy().into_owned());
        let all: Vec<String> = own.chain(arguments.iter().map(ToString::to_string)).collect();
        let file = BTreeMap::from([
            ("$SERVER", vec![server.get_program().to_string_lossy().into_owned()]),
            ("$ARGUMENTS", all),
        ]);
        let line = self.all("ExecStart").last().context("the unit starts nothing")?;
        let words = line.split_whitespace().flat_map(|word| file.get(word).cloned().unwrap_or(vec![word.to_owned()]));
        let mut words = words.collect::<Vec<_>>().into_iter();
        let mut command = Command::new(words.next().context("ExecStart= is empty")?);
        command.args(words);
        Ok(command)
    }
}
