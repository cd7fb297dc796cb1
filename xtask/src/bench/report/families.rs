//! Families: servers that are drawn in one panel, because they wait for clients in the same way.

use crate::bench::results::{Results, Row};

/// The title of each family, with its packages.
const TITLES: [(&str, &[&str]); 4] = [
    ("Blocking calls", &["zen-single", "zen-threaded"]),
    ("Event loops", &["zen-poll"]),
    ("Tasks", &["zen-async"]),
    ("Peers", &["peer"]),
];

/// The families of a result; an unknown package is a family of its own.
pub(crate) struct Families {
    titles: Vec<String>,
    members: Vec<(String, usize, usize)>,
}

impl Families {
    pub(crate) fn of_results(results: &Results) -> Families {
        let mut families = Families { titles: Vec::new(), members: Vec::new() };
        let known =
            |package: &str| TITLES.iter().find(|(_, packages)| packages.contains(&package)).map(|(title, _)| *title);
        // In the order of the titles, so that a family has the same colour whichever servers take part.
        families.titles.extend(TITLES.iter().map(|(title, _)| (*title).to_owned()));
        for row in &results.servers {
            let title = known(&row.family).unwrap_or(&row.family);
            let number = families.titles.iter().position(|it| it == title).unwrap_or_else(|| {
                families.titles.push(title.to_owned());
                families.titles.len() - 1
            });
            let member = families.members.iter().filter(|(_, family, _)| *family == number).count();
            families.members.push((row.name.clone(), number, member));
        }
        families
    }

    /// Returns the families that have servers.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = usize> {
        (0..self.titles.len()).filter(|number| self.members.iter().any(|(_, family, _)| family == number))
    }

    pub(crate) fn title(&self, number: usize) -> &str {
        &self.titles[number]
    }

    pub(crate) fn of(&self, row: &Row) -> usize {
        self.find(row).map_or(0, |(_, family, _)| *family)
    }

    /// Returns the index of a server within its family.
    pub(crate) fn member(&self, row: &Row) -> usize {
        self.find(row).map_or(0, |(_, _, member)| *member)
    }

    fn find(&self, row: &Row) -> Option<&(String, usize, usize)> {
        self.members.iter().find(|(name, _, _)| *name == row.name)
    }
}
