//! Keys as paths, and paths as keys. Pure.
//!
//! Every key has exactly one path, and the path gives the key back; ordinary names stay as they are, so that a person
//! with `ls` and `cp` finds them. No path can leave the bucket's folder: no segment is ever `.`, `..`, empty, or holds a
//! slash. The rules, which `docs/formats.md` repeats:
//!
//! - A key is split at `/`; each segment becomes a file or folder name. `%` and control characters become `%XX` (their
//!   UTF-8 bytes); an empty segment is `%`; `.` and `..` are `%2E` and `%2E%2E`; a leading `.afterimage` has its dot escaped.
//! - A segment longer than a name may be is cut into pieces; all but the last are folders that end with `%-`.
//! - In a source, a file's name ends with `@` and the version's sequencer; a folder's name that would end so has its `@`
//!   escaped. A file and a folder can therefore never meet.
//! - In a destination they can (`a` and `a/b`): whoever comes second gets a trailing `%`, which no escape ends with.

use lifecycle::ids::ObjectKey;
use std::fmt;

/// The folder at a bucket's root that belongs to the store itself.
pub(super) const RESERVED: &str = ".afterimage";
/// What a name in conflict with another gets.
pub(super) const CONFLICT: char = '%';

/// Bytes of a piece of a name, before what may be added: an escaped first dot (2), `%-` (2) or `%` (1). File names end at 255.
const PIECE_BYTES_MAX: usize = 250;
/// The same with `@` and 16 digits.
const VERSIONED_PIECE_BYTES_MAX: usize = PIECE_BYTES_MAX - 17;

/// Position of a write among all writes of one data folder: hybrid of clock and counter, shown as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Sequencer(pub(super) u64);

impl fmt::Display for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Sequencer {
    /// Reads exactly what `Display` writes.
    pub(super) fn parse(text: &str) -> Option<Sequencer> {
        let canonical = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !canonical { None } else { u64::from_str_radix(text, 16).ok().map(Sequencer) }
    }
}

/// How a bucket names its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One file per version, with its sequencer.
    Versions,
    /// One file per key.
    Plain,
}

/// The names from the root to the key's file. `sequencer`: of the version, in a source.
pub(super) fn path_of(key: &ObjectKey, sequencer: Option<Sequencer>) -> Vec<String> {
    let layout = if sequencer.is_some() { Layout::Versions } else { Layout::Plain };
    let mut names = Vec::new();
    let mut segments = key.as_str().split('/').peekable();
    while let Some(segment) = segments.next() {
        encode(segment, layout, segments.peek().is_some(), &mut names);
    }
    if let (Some(sequencer), Some(file)) = (sequencer, names.last_mut()) {
        file.push('@');
        file.push_str(&sequencer.to_string());
    }
    names
}

/// The key whose file this is, and its sequencer in a source. `None`: no file of ours.
pub(super) fn key_of(names: &[&str], layout: Layout) -> Option<(ObjectKey, Option<Sequencer>)> {
    let (file, folders) = names.split_last()?;
    let (file, sequencer) = match layout {
        Layout::Plain => (*file, None),
        Layout::Versions => {
            let (name, digits) = file.rsplit_once('@')?;
            (name, Some(Sequencer::parse(digits)?))
        }
    };
    let mut text = String::new();
    let mut whole = true;
    for (at, name) in folders.iter().copied().chain([file]).enumerate() {
        if at > 0 && whole {
            text.push('/');
        }
        whole = decode(name, &mut text)?;
    }
    let key = ObjectKey::new(text).ok()?;
    // Only the one name that the key has here: a second spelling, made by hand, is no object.
    let own = path_of(&key, sequencer);
    let same = |(found, own): (&&str, &String)| *found == own || found.strip_suffix(CONFLICT) == Some(own);
    (own.len() == names.len() && names.iter().zip(&own).all(same)).then_some((key, sequencer))
}

/// Whether a folder's name in a source would look like a version's file.
fn looks_versioned(name: &str) -> Option<usize> {
    let (start, digits) = name.rsplit_once('@')?;
    Sequencer::parse(digits).map(|_| start.len())
}

fn encode(segment: &str, layout: Layout, folder: bool, names: &mut Vec<String>) {
    if segment.is_empty() {
        names.push(CONFLICT.to_string());
        return;
    }
    let longest = match layout {
        Layout::Plain => PIECE_BYTES_MAX,
        Layout::Versions => VERSIONED_PIECE_BYTES_MAX,
    };
    let mut piece = String::new();
    for character in segment.chars() {
        let encoded = encode_character(character);
        if piece.len() + encoded.len() > longest {
            names.push(finish(std::mem::take(&mut piece), layout, true) + "%-");
        }
        piece.push_str(&encoded);
    }
    names.push(finish(piece, layout, folder));
}

fn encode_character(character: char) -> String {
    if !character.is_control() && character != '%' {
        return character.to_string();
    }
    let mut bytes = [0; 4];
    character.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Escapes what only matters at the beginning or the end of a name.
fn finish(mut piece: String, layout: Layout, folder: bool) -> String {
    match piece.as_str() {
        "." => return "%2E".to_owned(),
        ".." => return "%2E%2E".to_owned(),
        _ => {}
    }
    if layout == Layout::Versions
        && folder
        && let Some(at) = looks_versioned(&piece)
    {
        piece.replace_range(at..=at, "%40");
    }
    if piece.starts_with(RESERVED) {
        piece.replace_range(0..1, "%2E");
    }
    piece
}

/// Appends what a name stands for; whether the segment ends with it.
fn decode(name: &str, text: &mut String) -> Option<bool> {
    let (name, whole) = match name.strip_suffix("%-") {
        Some(start) => (start, false),
        None if name.len() > 1 => (name.strip_suffix(CONFLICT).unwrap_or(name), true),
        None => (name, true),
    };
    if name == "%" {
        return Some(whole);
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    text.push_str(std::str::from_utf8(&bytes).ok()?);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, prop, prop_assert, prop_assert_eq, proptest};

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).unwrap()
    }

    #[test]
    fn ordinary_names_stay_and_hostile_ones_are_escaped() {
        for (text, path) in [
            ("notes/plan 1+2 (ä) 😀.txt", "notes/plan 1+2 (ä) 😀.txt"),
            ("..", "%2E%2E"),
            ("../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd"),
            ("a/./b", "a/%2E/b"),
            ("/", "%/%"),
            ("/a//b/", "%/a/%/b/%"),
            ("100%", "100%25"),
            ("a\nb\0", "a%0Ab%00"),
            ("\u{85}", "%C2%85"),
            (".afterimage/tmp/x", "%2Eafterimage/tmp/x"),
            ("...", "..."),
            ("a@0000000000000001", "a@0000000000000001"),
        ] {
            assert_eq!(path_of(&key(text), None).join("/"), path);
        }
        let seq = Some(Sequencer(0x19a));
        assert_eq!(path_of(&key("a"), seq).join("/"), "a@000000000000019a");
        assert_eq!(path_of(&key("a@0000000000000001/b"), seq).join("/"), "a%400000000000000001/b@000000000000019a",);
    }

    #[test]
    fn a_conflict_mark_reads_back_and_other_spellings_do_not() {
        assert_eq!(key_of(&["a%", "b"], Layout::Plain), Some((key("a/b"), None)));
        assert_eq!(key_of(&["%%"], Layout::Plain), None, "the empty key is none");
        assert_eq!(key_of(&["x", "%%"], Layout::Plain), Some((key("x/"), None)));
        for foreign in ["%41", "%2e", "a%zz", "%-", "a%-", "%2"] {
            assert_eq!(key_of(&[foreign], Layout::Plain), None, "{foreign}");
        }
        assert_eq!(key_of(&["a"], Layout::Versions), None);
        assert_eq!(key_of(&["a@00000000000000GG"], Layout::Versions), None);
    }

    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/",
            "//",
            ".",
            "..",
            "../",
            "%",
            "%-",
            "%2E",
            "@0000000000000001",
            "@",
            "a",
            "Z",
            " ",
            "\0",
            "\n",
            "\u{7f}",
            "ä",
            "😀",
            ".afterimage",
            "\u{202e}",
            "\\",
            "-",
        ]);
        let long = (prop::sample::select(vec!["x", "ä", "%", "."]), 1usize..700).prop_map(|(s, n)| s.repeat(n));
        let any = proptest::arbitrary::any::<String>();
        prop::collection::vec(proptest::prop_oneof![4 => piece.prop_map(str::to_owned), 1 => long, 1 => any], 1..12)
            .prop_map(|pieces| pieces.concat())
            .prop_map(|text| text[..text.floor_char_boundary(1_024)].to_owned())
            .prop_filter("a key has a byte", |text| !text.is_empty())
    }

    proptest! {
        #[test]
        fn every_key_has_one_path_below_the_root_and_the_path_gives_it_back(text in hostile(), seq: u64) {
            let key = key(&text);
            for (sequencer, layout) in [(None, Layout::Plain), (Some(Sequencer(seq)), Layout::Versions)] {
                let names = path_of(&key, sequencer);
                for name in &names {
                    prop_assert!(!name.is_empty() && name != "." && name != ".." && name.len() <= 254, "{name}");
                    prop_assert!(!name.contains('/') && !name.contains('\0'));
                }
                prop_assert!(!names[0].starts_with(RESERVED));
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                prop_assert_eq!(key_of(&names, layout), Some((key.clone(), sequencer)));
                let marked: Vec<String> = names.iter().map(|name| format!("{name}%")).collect();
                let marked: Vec<&str> = marked.iter().map(String::as_str).collect();
                if layout == Layout::Plain && !names.iter().any(|name| name.ends_with("%-")) {
                    prop_assert_eq!(key_of(&marked, layout), Some((key.clone(), sequencer)));
                }
            }
        }

        #[test]
        fn no_folder_of_a_source_looks_like_a_version(text in hostile(), seq: u64) {
            let names = path_of(&key(&text), Some(Sequencer(seq)));
            let (_, folders) = names.split_last().unwrap();
            prop_assert!(folders.iter().all(|name| looks_versioned(name).is_none()));
        }
    }
}
