//! Enable: what a table lacks before its deleted records can be archived, said first, then switched on.
//!
//! What is on already is left alone. A stream that carries no old images, or a time to live by another attribute, is not
//! replaced: that takes away what others read, and only a person knows them. A crash leaves some of it switched on; the
//! command is given again. Laws: I5 (on command).

use crate::error::PortResult;
use crate::ports::clock::Clock;
use crate::ports::tables::{StreamView, TableSetup, TableSwitch, TimeToLive};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What the stream shall carry: old images, alone or among others.
    pub view: StreamView,
    /// The attribute of the time to live, if that shall be on.
    pub ttl: Option<String>,
}

/// One thing to switch on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// The stream.
    Stream(StreamView),
    /// The time to live, by that attribute.
    Ttl(String),
}

/// What is to be done, and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What will be switched on, in order.
    pub switches: Vec<Switch>,
    /// What is left as it is, and why.
    pub left: Vec<String>,
    /// What stands in the way, with the remedy: then nothing is done at all.
    pub refused: Vec<String>,
}

/// What is to be done with a table that stands so. Pure.
pub fn plan(table: &str, setup: &TableSetup, wanted: &Wanted) -> Plan {
    let mut plan = Plan::default();
    match setup.stream {
        None => plan.switches.push(Switch::Stream(wanted.view)),
        Some(there) if there == wanted.view => {
            plan.left.push(format!("the stream is on already, and carries {}", there.code()));
        }
        Some(there) if there.carries_old_images() => plan.left.push(format!(
            "the stream is on already, and carries {}, which has the old images: an archive needs no other",
            there.code()
        )),
        Some(there) => plan.refused.push(format!(
            "the stream carries {} only, and no old images. It is not replaced here, since others may read it: a stream's view \
             cannot be changed, only switched off and on, which makes a new stream that functions and other readers must be \
             pointed to; what was not read of the old one stays readable for 24 hours, and what is deleted between the two \
             is in neither. If that is meant: aws dynamodb update-table --table-name {table} --stream-specification \
             StreamEnabled=false, then the same command again",
            there.code()
        )),
    }
    match (&wanted.ttl, &setup.ttl) {
        (None, _) => {}
        (Some(wanted), _) if setup.key.iter().any(|part| part.name == *wanted) => plan.refused.push(format!(
            "`{wanted}` is an attribute of the table's key: choose another one for the time to live"
        )),
        (Some(wanted), TimeToLive::Off) => plan.switches.push(Switch::Ttl(wanted.clone())),
        (Some(wanted), TimeToLive::By(there)) if there == wanted => {
            plan.left.push(format!("the time to live is on already, by `{there}`"));
        }
        (Some(_), TimeToLive::By(there)) => plan.refused.push(format!(
            "the time to live is on already, by `{there}`, and a table has only one: use `--ttl {there}`, or switch it off \
             first, which takes up to an hour"
        )),
        (Some(_), TimeToLive::EndingSoon) => plan.refused.push(
            "the time to live is being switched off: give the command again when that is over, in an hour at most".to_owned(),
        ),
    }
    plan
}

impl Switch {
    /// What it does, in words.
    pub fn in_words(&self) -> String {
        match self {
            Switch::Stream(view) => format!(
                "switch the stream on, with {}: deletions can be archived from then on, and are kept for 24 hours by the table",
                view.code()
            ),
            Switch::Ttl(attribute) => format!(
                "switch the time to live on, by `{attribute}`: the table DELETES every record whose `{attribute}` (a number, Unix \
                 seconds) is over, those included in which it is over already"
            ),
        }
    }
}

/// Switches it on, and returns when it is.
pub async fn switch_on(table: &dyn TableSwitch, switch: &Switch, clock: &dyn Clock) -> PortResult<()> {
    match switch {
        Switch::Stream(view) => table.switch_stream_on(*view, clock).await,
        Switch::Ttl(attribute) => table.switch_ttl_on(attribute).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::tables::{KeyKind, KeyPart};

    fn planned(stream: Option<StreamView>, ttl: TimeToLive, wanted_ttl: Option<&str>) -> Plan {
        let key = vec![KeyPart { name: "id".to_owned(), kind: KeyKind::Text }];
        let wanted = Wanted { view: StreamView::OldImage, ttl: wanted_ttl.map(str::to_owned) };
        plan("Orders", &TableSetup { key, stream, ttl }, &wanted)
    }

    #[test]
    fn what_is_missing_is_switched_on_the_stream_first_and_what_is_there_is_left_alone() {
        let both = planned(None, TimeToLive::Off, Some("until"));
        assert_eq!(both.switches, [Switch::Stream(StreamView::OldImage), Switch::Ttl("until".to_owned())]);
        assert_eq!((both.left.len(), both.refused.len()), (0, 0));
        let none = planned(Some(StreamView::NewAndOldImages), TimeToLive::By("until".to_owned()), Some("until"));
        assert_eq!((none.switches.len(), none.left.len(), none.refused.len()), (0, 2, 0));
        // Nothing was asked of the time to live.
        let stream = planned(Some(StreamView::OldImage), TimeToLive::By("until".to_owned()), None);
        assert_eq!((stream.switches.len(), stream.left.len(), stream.refused.len()), (0, 1, 0));
    }

    #[test]
    fn what_others_may_need_is_refused_with_the_remedy() {
        for (stream, ttl, wanted, part) in [
            (Some(StreamView::KeysOnly), TimeToLive::Off, None, "stays readable for 24 hours"),
            (Some(StreamView::NewImage), TimeToLive::Off, None, "carries NEW_IMAGE only"),
            (None, TimeToLive::By("other".to_owned()), Some("until"), "by `other`, and a table has only one"),
            (None, TimeToLive::EndingSoon, Some("until"), "being switched off"),
            (None, TimeToLive::Off, Some("id"), "an attribute of the table's key"),
        ] {
            let plan = planned(stream, ttl, wanted);
            assert!(matches!(&plan.refused[..], [why] if why.contains(part)), "{plan:?}");
        }
    }
}
