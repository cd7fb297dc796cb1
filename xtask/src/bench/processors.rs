//! Which processors the server uses and which the load. They share none, if there are at least two.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors of the server and of the load.
#[derive(Clone, Debug)]
pub(crate) struct Processors {
    pub(crate) server: Vec<usize>,
    pub(crate) load: Vec<usize>,
    all: Vec<usize>,
}

impl Processors {
    /// Splits the processors of this process into halves. They share no core, if there are at least two cores.
    pub(crate) fn of_this_machine() -> Result<Processors> {
        let allowed = sched_getaffinity(None).context("cannot find out which processors may be used")?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
        let mut cores: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        all.iter().for_each(|&cpu| cores.entry(core(cpu)).or_default().push(cpu));
        let (server, load) = halves(&cores.into_values().collect::<Vec<_>>());
        Ok(Processors { server, load, all })
    }

    /// Returns whether server and load use different processors.
    pub(crate) fn is_apart(&self) -> bool {
        self.server != self.load
    }

    /// Pins this thread, and the processes that it starts from now on, to the server's processors.
    pub(crate) fn for_server(&self) -> Result<()> {
        go_to(&self.server)
    }

    /// Pins this thread, and the processes that it starts from now on, to the load's processors.
    pub(crate) fn for_load(&self) -> Result<()> {
        go_to(&self.load)
    }

    /// Lets this thread run on all its processors again.
    pub(crate) fn anywhere(&self) -> Result<()> {
        go_to(&self.all)
    }
}

fn go_to(processors: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    processors.iter().for_each(|&cpu| set.set(cpu));
    // Child processes inherit the affinity, so nothing has to be done between fork() and exec().
    sched_setaffinity(None, &set).context("cannot set the processor affinity")
}

/// Splits the cores into those of the server and those of the load, and returns one hyperthread of each core.
///
/// If there is only one core, its hyperthreads are split.
fn halves(cores: &[Vec<usize>]) -> (Vec<usize>, Vec<usize>) {
    match cores {
        [] => (Vec::new(), Vec::new()),
        [only] if only.len() > 1 => (only[..1].to_vec(), only[1..2].to_vec()),
        [only] => (only.clone(), only.clone()),
        _ => {
            let (server, load) = cores.split_at(cores.len() / 2);
            let flat = |cores: &[Vec<usize>]| cores.iter().take(MOST).map(|core| core[0]).collect::<Vec<_>>();
            (flat(server), flat(load))
        }
    }
}

/// Returns the siblings of a processor, which are the same for all processors of a core.
fn core(cpu: usize) -> String {
    let siblings = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    fs::read_to_string(siblings).unwrap_or_else(|_| cpu.to_string())
}

/// The largest number of processors for the server, and for the load. Most servers have at most four busy threads.
const MOST: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_load_share_no_core_if_there_are_two() {
        assert_eq!(halves(&[vec![0]]), (vec![0], vec![0]));
        assert_eq!(halves(&[vec![0, 1]]), (vec![0], vec![1]));
        assert_eq!(halves(&[vec![0], vec![1]]), (vec![0], vec![1]));
        assert_eq!(halves(&[vec![0, 4], vec![1, 5], vec![2, 6], vec![3, 7]]), (vec![0, 1], vec![2, 3]));
    }
}
