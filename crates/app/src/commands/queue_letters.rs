//! Dead letters in queues of services, beside those of the spool: `dlq` treats both alike. A letter that is dropped leaves a
//! line in the journal first, since nobody will handle it then (I12).

use super::dead_letters::{dropped, word};
use crate::answer::DeadLetterView;
use crate::exit::Failure;
use crate::instance::Instance;
use crate::intake::Intake;
use crate::limits::DEAD_LETTERS_LISTED;
use aws::QueueLetter;
use engine::ports::journal::Entry;
use engine::report::{Report, chain};
use lifecycle::ids::PolicyName;

/// The letters of one queue, looked at, and hidden from others until they are let go.
pub(super) struct Looked {
    intake: Intake,
    letters: Vec<QueueLetter>,
    /// There may be more than these.
    pub(super) more: bool,
}

impl Looked {
    /// The queue's name in the configuration.
    pub(super) fn name(&self) -> String {
        self.intake.name.clone()
    }
}

/// Looks into every queue; and which cannot be asked, with the reason, which holds up no other.
pub(super) async fn look(instance: &Instance) -> (Vec<Looked>, Vec<(String, String)>) {
    let (mut all, mut unknown) = (Vec::new(), Vec::new());
    for intake in instance.all_intakes() {
        match intake.queue.look_at_letters(DEAD_LETTERS_LISTED).await {
            Ok(letters) => all.push(Looked { more: letters.len() >= DEAD_LETTERS_LISTED, intake, letters }),
            Err(error) => unknown.push((intake.name, chain(&error))),
        }
    }
    (all, unknown)
}

/// Ends looking: whatever is still there can be received again. A queue that cannot be asked keeps no other one's hidden.
pub(super) async fn let_go(all: &[Looked]) -> Result<(), Failure> {
    let mut ended = Ok(());
    for Looked { intake, letters, .. } in all {
        ended = ended.and(intake.queue.let_go(letters).await);
    }
    Ok(ended?)
}

/// Those numbers of them that are there.
pub(super) fn numbers(all: &[Looked]) -> Vec<u64> {
    all.iter().flat_map(|looked| looked.letters.iter().map(|letter| letter.id)).collect()
}

/// Puts the chosen ones back. Counts `redriven`; one that cannot be put back is a failure, and stays.
pub(super) async fn redrive(all: &mut [Looked], chosen: &[u64], report: &mut Report) {
    for Looked { intake, letters, .. } in all {
        for letter in take(letters, chosen) {
            match intake.queue.put_letter_back(&letter).await {
                Ok(()) => report.count("redriven", 1),
                Err(error) => {
                    report.fail_with(format!("message {}", letter.message), &error);
                    letters.push(letter);
                }
            }
        }
    }
}

/// Forgets the chosen ones. Counts `dropped`; one that cannot be forgotten is a failure, and stays.
pub(super) async fn forget(instance: &Instance, all: &mut [Looked], chosen: &[u64], who: &str, report: &mut Report) {
    for Looked { intake, letters, .. } in all {
        for letter in take(letters, chosen) {
            let forgotten = async {
                instance.journal.append(&lines_about(instance, intake, &letter, who)).await?;
                intake.queue.forget_letter(&letter).await
            };
            match forgotten.await {
                Ok(()) => report.count("dropped", 1),
                Err(error) => {
                    report.fail_with(format!("message {}", letter.message), &error);
                    letters.push(letter);
                }
            }
        }
    }
}

/// Takes the chosen ones out; what fails is given back, and let go in the end.
pub(super) fn take(letters: &mut Vec<QueueLetter>, chosen: &[u64]) -> Vec<QueueLetter> {
    letters.extract_if(.., |letter| chosen.contains(&letter.id)).collect()
}

/// One line for every event and policy that would have handled it; one for a message that tells of none.
fn lines_about(instance: &Instance, intake: &Intake, letter: &QueueLetter, who: &str) -> Vec<Entry> {
    let line = |policy, key, rule| dropped(instance, who, policy, key, rule);
    let mut lines = Vec::new();
    for (bucket, event) in &letter.events {
        let rule = format!("{} at {}: {}", word(event), event.time, letter.why);
        let covering = intake.policies.covering(bucket, &event.key);
        let names = covering.iter().map(|policy| policy.name.clone());
        lines.extend(names.map(|name| line(name, Some(event.key.clone()), rule.clone())));
    }
    if lines.is_empty() {
        lines.push(line(PolicyName(intake.name.clone()), None, format!("message {}: {}", letter.message, letter.why)));
    }
    lines
}

/// For people, those with a number in `only` where there is one.
pub(super) fn views(all: &[Looked], only: Option<u64>) -> Vec<DeadLetterView> {
    let letters = all.iter().flat_map(|looked| looked.letters.iter().map(|letter| (&looked.intake.name, letter)));
    letters
        .filter(|(_, letter)| only.is_none_or(|id| id == letter.id))
        .map(|(queue, letter)| view(queue, letter))
        .collect()
}

fn view(queue: &str, letter: &QueueLetter) -> DeadLetterView {
    let first = letter.events.first();
    let more = match letter.events.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more events)", n - 1),
    };
    DeadLetterView {
        id: letter.id,
        bucket: first.map_or_else(|| queue.to_owned(), |(bucket, _)| bucket.clone()),
        key: first.map_or_else(|| format!("message {}", letter.message), |(_, event)| event.key.to_string()),
        event: first.map_or("unreadable", |(_, event)| word(event)).to_owned(),
        happened_at_ms: first.map_or(letter.died_at, |(_, event)| event.time).0,
        attempts: letter.attempts,
        why: format!("{}{more}", letter.why),
        died_at_ms: letter.died_at.0,
        table: None,
        cause: None,
        record: None,
    }
}
