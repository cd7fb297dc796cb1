//! The modules of each crate form layers: no module imports itself through others. The same holds for the folders at
//! the root of a crate.
//!
//! An import is a path in the code that begins with `crate`, `super` or `self`; unit tests may import what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::none;
use super::source;
use crate::workspace;

pub(super) fn imports_form_layers() -> Result<()> {
    let mut found = Vec::new();
    for package in &workspace::metadata()?.packages {
        let sources = source::all()?.iter().filter(|source| source.package == package.name);
        let folder = package.folder().join("src");
        let modules =
            sources.filter_map(|source| Some((module(&folder, &source.path)?, source.tokens_without_tests())));
        let imports = imports(&modules.collect());
        let folders = of_folders(&imports);
        let circles: BTreeMap<_, _> = in_circles(folders).into_iter().chain(in_circles(imports)).collect();
        found.extend(circles.iter().map(|(module, others)| {
            let others: Vec<String> = others.iter().map(shown).collect();
            format!("{}: {} imports {}", package.name, shown(module), others.join(", "))
        }));
    }
    none(found, "circles of imports")
}

/// A module by the names that lead to it from the root of its crate.
type Module = Vec<String>;

fn shown(module: &Module) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

/// Returns the module of a file: that of `src/a/b.rs` is `a::b`. `None` outside of `src`.
fn module(folder: &Path, file: &Path) -> Option<Module> {
    let relative = file.strip_prefix(folder).ok()?.with_extension("");
    let mut names: Module = relative.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.pop_if(|last| ["main", "lib"].contains(&last.as_str()));
    Some(names)
}

/// Returns, for each module, the other modules that its code names.
fn imports(modules: &BTreeMap<Module, &[String]>) -> BTreeMap<Module, BTreeSet<Module>> {
    let of = |(module, tokens): (&Module, &&[String])| {
        let named = paths(tokens).into_iter().map(|path| {
            let mut name = module.clone();
            for part in path {
                match part {
                    "crate" => name.clear(),
                    "super" => _ = name.pop(),
                    "self" => {}
                    other => name.push(other.to_owned()),
                }
            }
            // What follows the module is an item in it.
            while !modules.contains_key(&name) && name.pop().is_some() {}
            name
        });
        (module.clone(), named.filter(|other| other != module && modules.contains_key(other)).collect())
    };
    modules.iter().map(of).collect()
}

/// Returns the imports between the modules at the root of the crate. Each stands for all modules in its folder.
fn of_folders(imports: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<Module, BTreeSet<Module>> {
    let folder = |module: &Module| module.iter().take(1).cloned().collect::<Module>();
    let mut of_folders = BTreeMap::<Module, BTreeSet<Module>>::new();
    for (module, others) in imports {
        let own = folder(module);
        let others = others.iter().map(folder).filter(|other| *other != own).collect::<Vec<_>>();
        of_folders.entry(own).or_default().extend(others);
    }
    of_folders
}

/// Returns the modules on circles, and those on paths between circles. Modules that import no other, and modules that
/// no other imports, are removed repeatedly until only these are left.
fn in_circles(mut imports: BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<Module, BTreeSet<Module>> {
    loop {
        let before = imports.len();
        let left: BTreeSet<Module> = imports.keys().cloned().collect();
        let imported: BTreeSet<Module> = imports.values().flatten().cloned().collect();
        imports.values_mut().for_each(|others| others.retain(|other| left.contains(other)));
        imports.retain(|module, others| !others.is_empty() && imported.contains(module));
        if imports.len() == before {
            return imports;
        }
    }
}

/// Returns every path that begins with `crate`, `super` or `self`. A `use` of several items yields a path for each.
fn paths(tokens: &[String]) -> Vec<Vec<&str>> {
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let (mut paths, mut rest) = (Vec::new(), &tokens[..]);
    while let Some((first, after)) = rest.split_first() {
        rest = match (*first, after.first()) {
            ("crate" | "super" | "self", Some(&"::")) => path(&[], rest, &mut paths),
            _ => after,
        };
    }
    paths
}

/// Reads the rest of a path that begins with `before`, and returns the tokens after it.
fn path<'a, 't>(before: &[&'a str], mut rest: &'t [&'a str], paths: &mut Vec<Vec<&'a str>>) -> &'t [&'a str] {
    let mut names = before.to_vec();
    loop {
        match rest {
            ["{", inner @ ..] => {
                rest = inner;
                while !matches!(rest, [] | ["}", ..]) {
                    rest = path(&names, rest, paths);
                    // `as NAME` and the comma.
                    let end = rest.iter().position(|token| [",", "}"].contains(token)).unwrap_or(rest.len());
                    rest = &rest[end..];
                    rest = rest.strip_prefix(&[","]).unwrap_or(rest);
                }
                return rest.get(1..).unwrap_or_default();
            }
            [name, after @ ..] if source::is_word(name) => {
                names.push(name);
                match after {
                    ["::", more @ ..] => rest = more,
                    _ => {
                        paths.push(names);
                        return after;
                    }
                }
            }
            // `*`, or the type arguments of a function.
            _ => {
                paths.push(names);
                return rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports_of(files: &[(&str, &str)]) -> BTreeMap<Module, BTreeSet<Module>> {
        let read = |(file, code): &(&str, &str)| {
            let module = module(Path::new("src"), Path::new(file)).expect("it is in src");
            (module, source::tokens(code).expect("it is Rust"))
        };
        let files: BTreeMap<Module, Vec<String>> = files.iter().map(read).collect();
        imports(&files.iter().map(|(module, tokens)| (module.clone(), &tokens[..])).collect())
    }

    fn circle(files: &[(&str, &str)]) -> Vec<String> {
        in_circles(imports_of(files)).keys().map(shown).collect()
    }

    #[test]
    fn circles_are_found_and_layers_are_not() {
        let layers = [("src/main.rs", "use crate::a::A;"), ("src/a.rs", "use crate::b::B;"), ("src/b.rs", "struct B;")];
        assert_eq!(circle(&layers), [""; 0]);
        let by_a_third = [
            ("src/a.rs", "use crate::b::{self, B};"),
            ("src/b.rs", "fn f() { self::c::f() }"),
            ("src/b/c.rs", "use super::super::a;"),
            ("src/d.rs", "use crate::a;"),
        ];
        assert_eq!(circle(&by_a_third), ["a", "b", "b::c"]);
    }

    #[test]
    fn folders_form_layers_too() {
        let files = [
            ("src/a/b.rs", "use crate::c::d;"),
            ("src/a/f.rs", ""),
            ("src/c/d.rs", ""),
            ("src/c/e.rs", "use crate::a::f; use super::d;"),
        ];
        assert_eq!(circle(&files), [""; 0]);
        let circles = in_circles(of_folders(&imports_of(&files)));
        assert_eq!(circles.keys().map(shown).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn a_use_of_several_is_taken_apart() {
        let code = "use crate::{a::{self, B as C}, d::*};\nuse std::fs; fn f(&self) { self.x; super::g::h::<u8>() }";
        let expected: [&[&str]; 4] =
            [&["crate", "a", "self"], &["crate", "a", "B"], &["crate", "d"], &["super", "g", "h"]];
        assert_eq!(paths(&source::tokens(code).expect("it is Rust")), expected);
    }
}
