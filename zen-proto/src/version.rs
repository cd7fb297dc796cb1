//! The version. All crates of the workspace have the same one, and are released from one commit.

/// The text after the program's name in `--version`, such as `0.1.0 (d88c6cf)`, or `0.1.0` if the commit is not known.
pub const VERSION: &str = env!("ZEN_VERSION");

/// The abbreviated commit that this was built from; `None` unless it was built from a git checkout or a package.
pub const COMMIT: Option<&str> = option_env!("ZEN_COMMIT");
