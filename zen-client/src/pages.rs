//! Manual pages and completions from a program's clap definition, for `manual.rs` and `cargo xtask manual`. The client
//! itself does not use it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// Writes a page for the program and each of its commands, and a completion for each shell, into a folder.
pub(crate) fn write(program: &Command, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut program = visible(program);
    let name = program.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut program, &name, folder).context("cannot write a completion")?;
    }
    write_page(&program, folder).context("cannot write a page")
}

/// Writes the page of a command, and of each of its subcommands.
fn write_page(command: &Command, folder: &Path) -> Result<()> {
    command.get_subcommands().try_for_each(|command| write_page(command, folder))?;
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render(&mut page)?;
    let page = String::from_utf8(page)?;
    let name = command.get_display_name().unwrap_or(command.get_name());
    // clap_mangen leaves out an empty date, and the next argument takes its place.
    let head = format!(".TH \"{}\" \"1\" \"\" \"zen {}\" \"zen\"", name.to_uppercase(), zen_proto::VERSION);
    let lines = page.lines().map(|line| if line.starts_with(".TH ") { &head } else { line });
    // The head has the version already.
    let lines = lines.take_while(|&line| line != ".SH VERSION");
    fs::write(folder.join(man.get_filename()), lines.flat_map(|line| [line, "\n"]).collect::<String>())?;
    Ok(())
}

/// Returns the command without its hidden parts, which a completion would show.
fn visible(command: &Command) -> Command {
    // clap needs static names, and this program exits soon.
    let name: &'static str = command.get_name().to_owned().leak();
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned();
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set()).map(visible);
    let mut seen = Command::new(name).args(arguments).subcommands(commands).disable_help_subcommand(true);
    if let Some(about) = command.get_about() {
        seen = seen.about(about.clone());
    }
    if command.get_version().is_some() { seen.version(zen_proto::VERSION) } else { seen }
}
