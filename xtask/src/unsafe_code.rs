//! Whether docs/unsafe.md tells of every `unsafe`, and whether each has its argument above it. Clippy looks for arguments, too,
//! but does not see what is compiled for BPF alone.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// The inventory.
const LIST: &str = "docs/unsafe.md";
/// Where there may be some: `xtask` itself is under `forbid(unsafe_code)`.
const CODE: [&str; 4] = ["rnet-common", "rnet-ebpf", "rnet-userspace", "tests"];
/// What follows the keyword where it makes something unsafe: not a word of a lint's name.
const USES: [&str; 6] = [" {", " impl", " fn", " extern", " trait", "("];

/// Compares the list with the code below `root`.
///
/// # Errors
/// One of them says otherwise than the other, or an argument is missing; all of it is named.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    let mut found = BTreeMap::new();
    for path in files(root)? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let uses = uses(&text);
        let lacking = uses.iter().filter(|line| !is_argued(&text, **line));
        wrong.extend(lacking.map(|line| format!("{name}:{}: there is no `// SAFETY:` above", line + 1)));
        if !uses.is_empty() {
            found.insert(name, uses.len());
        }
    }
    let list = fs::read_to_string(root.join(LIST)).with_context(|| format!("read {LIST}"))?;
    let told: BTreeMap<_, _> = list.lines().filter_map(row).collect();
    for (name, many) in &found {
        match told.get(name.as_str()) {
            Some(told) if told == many => {}
            Some(told) => wrong.push(format!("{LIST}: {name} has {many} unsafe, and not {told}")),
            None => wrong.push(format!("{LIST}: a row for {name} is missing, which has {many} unsafe")),
        }
    }
    let gone = told.keys().filter(|name| !found.contains_key(**name));
    wrong.extend(gone.map(|name| format!("{LIST}: {name} has no unsafe: take its row out")));
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// File and number of a row of the list.
fn row(line: &str) -> Option<(&str, usize)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    Some((name, cells.next()?.parse().ok()?))
}

fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left: Vec<_> = CODE.map(|place| root.join(place)).into();
    while let Some(path) = left.pop() {
        if path.is_dir() && !path.ends_with("target") {
            let entries = fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
            for entry in entries {
                left.push(entry.with_context(|| format!("list {}", path.display()))?.path());
            }
        } else if path.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The line of each use, counted from 0; one that has several is there as often.
fn uses(text: &str) -> Vec<usize> {
    let mut uses = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, keyword) in code.match_indices("unsafe") {
            let begins = !code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '"'));
            let after = &code[at + keyword.len()..];
            if begins && USES.iter().any(|what| after.starts_with(what)) {
                uses.push(number);
            }
        }
    }
    uses
}

/// Whether the comments above the statement on this line have an argument.
fn is_argued(text: &str, line: usize) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let above = lines[..line].iter().rev();
    let of_it = above.take_while(|line| {
        let is_note = line.starts_with("//") || line.starts_with("#[");
        is_note || !(line.is_empty() || line.ends_with([';', '{', '}']))
    });
    of_it
        .filter(|line| line.starts_with("//"))
        .any(|note| note.contains("SAFETY:") || note.contains("# Safety"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_tells_of_every_unsafe() {
        check(&crate::command::workspace()).unwrap();
    }

    #[test]
    fn what_is_unsafe_and_whether_it_is_argued_is_seen() {
        let text = "// unsafe { in a comment }\n\
                    #![deny(unsafe_op_in_unsafe_fn)]\n\
                    let a = unsafe { f() };\n\
                    // SAFETY: because.\n\
                    let b =\n\
                        g(unsafe { f() });\n\
                    let c = \"unsafe {\";\n\
                    // SAFETY: because.\n\
                    #[cfg(x)]\n\
                    #[unsafe(no_mangle)]\n\
                    unsafe impl X for Y {}\n";
        assert_eq!(uses(text), [2, 5, 9, 10]);
        assert_eq!([2, 5, 9, 10].map(|line| is_argued(text, line)), [false, true, true, true]);
        assert_eq!(row("| `a/b.rs` | 12 | x | y |"), Some(("a/b.rs", 12)));
        assert_eq!(row("| file | unsafe | what |"), None);
    }

    #[test]
    fn each_difference_is_named() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("rnet-common/src/a.rs", "// SAFETY: x\nlet a = unsafe { f() };\n");
        write("rnet-common/src/b.rs", "let b = unsafe { f() };\n");
        write(LIST, "| `rnet-common/src/a.rs` | 2 | |\n| `rnet-common/src/c.rs` | 1 | |\n");
        let wrong = check(root.path()).unwrap_err().to_string();
        assert_eq!(
            wrong,
            "rnet-common/src/b.rs:1: there is no `// SAFETY:` above\n\
             docs/unsafe.md: rnet-common/src/a.rs has 1 unsafe, and not 2\n\
             docs/unsafe.md: a row for rnet-common/src/b.rs is missing, which has 1 unsafe\n\
             docs/unsafe.md: rnet-common/src/c.rs has no unsafe: take its row out"
        );
    }
}
