//! The modules of each crate form layers: no two of them import each other, not even by way of a third.
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
        let sources = source::of(package)?;
        let folder = package.folder().join("src");
        let modules = sources.iter().filter_map(|source| Some((module(&folder, &source.path)?, source)));
        let imports = imports(&modules.map(|(module, source)| (module, source.code_without_tests())).collect());
        let circle = in_circles(imports);
        found.extend(circle.iter().map(|(module, others)| {
            let others: Vec<String> = others.iter().map(shown).collect();
            format!("{}: {} imports {}", package.name, shown(module), others.join(", "))
        }));
    }
    none(found, "modules that import each other")
}

/// A module by the names that lead to it from the root of its crate.
type Module = Vec<String>;

fn shown(module: &Module) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

/// The module of a file: `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`. `None` outside of `src`.
fn module(folder: &Path, file: &Path) -> Option<Module> {
    let relative = file.strip_prefix(folder).ok()?.with_extension("");
    let mut names: Module = relative.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.pop_if(|last| ["mod", "main", "lib"].contains(&last.as_str()));
    Some(names)
}

/// For each module the others that its code names.
fn imports(modules: &BTreeMap<Module, &str>) -> BTreeMap<Module, BTreeSet<Module>> {
    let of = |(module, code): (&Module, &&str)| {
        let named = paths(code).into_iter().map(|path| {
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

/// What is left when those go that import no other, or that no other imports, again and again: circles, and what lies
/// between them.
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

/// Every path that begins with `crate`, `super` or `self`; a `use` of several is taken apart.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let tokens = tokens(code);
    let (mut paths, mut rest) = (Vec::new(), &tokens[..]);
    while let Some((first, after)) = rest.split_first() {
        rest = match (*first, after.first()) {
            ("crate" | "super" | "self", Some(&"::")) => path(&[], rest, &mut paths),
            _ => after,
        };
    }
    paths
}

/// Reads one path, which goes on behind `before`; returns what follows it.
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
            [name, after @ ..] if name.starts_with(is_of_word) => {
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

/// Words, `::`, and all other characters one by one.
fn tokens(code: &str) -> Vec<&str> {
    let (mut tokens, mut rest) = (Vec::new(), code.trim_start());
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("::") {
            2
        } else if is_of_word(first) {
            rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle(files: &[(&str, &str)]) -> Vec<String> {
        let modules = files.iter().map(|(file, code)| (module(Path::new("src"), Path::new(file)).expect("one"), *code));
        in_circles(imports(&modules.collect())).keys().map(shown).collect()
    }

    #[test]
    fn circles_are_found_and_layers_are_not() {
        let layers = [("src/main.rs", "use crate::a::A;"), ("src/a.rs", "use crate::b::B;"), ("src/b.rs", "struct B;")];
        assert_eq!(circle(&layers), [""; 0]);
        let by_a_third = [
            ("src/a.rs", "use crate::b::{self, B};"),
            ("src/b/mod.rs", "fn f() { self::c::f() }"),
            ("src/b/c.rs", "use super::super::a;"),
            ("src/d.rs", "use crate::a;"),
        ];
        assert_eq!(circle(&by_a_third), ["a", "b", "b::c"]);
    }

    #[test]
    fn a_use_of_several_is_taken_apart() {
        let code = "use crate::{a::{self, B as C}, d::*};\nuse std::fs; fn f(&self) { self.x; super::g::h::<u8>() }";
        let expected: [&[&str]; 4] =
            [&["crate", "a", "self"], &["crate", "a", "B"], &["crate", "d"], &["super", "g", "h"]];
        assert_eq!(paths(code), expected);
    }
}
