//! What the busy connections do: most ask, some misbehave.

use std::str::FromStr;

/// The behavior of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Asks and reads; only its times are reported.
    Good,
    /// Sends its questions byte by byte.
    Drip,
    /// Sends nothing.
    Silent,
}

/// The parts of each kind, as in `good=90,drip=5,silent=5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix {
    good: u32,
    drip: u32,
    silent: u32,
}

impl Mix {
    /// Returns how many of `connections` are good, drip and are silent: rounded, but at least one of each kind that is
    /// asked for, as far as they suffice.
    pub(super) fn shares(self, connections: usize) -> [usize; 3] {
        let all = f64::from(self.good) + f64::from(self.drip) + f64::from(self.silent);
        let share = |parts: u32| match parts {
            0 => 0,
            parts => ((connections as f64 * f64::from(parts) / all).round() as usize).max(1),
        };
        let drip = share(self.drip).min(connections - 1);
        let silent = share(self.silent).min(connections - 1 - drip);
        [connections - drip - silent, drip, silent]
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut good, mut drip, mut silent) = (None, None, None);
        for part in text.split(',') {
            let (name, parts) = part.split_once('=').ok_or_else(|| format!("'{part}' is not NAME=PARTS"))?;
            let kind = match name {
                "good" => &mut good,
                "drip" => &mut drip,
                "silent" => &mut silent,
                _ => return Err(format!("'{name}' is none of good, drip, silent")),
            };
            let parts = parts.parse::<u32>().map_err(|_| format!("'{parts}' is not a number of parts"))?;
            if kind.replace(parts).is_some() {
                return Err(format!("'{name}' is there twice"));
            }
        }
        match good {
            None | Some(0) => Err("at least one part must ask: good=1".to_owned()),
            Some(good) => Ok(Self { good, drip: drip.unwrap_or(0), silent: silent.unwrap_or(0) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_and_no_kind_is_forgotten() {
        let mix: Mix = "good=90,drip=5,silent=5".parse().unwrap();
        assert_eq!(mix.shares(100), [90, 5, 5]);
        assert_eq!(mix.shares(16), [14, 1, 1]);
        assert_eq!(mix.shares(3), [1, 1, 1]);
        assert_eq!(mix.shares(2), [1, 1, 0]);
        assert_eq!(mix.shares(1), [1, 0, 0]);
        assert_eq!("good=1".parse::<Mix>().unwrap().shares(16), [16, 0, 0]);
    }

    #[test]
    fn a_wrong_mix_says_why() {
        for wrong in ["", "good", "good=x", "good=1,good=2", "fast=1", "drip=5", "good=0,drip=1", "good=-1"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }
}
