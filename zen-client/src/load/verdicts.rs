//! What a run says about itself: whether the generator was the bottleneck, whether its figures agree, who was served.

use rustix::io::Errno;
use serde::Serialize;

use super::measured::Measured;
use super::objective::{Objectives, Outcome};

/// One judgement on the run. It does not change the exit status: only failures do.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) name: &'static str,
    /// `None`: there was nothing to judge.
    pub(crate) ok: Option<bool>,
    pub(crate) text: String,
}

/// All judgements that apply.
pub(crate) fn verdicts(measured: &Measured, fail_if: Option<&Objectives>) -> Vec<Verdict> {
    let mut verdicts = vec![processor(measured), littles_law(measured), served(measured)];
    verdicts.extend(rate(measured));
    verdicts.extend(ports(measured));
    let outcomes = fail_if.into_iter().flat_map(|objectives| objectives.judge(measured));
    let verdict = |outcome: Outcome| Verdict { name: "objective", ok: Some(!outcome.is_true), text: outcome.text };
    verdicts.extend(outcomes.map(verdict));
    verdicts
}

fn processor(measured: &Measured) -> Verdict {
    let name = "processor";
    if measured.seconds == 0.0 {
        return Verdict { name, ok: None, text: "the load generator, as nothing was measured".to_owned() };
    }
    let share = measured.busiest_share();
    let ok = share <= BUSY;
    let of_threads = if measured.plan.threads == 1 { "its thread" } else { "its busiest thread" };
    let percent = share * 100.0;
    let text = if ok {
        format!("the load generator was not the bottleneck: {of_threads} used {percent:.0} % of a processor")
    } else {
        format!(
            "the load generator was itself the bottleneck: {of_threads} used {percent:.0} % of a processor, and the \
             server may be faster than this; use more --threads if there are processors, or a --rate"
        )
    };
    Verdict { name, ok: Some(ok), text }
}

/// Exact whatever happens at the edges of the measured time, as both sides are about the same questions, until the last
/// of them is answered.
fn littles_law(measured: &Measured) -> Verdict {
    let name = "littles_law";
    if measured.tally.answers == 0 {
        return Verdict { name, ok: None, text: "Little's law, as nothing was answered".to_owned() };
    }
    let waited = measured.waited();
    let (rate, mean) = (measured.answers_per_second(), measured.tally.service.mean() / 1e9);
    let product = rate * mean;
    let apart = (waited - product).abs() / waited.max(product);
    let ok = apart <= TOLERANCE;
    let holds = if ok { "holds" } else { "does NOT hold, so do not trust these figures" };
    let (micros, percent) = (mean * 1e6, apart * 100.0);
    let text = format!(
        "Little's law {holds}: {waited:.2} in flight, {rate:.0} a second × {micros:.1} µs = {product:.2} ({percent:.1} % apart)"
    );
    Verdict { name, ok: Some(ok), text }
}

fn served(measured: &Measured) -> Verdict {
    let (unserved, all) = (measured.tally.unserved, measured.plan.good());
    let text = match unserved {
        0 => "every connection that asked was served".to_owned(),
        _ => format!(
            "{unserved} of {all} connections were not served at all within the run: the server serves fewer at a \
             time; use -c {}, or --churn, which gives each a turn",
            (all as u64).saturating_sub(unserved).max(1)
        ),
    };
    Verdict { name: "served", ok: Some(unserved == 0), text }
}

/// Of an open loop.
fn rate(measured: &Measured) -> Option<Verdict> {
    let rate = measured.plan.rate?;
    let missed = measured.tally.missed;
    let text = match missed {
        0 => format!("every question of {rate} a second was sent"),
        _ => format!(
            "{missed} questions were due and could not be sent, as no answer had made room: {rate} a second is more \
             than these connections carry; they stand in the response time with what they had waited at the end"
        ),
    };
    Some(Verdict { name: "rate", ok: Some(missed == 0), text })
}

/// Where connections were not opened.
fn ports(measured: &Measured) -> Option<Verdict> {
    let n = measured.tally.failures.not_opened + measured.tally.retries.by_kind.not_opened;
    let obstacle = measured.tally.obstacle?;
    let advice = match obstacle {
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => {
            "the ports ran out: widen them with `sysctl -w net.ipv4.ip_local_port_range='1024 65535'`, wait a minute for \
             those that have just been used, or ask for fewer connections"
        }
        Errno::MFILE | Errno::NFILE => "the descriptors ran out: raise `ulimit -n`, or ask for fewer connections",
        Errno::NOBUFS | Errno::NOMEM => "the memory of the network ran out: ask for fewer connections",
        _ => "is the server reachable from here?",
    };
    (n > 0).then(|| Verdict {
        name: "ports",
        ok: Some(false),
        text: format!("{n} connections not opened ({obstacle}); {advice}"),
    })
}

/// A generator that is busier than this may be slower than its server.
const BUSY: f64 = 0.90;
/// How far the two sides of Little's law may be apart.
const TOLERANCE: f64 = 0.05;
