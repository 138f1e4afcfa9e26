//! What the documents say of this checkout: their links lead somewhere, the commands that they name
//! exist, the README is short, and the reference is what the built binary does.

mod alerts;
mod commands;
mod credentials;
mod dashboard;
mod http;
mod kubernetes;
mod metrics;
mod openapi;
mod settings;
mod systemd;
mod tables;

pub(crate) use dashboard::{dashboard, panels};

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// No variable of the environment.
const NO_SETTINGS: &[(&str, &str)] = &[];

/// A README is read to its end if that is near.
const README_LINES_MAX: usize = 150;

/// Every link into the checkout leads to a file and, where it names one, to a heading in it.
#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            if !link.contains("://") && !leads_somewhere(&document, link) {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Every `make` command that is shown is in the Makefile.
#[test]
fn make_targets_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let exists = |target: &str| makefile.contains(&format!("\n{target}:"));
    let mut missing = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let targets = made(&text).into_iter().filter(|target| !exists(target));
        missing.extend(targets.map(|target| format!("{}: make {target}", document.display())));
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The README has at most that many lines.
#[test]
fn the_readme_is_short() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(text.lines().count() <= README_LINES_MAX);
}

/// Every room of `src/` is in the architecture's table of rooms, and the table has no other: compares
/// it with the folder.
#[test]
fn every_room_is_in_the_architecture() {
    let source = root().join("src");
    // Each room has a file that is its front door.
    let files = entries(&source).filter(|path| path.is_file());
    let files = files.map(|path| path.with_extension(""));
    let names = files.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    // It only declares them.
    let rooms: BTreeSet<_> = names.filter(|name| name != "lib").collect();
    let tables = tables(&root().join("docs/architecture.md")).into_iter();
    let rows = tables
        .filter(|table| table.first == "room")
        .flat_map(|table| table.rows);
    let named: Vec<_> = rows.map(|row| row[0].clone()).collect();
    let named: BTreeSet<_> = named.iter().flat_map(|cell| codes(cell)).collect();
    assert_eq!(
        rooms.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        named
    );
}

/// A table of a page.
struct Table {
    /// The nearest heading above it.
    section: String,
    /// What stands over its first column.
    first: String,
    rows: Vec<Vec<String>>,
}

/// All tables of docs/reference/{page}.md.
fn reference(page: &str) -> Vec<Table> {
    let path = root().join("docs/reference").join(page);
    tables(&path.with_extension("md"))
}

fn tables(document: &Path) -> Vec<Table> {
    let text = fs::read_to_string(document).unwrap();
    let mut tables: Vec<Table> = Vec::new();
    let (mut section, mut in_table) = (String::new(), false);
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.to_owned();
        }
        let cells = cells(line);
        match (&cells, in_table) {
            (Some(cells), false) => tables.push(Table {
                section: section.clone(),
                first: cells[0].clone(),
                rows: Vec::new(),
            }),
            (Some(row), true) if !row[0].starts_with("---") => {
                tables.last_mut().unwrap().rows.push(row.clone());
            }
            _ => {}
        }
        in_table = cells.is_some();
    }
    tables
}

/// The rows of those tables of a page whose first column is called so.
fn rows_of(page: &str, first: &str) -> Vec<Vec<String>> {
    let tables = reference(page).into_iter();
    let rows = tables.filter(|table| table.first == first);
    let rows: Vec<_> = rows.flat_map(|table| table.rows).collect();
    assert!(!rows.is_empty(), "{page} has no table of {first}");
    rows
}

fn cells(line: &str) -> Option<Vec<String>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// What stands in backticks in a text.
fn codes(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Those at the top of the checkout, and all below docs/.
fn documents() -> Vec<PathBuf> {
    let mut found = markdown(root());
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        found.extend(markdown(&folder));
        folders.extend(entries(&folder).filter(|path| path.is_dir()));
    }
    assert!(found.len() > 1, "no documents");
    found
}

fn markdown(folder: &Path) -> Vec<PathBuf> {
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    entries(folder).filter(is_markdown).collect()
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path())
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1);
    targets.filter_map(|rest| Some(rest.split_once(')')?.0))
}

fn leads_somewhere(document: &Path, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => document.to_owned(),
        file => document.parent().unwrap().join(file),
    };
    target.exists() && (heading.is_empty() || has_heading(&target, heading))
}

/// Headings are named by their letters, digits and hyphens, with a hyphen for each blank.
fn has_heading(document: &Path, name: &str) -> bool {
    let text = fs::read_to_string(document).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim())
        .any(|heading| {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            let slug: String = heading.to_lowercase().chars().filter(kept).collect();
            slug.replace(' ', "-") == name
        })
}

/// The targets of the `make` commands in a text's code, in lines and in blocks.
fn made(text: &str) -> Vec<&str> {
    let mut is_block = false;
    let mut targets = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            targets.extend(target(line));
        } else {
            targets.extend(codes(line).into_iter().filter_map(target));
        }
    }
    targets
}

fn target(command: &str) -> Option<&str> {
    let rest = command.strip_prefix("make ")?;
    let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
    rest.get(..end.unwrap_or(rest.len()))
}
