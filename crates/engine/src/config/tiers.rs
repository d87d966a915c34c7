//! `tiers` and `expire` of an archive: which storage class its objects move to, and when they go, as the bucket's lifecycle
//! shall do it. The rules are S3's, and two of ours: what is younger than a month may still be packed, or told again. Pure.

use super::Destination;
use super::raw::RawTier;
use super::validate::{Check, parts};
use lifecycle::archive::ServiceName;
use toml::Spanned;

/// How old something must be before it lies in a class that is slow to read, or goes: until then it may be packed, or told again.
const YOUNG_DAYS: u32 = 30;
/// The greatest age that is taken: a century.
const DAYS_MAX: u64 = 36_525;

/// Where archived objects move to as they grow old.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiers {
    /// The moves, the earliest first.
    pub moves: Vec<Tier>,
    /// After how many days they go, for good; `None`: never.
    pub expire_days: Option<u32>,
}

/// One move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// How old they are then.
    pub after_days: u32,
    /// Where to.
    pub class: TierClass,
}

/// Storage classes that objects move to, in the order in which S3 lets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TierClass {
    /// Read at once; each reading costs.
    StandardIa,
    /// Moves by itself, by what is read.
    IntelligentTiering,
    /// Read at once; readings cost more.
    GlacierIr,
    /// Retrieved in hours.
    Glacier,
    /// Retrieved in half a day.
    DeepArchive,
}

impl TierClass {
    /// All of them, with S3's words for them, the days that S3 charges for at least, and the least age that is taken.
    const ALL: [(TierClass, &str, u32, u32); 5] = [
        (TierClass::StandardIa, "STANDARD_IA", 30, 30),
        (TierClass::IntelligentTiering, "INTELLIGENT_TIERING", 0, 1),
        (TierClass::GlacierIr, "GLACIER_IR", 90, 1),
        (TierClass::Glacier, "GLACIER", 90, YOUNG_DAYS),
        (TierClass::DeepArchive, "DEEP_ARCHIVE", 180, YOUNG_DAYS),
    ];

    fn facts(self) -> (&'static str, u32, u32) {
        let known = TierClass::ALL.iter().find(|(class, ..)| *class == self);
        known.map_or(("STANDARD", 0, 0), |(_, word, charged, least)| (word, *charged, *least))
    }

    /// S3's word for it.
    pub fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// For how many days S3 charges at least.
    pub fn charged_days(self) -> u32 {
        self.facts().1
    }
}

impl Tiers {
    /// Nothing moves and nothing goes.
    pub fn is_none(&self) -> bool {
        self.moves.is_empty() && self.expire_days.is_none()
    }
}

/// Reads `30d`, `12w`, `7y`. A year has 365.25 days, and a part of a day is a whole one: what shall stay seven years does.
fn parse_days(text: &str) -> Option<u32> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number = number.parse::<u64>().ok().filter(|number| *number <= DAYS_MAX)?;
    let days = match unit.trim_start() {
        "d" => number,
        "w" => number * 7,
        "y" => (number * 1_461).div_ceil(4),
        _ => return None,
    };
    u32::try_from(days).ok().filter(|days| u64::from(*days) <= DAYS_MAX)
}

const EXAMPLE: &str =
    "tiers = [{ after = \"90d\", class = \"STANDARD_IA\" }, { after = \"365d\", class = \"GLACIER\" }]";

impl Check<'_> {
    /// Where the objects of an archive move to.
    pub(super) fn tiers(
        &mut self,
        tiers: Option<Spanned<Vec<RawTier>>>,
        expire: Option<Spanned<String>>,
        (service, destination): (Option<&ServiceName>, Option<&Destination>),
    ) -> Option<Tiers> {
        let at = tiers.as_ref().map(Spanned::span).or(expire.as_ref().map(Spanned::span));
        let mut problems: Vec<(String, String)> = Vec::new();
        let mut read = Tiers::default();
        for RawTier { after, class } in tiers.map(Spanned::into_inner).unwrap_or_default() {
            let known = TierClass::ALL.iter().find(|(_, word, ..)| *word == class).map(|(class, ..)| *class);
            match (parse_days(&after), known) {
                (Some(after_days), Some(class)) => read.moves.push(Tier { after_days, class }),
                (None, _) => {
                    problems.push((format!("`{after}` is no age"), "write such as \"90d\" or \"1y\"".to_owned()))
                }
                (_, None) => problems.push((
                    format!("`{class}` is no class that archived records move to"),
                    format!("write one of {}", TierClass::ALL.map(|(_, word, ..)| word).join(", ")),
                )),
            }
        }
        if let Some((_, text)) = expire.map(parts) {
            read.expire_days = parse_days(&text);
            if read.expire_days.is_none() {
                problems
                    .push((format!("`{text}` is no age"), "write such as expire = \"7y\", or leave it out".to_owned()));
            }
        }
        if problems.is_empty() {
            problems.extend(in_the_way(&read));
        }
        if !read.is_none() && !matches!(destination, None | Some(Destination::S3(_))) {
            let what = "a folder of this machine has no storage classes, and nothing in it goes by its age";
            problems
                .push((what.to_owned(), "remove `tiers` and `expire`, or archive to a bucket of a service".to_owned()));
        }
        if !read.is_none() && service.is_some_and(|service| service.as_str() == "packed") {
            let what = "the packs of all services lie under packed/: a rule for this service would move them, too";
            problems.push((what.to_owned(), "give the table another `service`".to_owned()));
        }
        let is_sound = problems.is_empty();
        for (what, fix) in problems {
            self.wrong(at.clone(), what, fix);
        }
        is_sound.then_some(read)
    }
}

/// What S3, or we, would not take of it.
fn in_the_way(tiers: &Tiers) -> Option<(String, String)> {
    let mut before: Option<Tier> = None;
    for tier in &tiers.moves {
        let (word, _, least) = tier.class.facts();
        if tier.after_days < least {
            let what = format!("{word} after {} days is too early", tier.after_days);
            return Some((what, format!("write after = \"{least}d\" or later")));
        }
        if let Some(before) = before {
            let (word_before, charged, _) = before.class.facts();
            if before.class >= tier.class {
                return Some((format!("objects do not move from {word_before} to {word}"), format!("write {EXAMPLE}")));
            }
            // S3 takes no move out of STANDARD_IA before it is paid for.
            let gap = if before.class == TierClass::StandardIa { charged } else { 1 };
            if tier.after_days < before.after_days + gap {
                let what = format!("{word} follows {word_before} too soon");
                return Some((what, format!("write after = \"{}d\" or later", before.after_days + gap)));
            }
        }
        before = Some(*tier);
    }
    let least = before.map_or(YOUNG_DAYS, |last| (last.after_days + 1).max(YOUNG_DAYS));
    let expire = tiers.expire_days.filter(|days| *days < least)?;
    let why = if before.is_some_and(|last| expire <= last.after_days) { "before its last tier" } else { "too early" };
    Some((format!("what is archived goes after {expire} days, {why}"), format!("write expire = \"{least}d\" or later")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(moves: &[(u32, TierClass)], expire_days: Option<u32>) -> Tiers {
        Tiers {
            moves: moves.iter().map(|(after_days, class)| Tier { after_days: *after_days, class: *class }).collect(),
            expire_days,
        }
    }

    #[test]
    fn ages_are_days_and_a_year_is_not_shorter_than_one() {
        for (text, days) in [("90d", 90), ("12 w", 84), ("1y", 366), ("4y", 1_461), ("7y", 2_557), ("100y", 36_525)] {
            assert_eq!(parse_days(text), Some(days), "{text}");
        }
        for text in ["", "90", "y", "1.5y", "-1d", "2h", "101y", "99999999999999999999d"] {
            assert_eq!(parse_days(text), None, "{text}");
        }
    }

    #[test]
    fn what_s3_would_not_take_is_refused_with_what_it_would() {
        use TierClass::{DeepArchive, Glacier, GlacierIr, IntelligentTiering, StandardIa};
        for sound in [
            tiers(&[(90, StandardIa), (365, Glacier)], Some(2_557)),
            tiers(&[(30, StandardIa), (60, GlacierIr), (61, Glacier), (62, DeepArchive)], Some(63)),
            tiers(&[(1, IntelligentTiering)], None),
            tiers(&[], Some(30)),
        ] {
            assert_eq!(in_the_way(&sound), None, "{sound:?}");
        }
        for (wrong, fix) in [
            (tiers(&[(29, StandardIa)], None), "\"30d\" or later"),
            (tiers(&[(7, Glacier)], None), "\"30d\" or later"),
            (tiers(&[(90, StandardIa), (119, Glacier)], None), "\"120d\" or later"),
            (tiers(&[(90, Glacier), (90, DeepArchive)], None), "\"91d\" or later"),
            (tiers(&[(90, Glacier), (365, StandardIa)], None), "write tiers = ["),
            (tiers(&[(90, Glacier), (91, Glacier)], None), "write tiers = ["),
            (tiers(&[(90, Glacier)], Some(90)), "expire = \"91d\" or later"),
            (tiers(&[], Some(29)), "expire = \"30d\" or later"),
        ] {
            let found = in_the_way(&wrong).map(|(_, fix)| fix).unwrap_or_default();
            assert!(found.contains(fix), "{wrong:?}: {found}");
        }
    }
}
