//! Judgements on a run: whether the generator was the bottleneck, whether its figures agree, which clients were served.

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
    /// Of an objective: seconds, or a share of 1; null where the questions of the metric were not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<f64>,
}

impl Verdict {
    fn new(name: &'static str, ok: Option<bool>, text: impl Into<String>) -> Verdict {
        Verdict { name, ok, text: text.into(), value: None }
    }
}

/// Returns all judgements that apply.
pub(crate) fn verdicts(measured: &Measured, fail_if: Option<&Objectives>) -> Vec<Verdict> {
    let mut verdicts = vec![processor(measured), littles_law(measured), served(measured)];
    verdicts.extend(rate(measured));
    verdicts.extend(ports(measured));
    let outcomes = fail_if.into_iter().flat_map(|objectives| objectives.judge(measured));
    let verdict = |outcome: Outcome| Verdict {
        value: Some(outcome.value),
        ..Verdict::new("objective", Some(!outcome.is_true), outcome.text)
    };
    verdicts.extend(outcomes.map(verdict));
    verdicts
}

fn processor(measured: &Measured) -> Verdict {
    let name = "processor";
    if measured.seconds == 0.0 {
        return Verdict::new(name, None, "the load generator, because nothing was measured");
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
    Verdict::new(name, Some(ok), text)
}

/// Checks Little's law. It is exact even at the edges of the measured time, because both sides are about the same
/// questions until the last one is answered.
fn littles_law(measured: &Measured) -> Verdict {
    let name = "littles_law";
    if measured.tally.answers == 0 {
        return Verdict::new(name, None, "Little's law, because nothing was answered");
    }
    let waited = measured.waited();
    let (rate, mean) = (measured.answers_per_second(), measured.tally.service.mean() / 1e9);
    let product = rate * mean;
    let apart = (waited - product).abs() / waited.max(product);
    let ok = apart <= TOLERANCE;
    let holds = if ok { "holds" } else { "does NOT hold, so do not trust these figures" };
    let (micros, percent) = (mean * 1e6, apart * 100.0);
    let text = format!(
        "Little's law {holds}: {waited:.2} in flight, {rate:.0} a second × {micros:.1} µs = {product:.2} \
        ({percent:.1} % apart)"
    );
    Verdict::new(name, Some(ok), text)
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
    Verdict::new("served", Some(unserved == 0), text)
}

/// Judges the rate of an open loop.
fn rate(measured: &Measured) -> Option<Verdict> {
    let rate = measured.plan.rate?;
    let missed = measured.tally.missed;
    let text = match missed {
        0 => format!("every question of {rate} a second was sent"),
        _ => format!(
            "{missed} questions were due and could not be sent, because their connections were still busy: {rate} a \
            second is more than these connections can carry; the response time counts their wait until the end"
        ),
    };
    Some(Verdict::new("rate", Some(missed == 0), text))
}

/// Judges connections that were not opened.
fn ports(measured: &Measured) -> Option<Verdict> {
    let n = measured.tally.failures.not_opened + measured.tally.retries.by_kind.not_opened;
    let open_error = measured.tally.open_error?;
    let advice = match open_error {
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => {
            "the ports ran out: widen them with `sysctl -w net.ipv4.ip_local_port_range='1024 65535'`, wait a minute \
             for those that have just been used, or ask for fewer connections"
        }
        Errno::MFILE | Errno::NFILE => "the descriptors ran out: raise `ulimit -n`, or ask for fewer connections",
        Errno::NOBUFS | Errno::NOMEM => "the memory of the network ran out: ask for fewer connections",
        _ => "is the server reachable from here?",
    };
    (n > 0).then(|| Verdict::new("ports", Some(false), format!("{n} connections not opened ({open_error}); {advice}")))
}

/// A generator that uses more than this share of a processor may be slower than its server.
const BUSY: f64 = 0.90;
/// The largest relative difference between the two sides of Little's law.
const TOLERANCE: f64 = 0.05;
