//! The paths that each source file names, tests left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemFn, ItemImpl, ItemMod, ItemUse, Macro, UseTree, Visibility};

/// A source file.
pub(super) struct File {
    /// Below src/, as in `http/body.rs`.
    pub name: String,
    /// Each path, from the crate's root or a foreign crate on where that is known.
    pub paths: BTreeSet<Vec<String>>,
    /// The types and traits that it defines for others.
    pub public_types: Vec<String>,
}

/// Every file below src/ that is not only there for tests.
pub(super) fn files() -> &'static [File] {
    static FILES: LazyLock<Vec<File>> = LazyLock::new(read_all);
    &FILES
}

fn read_all() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut names = Vec::new();
    collect(&root, &mut names);
    let is_test = |path: &PathBuf| path.ends_with("tests.rs");
    let read = |path: &PathBuf| File::read(&root, path);
    names
        .iter()
        .filter(|path| !is_test(path))
        .map(read)
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

impl File {
    fn read(root: &Path, path: &Path) -> Self {
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let syntax = syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap();
        let mut named = Named::default();
        named.visit_file(&syntax);
        let mut file = Self {
            name,
            paths: BTreeSet::new(),
            public_types: named.public_types,
        };
        file.paths = named.paths.iter().map(|path| file.absolute(path)).collect();
        file
    }

    /// The room that it belongs to, which for a file of its own is its name.
    pub(super) fn room(&self) -> &str {
        self.name.trim_end_matches(".rs").split('/').next().unwrap()
    }

    /// Its module, from `crate` on.
    pub(super) fn module(&self) -> Vec<String> {
        let name = self.name.trim_end_matches(".rs");
        let segments = name
            .split('/')
            .filter(|name| !["lib", "main"].contains(name));
        ["crate"]
            .into_iter()
            .chain(segments)
            .map(str::to_owned)
            .collect()
    }

    /// The paths that begin with `crate`; main's crate is the library.
    pub(super) fn paths_into_the_crate(&self) -> impl Iterator<Item = &Vec<String>> {
        self.paths
            .iter()
            .filter(|path| path[0] == "crate" && path.len() > 1)
    }

    /// What each path of several names begins with: a single one is nearly always a variable.
    pub(super) fn first_names(&self) -> BTreeSet<String> {
        let paths = self.paths.iter().filter(|path| path.len() > 1);
        paths.map(|path| path[0].clone()).collect()
    }

    /// The other files that it names something of, its own front doors left out.
    pub(super) fn files_used(&self, files: &[Self]) -> BTreeSet<String> {
        let own = self.module();
        let of = |path: &Vec<String>| {
            let holds = |file: &&Self| path.starts_with(&file.module());
            files
                .iter()
                .filter(holds)
                .max_by_key(|file| file.module().len())
        };
        let used = self.paths_into_the_crate().filter_map(of);
        used.filter(|file| !own.starts_with(&file.module()))
            .map(|file| file.name.clone())
            .collect()
    }

    /// A path with `self` and `super` resolved. In lib.rs, a module stands at the root.
    fn absolute(&self, path: &[String]) -> Vec<String> {
        let mut module = self.module();
        let mut rest = path;
        match path[0].as_str() {
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
            }
            "ticketd" => {
                module = vec!["crate".to_owned(), "lib".to_owned()];
                rest = &path[1..];
            }
            name if self.is_child(name) => {}
            _ => return path.to_vec(),
        }
        module.extend_from_slice(rest);
        module
    }

    /// Whether a name is a module that this file declares, by its file.
    fn is_child(&self, name: &str) -> bool {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let folder = self.module()[1..]
            .iter()
            .fold(root, |at, name| at.join(name));
        folder.join(name).with_extension("rs").is_file() && self.name != "main.rs"
    }
}

/// Gathers paths.
#[derive(Default)]
struct Named {
    paths: Vec<Vec<String>>,
    public_types: Vec<String>,
}

impl<'ast> Visit<'ast> for Named {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.flatten(&mut Vec::new(), &item.tree);
        }
    }

    fn visit_item(&mut self, item: &'ast Item) {
        let (visibility, name) = match item {
            Item::Enum(item) => (&item.vis, &item.ident),
            Item::Struct(item) => (&item.vis, &item.ident),
            Item::Trait(item) => (&item.vis, &item.ident),
            Item::Type(item) => (&item.vis, &item.ident),
            _ => return visit::visit_item(self, item),
        };
        if !matches!(visibility, Visibility::Inherited) {
            self.public_types.push(name.to_string());
        }
        visit::visit_item(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        self.paths.push(names.collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.visit_path(&item.path);
        self.scan(item.tokens.clone());
    }
}

impl Named {
    fn flatten(&mut self, prefix: &mut Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.flatten(prefix, &path.tree);
                prefix.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.flatten(prefix, tree);
                }
            }
            UseTree::Name(name) => self.push(prefix, &name.ident.to_string()),
            UseTree::Rename(rename) => self.push(prefix, &rename.ident.to_string()),
            UseTree::Glob(_) => self.push(prefix, "*"),
        }
    }

    /// What a macro is given is not parsed: its paths are names with `::` between them.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(name) => {
                    if colons != 2 && !path.is_empty() {
                        self.paths.push(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                }
                TokenTree::Group(group) => self.scan(group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            colons = 0;
        }
        self.paths.extend((!path.is_empty()).then_some(path));
    }

    fn push(&mut self, prefix: &[String], name: &str) {
        let mut path = prefix.to_vec();
        if name != "self" {
            path.push(name.to_owned());
        }
        self.paths.push(path);
    }
}

/// Whether an item is there for tests alone.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|condition| condition.is_ident("test"))
    })
}
