//! Log lines of a server about its clients.

use std::collections::BTreeMap;
use std::process::ExitStatus;

use anyhow::{Result, ensure};

use super::Server;

/// Runs two clients: one that is answered, and one that leaves in the middle of a question.
pub(crate) fn converse(server: &Server) -> Result<()> {
    let mut client = server.client()?;
    client.ask(b"Simple is better than?", b"complex.")?;
    client.leave()?;
    let mut client = server.client()?;
    client.send(b"Simple is bet")?;
    client.leave()
}

/// Splits a line `TIME [LEVEL PID/THREAD] TEXT` into PID/THREAD and the text.
pub(crate) fn writer_and_text(line: &str) -> Option<(&str, &str)> {
    let (head, text) = line.split_once("] ")?;
    Some((head.split_whitespace().last()?, text))
}

/// Returns the pauses before the restarts of a crash loop, such as `100ms`. Expects that they doubled, and that the
/// server gave up with status 1 and one line `error: …`.
pub(crate) fn pauses_of_crash_loop(status: ExitStatus, log: &str) -> Result<Vec<&str>> {
    ensure!(status.code() == Some(1), "it ended with {status}: {log}");
    let pauses = log.lines().filter_map(|line| line.split_once("the next starts in "));
    let pauses: Vec<&str> = pauses.map(|(_, pause)| pause).collect();
    // On a busy machine some workers may have lived long enough not to count.
    let grow = pauses.windows(3).any(|three| three == ["100ms", "200ms", "400ms"]);
    ensure!(grow, "the pauses did not double from 100ms: {pauses:?}");
    let errors = log.lines().filter(|line| line.starts_with("error: ")).count();
    ensure!(errors == 1, "{errors} lines `error: …` instead of one: {log}");
    Ok(pauses)
}

/// Counts the lines with `what` that each process and thread has written, by `PID/THREAD`.
pub(crate) fn lines_by_writer(log: &str, what: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for (writer, _) in log.lines().filter_map(writer_and_text).filter(|(_, text)| text.contains(what)) {
        *lines.entry(writer.to_owned()).or_default() += 1;
    }
    lines
}

/// Returns how many clients a line stands for: `… (and 7 more like it)`, `7 more lines were left out that are like: …`.
pub(crate) fn stands_for(line: &str) -> usize {
    let number = |text: &str| text.rsplit(' ').next()?.parse().ok();
    let alone = line.split_once(" more lines were left out").and_then(|(head, _)| number(head));
    alone.unwrap_or_else(|| 1 + line.strip_suffix(" more like it)").and_then(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_writer_and_its_text() {
        let line = "2026-01-01T00:00:00.000Z [INFO 17/main] 127.0.0.1:80 closed: question cut short: \"[a] b\"";
        assert_eq!(writer_and_text(line), Some(("17/main", "127.0.0.1:80 closed: question cut short: \"[a] b\"")));
        assert_eq!(writer_and_text("noise"), None);
    }

    #[test]
    fn shares_are_read_from_the_log() {
        let log = "T [INFO 7/main] at most 4 clients\nT [DEBUG 7/main] 127.0.0.1:5 accepted\n\
                   T [DEBUG 7/loop-2] 127.0.0.1:5 closed: finished\nT [DEBUG 8/loop-2] 127.0.0.1:6 closed: finished\n\
                   T [DEBUG 7/loop-2] 127.0.0.1:7 closed: finished\nnoise\n";
        let expected = [("7/loop-2".to_owned(), 2), ("8/loop-2".to_owned(), 1)];
        assert_eq!(lines_by_writer(log, " closed: "), BTreeMap::from(expected));
    }

    #[test]
    fn suppressed_lines_are_counted() {
        assert_eq!(stands_for("<6>[a] question cut short"), 1);
        assert_eq!(stands_for("<6>[a] question cut short (and 7 more like it)"), 8);
        assert_eq!(stands_for("<6>[log] 7 more lines were left out that are like: question cut short"), 7);
    }
}
