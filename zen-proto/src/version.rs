//! Which version this is: all crates of the workspace have the same, and are released from one commit.

/// What `--version` says behind the name of a program, such as `0.1.0 (d88c6cf)`; without a known commit, `0.1.0`.
pub const VERSION: &str = env!("ZEN_VERSION");

/// The commit that this was built from, shortened; none is known outside a checkout and a package.
pub const COMMIT: Option<&str> = option_env!("ZEN_COMMIT");
