//! What a server logs about its clients.

use anyhow::Result;

use super::Server;

/// Makes two clients come and go: one that is answered, and one that leaves in the middle of a question.
pub(crate) fn converse(server: &Server) -> Result<()> {
    let mut client = server.client()?;
    client.ask(b"Simple is better than?", b"complex.")?;
    client.leave()?;
    let mut client = server.client()?;
    client.send(b"Simple is bet")?;
    client.leave()
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
    fn lines_stand_for_clients() {
        assert_eq!(stands_for("<6>[a] question cut short"), 1);
        assert_eq!(stands_for("<6>[a] question cut short (and 7 more like it)"), 8);
        assert_eq!(stands_for("<6>[log] 7 more lines were left out that are like: question cut short"), 7);
    }
}
