// SPDX-License-Identifier: GPL-2.0-only

//! No module uses, directly or through others, a module that uses it.
//!
//! Each file is a module. A file uses another one if it names a path into it, in a `use` line or
//! elsewhere. `mod child;` alone is no use. Tests and comments do not count. No server is needed.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

/// The folders with a `lib.rs` that must have no circles.
const ROOTS: &[&str] =
    &["src", "crates/clone-classic/src", "crates/clone-core/src", "crates/clone-io/src"];

/// Modules that may be in circles among each other. In `src/mysqld` these are the circles of
/// clone-core's traits: a server has sessions, which have engines, which are given sessions.
const NOT_YET: &[&str] = &["mysqld"];

/// A module: `["server", "text"]` is `src/server/text.rs`, and the empty one is `lib.rs`.
type Module = Vec<String>;

/// What each module uses.
type Uses = BTreeMap<Module, BTreeSet<Module>>;

#[test]
fn no_module_is_in_a_circle() {
    for root in ROOTS {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
        let uses = uses_in(&read(&root));
        assert!(uses.len() > 1, "no modules in {}", root.display());
        let is_known = |circle: &Vec<Module>| {
            circle.iter().all(|module| NOT_YET.contains(&module.first().map_or("", String::as_str)))
        };
        let circles: Vec<_> =
            circles(&uses).into_iter().filter(|circle| !is_known(circle)).collect();
        let circles: Vec<_> = circles.iter().map(|circle| show(circle)).collect();
        assert!(circles.is_empty(), "circles in {}:\n{}", root.display(), circles.join("\n"));
    }
}

#[test]
fn circles_are_found() {
    let of = |files: &[(&str, &str)]| {
        let sources = files.iter().map(|(name, text)| (module(name), (*text).to_owned()));
        let circles = circles(&uses_in(&sources.collect()));
        circles.iter().map(|circle| show(circle)).collect::<Vec<_>>()
    };
    let lib = ("lib.rs", "mod a; mod b;");
    // By a use line, by a tree of them, and by a path in the code.
    for back in ["use super::a::X;", "use crate::{a::{self, X}};", "fn f() { crate::a::f() }"] {
        assert_eq!(of(&[lib, ("a.rs", "use crate::b;"), ("b.rs", back)]), ["a -> b -> a"]);
    }
    // Comments, texts, tests and other crates are no uses.
    for other in [
        "// crate::a::f()",
        "/* use crate::a; */",
        "const X: &str = \"crate::a::f\";",
        "#[cfg(test)]\nmod tests { use crate::a; }",
        "use a_crate::a; use std::a;",
        "mod inner { use super::X; }",
    ] {
        assert_eq!(of(&[lib, ("a.rs", "use crate::b;"), ("b.rs", other)]), [""; 0], "{other}");
    }
    // What comes behind a test counts.
    let behind = "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::a;";
    assert_eq!(of(&[lib, ("a.rs", "use crate::b;"), ("b.rs", behind)]), ["a -> b -> a"]);
    // Parent and child, and a circle of three.
    assert_eq!(
        of(&[("a.rs", "mod c; use c::X;"), ("a/c.rs", "use super::Y;")]),
        ["a -> a::c -> a"]
    );
    assert_eq!(of(&[("a.rs", "mod c;"), ("a/c.rs", "use super::Y;")]), [""; 0]);
    let three = [("a.rs", "use super::b;"), ("b.rs", "use super::c;"), ("c.rs", "use super::a;")];
    assert_eq!(of(&three), ["a -> b -> c -> a"]);
}

fn show(circle: &[Module]) -> String {
    let names = circle.iter().map(|module| match module.is_empty() {
        true => "lib.rs".to_owned(),
        false => module.join("::"),
    });
    names.collect::<Vec<_>>().join(" -> ")
}

/// The module of a file, named from its root.
fn module(name: &str) -> Module {
    let name = name.strip_suffix(".rs").unwrap();
    let name = name.strip_suffix("/mod").unwrap_or(name);
    if name == "lib" { Vec::new() } else { name.split('/').map(str::to_owned).collect() }
}

fn read(root: &Path) -> BTreeMap<Module, String> {
    let mut sources = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                sources.insert(module(name), fs::read_to_string(&path).unwrap());
            }
        }
    }
    sources
}

fn uses_in(sources: &BTreeMap<Module, String>) -> Uses {
    let parsed: Vec<_> = sources.iter().map(|(module, text)| File::parse(module, text)).collect();
    let declared: BTreeSet<_> = parsed.iter().flat_map(|file| file.children.clone()).collect();
    // What no file declares outside of tests is a test.
    let is_module = |module: &Module| {
        sources.contains_key(module) && (module.len() < 2 || declared.contains(module))
    };
    let mut uses = Uses::new();
    for file in parsed.iter().filter(|file| is_module(&file.module)) {
        let found = uses.entry(file.module.clone()).or_default();
        for path in &file.paths {
            let used = (0..=path.len()).rev().map(|len| path[..len].to_vec());
            let used = used.into_iter().find(|prefix| is_module(prefix)).unwrap_or_default();
            // The root itself has nothing but modules.
            if used != file.module && !used.is_empty() {
                found.insert(used);
            }
        }
    }
    uses
}

/// The shortest circle through each module that is in one, each circle once.
fn circles(uses: &Uses) -> Vec<Vec<Module>> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for start in uses.keys() {
        let mut before: BTreeMap<&Module, &Module> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for next in uses.get(at).into_iter().flatten() {
                if before.contains_key(next) {
                    continue;
                }
                before.insert(next, at);
                queue.push_back(next);
            }
        }
        let Some(mut at) = before.get(start).copied() else { continue };
        let mut circle = vec![start.clone()];
        while at != start {
            circle.push(at.clone());
            at = before[at];
        }
        circle.push(start.clone());
        circle.reverse();
        if seen.insert(circle.iter().cloned().collect::<BTreeSet<_>>()) {
            found.push(circle);
        }
    }
    found
}

/// What is of interest in a file.
struct File {
    module: Module,
    /// The modules that it declares.
    children: BTreeSet<Module>,
    /// The paths that it names, from the root.
    paths: Vec<Module>,
}

impl File {
    fn parse(module: &Module, text: &str) -> Self {
        let tokens = without_tests(tokens(text));
        let mut file =
            Self { module: module.clone(), children: BTreeSet::new(), paths: Vec::new() };
        // Relative paths begin with a child, wherever that is declared.
        for (at, token) in tokens.iter().enumerate() {
            if token == "mod" && tokens.get(at + 2).is_some_and(|token| token == ";") {
                let mut child = module.clone();
                child.push(tokens[at + 1].clone());
                file.children.insert(child);
            }
        }
        let mut here = module.clone();
        // Depths at which the modules inside of this file begin.
        let mut inner = Vec::new();
        let (mut depth, mut at) = (0, 0);
        while at < tokens.len() {
            match tokens[at].as_str() {
                "mod" if tokens.get(at + 2).is_some_and(|token| token == "{") => {
                    here.push(tokens[at + 1].clone());
                    inner.push(depth);
                    at += 2;
                    continue;
                }
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if inner.last() == Some(&depth) {
                        inner.pop();
                        here.pop();
                    }
                }
                "use" => {
                    at += 1;
                    file.tree(&here, &[], &tokens, &mut at);
                    continue;
                }
                first if is_name(first) => {
                    let mut path = vec![first.to_owned()];
                    while tokens.get(at + 1).is_some_and(|token| token == "::")
                        && tokens.get(at + 2).is_some_and(|token| is_name(token))
                    {
                        path.push(tokens[at + 2].clone());
                        at += 2;
                    }
                    if path.len() > 1 {
                        file.add(&here, &path);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        file
    }

    /// A tree of a use line, up to the token behind it.
    fn tree(&mut self, here: &Module, before: &[String], tokens: &[String], at: &mut usize) {
        let mut path = before.to_vec();
        while let Some(token) = tokens.get(*at) {
            match token.as_str() {
                "::" => *at += 1,
                "{" => {
                    *at += 1;
                    while tokens.get(*at).is_some_and(|token| token != "}") {
                        self.tree(here, &path, tokens, at);
                        if tokens.get(*at).is_some_and(|token| token == ",") {
                            *at += 1;
                        }
                    }
                    *at += 1;
                    return;
                }
                "as" => *at += 2,
                "*" => *at += 1,
                name if is_name(name) => {
                    path.push(name.to_owned());
                    *at += 1;
                }
                _ => break,
            }
        }
        self.add(here, &path);
    }

    /// Notes a path that leads into this crate.
    fn add(&mut self, here: &Module, path: &[String]) {
        let mut target = here.clone();
        let mut rest = path.iter().filter(|name| *name != "self").peekable();
        match path.first().map(String::as_str) {
            Some("crate") => {
                target.clear();
                rest.next();
            }
            Some("super") => {
                while rest.next_if(|name| *name == "super").is_some() {
                    target.pop();
                }
            }
            Some("self") => {}
            Some(name) => {
                let mut child = self.module.clone();
                child.push(name.to_owned());
                if !self.children.contains(&child) {
                    return;
                }
                target.clone_from(&self.module);
            }
            None => return,
        }
        target.extend(rest.cloned());
        self.paths.push(target);
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Names, `::`, and single characters; no comments, texts or spaces.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(text) = rest.strip_prefix("r#\"") {
            text.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if first == '"' {
            let mut is_escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\\") {
            rest[3..].find('\'').map_or(rest.len(), |end| end + 4)
        } else if first == '\'' && rest.chars().nth(2) == Some('\'') {
            rest.char_indices().nth(3).map_or(rest.len(), |(end, _)| end)
        } else {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let len = if is_part(first) {
                rest.find(|c| !is_part(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                tokens.push(rest[..len].to_owned());
            }
            len
        };
        rest = &rest[len..];
    }
    tokens
}

/// Takes out each item behind `#[cfg(test)]`: up to its semicolon, or its closing brace.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_test = tokens[at..].iter().zip(TEST).filter(|(one, other)| one == other).count();
        if is_test < TEST.len() {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        at += TEST.len();
        while at < tokens.len() {
            let token = tokens[at].as_str();
            at += 1;
            match token {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            if depth == 0 && (token == "}" || token == ";") {
                break;
            }
        }
    }
    kept
}
